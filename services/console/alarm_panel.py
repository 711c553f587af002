"""The page's list of alarms, with the buttons of the orders that make sense for each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nicegui import ui
from nicegui.events import GenericEventArguments

from services.console.alarm_rows import Row, alarm_facts, alarm_rows, head_words, hidden_rows, hidden_words
from services.console.alarms import AlarmStatus
from services.console.history import History
from services.console.markup import html_place, render
from services.console.orders import Orders
from services.console.words import kpi_facts
from shared.errors import OrderRefusedError, StoreAwayError
from shared.messages import AlarmOrder

MOST_ROWS = 100  # of one list; there are more only where nobody groups a flood
KPI_HOURS = 24
ROW = """
<q-tr :props="props" :class="['alarm', props.row.light, props.row.new ? 'new' : 'old']" :data-alarm="props.row.id"
      @click="$parent.$emit('open', props.row.id)">
  <q-td class="alarm-words">
    <b>{{ props.row.sign }}</b> <span v-if="props.row.first" class="first-out">1st</span> {{ props.row.words }}
    <div class="alarm-do">{{ props.row.do }}</div>
  </q-td>
  <q-td class="alarm-state">{{ props.row.state }}<div>{{ props.row.since }} {{ props.row.times }}</div></q-td>
  <q-td class="alarm-buttons">
    <q-btn v-for="[action, label] in [['acknowledge', 'Acknowledge'], ['reset', 'Reset'], ['shelve', 'Shelve'],
             ['unshelve', 'Unshelve'], ['in_service', 'Into service']].filter(([action]) => props.row[action])"
           :key="action" outline dense :label="label" @click.stop="$parent.$emit('order', [action, props.row.id])" />
  </q-td>
</q-tr>
"""


class AlarmPanel:
    """One browser's list. ``user`` gives the name that orders are given under."""

    def __init__(self, orders: Orders, history: History, user: Callable[[], str]) -> None:
        self._orders, self._history, self._user = orders, history, user
        self._status: AlarmStatus | None = None
        self._head = html_place("alarm-head data").props("role=alert")
        self._list = self._table()
        with ui.row().classes("alarm-orders data"):
            ui.button("Acknowledge all", on_click=lambda: self._order("acknowledge")).props("outline")
            self._horn = ui.button("Silence horn", on_click=lambda: self._order("silence")).props("outline")
            ui.button("Reset all", on_click=lambda: self._order("reset")).props("outline")
            ui.button("Figures", on_click=self._show_figures).props("outline")
            self._grouped = ui.switch("Group a flood", value=True, on_change=self._draw)
        with ui.expansion("").classes("alarm-hidden data") as self._hidden:
            self._hidden_list = self._table()
        self._facts = FactsDialog()
        self._shelf = ShelfDialog(self._order)

    def update(self, status: AlarmStatus) -> None:
        """Show these."""
        self._status = status
        self._draw()

    def _draw(self) -> None:
        if self._status is None:
            return
        self._head.set_content(render("alarms", lines=head_words(self._status)))
        _show(self._list, alarm_rows(self._status, grouped=bool(self._grouped.value)))
        hidden = hidden_rows(self._status)
        _show(self._hidden_list, hidden)
        self._hidden.set_text(hidden_words(hidden))
        self._hidden.set_visibility(bool(hidden))
        self._horn.set_visibility(self._status.horn)
        self._grouped.set_visibility(self._status.flood)

    def _table(self) -> ui.table:
        columns = [{"name": name, "label": name, "field": name} for name in ("words", "state", "orders")]
        table = ui.table(rows=[], columns=columns, row_key="id").classes("alarms data")
        table.props("dark flat hide-header hide-no-data")
        table.add_slot("body", ROW)
        table.on("order", self._clicked)
        table.on("open", self._open)
        return table

    async def _clicked(self, click: GenericEventArguments) -> None:
        action, alarm = map(str, click.args)
        if action == "shelve":
            self._shelf.ask(alarm)
        else:
            await self._order(action, alarm)

    def _open(self, click: GenericEventArguments) -> None:
        wanted = str(click.args)
        found = next((one for one in self._status.alarms if one.id == wanted), None) if self._status else None
        if found:
            self._facts.show(found.words, alarm_facts(found))

    async def _order(self, action: str, alarm: str = "", reason: str = "", minutes: float = 0.0) -> bool:
        try:
            await self._orders.give(AlarmOrder(action, self._user(), alarm, reason, minutes))
        except OrderRefusedError as error:
            ui.notify(f"not done: {error}", type="negative")
            return False
        return True

    async def _show_figures(self) -> None:
        try:
            found = await self._history.kpi(KPI_HOURS)
        except StoreAwayError as error:
            ui.notify(f"no figures: {error}", type="negative")
            return
        self._facts.show(f"Alarms of the last {KPI_HOURS} hours", kpi_facts(found))


class FactsDialog:
    """Tells all about one alarm, or the figures of all."""

    def __init__(self) -> None:
        with ui.dialog() as self._dialog, ui.card().classes("alarm-page"):
            self._title = ui.label().classes("alarm-title")
            self._facts = html_place()
            ui.button("Close", on_click=self._dialog.close).props("outline")

    def show(self, title: str, facts: list[tuple[str, str]]) -> None:
        """Open it."""
        self._title.set_text(title)
        self._facts.set_content(render("facts", facts=facts))
        self._dialog.open()


class ShelfDialog:
    """Asks for how long and why."""

    def __init__(self, order: Callable[[str, str, str, float], Awaitable[bool]]) -> None:
        self._order, self._alarm = order, ""
        with ui.dialog() as self._dialog, ui.card().classes("alarm-page"):
            self._title = ui.label().classes("alarm-title")
            self._minutes = ui.number("Minutes", value=30, min=1)
            self._reason = ui.input("Reason").props("maxlength=200")
            with ui.row():
                ui.button("Shelve", on_click=self._shelve)
                ui.button("Cancel", on_click=self._dialog.close).props("outline")

    def ask(self, alarm: str) -> None:
        """Open it for this alarm."""
        self._alarm = alarm
        self._title.set_text(f"Shelve {alarm}")
        self._reason.set_value("")
        self._dialog.open()

    async def _shelve(self) -> None:
        if await self._order("shelve", self._alarm, self._reason.value, float(self._minutes.value or 0)):
            self._dialog.close()


def _show(table: ui.table, rows: list[Row]) -> None:
    """Only what has changed travels to the browser."""
    if rows[:MOST_ROWS] != table.rows:
        table.rows = rows[:MOST_ROWS]
