"""The book of the OPC UA server's door: who may come in, who is in, what was refused, and whether time stood still."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog
from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.internal_server import InternalServer
from asyncua.server.user_managers import UserManager
from asyncua.ua.status_codes import StatusCodes as Codes
from cryptography import x509

from services.link.certificates import is_trusted
from services.link.desk import Desk, Peers
from shared.links import OpcUaSettings

if TYPE_CHECKING:
    from services.link.opcua_sessions import Session

STOOD_STILL_S = 2.5  # so long without a turn: what was sent meanwhile, and what is about to be, is outdated
REMEMBERED_REFUSALS = 1000
log = structlog.get_logger()


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
