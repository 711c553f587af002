"""asyncua's server behind its sockets, narrowed: logins by password, bounded sessions that end with the connection."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.crypto import uacrypto
from asyncua.crypto.permission_rules import User
from asyncua.server.address_space import NodeManagementService
from asyncua.server.internal_server import InternalServer
from asyncua.server.internal_session import InternalSession
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.status_codes import StatusCodes as Codes
from asyncua.ua.uaerrors import UaError

from services.link.certificates import Identity
from services.link.opcua_gate import Gate

MOST_CONNECTIONS = 16
MOST_SUBSCRIPTIONS = 64
MOST_ITEMS = 2000  # monitored ones, of all subscriptions
EVENTS_KEPT = 256  # of an event subscription between two publishings; of a value only the newest is kept
FASTEST_MS, SLOWEST_MS = 10.0, 60_000.0  # publishing intervals
SESSION_MS = 10_000.0  # a client that asks nothing for so long is away
OAEP = "http://www.w3.org/2001/04/xmlenc#rsa-oaep"


class Requests(Protocol):
    """What is done with what a logged-in controller writes and calls."""

    async def refresh(self) -> None:
        """Bring the nodes up to date: what is read must hold now, also after a pause."""

    async def write(self, items: list[ua.WriteValue], peer: str) -> list[ua.StatusCode]:
        """One code for each."""

    async def call(self, calls: list[ua.CallMethodRequest], peer: str) -> list[ua.CallMethodResult]:
        """One result for each."""


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

    async def read(self, params: ua.ReadParameters) -> list[ua.DataValue]:
        """As it is now."""
        await self.iserver.requests.refresh()
        return await super().read(params)

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
