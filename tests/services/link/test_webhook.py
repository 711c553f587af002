"""The webhook against a real HTTP server that answers in every way."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.link import webhook
from services.link.adapters import make_webhook
from services.link.webhook import ANSWER_BYTES, address_of, judge, pause_of
from shared.links import WebhookSettings
from shared.messages import Result, Signal
from shared.published import webhook_headers
from tests.certificates import Authority
from tests.rtsp import free_port
from tests.services.link.http_peer import HttpPeer, Reply, http_peer
from tests.services.link.played_desk import PlayedDesk, bad_part, on_a_loop, serving, until

pytestmark = pytest.mark.process
LONG = {"Content-Length": "100000000"}
SECRET = b"between us"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(webhook, "SHORTEST_PAUSE_S", 0.05)
    monkeypatch.setattr(webhook, "LONGEST_PAUSE_S", 0.2)
    yield


def hook(port: int, played: PlayedDesk, **changes: Any) -> AbstractAsyncContextManager[asyncio.Task[None]]:
    """A link that serves."""
    url = changes.pop("url", f"http://user:pass@127.0.0.1:{port}/parts?token=hidden")
    settings = WebhookSettings(**{"url": url, "secret": SECRET.decode(), "timeout_s": 0.5, **changes})
    return serving(played, make_webhook(settings, played.desk))


async def came(peer: HttpPeer, count: int, timeout_s: float = 10) -> None:
    await until(lambda: len(peer.posts) >= count, timeout_s, f"{count} posts")


@on_a_loop
async def test_each_bad_part_is_told_once_signed_and_in_order() -> None:
    played = PlayedDesk()
    with http_peer() as peer:
        async with hook(peer.port, played):
            await until(lambda: played.desk.peers.connected, 5, "a server that opens")
            began_at = time.time()
            for seq in range(1, 31):
                played.desk.hear(bad_part(seq) if seq % 3 else bad_part(seq, Result))
                played.tell(Signal, seq)  # good ones
            await until(lambda: played.desk.counters().get("delivered") == 20, 10, "all")
    assert peer.accepted() == [seq for seq in range(1, 31) if seq % 3]
    for post in peer.posts:
        body = json.loads(post.body)
        signature = hmac.new(SECRET, post.body, hashlib.sha256).hexdigest()
        assert post.headers["X-Sightline-Signature"] == f"sha256={signature}"
        assert post.headers["X-Sightline-Delivery"] == body["delivery"] and post.path == "/parts?token=hidden"
        assert post.headers["Content-Type"] == "application/json"
        assert began_at <= body["sent_at"] <= time.time()
        assert body["part"]["outcome"] == "ng" and body["part"]["type"] == "signal"
    assert len({post.headers["X-Sightline-Delivery"] for post in peer.posts}) == 20
    assert {name for name, _ in webhook_headers()} <= peer.posts[0].headers.keys()
    assert played.desk.peers.words == f"http://127.0.0.1:{peer.port}/parts"  # no login, no token


@on_a_loop
async def test_good_parts_are_told_when_the_settings_say_so() -> None:
    played = PlayedDesk()
    with http_peer() as peer:
        async with hook(peer.port, played, parts="all"):
            await until(lambda: played.desk.peers.connected, 5, "a server that opens")
            played.tell(Signal, 1)
            played.desk.hear(bad_part(2))
            await came(peer, 2)
    assert peer.accepted() == [1, 2]


@on_a_loop
async def test_a_part_is_tried_again_with_the_same_id_and_a_new_time_until_it_is_taken() -> None:
    played = PlayedDesk()
    with http_peer() as peer:
        peer.replies += [Reply(500), Reply(503), Reply(429), Reply(wait_s=5), Reply(200)]
        async with hook(peer.port, played):
            played.desk.hear(bad_part(1))
            played.desk.hear(bad_part(2))
            await came(peer, 2)
            await until(lambda: not played.desk.peers.connected, 5, "a failed delivery")
            await came(peer, 6)
            await until(lambda: played.desk.counters().get("delivered") == 2, 5, "both")
            assert played.desk.peers.connected == 1
    assert peer.accepted() == [1, 1, 1, 1, 1, 2]
    assert len({post.headers["X-Sightline-Delivery"] for post in peer.posts[:5]}) == 1
    times = [json.loads(post.body)["sent_at"] for post in peer.posts[:5]]
    assert times == sorted(times) and len(set(times)) == 5
    assert played.desk.counters()["tries_failed"] == 4


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(400), "400 Bad Request"),
        (Reply(401), "401 Unauthorized"),
        (Reply(404), "404 Not Found"),
        (Reply(302, {"Location": "http://127.0.0.1:9/elsewhere"}), "302 Found"),
        (Reply(307, {"Location": "/other"}), "307 Temporary Redirect"),
    ],
    ids=lambda one: str(getattr(one, "status", "")),
)
@on_a_loop
async def test_what_the_server_does_not_want_is_not_tried_again(reply: Reply, words: str) -> None:
    played = PlayedDesk()
    with http_peer() as peer:
        peer.replies.append(reply)
        async with hook(peer.port, played):
            played.desk.hear(bad_part(1))
            await until(lambda: words in played.desk.peers.words, 5, words)
            assert played.desk.peers.connected == 0
            played.desk.hear(bad_part(2))
            await until(lambda: played.desk.peers.connected, 5, "the next part")
    assert peer.accepted() == [1, 2] and {post.path for post in peer.posts} == {"/parts?token=hidden"}
    assert played.desk.counters()["deliveries_refused"] == 1


@on_a_loop
async def test_retry_after_is_waited_for() -> None:
    played = PlayedDesk()
    with http_peer() as peer:
        peer.replies.append(Reply(429, {"Retry-After": "1"}))
        async with hook(peer.port, played):
            played.desk.hear(bad_part(1))
            await came(peer, 2)
    assert peer.posts[1].at_s - peer.posts[0].at_s >= 1


@on_a_loop
async def test_parts_of_an_outage_are_told_in_order_when_the_server_is_back() -> None:
    played, port = PlayedDesk(), free_port()
    async with hook(port, played):
        await until(lambda: "Connection refused" in played.desk.peers.words, 5, "words")
        for seq in range(1, 4):
            played.desk.hear(bad_part(seq))
        await until(lambda: played.desk.counters().get("tries_failed", 0) > 2, 5, "tries")
        for first in (1, 10):
            with http_peer(port) as peer:
                played.desk.hear(bad_part(first + 3))
                await came(peer, 4)
                await until(lambda: played.desk.peers.connected, 5, "a delivery")
            assert peer.accepted() == [first, first + 1, first + 2, first + 3]
            for seq in range(10, 13):
                played.desk.hear(bad_part(seq))
            await until(lambda: not played.desk.peers.connected, 5, "the outage")


@on_a_loop
async def test_parts_are_given_up_after_a_while_and_counted() -> None:
    played, port = PlayedDesk(), free_port()
    async with hook(port, played, keep_s=0.4):
        for seq in range(50):
            played.desk.hear(bad_part(seq))
        await until(lambda: played.desk.counters()["outdated"] == 50, 5, "all of them")
        with http_peer(port) as peer:
            played.desk.hear(bad_part(99))
            await came(peer, 1)
    assert peer.accepted() == [99]


@on_a_loop
async def test_a_dead_server_is_tried_at_its_pace_however_many_parts_grow_old() -> None:
    played, port = PlayedDesk(), free_port()
    began_s = time.monotonic()
    async with hook(port, played, keep_s=0.02):
        for seq in range(100):
            played.desk.hear(bad_part(seq))
            await asyncio.sleep(0.01)
        tries = played.desk.counters()["tries_failed"]
    assert 1 < tries <= 4 + (time.monotonic() - began_s) / 0.2  # the first pauses are 0.05 and 0.1 s


@on_a_loop
async def test_a_hanging_server_costs_no_memory_and_the_newest_parts_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "WAITING_PARTS", 100)
    played = PlayedDesk()
    with socket.create_server(("127.0.0.1", 0)) as hole:
        async with hook(hole.getsockname()[1], played) as serve:
            for seq in range(1000):
                played.desk.hear(bad_part(seq))
                if seq % 100 == 0:
                    await asyncio.sleep(0.01)
            await until(lambda: played.desk.counters().get("tries_failed"), 5, "a try that ends")
            assert played.desk.counters()["dropped"] >= 1000 - 100 - 1
            began_s = time.monotonic()
            serve.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serve
            assert time.monotonic() - began_s < 0.5


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, LONG, b"x" * (2 * ANSWER_BYTES)),
        Reply(200, drip_s=0.01),
        Reply(200, drip_s=9),
    ],
    ids=["long", "dripping", "stuck"],
)
@on_a_loop
async def test_an_endless_answer_counts_as_what_its_status_says(reply: Reply) -> None:
    played = PlayedDesk()
    with http_peer() as peer:
        peer.replies.append(reply)
        async with hook(peer.port, played):
            played.desk.hear(bad_part(1))
            played.desk.hear(bad_part(2))
            await came(peer, 2)
    assert peer.accepted() == [1, 2]


@on_a_loop
async def test_what_answers_nonsense_is_tried_again() -> None:
    played = PlayedDesk()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x00\xff no HTTP at all\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, hook(server.sockets[0].getsockname()[1], played):
        played.desk.hear(bad_part(1))
        await until(lambda: played.desk.counters().get("tries_failed", 0) > 1, 5, "tries")


@on_a_loop
async def test_a_certificate_is_checked(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "ours"), Authority(tmp_path / "stranger", "a stranger")
    with http_peer(tls=authority.issue()) as peer:
        url = f"https://127.0.0.1:{peer.port}/"
        for ca_file, words in (
            (stranger.file, "its certificate is not right"),
            (tmp_path / "missing.pem", "No such file"),
        ):
            played = PlayedDesk()
            async with hook(peer.port, played, url=url, ca_file=ca_file):
                await until(lambda played=played, words=words: words in played.desk.peers.words, 5, words)
                played.desk.hear(bad_part(1))
        assert peer.posts == []
        played = PlayedDesk()
        async with hook(peer.port, played, url=url, ca_file=authority.file):
            played.desk.hear(bad_part(2))
            await came(peer, 1)
    assert peer.accepted() == [2]


@pytest.mark.parametrize(
    ("status", "again", "words"),
    [(200, False, ""), (204, False, ""), (301, False, "301 Moved Permanently"), (599, True, "599")],
)
def test_a_status_is_taken_refused_or_tried_again(status: int, again: bool, words: str) -> None:
    answer = judge(status, "", 0.0)
    assert (answer.again, answer.words) == (again, words)


def test_retry_after_is_seconds_or_a_date() -> None:
    assert pause_of("120", 0.0) == 120
    assert pause_of(formatdate(1_800_000_030, usegmt=True), 1_800_000_000.0) == 30
    assert pause_of(formatdate(1_799_999_000, usegmt=True), 1_800_000_000.0) == 0


@given(st.text(max_size=40) | st.integers().map(str))
def test_any_retry_after_is_a_pause(words: str) -> None:
    assert 0 <= pause_of(words, 1_800_000_000.0) < 1e10


@pytest.mark.parametrize(
    "url", ["", "http://", "ftp://host/", "http://host:99999/", "http://host:0/", "//host/x", "https:///x"]
)
def test_an_address_that_is_none_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        WebhookSettings(url=url, secret="x")


def test_an_address_is_shown_without_its_secrets() -> None:
    assert address_of("https://a:b@host/x?token=1#f") == ("host", 443, "https://host:443/x")
