"""The OPC UA server of one link: the desk's points and news in -> nodes and events for whoever is logged in."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from datetime import UTC, datetime

from services.link.certificates import Identity, given_identity, own_identity
from services.link.desk import Desk, Outgoing, PeerLostError, together
from services.link.opcua_commands import Commands
from services.link.opcua_door import DoorServer
from services.link.opcua_gate import Gate, quieten_asyncua
from services.link.opcua_sessions import Inner
from services.link.opcua_space import Space, build_space
from services.link.vision import Vision
from shared.errors import SettingsError
from shared.links import OpcUaSettings
from shared.messages import Alarms
from shared.settings import LineSettings

SHORTEST_TURN_S = 0.01  # points that change faster are written together
NEWS_KEPT = 256  # results of one turn of the loop
LOOK_S = 0.5  # for clients that are away
ALARMS_SILENT_S = 2.0
CLOSE_S = 0.8


class OpcUaServer:
    """One life of the server; ends only when it is cancelled."""

    def __init__(
        self, settings: OpcUaSettings, desk: Desk, line: str, jobs: dict[int, str], identity: Identity
    ) -> None:
        """``jobs``: number -> recipe."""
        self._settings, self._desk, self._line, self._identity = settings, desk, line, identity
        self._vision = Vision(jobs)

    async def serve(self) -> None:
        """Until cancelled. Raises `PeerLostError` when the port is taken."""
        quieten_asyncua()
        opened = self._bind()  # first of all: the rest takes seconds
        try:
            server = self._server(opened)
            await server.init()
            live = Live(self._desk, self._vision, await build_space(server))
            server.iserver.requests = Commands(self._desk, self._vision, live.show)
            await self._run(server, live)
        finally:
            opened.close()

    def _bind(self) -> socket.socket:
        host, port = self._settings.host, self._settings.port
        opened = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind((host, port))
        except OSError as error:
            opened.close()
            raise PeerLostError(f"{host}:{port} cannot be opened: {error.strerror}") from None
        return opened

    def _server(self, opened: socket.socket) -> DoorServer:
        host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
        inner = Inner(Gate(self._desk, self._settings, self._vision.peer_away), self._identity)
        return DoorServer(inner, f"opc.tcp://{host}:{self._settings.port}/sightline", f"Sightline {self._line}", opened)

    async def _run(self, server: DoorServer, live: Live) -> None:
        news = self._desk.listen(limit=NEWS_KEPT)
        try:
            await live.show()
            await server.start()
            await together(live.keep_showing(), live.keep_telling(news), _keep_the_door(server))
        finally:
            self._desk.leave(news)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await server.stop()


class Live:
    """Keeps the nodes as the desk is."""

    def __init__(self, desk: Desk, vision: Vision, space: Space) -> None:
        self._desk, self._vision, self._space = desk, vision, space

    async def show(self) -> None:
        """What changed since the last time."""
        values = self._desk.values
        await self._space.show_points(values)
        await self._space.show_state(*self._vision.state(values))
        if not values["Online"]:
            await self._space.forget_result()

    async def keep_showing(self) -> None:
        """At every change."""
        while True:
            revision = self._desk.revision
            await self.show()
            await asyncio.sleep(SHORTEST_TURN_S)
            await self._desk.changed(revision)

    async def keep_telling(self, news: Outgoing) -> None:
        """Each result and each state of the alarms; two seconds without the latter: nobody watches them."""
        loop = asyncio.get_running_loop()
        watched_until_s = loop.time() + ALARMS_SILENT_S
        while True:
            try:
                async with asyncio.timeout_at(watched_until_s):
                    one = await news.get()
            except TimeoutError:
                await self._space.show_alarms(None)
                watched_until_s = loop.time() + ALARMS_SILENT_S
                continue
            if isinstance(one, Alarms):
                watched_until_s = loop.time() + ALARMS_SILENT_S
                await self._space.show_alarms(one.alarms)
            elif (result := self._vision.take(one)) is not None:
                await self._space.show_result(result)
                await self._space.tell_result(result)


async def _keep_the_door(server: DoorServer) -> None:
    while True:
        await asyncio.sleep(LOOK_S)
        server.send_away_the_dead()


def opcua_server(link: OpcUaSettings, desk: Desk, line: LineSettings, name: str) -> Callable[[], OpcUaServer]:
    """A maker of servers; ``name`` is the link's.

    Raises:
        SettingsError: a file of the settings is wrong.
    """
    if link.trusted is not None and not link.trusted.is_dir():
        raise SettingsError(f"links.{name}.opcua.trusted: there is no folder {link.trusted}")
    uri = f"urn:sightline:{line.line}:{name}"
    if link.certificate is not None and link.private_key is not None:
        identity = given_identity(link.certificate, link.private_key, uri)
    else:
        identity = own_identity(line.state, f"opcua-{name}", uri, datetime.now(UTC))
    jobs = {recipe.job: recipe_name for recipe_name, recipe in line.recipes.items() if recipe.job is not None}
    return lambda: OpcUaServer(link, desk, line.line, jobs, identity)
