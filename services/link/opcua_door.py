"""The door of the OPC UA server: bytes of anybody in -> requests of logged-in controllers out; the rest refused.

asyncua's own classes, narrowed: one policy, user name and password, few connections, short memories. What it accepts
beyond that is closed here: sessions without a secure channel, moving to another's session, endless buffers.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import socket
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import structlog
from asyncua import ua
from asyncua.common.connection import TransportLimits
from asyncua.common.utils import Buffer, ServiceError
from asyncua.crypto import uacrypto
from asyncua.crypto.permission_rules import USER_TYPES, User, UserRole
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256, SecurityPolicyNone
from asyncua.server.address_space import NodeManagementService
from asyncua.server.binary_server_asyncio import BinaryServer, OPCUAProtocol
from asyncua.server.internal_server import InternalServer
from asyncua.server.internal_session import InternalSession
from asyncua.server.server import Server
from asyncua.server.uaprocessor import UaProcessor
from asyncua.server.user_managers import UserManager
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes as Codes
from asyncua.ua.ua_binary import struct_from_binary, uatcp_to_binary
from asyncua.ua.uaerrors import UaError
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from services.link.certificates import Identity, is_trusted
from services.link.desk import Desk, PeerLostError, Peers
from services.link.opcua_space import standard_node
from shared.links import OpcUaSettings

MOST_CONNECTIONS = 16
MOST_SUBSCRIPTIONS = 64
MOST_ITEMS = 2000  # monitored ones, of all subscriptions
EVENTS_KEPT = 256  # of an event subscription between two publishings; of a value only the newest is kept
FASTEST_MS, SLOWEST_MS = 10.0, 60_000.0  # publishing intervals
MESSAGE_BYTES = 65_535  # a request; chunks are as long
UNREAD_BYTES = 2 << 20  # answers that a client does not read
SESSION_MS = 10_000.0  # a client that asks nothing for so long is away
PATIENCE_S = 10.0  # for the login
STARVED_S = 3.0  # a client that fetches no notifications for so long is away: it must not get them later
STOOD_STILL_S = 2.5  # so long without a turn: what was sent meanwhile, and what is about to be, is outdated
DEAD_S = 3  # so long may the network keep bytes unacknowledged
REMEMBERED_REFUSALS = 1000
LEAST_BUFFER_BYTES = 8192  # OPC 10000-6, 7.1.2.3; with tiny ones each answer would cost thousands of chunks
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
OAEP = "http://www.w3.org/2001/04/xmlenc#rsa-oaep"
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
log = structlog.get_logger()


class Requests(Protocol):
    """What is done with what a logged-in controller writes and calls."""

    async def write(self, items: list[ua.WriteValue], peer: str) -> list[ua.StatusCode]:
        """One code for each."""

    async def call(self, calls: list[ua.CallMethodRequest], peer: str) -> list[ua.CallMethodResult]:
        """One result for each."""


class Gate(UserManager):
    """Who may come in, who is in, and what was refused."""

    def __init__(self, desk: Desk, settings: OpcUaSettings, on_left: Callable[[str], None]) -> None:
        """``on_left`` hears of each controller whose session ended, after the desk."""
        self._desk, self._trusted, self._on_left = desk, settings.trusted, on_left
        self._passwords = {name: secret.get_secret_value().encode() for name, secret in settings.users.items()}
        self._nobody = secrets.token_bytes(32)
        self._logged: set[tuple[str, str]] = set()
        self._peers: dict[ua.NodeId, str] = {}  # by session
        self._seen_s = 0.0

    def open(self) -> None:
        """Nobody is in yet; whatever was wrong before is over."""
        self.look()
        self._tell()

    def look(self) -> None:
        """The event loop takes its turns."""
        self._seen_s = asyncio.get_running_loop().time()

    @property
    def stood_still(self) -> bool:
        """Was the process stopped, or starved? Nothing of before may be told, or carried out, any more."""
        return asyncio.get_running_loop().time() - self._seen_s > STOOD_STILL_S

    def refuse(self, host: str, why: str) -> None:
        """Count it; log the first of its kind."""
        self._desk.refuse()
        if (host, why) in self._logged:
            return
        if len(self._logged) >= REMEMBERED_REFUSALS:
            self._logged.clear()
        self._logged.add((host, why))
        log.warning("refused", peer=host, why=why)

    def get_user(
        self, iserver: InternalServer, username: str | None = None, password: str | None = None, certificate: Any = None
    ) -> User | None:
        """Takes as long for a wrong password as for a right one."""
        wanted = self._passwords.get(username or "", self._nobody)
        right = hmac.compare_digest((password or "").encode(errors="replace"), wanted)
        return User(role=UserRole.User, name=username) if right else None

    def check(self, certificate: x509.Certificate) -> None:
        """Of a client, whose key it has shown to have.

        Raises:
            ServiceError: not one of the trusted, or over.
        """
        if self._trusted is None:
            return
        if not is_trusted(self._trusted, certificate):
            raise ServiceError(Codes.BadCertificateUntrusted)
        if not certificate.not_valid_before_utc <= datetime.now(UTC) <= certificate.not_valid_after_utc:
            raise ServiceError(Codes.BadCertificateTimeInvalid)

    def came(self, session: Session) -> None:
        """It is logged in."""
        before = self._peers.get(session.session_id, session.peer)
        self._peers[session.session_id] = session.peer
        if before != session.peer:
            self._part_with(before)
        self._tell()

    def left(self, session: Session) -> None:
        """Its session is over."""
        peer = self._peers.pop(session.session_id, None)
        if peer is not None:
            self._part_with(peer)
            self._tell()

    def _part_with(self, peer: str) -> None:
        self._desk.peer_away(peer)
        self._on_left(peer)

    def _tell(self) -> None:
        self._desk.peers = Peers(len(self._peers), ", ".join(self._peers.values()))


class Limits(TransportLimits):
    """Of one connection."""

    def create_acknowledge_and_set_limits(self, msg: ua.Hello) -> ua.Acknowledge:
        """The answer to a client's Hello."""
        if min(msg.ReceiveBufferSize, msg.SendBufferSize) < LEAST_BUFFER_BYTES:
            raise ServiceError(Codes.BadTcpNotEnoughResources)
        return super().create_acknowledge_and_set_limits(msg)


class Inner(InternalServer):
    """asyncua's server behind the sockets."""

    requests: Requests  # set before the door opens

    def __init__(self, gate: Gate, identity: Identity) -> None:
        super().__init__(user_manager=gate)
        self.gate, self.uri = gate, identity.uri
        self.certificate, self.private_key = identity.certificate, identity.key
        self.supported_tokens = (ua.UserNameIdentityToken,)  # type: ignore[assignment] # asyncua's has three
        self.max_connections = MOST_CONNECTIONS
        self.max_pending_activation_seconds = 0.0  # `Connection.is_away` does it
        self.max_pending_messages_per_connection = 100
        self.max_session_timeout_ms = SESSION_MS
        self.max_subscriptions = MOST_SUBSCRIPTIONS
        self.max_unacked_messages_per_subscription = 10

    async def load_standard_address_space(self, shelf_file: Path | None = None) -> None:
        """Takes seconds, on a thread of its own, which ends when this is cancelled."""
        nodes = Abandonable(self.node_mgt_service)
        try:
            await asyncio.to_thread(fill, nodes)
        except asyncio.CancelledError:
            nodes.abandoned = True
            raise

    def create_session(self, name: Any, user: User | None = None, external: bool = False) -> Session:
        """One at a time for each connection, whose address is its name."""
        if any(session.name == name for session in self._external_sessions.values()):
            raise ServiceError(Codes.BadTooManySessions)
        return Session(self, name)

    def lookup_external_session(self, auth_token: ua.NodeId) -> None:
        """A session ends with its connection: nobody takes up another one's, and nothing is told after a gap."""

    def decrypt_user_token(self, isession: Session, token: ua.UserNameIdentityToken) -> tuple[str, str]:
        """Name and password. An encrypted one must hold this session's nonce: it was not recorded elsewhere."""
        if not token.EncryptionAlgorithm:
            if not isession.is_secret:
                raise ServiceError(Codes.BadIdentityTokenInvalid)
            return str(token.UserName or ""), bytes(token.Password or b"").decode()
        if token.EncryptionAlgorithm != OAEP or isession.nonce is None:
            raise ServiceError(Codes.BadIdentityTokenInvalid)
        plain = uacrypto.decrypt_rsa_oaep(self.private_key, token.Password)  # type: ignore[no-untyped-call]
        secret = plain[4 : 4 + int.from_bytes(plain[:4], "little")]
        if not hmac.compare_digest(secret[-len(isession.nonce) :], isession.nonce):
            raise ServiceError(Codes.BadIdentityTokenInvalid)
        return str(token.UserName or ""), secret[: -len(isession.nonce)].decode()

    async def stop(self) -> None:
        """At once: asyncua waits for the second of its clock."""
        if self.time_task is not None:
            self.time_task.cancel()
            await asyncio.gather(self.time_task, return_exceptions=True)
            self.time_task = None
        await super().stop()


class Abandonable:
    """The service that a thread fills the address space through, until it is told to stop."""

    def __init__(self, nodes: NodeManagementService) -> None:
        self._nodes = nodes
        self.abandoned = False

    def __getattr__(self, name: str) -> Any:
        if self.abandoned:
            raise RuntimeError("the server is not wanted any more")
        return getattr(self._nodes, name)


def fill(nodes: Abandonable) -> None:
    """With every node of OPC UA's own namespace."""
    from asyncua.server.standard_address_space import standard_address_space  # seconds, for ten megabytes of code

    standard_address_space.fill_address_space(nodes)


class Session(InternalSession):
    """One logged-in controller."""

    iserver: Inner
    refused = False  # a login failed
    is_secret = False  # the channel is encrypted

    def __init__(self, server: Inner, name: Any) -> None:
        super().__init__(server, server.aspace, server.subscription_service, name, external=True)
        self._address = ":".join(str(part) for part in name[:2])

    @property
    def peer(self) -> str:
        """user@host:port."""
        return f"{self.user.name}@{self._address}"

    def activate_session(
        self, params: ua.ActivateSessionParameters, peer_certificate: bytes | None
    ) -> ua.ActivateSessionResult:
        """The login."""
        try:
            result = super().activate_session(params, peer_certificate)
        except UaError:
            self.refused = True
            raise
        self.iserver.gate.came(self)
        return result

    async def close_session(self, delete_subs: bool = True) -> None:
        """Its subscriptions never outlive it."""
        self.iserver.gate.left(self)
        await super().close_session(True)

    async def write(self, params: ua.WriteParameters) -> list[ua.StatusCode]:
        """Only command points can be written."""
        return await self.iserver.requests.write(params.NodesToWrite, self.peer)

    async def call(self, params: list[ua.CallMethodRequest]) -> list[ua.CallMethodResult]:
        """One of our methods."""
        return await self.iserver.requests.call(params, self.peer)

    async def create_subscription(
        self,
        params: ua.CreateSubscriptionParameters,
        callback: Callable[..., Any],
        request_callback: Callable[..., Any] | None = None,
    ) -> ua.CreateSubscriptionResult:
        """No faster than `FASTEST_MS`."""
        wanted = params.RequestedPublishingInterval
        params.RequestedPublishingInterval = min(max(FASTEST_MS, wanted), SLOWEST_MS)  # NaN: the fastest
        return await super().create_subscription(params, callback, request_callback)

    async def create_monitored_items(
        self, params: ua.CreateMonitoredItemsParameters
    ) -> list[ua.MonitoredItemCreateResult]:
        """Of a value, only the newest waits: a stale Accept must not come after a gap."""
        subscriptions = self.subscription_service.subscriptions.values()
        there = sum(len(one.monitored_item_srv._monitored_items) for one in subscriptions)
        if there + len(params.ItemsToCreate) > MOST_ITEMS:
            raise ServiceError(Codes.BadTooManyMonitoredItems)
        for item in params.ItemsToCreate:
            events = item.ItemToMonitor.AttributeId == AttributeIds.EventNotifier
            item.RequestedParameters.QueueSize = EVENTS_KEPT if events else 1
        return await super().create_monitored_items(params)

    async def modify_monitored_items(
        self, params: ua.ModifyMonitoredItemsParameters
    ) -> list[ua.MonitoredItemModifyResult]:
        """asyncua would let a client lift the bounds of its queues here."""
        raise ServiceError(Codes.BadServiceUnsupported)


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


class Echo(logging.Handler):
    """asyncua's crashes, each kind once, in our log; what it refuses we log ourselves, the rest is dropped."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """The wording without its arguments is the kind."""
        if record.exc_info and str(record.msg) not in self._said and len(self._said) < REMEMBERED_REFUSALS:
            self._said.add(str(record.msg))
            log.warning("asyncua", logger=record.name, said=record.getMessage(), error=repr(record.exc_info[1]))


def quieten_asyncua() -> None:
    """It logs every request, and every refused one with a traceback."""
    logger = logging.getLogger("asyncua")
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    if not any(isinstance(one, Echo) for one in logger.handlers):
        logger.addHandler(Echo())
