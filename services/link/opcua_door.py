"""The door of the OPC UA server: bytes of anybody in -> requests of logged-in controllers out; the rest refused.

asyncua's own classes, narrowed to one policy. What it accepts beyond that is closed here: sessions without a secure
channel, certificates that nobody trusts, endless buffers, clients that are as good as away.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path
from typing import Any

from asyncua import ua
from asyncua.common.connection import TransportLimits
from asyncua.common.utils import Buffer, ServiceError
from asyncua.crypto import uacrypto
from asyncua.crypto.permission_rules import USER_TYPES
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256, SecurityPolicyNone
from asyncua.server.binary_server_asyncio import BinaryServer, OPCUAProtocol
from asyncua.server.server import Server
from asyncua.server.uaprocessor import UaProcessor
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes as Codes
from asyncua.ua.ua_binary import struct_from_binary, uatcp_to_binary
from asyncua.ua.uaerrors import UaError
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from services.link.desk import PeerLostError
from services.link.opcua_sessions import Inner, Session
from services.link.opcua_space import standard_node

MESSAGE_BYTES = 65_535  # a request; chunks are as long
UNREAD_BYTES = 2 << 20  # answers that a client does not read
LEAST_BUFFER_BYTES = 8192  # OPC 10000-6, 7.1.2.3; with tiny ones each answer would cost thousands of chunks
PATIENCE_S = 10.0  # for the login
STARVED_S = 3.0  # a client that fetches no notifications for so long is away: it must not get them later
DEAD_S = 3  # so long may the network keep bytes unacknowledged
OPEN: Any = ua.MessageType.SecureOpen  # bytes, whatever asyncua's annotations say
CLOSE: Any = ua.MessageType.SecureClose
ERROR: Any = ua.MessageType.Error
CLIENT_MESSAGES = (
    ua.MessageType.Hello,
    ua.MessageType.SecureOpen,
    ua.MessageType.SecureMessage,
    ua.MessageType.SecureClose,
    ua.MessageType.Error,
)
SECURED = (ua.MessageSecurityMode.Sign, ua.MessageSecurityMode.SignAndEncrypt)
DISCOVERY = {
    standard_node(one)
    for one in (
        ObjectIds.GetEndpointsRequest_Encoding_DefaultBinary,
        ObjectIds.FindServersRequest_Encoding_DefaultBinary,
        ObjectIds.CloseSecureChannelRequest_Encoding_DefaultBinary,
    )
}
OFFERED = {standard_node(one) for one in USER_TYPES} - {
    standard_node(ObjectIds.TransferSubscriptionsRequest_Encoding_DefaultBinary),
    standard_node(ObjectIds.HistoryReadRequest_Encoding_DefaultBinary),
}
HARMLESS = {  # faults that tell a client how its subscriptions are, and refuse nothing
    Codes.BadNoSubscription,
    Codes.BadTimeout,
    Codes.BadTooManyPublishRequests,
    Codes.BadSubscriptionIdInvalid,
}
MALFORMED = (  # what a foreign message can make asyncua raise
    UaError,
    InvalidSignature,
    uacrypto.InvalidSignature,  # type: ignore[attr-defined] # asyncua's own, of the same name
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    struct.error,
    RecursionError,
)


class Limits(TransportLimits):
    """Of one connection."""

    def create_acknowledge_and_set_limits(self, msg: ua.Hello) -> ua.Acknowledge:
        """The answer to a client's Hello."""
        if min(msg.ReceiveBufferSize, msg.SendBufferSize) < LEAST_BUFFER_BYTES:
            raise ServiceError(Codes.BadTcpNotEnoughResources)
        return super().create_acknowledge_and_set_limits(msg)


class Processor(UaProcessor):
    """The requests of one connection."""

    iserver: Inner
    session: Session | None

    @property
    def host(self) -> str:
        """The other end."""
        return str(self.name[0]) if self.name else "unknown"

    async def process(self, header: ua.Header, body: Buffer) -> bool:
        """One message."""
        if header.MessageType == OPEN:
            security = struct_from_binary(ua.AsymmetricAlgorithmHeader, body.copy(header.body_size))
            if security.SecurityPolicyURI not in (SecurityPolicyNone.URI, SecurityPolicyBasic256Sha256.URI):
                raise ServiceError(Codes.BadSecurityPolicyRejected)
        return bool(await super().process(header, body))  # type: ignore[no-untyped-call]

    def open_secure_channel(self, algohdr: ua.AsymmetricAlgorithmHeader, seqhdr: Any, body: Buffer) -> None:
        """The message was signed with the key of the certificate in it."""
        if algohdr.SecurityPolicyURI == SecurityPolicyBasic256Sha256.URI:
            certificate = self._connection.security_policy.peer_certificate
            self.iserver.gate.check(x509.load_der_x509_certificate(certificate or b""))
        super().open_secure_channel(algohdr, seqhdr, body)  # type: ignore[no-untyped-call]

    async def _process_message(self, typeid: ua.NodeId, requesthdr: Any, seqhdr: Any, body: Buffer) -> bool:
        if typeid not in DISCOVERY and self._connection.security_policy.Mode not in SECURED:
            raise ServiceError(Codes.BadSecurityModeInsufficient)
        if typeid not in DISCOVERY | OFFERED:
            raise ServiceError(Codes.BadServiceUnsupported)
        if self.session is not None:
            self.session.is_secret = self._connection.security_policy.Mode == ua.MessageSecurityMode.SignAndEncrypt
        return bool(
            await super()._process_message(typeid, requesthdr, seqhdr, body)  # type: ignore[no-untyped-call]
        )

    def send_response(self, requesthandle: Any, seqhdr: Any, response: Any, msgtype: Any = None) -> None:
        """Count what is refused."""
        if self.iserver.gate.stood_still:
            self._transport.abort()
            return
        if isinstance(response, ua.ServiceFault):
            code = response.ResponseHeader.ServiceResult
            if code.value not in HARMLESS:
                self.iserver.gate.refuse(self.host, code.name)
        super().send_response(  # type: ignore[no-untyped-call]
            requesthandle, seqhdr, response, msgtype or ua.MessageType.SecureMessage
        )


class Connection(OPCUAProtocol):
    """One client's bytes."""

    iserver: Inner
    processor: Processor | None

    @property
    def session(self) -> Session | None:
        """The connection's own."""
        return self.processor.session if self.processor else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of one client more."""
        super().connection_made(transport)
        if self.transport is None:
            self.iserver.gate.refuse(self.host, "too many connections")
            return
        self.transport.set_write_buffer_limits(high=UNREAD_BYTES)
        watch_network(self.transport.get_extra_info("socket"))
        self.processor = Processor(self.iserver, self.transport, self.limits)
        self.processor.set_policies(self.policies)  # type: ignore[no-untyped-call]
        self._logged_in_s = asyncio.get_running_loop().time()
        self._starving: dict[int, float] = {}  # subscription -> since when

    @property
    def host(self) -> str:
        """The other end."""
        return str(self.peer_name[0]) if self.peer_name else "unknown"

    def data_received(self, data: bytes) -> None:
        """Some bytes; anything that is no message, or too long, or outdated ends the connection."""
        if self.iserver.gate.stood_still:
            self.abort()
            return
        super().data_received(data)
        if self.transport is not None and self.transport.is_closing():
            self.iserver.gate.refuse(self.host, "too much at once, or malformed")
            self.abort()
        elif not begins_message(self._buffer):
            self._turn_away(Codes.BadTcpMessageTypeInvalid)

    def pause_writing(self) -> None:
        """It does not read what it asked for."""
        self.iserver.gate.refuse(self.host, "does not read its answers")
        self.abort()

    def connection_lost(self, ex: BaseException | None) -> None:
        """The session ends with it."""
        session = self.session
        if session is not None:
            self.iserver.gate.left(session)  # before what it waits for is cancelled
        super().connection_lost(ex)
        if session is not None:
            self.closing_tasks.append(asyncio.create_task(session.close_session()))

    def abort(self) -> None:
        """Throw away what is not sent yet."""
        if self.transport is not None:
            self.transport.abort()

    def is_away(self, now_s: float) -> bool:
        """Does it neither log in nor, having subscribed, fetch its notifications?"""
        session = self.session
        if session is None or not session.is_activated():
            return now_s - self._logged_in_s > PATIENCE_S
        self._logged_in_s = now_s
        hungry = {
            number
            for number, one in self.iserver.subscription_service.subscriptions.items()
            if one.session_id == session.session_id and one._publish_cycles_count
        }
        self._starving = {number: self._starving.get(number, now_s) for number in hungry}
        return any(now_s - since_s > STARVED_S for since_s in self._starving.values())

    async def _process_one_msg(self, header: ua.Header, buf: Buffer) -> bool:
        await asyncio.sleep(0)  # the others have their turn, however much this one sends
        try:
            goes_on = await super()._process_one_msg(header, buf)
        except ServiceError as error:
            self._turn_away(error.code)
            return False
        except MALFORMED:
            self._turn_away(Codes.BadSecurityChecksFailed)
            return False
        if not goes_on and header.MessageType != CLOSE:
            self.iserver.gate.refuse(self.host, "a message that is too long")
        if self.session is not None and self.session.refused and self.transport is not None:
            self.transport.close()  # one try for each connection: who guesses passwords pays with a handshake for each
            return False
        return goes_on

    def _turn_away(self, code: int) -> None:
        status = ua.StatusCode(ua.UInt32(code))
        self.iserver.gate.refuse(self.host, status.name)
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(uatcp_to_binary(ERROR, ua.ErrorMessage(status, ua.String(status.name))))
            self.transport.close()


class Listener(BinaryServer):
    """The socket that is open already."""

    iserver: Inner

    def __init__(self, inner: Inner, opened: socket.socket, policies: list[Any]) -> None:
        super().__init__(inner, "", 0, Limits(MESSAGE_BYTES, MESSAGE_BYTES, 4, MESSAGE_BYTES))
        self._opened = opened
        self.set_policies(policies)

    def _make_protocol(self) -> Connection:
        return Connection(self.iserver, self._policies, self.clients, self.closing_tasks, self.limits)

    async def start(self) -> None:
        """Take connections."""
        self._server = await asyncio.get_running_loop().create_server(self._make_protocol, sock=self._opened)
        self.cleanup_task = asyncio.create_task(self._close_task_loop())


class DoorServer(Server):
    """asyncua's server with our door."""

    iserver: Inner
    bserver: Listener | None

    def __init__(self, inner: Inner, url: str, name: str, opened: socket.socket) -> None:
        super().__init__(iserver=inner)
        self._opened = opened
        self.product_uri, self.manufacturer_name = "urn:sightline", "Sightline"
        self.application_type = ua.ApplicationType.Server
        self.set_server_name(name)
        self.set_endpoint(url)
        self.set_security_policy(
            [ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt, ua.SecurityPolicyType.Basic256Sha256_Sign]
        )

    async def init(self, shelf_file: Path | None = None) -> None:
        """The standard address space: takes seconds."""
        await super().init(shelf_file)
        await self.set_application_uri(self.iserver.uri)

    async def start(self) -> None:
        """Take connections.

        Raises:
            PeerLostError: the port is taken.
        """
        await self._setup_server_nodes()
        await self.iserver.start()
        self.bserver = Listener(self.iserver, self._opened, self._policies)
        try:
            await self.bserver.start()
        except OSError as error:
            raise PeerLostError(f"{self.endpoint.netloc} cannot be opened: {error.strerror}") from None
        self.iserver.gate.open()

    def connections(self) -> list[Connection]:
        """The open ones."""
        return [one for one in (self.bserver.clients if self.bserver else ()) if isinstance(one, Connection)]

    def send_away_the_dead(self) -> None:
        """To be called twice a second: it is how a standstill is seen."""
        now_s, stood_still = asyncio.get_running_loop().time(), self.iserver.gate.stood_still
        for connection in self.connections():
            if stood_still or connection.is_away(now_s):
                connection.abort()
        self.iserver.gate.look()

    async def stop(self) -> None:
        """Without waiting for anybody."""
        for connection in self.connections():
            connection.abort()
        for session in list(self.iserver._external_sessions.values()):
            await session.close_session()
        await super().stop()


def begins_message(buffer: bytes) -> bool:
    """Can these bytes be the beginning of a message?"""
    if buffer[:3] not in {kind[: len(buffer)] for kind in CLIENT_MESSAGES}:
        return False
    return len(buffer) < 8 or 8 < int.from_bytes(buffer[4:8], "little") <= MESSAGE_BYTES


def watch_network(connection: socket.socket) -> None:
    """A cable that is out ends the connection within seconds."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 1), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", DEAD_S)):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_S * 1000)
