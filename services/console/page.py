"""The operator's page: the line's status and its last events in, one NiceGUI page out. Pictures come by console.js."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from urllib.parse import quote

from fastapi import FastAPI
from nicegui import ui
from nicegui.events import GenericEventArguments

from services.console.alarm_panel import AlarmPanel
from services.console.history import SHIFT_HOURS, History
from services.console.markup import ASSETS, html_place, render
from services.console.orders import Orders
from services.console.status import CameraStatus, LineView
from services.console.words import clock, event_facts, event_row
from shared.errors import StoreAwayError
from shared.settings import LineSettings
from shared.store import Event, EventStore

UPDATE_S = 0.5
KEPT_MESSAGES = 20  # a browser that was away for longer loads the page anew
PICTURES = {"heat": "Heat map", "outline": "Outline", "bare": "Picture"}
COLUMNS = {
    "time": "Time",
    "camera": "Camera",
    "part": "Part",
    "outcome": "Verdict",
    "reason": "Why",
    "size": "Largest defect",
    "score": "Score",
    "seen": "Seen by",
}
VERDICT_CELL = """
<q-td :props="props"><span :class="'verdict ' + props.value.toLowerCase()">{{ props.value }}</span></q-td>
"""
SEEN_CELL = """
<q-td :props="props">
  <span v-if="props.value">{{ props.value }}</span>
  <q-btn v-else outline label="Acknowledge" @click.stop="$parent.$emit('acknowledge', props.row.id)" />
</q-td>
"""


class Page:
    """Serves a screen to every browser that asks for ``/``."""

    def __init__(
        self, settings: LineSettings, view: LineView, history: History, store: EventStore, orders: Orders
    ) -> None:
        self._settings, self._view, self._history, self._store = settings, view, history, store
        self._orders = orders

    def serve_with(self, app: FastAPI) -> None:
        """Put the page under the routes that the application has already."""
        ui.page("/")(self._open)
        ui.run_with(
            app,
            title=f"Sightline {self._settings.line}",
            dark=True,
            tailwind=False,
            binding_refresh_interval=None,
            message_history_length=KEPT_MESSAGES,
            show_welcome_message=False,
        )

    def _open(self) -> None:
        ui.add_head_html(f"<style>{(ASSETS / 'console.css').read_text()}</style>")
        ui.add_body_html(f"<script>{(ASSETS / 'console.js').read_text()}</script>")
        screen = Screen(self._view, self._history, self._store, self._orders)
        ui.timer(UPDATE_S, screen.update)


class Screen:
    """What one browser shows."""

    def __init__(self, view: LineView, history: History, store: EventStore, orders: Orders) -> None:
        self._view, self._history, self._store = view, history, store
        status = view.status(time.monotonic_ns())
        with ui.element("main").classes("page"):
            with ui.element("div").classes("header data"):
                self._header = html_place()
                self._user = ui.input("Your name", value="operator").props("dense dark maxlength=64")
            with ui.element("div").classes("lost-banner"):
                ui.label("✕ NO CONNECTION TO THE CONSOLE: nothing on this page is current")
            self._alarms = AlarmPanel(orders, history, self._who)
            with ui.element("div").classes("middle"):
                with ui.element("div").classes("tiles"):
                    self._counters = {camera.name: _tile(camera) for camera in status.cameras}
                self._processes = html_place("processes data")
            with ui.element("div").classes("events-head data"):
                ui.html("<h2>Last events</h2>", sanitize=False)
            self._table = self._events_table()
        self._page = EventPage(self.acknowledge)
        self.update()

    def update(self) -> None:
        """Show what is known now; only what has changed travels to the browser."""
        status = self._view.status(time.monotonic_ns())
        self._header.set_content(render("header", status=status, now=clock(status.at)))
        self._alarms.update(status.alarms)
        self._processes.set_content(render("processes", status=status))
        read_at = clock(status.redis.read_at)
        for camera in status.cameras:
            words = render("counters", camera=camera, status=status, hours=SHIFT_HOURS, read_at=read_at)
            self._counters[camera.name].set_content(words)
        rows = [event_row(event) for event in self._history.past.events]
        if rows != self._table.rows:
            self._table.rows = rows

    async def acknowledge(self, event_id: str) -> None:
        """The button: write down who has seen the event."""
        try:
            await self._history.ask(partial(self._store.acknowledge, event_id, self._who()))
        except StoreAwayError as error:
            ui.notify(f"not acknowledged: {error}", type="negative")
            return
        await self._history.refresh()
        self.update()

    def _who(self) -> str:
        return str(self._user.value or "").strip() or "operator"

    def _events_table(self) -> ui.table:
        columns = [{"name": name, "label": label, "field": name, "align": "left"} for name, label in COLUMNS.items()]
        table = ui.table(rows=[], columns=columns, row_key="id").classes("events data").props("dark flat")
        table.add_slot("body-cell-outcome", VERDICT_CELL)
        table.add_slot("body-cell-seen", SEEN_CELL)
        table.add_slot("no-data", "no events yet")
        table.on("acknowledge", self._acknowledge_row)
        table.on("rowClick", self._open_row, args=[[], ["id"], None])
        return table

    async def _acknowledge_row(self, click: GenericEventArguments) -> None:
        await self.acknowledge(str(click.args))

    def _open_row(self, click: GenericEventArguments) -> None:
        wanted = str(click.args[1]["id"])
        event = next((event for event in self._history.past.events if event.id == wanted), None)
        if event:
            self._page.show(event)


class EventPage:
    """The dialog that tells all about one event."""

    def __init__(self, acknowledge: Callable[[str], Awaitable[None]]) -> None:
        self._acknowledge = acknowledge
        self._event: Event | None = None
        with ui.dialog() as self._dialog, ui.card().classes("event-page"):
            with ui.element("div").classes("event-picture"):
                self._picture = html_place()
            with ui.element("div").classes("event-side"):
                self._way = ui.toggle(PICTURES, value="heat", on_change=self._draw)
                self._facts = html_place()
                with ui.row():
                    self._button = ui.button("Acknowledge", on_click=self._acknowledge_and_close)
                    ui.button("Close", on_click=self._dialog.close).props("outline")

    def show(self, event: Event) -> None:
        """Open it for this event."""
        self._event = event
        self._facts.set_content(render("facts", facts=event_facts(event)))
        self._button.set_visibility(not event.acknowledged)
        self._draw()
        self._dialog.open()

    def _draw(self) -> None:
        if self._event is None:
            return
        why = self._event.evidence_error or "none was taken of this part"
        source = _picture_address(self._event, self._way.value) if self._event.image else ""
        self._picture.set_content(render("picture", source=source, why=why))

    async def _acknowledge_and_close(self) -> None:
        if self._event:
            await self._acknowledge(self._event.id)
        self._dialog.close()


def _picture_address(event: Event, way: str) -> str:
    folder = f"/evidence/{quote(event.id, safe='')}"
    return {"heat": f"{folder}/overlay", "outline": f"{folder}/overlay?heat=false", "bare": f"{folder}/picture"}[way]


def _tile(camera: CameraStatus) -> ui.html:
    with ui.element("section").classes("tile"):
        ui.html(render("tile", camera=camera), sanitize=False)
        return html_place("data")
