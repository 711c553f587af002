"""Which adapter a link has: its settings in, a maker of fresh adapters out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from services.link.desk import Adapter, Desk
from services.link.modbus_client import ModbusClient
from services.link.modbus_server import ModbusServer
from shared.settings import LineSettings


def make_adapter(settings: LineSettings, owner: str, desk: Desk) -> Callable[[], Adapter]:
    """Called once; what it returns is called for each connection."""
    link = settings.links[owner.removeprefix("link-")]
    if link.modbus_server is not None:
        return partial(ModbusServer, link.modbus_server, desk)
    if link.modbus_client is not None:
        return partial(ModbusClient, link.modbus_client, desk)
    raise NotImplementedError(link.kind)
