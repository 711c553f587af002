"""The wire: the codec under any bytes, then real sockets, real foreign peers, real deaths."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from shared.errors import MessageError, SettingsError
from shared.messages import Action, Frame, Heartbeat, Outcome, Reason, Signal, Suspect, Ticket, Trigger, TriggerReply
from shared.settings import LineSettings
from shared.streams import STREAMS
from shared.wire import MAX_ARRAY_BYTES, MAX_REFUSED_PER_CALL, Bus, Codec, Receiver, new_curve_keys
from tests.shared.lines import line
from tests.shared.strategies import traffic

BINARY = sorted(name for name, stream in STREAMS.items() if not stream.json)
PICTURE = np.arange(1024 * 1024 * 3, dtype=np.uint8).reshape(1024, 1024, 3)
DEADLINE_S = 20.0
MOST_FRAMES_ON_THE_WAY = 8  # queues of both ends, one in each hand, and the kernel's buffers
FOREIGN = st.binary(max_size=60) | st.sampled_from(
    [
        b"\xdd\xff\xff\xff\xff",  # an array of 4 billion
        b"\xdf\xff\xff\xff\xff",  # a mapping of 4 billion
        b"\xdb\xff\xff\xff\xff",  # 4 GB of text
        b"\x91" * 60,  # nested beyond any depth
        b"\x82\xa4type\xa6ticket\xa6camera\xa2\xff\xfe",  # text that is no UTF-8
    ]
)


def ticket(seq: int = 1) -> Ticket:
    return Ticket("cam1", "s", seq, f"part {seq}", "nut", time.monotonic_ns(), time.time(), 1500.0)


@pytest.mark.parametrize("name", sorted(STREAMS))
@given(data=st.data())
def test_codec_returns_what_was_sent(name, data) -> None:
    codec = Codec(STREAMS[name])
    message, arrays = data.draw(traffic(STREAMS[name]))
    received = codec.decode([bytes(part) for part in codec.encode(message, arrays)])
    assert received.message == message
    assert received.arrays.keys() == arrays.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(received.arrays[key], array)
        assert not received.arrays[key].flags.writeable


@pytest.mark.parametrize("name", sorted(STREAMS))
@given(data=st.data())
def test_codec_refuses_or_reads_any_damage(name, data) -> None:
    codec = Codec(STREAMS[name])
    parts = [bytes(part) for part in codec.encode(*data.draw(traffic(STREAMS[name])))]
    refuses_or_reads(codec, data.draw(damaged(parts)))


@given(parts=st.lists(FOREIGN, max_size=5), name=st.sampled_from(sorted(STREAMS)))
def test_codec_refuses_foreign_bytes_with_little_memory(parts, name) -> None:
    codec = Codec(STREAMS[name])
    tracemalloc.start()
    try:
        refuses_or_reads(codec, parts)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def refuses_or_reads(codec: Codec, parts: list[bytes]) -> None:
    try:
        received = codec.decode(parts)
    except MessageError:
        return
    assert sum(array.nbytes for array in received.arrays.values()) == sum(len(part) for part in parts[2:])
    codec.encode(received.message, received.arrays)


@st.composite
def damaged(draw: st.DrawFn, parts: list[bytes]) -> list[bytes]:
    """Whole parts lost, doubled, foreign or cut, and single bits flipped."""
    at = draw(st.integers(0, len(parts) - 1))
    part = parts[at]
    bit = draw(st.integers(0, max(8 * len(part) - 1, 0)))
    flipped = bytearray(part)
    if part:
        flipped[bit // 8] ^= 1 << bit % 8
    return draw(
        st.sampled_from(
            [
                [*parts[:at], *parts[at + 1 :]],
                [*parts[:at], part, part, *parts[at + 1 :]],
                [*parts[:at], part[: bit // 8], *parts[at + 1 :]],
                [*parts[:at], bytes(flipped), *parts[at + 1 :]],
                [*parts, draw(FOREIGN)],
                [*parts[:at], draw(FOREIGN), *parts[at + 1 :]],
            ]
        )
    )


@pytest.mark.parametrize("name", BINARY)
@given(data=st.data())
def test_codec_refuses_every_truncation_of_the_message(name, data) -> None:
    codec = Codec(STREAMS[name])
    first, *rest = (bytes(part) for part in codec.encode(*data.draw(traffic(STREAMS[name]))))
    with pytest.raises(MessageError):
        codec.decode([first[: data.draw(st.integers(0, len(first) - 1))], *rest])


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({}, "without its image"),
        ({"image": PICTURE, "mask": PICTURE}, "'mask' does not belong"),
        ({"image": PICTURE.astype(np.float32)}, "is float32 with 3 axes, must be uint8"),
        ({"image": PICTURE[0]}, "uint8 with 2 axes, must be uint8 with 3"),
        ({"image": np.broadcast_to(np.uint8(0), (MAX_ARRAY_BYTES, 1, 3))}, "is larger than"),
    ],
    ids=["missing", "unknown", "dtype", "axes", "size"],
)
def test_codec_refuses_to_send_what_nobody_would_read(arrays, says) -> None:
    with pytest.raises(MessageError, match=says):
        Codec(STREAMS["frames"]).encode(Frame(ticket()), arrays)


@pytest.mark.parametrize("shape", [(0, 2**63, 2), (2**40, 2**40, 3), (0, 2**28, 2**28), (-1, 2, 3), (2, 2, 3)], ids=str)
def test_codec_refuses_shapes_that_do_not_fit_the_pixels(shape) -> None:
    codec = Codec(STREAMS["frames"])
    first, _, _ = codec.encode(Frame(ticket()), {"image": PICTURE[:1, :1]})
    header = msgspec.msgpack.encode([("image", "uint8", shape)])
    with pytest.raises(MessageError, match="image"):
        codec.decode([first, header, b""])


def test_codec_refuses_an_announcement_beyond_its_limit() -> None:
    codec = Codec(STREAMS["frames"])
    first, _, pixels = codec.encode(Frame(ticket()), {"image": PICTURE[:1, :1]})
    padded = msgspec.msgpack.encode([("image", "uint8", (1, 1, 3), "padding" * 1000)])
    with pytest.raises(MessageError, match="without a readable first part"):
        codec.decode([first, padded, pixels])


def test_codec_sends_foreign_byte_order_as_our_own() -> None:
    codec = Codec(STREAMS["suspects"])
    anomaly_map = np.array([[0.25, 0.5]], dtype=">f4")
    suspect = Suspect(ticket(), score=0.9, threshold=0.5, localize_ms=1.0)
    received = codec.decode(codec.encode(suspect, {"image": PICTURE, "map": anomaly_map}))
    assert received.arrays["map"].tolist() == [[0.25, 0.5]]


def test_codec_copies_no_pixels() -> None:
    codec = Codec(STREAMS["frames"])
    parts = codec.encode(Frame(ticket()), {"image": PICTURE})
    assert np.shares_memory(np.frombuffer(parts[2], np.uint8), PICTURE)
    assert np.shares_memory(codec.decode(parts).arrays["image"], PICTURE)


# -- real sockets --------------------------------------------------------------------------------------------------


@contextmanager
def buses(settings: LineSettings, *owners: str) -> Iterator[list[Bus]]:
    made = [Bus(settings, owner) for owner in owners]
    try:
        yield made
    finally:
        for bus in made:
            bus.__exit__()


def next_message(receiver: Receiver, timeout_s: float = DEADLINE_S) -> msgspec.Struct:
    received = receiver.receive(round(timeout_s * 1000))
    assert received is not None, "nothing came"
    return received.message


def until(true: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.01)


def fill(send: Callable[[], bool], quiet_s: float = 0.5) -> int:
    """Send until there is no room, and none comes for a while. -> how many were taken"""
    taken, last_s = 0, time.monotonic()
    while time.monotonic() < last_s + quiet_s:
        if send():
            taken, last_s = taken + 1, time.monotonic()
        else:
            time.sleep(0.005)
    return taken


def files_of(settings: LineSettings, stream: str, owner: str) -> str:
    return settings.endpoint(stream, owner).removeprefix("ipc://")


BOTH = pytest.mark.parametrize("transport", ["ipc", "tcp"])


@pytest.mark.process
@BOTH
def test_frames_queue_is_bounded_and_keeps_its_order(transport) -> None:
    with buses(line(transport), "capture-cam1", "localize-1") as (capture, localize):
        frames, pusher = localize.puller("frames"), capture.pusher("frames", ["localize-1"])
        sent = iter(range(1000))
        taken = fill(lambda: pusher.send(Frame(ticket(next(sent))), {"image": PICTURE}))
        assert 2 <= taken <= MOST_FRAMES_ON_THE_WAY
        seqs = [next_message(frames).ticket.seq for _ in range(taken)]
        assert seqs == sorted(seqs)
        until(lambda: pusher.send(Frame(ticket(5000)), {"image": PICTURE}), "no room after the queue was emptied")
        assert next_message(frames).ticket.seq == 5000


@pytest.mark.process
def test_pusher_without_a_peer_never_waits() -> None:
    with buses(line(), "capture-cam1") as (capture,):
        pusher = capture.pusher("frames", ["localize-1"])
        begun_s = time.monotonic()
        taken = sum(pusher.send(Frame(ticket(n)), {"image": PICTURE}) for n in range(20))
        assert taken == STREAMS["frames"].queue
        assert time.monotonic() - begun_s < 2


@pytest.mark.process
@BOTH
def test_receiver_counts_garbage_of_a_zeromq_peer_and_blames_it_once(transport) -> None:
    settings = line(transport)
    with buses(settings, "reject", "capture-cam1") as (reject, capture), capture_logs() as logs:
        tickets, pusher = reject.puller("tickets"), capture.pusher("tickets", ["reject"])
        with zmq.Context() as context, context.socket(zmq.PUSH) as foreign:
            foreign.connect(settings.endpoint("tickets", "reject"))
            for parts in ([b"junk"], [b""], [b"\xdd\xff\xff\xff\xff"], [b"a", b"b", b"c"]):
                foreign.send_multipart(parts)
            until(lambda: tickets.receive(10) is None and tickets.refused == 4, "not all four were counted")
        pusher.send(ticket(7))
        assert next_message(tickets).seq == 7
    blamed = "127.0.0.1" if transport == "tcp" else f"process {os.getpid()} of user {os.getuid()}"
    assert [(entry["stream"], entry["peer"]) for entry in logs] == [("tickets", blamed)]


def raw_peer(settings: LineSettings, stream: str, owner: str) -> socket.socket:
    endpoint = settings.endpoint(stream, owner)
    if endpoint.startswith("ipc://"):
        raw = socket.socket(socket.AF_UNIX)
        raw.connect(endpoint.removeprefix("ipc://"))
        return raw
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return socket.create_connection((host, int(port)))


@pytest.mark.process
@BOTH
@pytest.mark.parametrize(
    "says",
    [
        b"GET / HTTP/1.1\r\nHost: camera\r\n\r\n",
        b"\xff" * 200,
        b"\x01\x00\x05\x00junk",  # ZMTP 1.0: libzmq takes it for a peer and hands the junk up
        b"",
    ],
    ids=["http", "ones", "old_zmtp", "nothing"],
)
def test_receiver_counts_a_peer_that_speaks_no_zeromq(transport, says) -> None:
    settings = line(transport)
    with buses(settings, "reject", "capture-cam1") as (reject, capture), capture_logs() as logs:
        tickets, pusher = reject.puller("tickets"), capture.pusher("tickets", ["reject"])
        for _ in range(2):
            with raw_peer(settings, "tickets", "reject") as raw:
                raw.sendall(says)
        until(lambda: tickets.receive(10) is None and tickets.refused >= 2, "not counted")
        pusher.send(ticket(7))
        assert next_message(tickets).seq == 7
    events = [entry["event"] for entry in logs]
    assert events, "nothing was said"
    assert len(events) == len(set(events)), "one peer was blamed twice"


@pytest.mark.process
def test_receiver_gives_the_turn_back_under_a_flood_of_garbage() -> None:
    settings = line()
    with buses(settings, "reject") as (reject,), zmq.Context() as context, context.socket(zmq.PUSH) as foreign:
        tickets = reject.puller("tickets")
        foreign.connect(settings.endpoint("tickets", "reject"))
        for _ in range(3 * MAX_REFUSED_PER_CALL):
            foreign.send(b"junk")
        foreign.send(msgspec.msgpack.encode(ticket(9)))
        seen: list[int] = []

        def turn() -> bool:
            before = tickets.refused
            received = tickets.receive()
            assert tickets.refused - before <= MAX_REFUSED_PER_CALL
            seen.extend([received.message.seq] if received else [])
            return seen == [9]

        until(turn, "the good message behind the garbage never came")
        assert tickets.refused == 3 * MAX_REFUSED_PER_CALL


@pytest.mark.process
def test_receiver_turns_a_message_beyond_the_limit_away_at_the_socket() -> None:
    settings = line()
    with buses(settings, "reject", "capture-cam1") as (reject, capture):
        tickets, pusher = reject.puller("tickets"), capture.pusher("tickets", ["reject"])
        with zmq.Context() as context, context.socket(zmq.PUSH) as foreign:
            foreign.linger = 0
            foreign.connect(settings.endpoint("tickets", "reject"))
            foreign.send(bytes(1 << 22))
            pusher.send(ticket(3))
            assert next_message(tickets).seq == 3
            assert tickets.receive(300) is None


@pytest.mark.process
@BOTH
def test_pusher_finds_its_receiver_again_after_a_restart(transport) -> None:
    settings = line(transport)
    with buses(settings, "capture-cam1") as (capture,):
        pusher = capture.pusher("tickets", ["reject"])
        for life in range(3):
            pusher.send(ticket(life))  # sent while nobody listens: kept
            with buses(settings, "reject") as (reject,):
                assert next_message(reject.puller("tickets")).seq == life


@pytest.mark.process
@BOTH
def test_receiver_hears_a_restarted_sender(transport) -> None:
    settings = line(transport)
    with buses(settings, "reject") as (reject,):
        tickets = reject.puller("tickets")
        for life in range(3):
            with buses(settings, "capture-cam1") as (capture,):
                capture.pusher("tickets", ["reject"]).send(ticket(life))
                assert next_message(tickets).seq == life


@pytest.mark.process
def test_latest_drains_to_the_newest() -> None:
    with buses(line(), "reject", "capture-cam1") as (reject, capture):
        tickets, pusher = reject.puller("tickets"), capture.pusher("tickets", ["reject"])
        assert tickets.latest() is None
        for seq in range(50):
            pusher.send(ticket(seq))
        seen: list[int] = []

        def drained() -> bool:
            newest = tickets.latest(10)
            seen.extend([newest.message.seq] if newest else [])
            return 49 in seen

        until(drained, "the newest never came")
        assert seen == sorted(seen)
        assert tickets.latest() is None


@pytest.mark.process
def test_frames_go_to_the_worker_with_room_and_a_dead_one_takes_at_most_its_queue() -> None:
    settings = line(workers={"localize": 2})
    with buses(settings, "capture-cam1", "localize-2") as (capture, localize), idle_worker(settings) as worker:
        pusher, frames = capture.pusher("frames", settings.owners("localize")), localize.puller("frames")
        taken, received = 0, 0
        for phase in ("alive", "dead"):
            if phase == "dead":
                worker.send_signal(signal.SIGKILL)
                worker.wait()
            for _ in range(30):
                until(lambda: pusher.send(Frame(ticket()), {"image": PICTURE}), "no worker has room")
                taken += 1
                received += frames.receive(20) is not None
        while frames.receive(500) is not None:
            received += 1
        assert taken - received <= MOST_FRAMES_ON_THE_WAY + STREAMS["frames"].queue


@contextmanager
def idle_worker(settings: LineSettings) -> Iterator[subprocess.Popen]:
    """localize-1 as a process that binds and never reads."""
    code = (
        "import sys, msgspec; from shared.settings import LineSettings; from shared.wire import Bus;"
        "bus = Bus(LineSettings(**msgspec.json.decode(sys.argv[1])), 'localize-1'); bus.puller('frames');"
        "print('ready', flush=True); sys.stdin.read()"
    )
    values = settings.model_dump_json(exclude_none=True)
    command = [sys.executable, "-W", "ignore", "-c", code, values]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.process
@BOTH
def test_bus_closes_at_once_with_full_queues(transport) -> None:
    with buses(line(transport, workers={"localize": 2}), "capture-cam1", "localize-1") as (capture, localize):
        localize.puller("frames")
        pusher = capture.pusher("frames", ["localize-1", "localize-2"])
        fill(lambda: pusher.send(Frame(ticket()), {"image": PICTURE}), quiet_s=0.2)
        begun_s = time.monotonic()
        capture.__exit__()
        assert time.monotonic() - begun_s < 1


@pytest.mark.process
@BOTH
def test_second_owner_of_a_stream_is_refused_and_the_first_lives_on(transport) -> None:
    settings = line(transport)
    with buses(settings, "reject", "reject", "capture-cam1") as (first, second, capture):
        tickets = first.puller("tickets")
        with pytest.raises(SettingsError, match="already running"):
            second.puller("tickets")
        capture.pusher("tickets", ["reject"]).send(ticket(5))
        assert next_message(tickets).seq == 5


@pytest.mark.process
def test_socket_file_of_a_killed_owner_is_taken_over_and_is_private() -> None:
    settings = line()
    path = Path(files_of(settings, "tickets", "reject"))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    with buses(settings, "reject", "capture-cam1") as (reject, capture):
        tickets = reject.puller("tickets")
        capture.pusher("tickets", ["reject"]).send(ticket(5))
        assert next_message(tickets).seq == 5
        assert path.stat().st_mode & 0o777 == 0o600


# -- keys ----------------------------------------------------------------------------------------------------------


def keys() -> str:
    return b" ".join(new_curve_keys()).decode()


@pytest.mark.process
def test_peer_with_the_keys_is_heard_and_others_are_not() -> None:
    settings = line("tcp", wire={"curve_keys": keys()})
    bare = settings.model_copy(update={"wire": settings.wire.model_copy(update={"curve_keys": None})})
    wrong = line("tcp", wire={"curve_keys": keys()})
    wrong = settings.model_copy(update={"wire": settings.wire.model_copy(update={"curve_keys": wrong.wire.curve_keys})})
    with (
        buses(settings, "reject", "capture-cam1") as (reject, capture),
        buses(bare, "capture-cam1") as (stranger,),
        buses(wrong, "capture-cam1") as (impostor,),
        capture_logs() as logs,
    ):
        tickets, signals = reject.puller("tickets"), reject.publisher("signals")
        stranger.pusher("tickets", ["reject"]).send(ticket(666))
        impostor.pusher("tickets", ["reject"]).send(ticket(667))
        overheard = [bus.subscriber("signals", ["reject"]) for bus in (stranger, impostor)]
        known = capture.subscriber("signals", ["reject"])
        until(lambda: beat_arrives(signals, known), "the friend hears nothing")
        capture.pusher("tickets", ["reject"]).send(ticket(1))
        assert next_message(tickets).seq == 1
        until(lambda: tickets.receive(10) is None and tickets.refused >= 2, "nobody was turned away")
        assert [one.receive(200) for one in overheard] == [None, None]
    assert [entry["stream"] for entry in logs] == ["tickets"]
    assert "keys" in logs[0]["event"]


def beat_arrives(publisher, receiver) -> bool:
    publisher.send("heartbeat", Heartbeat("test", 1, 0, 0.0, ready=True))
    return receiver.receive(20) is not None


# -- signals -------------------------------------------------------------------------------------------------------


@pytest.mark.process
def test_signals_are_read_by_plain_json_on_both_addresses(private_surroundings) -> None:
    settings = line()
    extra = f"ipc://{private_surroundings}/signals"
    ours = Signal(
        "test",
        "cam1",
        "cam1:s:1",
        "ö",
        Outcome.NG,
        Reason.DEFECT,
        Action.REJECT,
        1,
        2,
        3,
        4.5,
        latency_ms=6.5,
        margin_ms=None,
        part="cam1:s:1",
        number=7,
    )
    with buses(settings, "reject") as (reject,), zmq.Context() as context:
        publisher = reject.publisher("signals", extra)
        for endpoint in (extra, settings.endpoint("signals", "reject")):
            with context.socket(zmq.SUB) as foreign:
                foreign.subscribe("signal")
                foreign.connect(endpoint)

                def heard(foreign: zmq.Socket = foreign) -> bool:
                    publisher.send("heartbeat", Heartbeat("test", 1, 0, 0.0, ready=True))
                    publisher.send("signal", ours)
                    return bool(foreign.poll(20))

                until(heard, "no signal came")
                topic, text = foreign.recv_multipart()
            assert topic == b"signal"
            assert json.loads(text) == {
                "type": "signal",
                "line": "test",
                "camera": "cam1",
                "ticket_id": "cam1:s:1",
                "part_id": "ö",
                "outcome": "ng",
                "reason": "defect",
                "action": "reject",
                "capture_ns": 1,
                "deadline_ns": 2,
                "signalled_ns": 3,
                "signalled_at": 4.5,
                "latency_ms": 6.5,
                "margin_ms": None,
                "stage": "",
                "seq": 0,
                "recipe": "",
                "captured_at": 0.0,
                "pulse_ms": 0.0,
                "score": None,
                "defects": 0,
                "cameras": [],
                "part": "cam1:s:1",
                "number": 7,
            }


# -- triggers ------------------------------------------------------------------------------------------------------


@contextmanager
def camera(settings: LineSettings, answers: bool = True) -> Iterator[list[str]]:
    """A camera's process that answers triggers; -> the part ids it was asked for."""
    asked: list[str] = []
    over, ready = threading.Event(), threading.Event()

    def serve() -> None:
        with Bus(settings, "capture-cam1") as bus:
            server = bus.server("triggers")
            ready.set()
            while not over.is_set():
                trigger = server.receive(20)
                if trigger is not None:
                    asked.append(trigger.part_id)
                    if answers:
                        server.answer(TriggerReply(f"id of {trigger.part_id}"))

    thread = threading.Thread(target=serve)
    thread.start()
    assert ready.wait(DEADLINE_S)
    try:
        yield asked
    finally:
        over.set()
        thread.join()


@pytest.mark.process
@BOTH
def test_trigger_is_answered_with_its_ticket(transport) -> None:
    settings = line(transport)
    with camera(settings) as asked, buses(settings, "controller") as (controller,):
        client = controller.client("triggers", "capture-cam1")
        assert [client.ask(Trigger(part), 10_000).ticket_id for part in ("a", "b")] == ["id of a", "id of b"]
    assert asked == ["a", "b"]


@pytest.mark.process
def test_trigger_times_out_and_an_old_one_never_becomes_a_picture() -> None:
    settings = line()
    with buses(settings, "controller") as (controller,):
        client = controller.client("triggers", "capture-cam1")
        for n in range(2 * STREAMS["triggers"].queue):
            with pytest.raises(TimeoutError, match="capture-cam1 did not answer within 10 ms"):
                client.ask(Trigger(f"old {n}"), timeout_ms=10)
        with camera(settings) as asked:
            assert client.ask(Trigger("new"), 10_000).ticket_id == "id of new"
        assert asked == ["new"]


@pytest.mark.process
def test_trigger_can_be_asked_again_of_a_camera_that_was_stuck() -> None:
    settings = line()
    with buses(settings, "controller") as (controller,):
        client = controller.client("triggers", "capture-cam1")
        with camera(settings, answers=False), pytest.raises(TimeoutError):
            client.ask(Trigger("a"), 300)
        with camera(settings):
            assert client.ask(Trigger("b"), 10_000).ticket_id == "id of b"


@pytest.mark.process
@pytest.mark.parametrize(
    "parts",
    [
        [b"junk"],
        [b""],
        [b"a", b"b"],
        [b"\x82\xa4type\xa7trigger\xa7part_id\xa2\xff\xfe"],
        [b"\x91" * 5000],
        [msgspec.msgpack.encode(Trigger("x" * 201))],
    ],
    ids=["junk", "empty", "two_parts", "no_utf8", "nested", "long"],
)
def test_trigger_that_is_malformed_is_answered_with_its_error(parts) -> None:
    settings = line()
    with camera(settings) as asked, zmq.Context() as context, context.socket(zmq.REQ) as foreign:
        foreign.connect(settings.endpoint("triggers", "capture-cam1"))
        for request in (parts, [msgspec.msgpack.encode(Trigger("good"))]):
            foreign.send_multipart(request)
            assert foreign.poll(DEADLINE_S * 1000)
            reply = msgspec.msgpack.decode(foreign.recv(), type=TriggerReply)
            assert (reply.error.startswith("not a Trigger or JobChange: "), reply.ticket_id) in (
                (True, ""),
                (False, "id of good"),
            )
    assert asked == ["good"]


@pytest.mark.process
def test_trigger_client_refuses_a_foreign_answer() -> None:
    settings = line()
    with (
        buses(settings, "controller") as (controller,),
        zmq.Context() as context,
        context.socket(zmq.REP) as foreign,
    ):
        foreign.bind(settings.endpoint("triggers", "capture-cam1"))
        client = controller.client("triggers", "capture-cam1")
        answer = threading.Thread(target=lambda: (foreign.recv(), foreign.send(b"junk")))
        answer.start()
        with pytest.raises(MessageError, match="not a TriggerReply"):
            client.ask(Trigger("a"), 10_000)
        answer.join()
