"""Which adapter a link has: its settings in, a maker of fresh adapters out."""

from __future__ import annotations

from collections.abc import Callable

from services.link.desk import Adapter, Desk
from shared.settings import LineSettings


def make_adapter(settings: LineSettings, owner: str, desk: Desk) -> Callable[[], Adapter]:
    """Called once; what it returns is called for each connection."""
    name = owner.removeprefix("link-")
    link = settings.links[name]
    if link.opcua is not None:
        from services.link.opcua import opcua_server  # asyncua takes seconds to import

        return opcua_server(link.opcua, desk, settings, name)
    raise NotImplementedError(link.kind)
