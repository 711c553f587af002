"""The OPC UA server's door: who is let in, what is refused, and that nobody inside notices."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from asyncua import Client, ua
from asyncua.crypto.security_policies import SecurityPolicyAes128Sha256RsaOaep, SecurityPolicyBasic256Sha256
from asyncua.crypto.uacrypto import CertProperties
from structlog.testing import capture_logs

from services.link import opcua_door, opcua_gate, opcua_sessions
from tests.opcua_peer import (
    PASSWORD,
    SIGNED,
    USER,
    Controller,
    Heard,
    code_of,
    controller,
    der,
    identity,
    key_pem,
    pem,
    secured,
)
from tests.proxy import running_proxy
from tests.service_process import wait_for
from tests.services.link.opcua_link import PlayedLink
from tests.services.link.opcua_news import result

pytestmark = pytest.mark.process  # a server on a port


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clients, one whose certificate is over, and a file that is none."""
    folder = tmp_path_factory.mktemp("trusted")
    (folder / "plc.pem").write_bytes(pem(identity("plc")))
    (folder / "scada.der").write_bytes(der(identity("scada")))
    (folder / "old.der").write_bytes(der(identity("old", -1)))
    (folder / "a-note.txt").write_text("certificates of the clients go here")
    return folder


@pytest.fixture(scope="module")
def server(trusted: Path) -> Iterator[PlayedLink]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opcua_gate, "STOOD_STILL_S", 60.0)  # the machine may be busy
        link = PlayedLink(trusted=trusted).start()
        yield link
        assert link.stop() < 1, "it must close within a second"


@pytest.fixture
def link(server: PlayedLink) -> PlayedLink:
    server.rest()
    return server


@contextmanager
def counted(link: PlayedLink, refused: int = 1) -> Iterator[list[Any]]:
    """As many refusals; -> what was logged."""
    before = link.point("WritesRefused")
    with capture_logs() as logs:
        yield logs
        wait_for(lambda: link.point("WritesRefused") - before >= refused, 5, "the refusal to be counted")
    assert link.point("WritesRefused") - before == refused


async def refusal_of(login: Client) -> str:
    """What connecting was answered with, by name."""
    return await code_of(leaving(login))


async def leaving(client: Client) -> None:
    async with client:
        pass


# --- logins -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["plc", "scada"])
def test_a_trusted_client_with_its_password_comes_in(link: PlayedLink, who: str) -> None:
    async def run() -> None:
        for mode in (ua.MessageSecurityMode.SignAndEncrypt, SIGNED):
            async with controller(link.port, who=identity(who), mode=mode) as plc:
                assert await plc.read("Status.Ready") is True

    with counted(link, 0):
        asyncio.run(run())


LOGINS = {
    "wrong password": (USER, PASSWORD + "!", "BadUserAccessDenied"),
    "unknown user": ("nobody", PASSWORD, "BadUserAccessDenied"),
    "nobody at all": (None, None, "BadIdentityTokenRejected"),
}


@pytest.mark.parametrize(("user", "password", "code"), LOGINS.values(), ids=LOGINS)
@pytest.mark.parametrize("mode", [ua.MessageSecurityMode.SignAndEncrypt, SIGNED], ids=["secret", "signed"])
def test_a_wrong_login_is_refused_counted_and_logged_once(
    link: PlayedLink, user: str | None, password: str | None, code: str, mode: ua.MessageSecurityMode
) -> None:
    link.forget_refusals()

    async def run() -> None:
        for _ in range(2):
            client = await secured(link.port, mode=mode)
            client._username, client._password = user, password
            assert await refusal_of(client) == code

    with counted(link, 2) as logs:
        asyncio.run(run())
    assert [one["why"] for one in logs if one["event"] == "refused"] == [code]


def test_a_user_certificate_is_no_login(link: PlayedLink) -> None:
    async def run() -> None:
        client = await secured(link.port)
        client.user_certificate, client.user_private_key = identity("plc").certificate, identity("plc").key
        assert await refusal_of(client) == "BadIdentityTokenRejected"

    with counted(link):
        asyncio.run(run())


def test_one_connection_has_one_try(link: PlayedLink) -> None:
    async def run() -> None:
        client = await secured(link.port)
        async with open_channel(client):
            await client.create_session()
            assert await code_of(client.activate_session(USER, "wrong")) == "BadUserAccessDenied"
            with pytest.raises(ConnectionError):
                await client.activate_session(USER, PASSWORD)

    with counted(link):
        asyncio.run(run())


def test_a_recorded_password_of_another_session_is_refused(link: PlayedLink) -> None:
    class Replaying(Client):
        def _encrypt_password(self, password: str, policy_uri: str) -> tuple[bytes, str]:
            right, self._server_nonce = self._server_nonce, os.urandom(32)
            try:
                return super()._encrypt_password(password, policy_uri)
            finally:
                self._server_nonce = right

    async def run() -> None:
        client = await secured(link.port, mode=SIGNED, kind=Replaying)
        client.set_user(USER)
        client.set_password(PASSWORD)
        assert await refusal_of(client) == "BadIdentityTokenInvalid"

    with counted(link):
        asyncio.run(run())


def test_a_password_in_the_clear_is_refused(link: PlayedLink) -> None:
    class Careless(Client):
        def _encrypt_password(self, password: str, policy_uri: str) -> tuple[bytes, str]:
            return password.encode(), ""

    async def run() -> None:
        client = await secured(link.port, mode=SIGNED, kind=Careless)
        client.set_user(USER)
        client.set_password(PASSWORD)
        assert await refusal_of(client) == "BadIdentityTokenInvalid"

    with counted(link):
        asyncio.run(run())


# --- channels ---------------------------------------------------------------------------------------------------------


def test_without_security_nothing_but_discovery_is_answered(link: PlayedLink) -> None:
    async def run() -> None:
        client = Client(f"opc.tcp://{USER}:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{link.port}/sightline")
        modes = {(one.SecurityMode, one.SecurityPolicyUri) for one in await client.connect_and_get_server_endpoints()}
        assert modes == {(mode, SecurityPolicyBasic256Sha256.URI) for mode in opcua_door.SECURED}
        assert await refusal_of(client) == "BadSecurityModeInsufficient"

    with counted(link):
        asyncio.run(run())


def test_a_session_without_a_channel_is_refused(link: PlayedLink) -> None:
    async def run() -> None:
        client = Client(f"opc.tcp://127.0.0.1:{link.port}/sightline")
        await client.connect_socket()
        await client.send_hello()
        assert await code_of(client.create_session()) == "BadSecurityModeInsufficient"
        client.disconnect_socket()

    with counted(link):
        asyncio.run(run())


CHANNELS = {
    "unknown certificate": ("stranger", 100, SecurityPolicyBasic256Sha256, "BadCertificateUntrusted"),
    "certificate that is over": ("old", -1, SecurityPolicyBasic256Sha256, "BadCertificateTimeInvalid"),
    "other policy": ("plc", 100, SecurityPolicyAes128Sha256RsaOaep, "BadSecurityPolicyRejected"),
}


@pytest.mark.parametrize(("who", "days", "policy", "code"), CHANNELS.values(), ids=CHANNELS)
def test_a_channel_is_refused_at_once(link: PlayedLink, who: str, days: int, policy: Any, code: str) -> None:
    async def run() -> None:
        peer = identity(who, days)
        client = Client(f"opc.tcp://127.0.0.1:{link.port}/sightline", timeout=10)
        own, key = CertProperties(der(peer), "der"), CertProperties(key_pem(peer), "pem")
        await client.set_security(policy, own, key, server_certificate=CertProperties(der(identity("server")), "der"))
        client.set_user(USER)
        client.set_password(PASSWORD)
        began_s = time.monotonic()
        assert await refusal_of(client) == code
        assert time.monotonic() - began_s < 5

    link.forget_refusals()
    with counted(link) as logs:
        asyncio.run(run())
    assert code in [one.get("why") for one in logs]


def test_a_certificate_that_is_put_into_the_folder_counts_at_once(link: PlayedLink, trusted: Path) -> None:
    async def run() -> None:
        assert await refusal_of(await secured(link.port, identity("newcomer"))) == "BadCertificateUntrusted"
        (trusted / "newcomer.pem").write_bytes(pem(identity("newcomer")))
        async with controller(link.port, who=identity("newcomer")):
            pass

    with counted(link):
        asyncio.run(run())


# --- sessions ---------------------------------------------------------------------------------------------------------


def test_nobody_takes_over_the_session_of_another(link: PlayedLink) -> None:
    async def run() -> None:
        async with controller(link.port) as plc:
            thief = await secured(link.port, identity("scada"))
            async with open_channel(thief):
                thief._server_nonce = os.urandom(32)
                session = thief.uaclient.session
                session.restore_authentication_token(plc.client.uaclient.session.authentication_token)
                assert await code_of(thief.activate_session(USER, PASSWORD)) == "BadSessionIdInvalid"
                assert await code_of(Controller(thief).write(Trigger=True)) == "BadUserAccessDenied"
            assert await plc.read("Command.Trigger") is False

    with counted(link, 2):
        asyncio.run(run())


def test_a_connection_has_one_session(link: PlayedLink) -> None:
    async def run() -> None:
        async with controller(link.port) as plc:
            assert await code_of(plc.client.create_session()) == "BadTooManySessions"
            assert await plc.read("Status.Ready") is True

    with counted(link):
        asyncio.run(run())


def test_services_that_are_not_offered_are_refused(link: PlayedLink) -> None:
    async def run() -> None:
        async with controller(link.port) as plc:
            session, client = plc.client.uaclient.session, plc.client
            subscription = await client.create_subscription(100, Heard())
            handle = await subscription.subscribe_data_change(plc.node("Status.Ready"))
            requests: list[Awaitable[Any]] = [
                session.transfer_subscriptions(ua.TransferSubscriptionsParameters([subscription.subscription_id])),
                subscription.modify_monitored_item(handle, 100, 5000),
                client.nodes.objects.add_variable(2, "mine", 1),
                client.delete_nodes([plc.node("Status.Ready")]),
                client.uaclient.register_server(ua.RegisteredServer()),
                plc.node("Status.Ready").read_raw_history(),
            ]
            for request in requests:
                assert await code_of(request) == "BadServiceUnsupported"

    with counted(link, 6):
        asyncio.run(run())


def test_what_a_client_asks_for_is_bounded(link: PlayedLink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opcua_sessions, "MOST_ITEMS", 20)

    async def run() -> None:
        async with controller(link.port) as plc:
            assert plc.client.session_timeout == opcua_sessions.SESSION_MS
            for wanted, given in ((0.0, 10), (-1.0, 10), (math.nan, 10), (math.inf, 60_000), (250.0, 250)):
                parameters = ua.CreateSubscriptionParameters(RequestedPublishingInterval=wanted)
                made = await plc.client.uaclient.session.create_subscription(parameters, lambda published: None)
                assert made.RevisedPublishingInterval == given, wanted
            subscription = await plc.client.create_subscription(100, Heard())
            ready = plc.node("Status.Ready")
            await subscription.subscribe_data_change([ready] * 20, queuesize=1000)
            inner = link.server.iserver.subscription_service.subscriptions[subscription.subscription_id]
            assert {one.queue_size for one in inner.monitored_item_srv._monitored_items.values()} == {1}
            assert await code_of(subscription.subscribe_data_change(ready)) == "BadTooManyMonitoredItems"

    with counted(link):
        asyncio.run(run())


# --- bytes ------------------------------------------------------------------------------------------------------------


def message(kind: bytes, body: bytes, size: int | None = None) -> bytes:
    return struct.pack("<3scI", kind, b"F", 8 + len(body) if size is None else size) + body


GARBAGE = {
    "random bytes": os.urandom(4096),
    "a web browser": b"GET / HTTP/1.1\r\nHost: sightline\r\n\r\n",
    "a length without end": message(b"HEL", b"x" * 100, 0xFFFF_FFFF),
    "a length of nothing": message(b"MSG", b"x" * 100, 0),
    "a message before a channel": message(b"MSG", struct.pack("<IIII", 9, 9, 1, 1) + b"x" * 50),
    "a channel of noise": message(b"OPN", os.urandom(500)),
    "a channel without a certificate": message(
        b"OPN",
        struct.pack("<II", 0, len(SecurityPolicyBasic256Sha256.URI))
        + SecurityPolicyBasic256Sha256.URI.encode()
        + struct.pack("<ii", -1, -1)
        + os.urandom(256),
    ),
    "a hello without end": message(b"HEL", b"\xff" * 3),
    "a hello with tiny buffers": message(b"HEL", struct.pack("<IIIIIi", 0, 64, 64, 0, 0, -1)),
    "an answer": message(b"ACK", bytes(20)),
}


@pytest.mark.parametrize("noise", GARBAGE.values(), ids=GARBAGE)
def test_garbage_ends_its_own_connection_only(link: PlayedLink, noise: bytes) -> None:
    async def run() -> None:
        async with controller(link.port) as plc:
            await asyncio.to_thread(expect_the_end, link.port, noise)
            assert await plc.read("Status.Ready") is True

    with counted(link):
        asyncio.run(run())


def expect_the_end(port: int, noise: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), 5) as peer:
        peer.sendall(noise)
        try:
            while peer.recv(4096):
                pass
        except ConnectionResetError:
            pass


def test_garbage_inside_of_a_secure_channel_ends_it(link: PlayedLink) -> None:
    async def run() -> None:
        async with controller(link.port) as plc, controller(link.port) as scada:
            protocol = plc.client.uaclient.protocol
            protocol.transport.write(protocol._connection.message_to_binary(os.urandom(300), request_id=9999))
            await asyncio.to_thread(wait_for, lambda: protocol.transport is None, 5, "the end")
            assert await scada.read("Status.Ready") is True

    with counted(link):
        asyncio.run(run())


def test_connections_are_few_and_silent_ones_are_sent_away(link: PlayedLink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opcua_door, "PATIENCE_S", 2.0)

    async def run() -> None:
        async with controller(link.port) as plc:
            silent = [socket.create_connection(("127.0.0.1", link.port), 10) for _ in range(15)]
            await asyncio.to_thread(expect_the_end, link.port, b"")  # one too many
            for one in silent:
                assert await asyncio.to_thread(one.recv, 1) == b""
                one.close()
            assert await plc.read("Status.Ready") is True
        async with controller(link.port):
            pass

    with counted(link):
        asyncio.run(run())


# --- clients that are as good as away ---------------------------------------------------------------------------------


def test_nothing_outdated_is_told_after_a_gap(link: PlayedLink) -> None:
    async def run() -> None:
        with running_proxy(link.port) as proxy:
            plc = await logged_in(proxy.port)
            heard = Heard()
            subscription = await plc.client.create_subscription(50, heard)
            await subscription.subscribe_data_change(plc.node("Status.Heartbeat"))
            await subscription.subscribe_events(plc.node("VisionSystem"), plc.node("ResultReadyEventType"))
            assert await plc.write(LineStopped=True) == ["Good"]
            link.hear(result("cam1:gap:0"))
            await asyncio.to_thread(wait_for, lambda: len(heard.events) == 1, 5, "the event")
            proxy.hold()
            before, held_s = len(heard.changes), time.monotonic()
            while link.do(lambda: link.desk.peers.connected):
                link.hear(result(f"cam1:gap:{time.monotonic_ns()}"))
                assert time.monotonic() - held_s < 15, "a client that fetches nothing is away"
                await asyncio.sleep(0.2)
            async with controller(link.port) as other:
                assert await other.write(LineStopped=False) == ["Good"]  # its place is free
            proxy.release()
            await asyncio.to_thread(
                wait_for,
                lambda: plc.client.uaclient.protocol is None or plc.client.uaclient.protocol.is_closed,
                10,
                "the end",
            )
            assert len(heard.changes) - before <= 4 and len(heard.events) <= 4  # what was on its way when it was held
            with pytest.raises((ConnectionError, asyncio.TimeoutError)):
                await plc.client.disconnect()
                await plc.read("Status.Ready")

    asyncio.run(run())


def test_a_server_that_stood_still_tells_and_does_nothing_of_that_time(
    link: PlayedLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opcua_gate, "STOOD_STILL_S", 2.5)

    async def run() -> None:
        plc = await logged_in(link.port)
        heard = Heard()
        subscription = await plc.client.create_subscription(50, heard)
        await subscription.subscribe_data_change(plc.node("Status.Heartbeat"))
        await asyncio.to_thread(wait_for, lambda: bool(heard.changes), 5, "a first value")
        standstill = asyncio.create_task(asyncio.to_thread(link.do, lambda: time.sleep(4)))
        await asyncio.sleep(0.2)
        before = len(heard.changes)
        with pytest.raises(ConnectionError):
            await plc.write(TriggerPartId="D-1", Trigger=True)
        await standstill
        assert len(heard.changes) == before and link.orders == []
        await plc.client.disconnect()
        async with controller(link.port) as again:
            assert await again.read("Command.Trigger") is False

    with counted(link, 0):
        asyncio.run(run())


def test_a_client_that_does_not_read_its_answers_is_sent_away(link: PlayedLink) -> None:
    async def run() -> None:
        for number in range(100):
            link.hear(result(f"cam1:unread:{number}"))
        async with controller(link.port) as other:
            plc = await logged_in(link.port)
            plc.client.uaclient.protocol.transport.pause_reading()
            asking: list[asyncio.Task[None]] = []
            while link.do(lambda: link.desk.peers.connected) == 2:
                asking += [asyncio.create_task(all_results(plc)) for _ in range(5)]
                assert len(asking) < 1000
                assert await other.read("Status.Ready") is True
                await asyncio.sleep(0.05)
            for one in asking:
                one.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            await plc.client.disconnect()

    link.forget_refusals()
    with counted(link) as logs:
        asyncio.run(run())
    assert [one["why"] for one in logs if one["event"] == "refused"] == ["does not read its answers"]


async def all_results(plc: Controller) -> None:
    """A short question with a long answer."""
    zero = ua.Variant(0, ua.VariantType.Int32)
    most = ua.Variant(0, ua.VariantType.UInt32)
    request = ua.CallMethodRequest(
        plc.node("VisionSystem.ResultManagement").nodeid,
        plc.node("VisionSystem.ResultManagement.GetResultListFiltered").nodeid,
        [zero, *[ua.Variant("")] * 6, most, most, zero],
    )
    call = ua.CallRequest()
    call.Parameters.MethodsToCall = [request]
    await plc.client.uaclient.protocol.send_request(call, 60)


async def logged_in(port: int) -> Controller:
    client = await secured(port)
    client.set_user(USER)
    client.set_password(PASSWORD)
    await client.connect()
    return Controller(client)


@asynccontextmanager
async def open_channel(client: Client) -> AsyncIterator[None]:
    """A secure one, without a session."""
    await client.connect_sessionless()
    try:
        yield
    finally:
        client.disconnect_socket()
