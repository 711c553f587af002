"""Webhook: each part as a signed JSON POST to somebody's HTTP server, in order, tried again until it is too old."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import ssl
import time
import uuid
from datetime import UTC
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx
import msgspec
import structlog
from msgspec import Struct

from services.link.desk import Desk, Outgoing, Peers
from services.link.tls import tls_context, trouble
from shared.links import WebhookSettings
from shared.messages import Outcome, Signal

WAITING_PARTS = 4096  # about 4 MB
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0  # between two tries, doubled each time
ANSWER_BYTES = 1 << 16  # read to keep the connection; a longer answer ends it
TOO_MANY = 429
log = structlog.get_logger()


class Body(Struct, frozen=True):
    """What is sent. ``delivery``: the same for every try; ``sent_at``: wall time of this try, to refuse old copies."""

    delivery: str
    sent_at: float
    part: Signal


class Answer(Struct, frozen=True):
    """What became of one try. ``again``: worth another one, not before ``pause_s``."""

    words: str = ""
    again: bool = False
    pause_s: float = 0.0


class Webhook:
    """One server. It answers for its own tries: each is a connection that may fail."""

    def __init__(self, settings: WebhookSettings, desk: Desk, news: Outgoing) -> None:
        """``news``: what `listen` gave, kept when a new one of these is made."""
        self._settings, self._desk, self._news = settings, desk, news
        self._secret = settings.secret.get_secret_value().encode()
        self._host, self._port, self._address = address_of(settings.url)
        self._pause_s = SHORTEST_PAUSE_S

    async def serve(self) -> None:
        """Until cancelled."""
        tls = tls_context(self._settings.ca_file)
        await self._look_for_server(tls if self._settings.url.startswith("https:") else None)
        async with self._make_client(tls) as client:
            while True:
                part = await self._news.get()
                assert isinstance(part, Signal)
                await self._deliver(client, part)

    def _make_client(self, tls: ssl.SSLContext) -> httpx.AsyncClient:
        """What line.yaml says decides, not a proxy variable of the environment. Redirects are not followed."""
        one = httpx.Limits(max_connections=1)
        return httpx.AsyncClient(verify=tls, trust_env=False, limits=one, timeout=self._settings.timeout_s)

    async def _look_for_server(self, tls: ssl.SSLContext | None) -> None:
        """Until it opens or a part waits: a wrong address shows before the first bad part comes."""
        while not self._news.waits():
            words = await self._knock(tls)
            self._show(words or "nothing delivered yet", connected=not words)
            if not words:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._grow_pause()):
                    await self._news.some()

    async def _knock(self, tls: ssl.SSLContext | None) -> str:
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                _, writer = await asyncio.open_connection(self._host, self._port, ssl=tls)
        except (OSError, UnicodeError) as error:  # TimeoutError is one
            return trouble(error)
        writer.close()
        return ""

    async def _deliver(self, client: httpx.AsyncClient, part: Signal) -> None:
        while self._news.left_s(part) >= 0:
            answer = await self._post(client, part)
            self._show(answer.words, connected=not answer.words)
            if not answer.again:
                self._desk.count("deliveries_refused" if answer.words else "delivered")
                self._pause_s = SHORTEST_PAUSE_S
                return
            self._desk.count("tries_failed")
            await asyncio.sleep(max(self._grow_pause(), min(answer.pause_s, self._settings.keep_s)))
        self._news.outdated += 1

    def _grow_pause(self) -> float:
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, LONGEST_PAUSE_S)
        return pause_s

    def _show(self, words: str, *, connected: bool) -> None:
        """In the pulse; in the log when it is something new."""
        peers = Peers(int(connected), f"{self._address}: {words}" if words else self._address)
        if not connected and peers != self._desk.peers:
            log.warning("not delivered", error=peers.words)
        self._desk.peers = peers

    async def _post(self, client: httpx.AsyncClient, part: Signal) -> Answer:
        """One try. It ends after ``timeout_s``, whatever the server does; the status decides, not what follows it."""
        body = msgspec.json.encode(Body(delivery_of(part), time.time(), part))
        headers = headers_of(body, delivery_of(part), self._secret)
        answer = None
        try:
            async with (
                asyncio.timeout(self._settings.timeout_s),
                client.stream("POST", self._settings.url, content=body, headers=headers) as response,
            ):
                answer = judge(response.status_code, response.headers.get("Retry-After", ""), time.time())
                await read_some(response)
        except (httpx.HTTPError, TimeoutError) as error:
            return answer or Answer(trouble(error), again=True)
        return answer


def listen(settings: WebhookSettings, desk: Desk) -> Outgoing:
    """Its own queue: parts wait for ``keep_s`` from their signal on, whatever becomes of the server."""
    keep_ns = round(settings.keep_s * 1e9)
    every = settings.parts == "all"
    return desk.listen(
        keep_ns=lambda news: news.signalled_ns + keep_ns if isinstance(news, Signal) else None,
        wants=lambda news: isinstance(news, Signal) and (every or news.outcome is not Outcome.OK),
        limit=WAITING_PARTS,
    )


def headers_of(body: bytes, delivery: str, secret: bytes) -> dict[str, str]:
    """As `webhook_headers` lists them."""
    signature = hmac.new(secret, body, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "X-Sightline-Signature": f"sha256={signature}",
        "X-Sightline-Delivery": delivery,
    }


def delivery_of(part: Signal) -> str:
    """The same for the same part, also from another link or after a restart."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{part.line}:{part.part}"))


def judge(status: int, retry_after: str, now_at: float) -> Answer:
    """A redirect is a refusal: what is signed for one server goes to no other one."""
    words = f"{status} {httpx.codes.get_reason_phrase(status)}".strip()
    if status == TOO_MANY or status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return Answer(words, again=True, pause_s=pause_of(retry_after, now_at))
    return Answer() if httpx.codes.is_success(status) else Answer(words)


def pause_of(retry_after: str, now_at: float) -> float:
    """Retry-After, seconds or a date, in seconds from now; 0 when it says nothing."""
    if retry_after.isdecimal():
        return float(retry_after[:9])
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now_at)


async def read_some(response: httpx.Response) -> None:
    """As much of an answer as keeps the connection open for the next part."""
    size = 0
    async for piece in response.aiter_raw():
        size += len(piece)
        if size > ANSWER_BYTES:
            return


def address_of(url: str) -> tuple[str, int, str]:
    """(host, port, the address without login and query: they may be secrets)."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    return host, port, f"{parts.scheme}://{host}:{port}{parts.path}"
