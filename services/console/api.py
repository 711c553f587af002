"""The console's HTTP interface: live pictures, events, alarms and orders about them, audit, status, health, metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, FastAPI, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel, Field

from services.console.aside import Aside
from services.console.evidence import read_picture
from services.console.history import SHIFT_HOURS, History
from services.console.live import KINDS, LivePictures
from services.console.orders import Orders
from services.console.status import LineView
from shared.errors import OrderRefusedError, PictureError, StoreAwayError
from shared.messages import AlarmOrder
from shared.store import EventStore

NEVER_CACHE = {"Cache-Control": "no-store"}
EVIDENCE_CACHE = {"Cache-Control": "private, max-age=3600"}


class Acknowledgement(BaseModel):
    """Who has seen the event."""

    user: str = Field(min_length=1, max_length=64)


class OrderBody(BaseModel):
    """What somebody orders about an alarm; an empty ``alarm``: all of them."""

    action: str = Field(min_length=1, max_length=64)
    user: str = Field(min_length=1, max_length=64)
    alarm: str = Field("", max_length=200)
    reason: str = Field("", max_length=200)
    minutes: float = 0.0


class Api:
    """The routes; ``router`` is ready to be included."""

    def __init__(
        self,
        view: LineView,
        live: LivePictures,
        history: History,
        store: EventStore,
        registry: CollectorRegistry,
        cameras: tuple[str, ...],
        aside: Aside,
        orders: Orders,
    ) -> None:
        self._view, self._live, self._history, self._store = view, live, history, store
        self._orders = orders
        self._registry, self._cameras, self._aside = registry, cameras, aside
        self.router = APIRouter()
        routes: dict[str, Callable[..., Any]] = {
            "/live/{camera}.jpg": self.live_picture,
            "/api/events": self.events,
            "/api/status": self.status,
            "/api/counts": self.counts,
            "/api/alarms": self.alarms,
            "/api/alarms/log": self.alarm_log,
            "/api/alarms/kpi": self.alarm_kpi,
            "/api/audit": self.audit,
            "/evidence/{event_id}/{name}": self.evidence,
            "/healthz": self.health,
            "/metrics": self.metrics,
        }
        for path, handler in routes.items():
            self.router.add_api_route(path, handler, methods=["GET"], response_model=None)
        self.router.add_api_route("/api/events/{event_id}/ack", self.acknowledge, methods=["POST"], response_model=None)
        self.router.add_api_route("/api/alarms/order", self.order, methods=["POST"], response_model=None)

    async def live_picture(self, camera: str, kind: str = "view") -> Response:
        """The newest JPEG with its age in X-Age-Ms; 503 while there has been none."""
        if camera not in self._cameras or kind not in KINDS:
            return _error(404, f"there is no camera {camera!r} with pictures {kind!r}")
        age_ms = self._live.age_ms(camera, kind, time.monotonic_ns())
        headers = {**NEVER_CACHE, "X-Age-Ms": f"{age_ms:.0f}"}
        shown = self._live.newest(camera, kind)
        if shown is None:
            return _error(503, f"no picture of {camera} since the console began", headers)
        return Response(shown.jpeg, media_type="image/jpeg", headers=headers)

    async def events(
        self,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        before: Annotated[str | None, Query(pattern=r"^\d{1,20}(-\d{1,20})?$")] = None,
        camera: str | None = None,
    ) -> Response:
        """Events, the newest first; ``before`` is the ``stream_id`` of the last one seen."""
        return _json(await self._history.ask(partial(self._store.events, limit, before, camera)))

    async def acknowledge(self, event_id: str, acknowledgement: Acknowledgement) -> Response:
        """Write down who has seen it; the first one stays."""
        if await self._history.find(event_id) is None:
            return _error(404, f"there is no event {event_id!r}")
        words = await self._history.ask(partial(self._store.acknowledge, event_id, acknowledgement.user))
        return _json({"id": event_id, "acknowledged": words})

    async def status(self) -> Response:
        """Processes, cameras, Redis, readiness, alarms."""
        return _json(self._view.status(time.monotonic_ns()))

    async def alarms(self) -> Response:
        """What the alarm process says; ``watched`` is false while it is silent."""
        return _json(self._view.status(time.monotonic_ns()).alarms)

    async def alarm_log(self, limit: Annotated[int, Query(ge=1, le=10_000)] = 100) -> Response:
        """What has happened to alarms, the newest first."""
        return _json(await self._history.ask(partial(self._store.alarm_log, limit)))

    async def alarm_kpi(self, hours: Annotated[float, Query(gt=0, le=24 * 366)] = 24) -> Response:
        """How many, how often, which."""
        return _json(await self._history.kpi(hours))

    async def audit(self, limit: Annotated[int, Query(ge=1, le=10_000)] = 100) -> Response:
        """What persons and controllers have done, the newest first."""
        return _json(await self._history.ask(partial(self._store.audit, limit)))

    async def order(self, body: OrderBody) -> Response:
        """Carry out an order about alarms; 409 with the reason when it is refused."""
        await self._orders.give(AlarmOrder(body.action, body.user, body.alarm, body.reason, body.minutes))
        return _json({})

    async def counts(self, hours: Annotated[int, Query(ge=1, le=24 * 366)] = SHIFT_HOURS) -> Response:
        """Counters of each camera over the last hours."""
        found = {
            camera: await self._history.ask(partial(self._store.counts, camera, hours)) for camera in self._cameras
        }
        return _json(found)

    async def evidence(self, event_id: str, name: str, heat: bool = True) -> Response:
        """`picture`, `map`, `mask-1`…, or `overlay`: drawn on request."""
        event = await self._history.find(event_id)
        if event is None:
            return _error(404, f"there is no event {event_id!r}")
        try:
            content, media_type = await self._aside.run(partial(read_picture, event, name, heat))
        except FileNotFoundError as error:
            return _error(404, str(error))
        except (OSError, PictureError) as error:  # TimeoutError is an OSError
            return _error(502, f"the evidence of {event_id} cannot be read: {error or 'no answer in time'}")
        return Response(content, media_type=media_type, headers=EVIDENCE_CACHE)

    async def health(self) -> Response:
        """200 while the console serves; the body tells of the rest."""
        status = self._view.status(time.monotonic_ns())
        return _json(
            {"console": "ok", "redis": status.redis.up, "ready": status.ready, "ready_words": status.ready_words}
        )

    async def metrics(self) -> Response:
        """For Prometheus."""
        return Response(generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def store_is_away(request: Request, error: Exception) -> Response:
    """Redis is away: 503 with the reason."""
    return _error(503, str(error))


async def order_is_refused(request: Request, error: Exception) -> Response:
    """The alarm process will not, or does not answer: 409 with the reason."""
    return _error(409, str(error))


def build_app(api: Api) -> FastAPI:
    """The application; without FastAPI's own pages, which load their scripts from the internet."""
    app = FastAPI(title="Sightline console", docs_url=None, redoc_url=None)
    app.include_router(api.router)
    app.add_exception_handler(StoreAwayError, store_is_away)
    app.add_exception_handler(OrderRefusedError, order_is_refused)
    return app


def _json(body: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, NEVER_CACHE, "application/json")


def _error(status: int, words: str, headers: dict[str, str] = NEVER_CACHE) -> Response:
    return Response(msgspec.json.encode({"error": words}), status, headers, "application/json")
