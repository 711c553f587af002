"""Which adapter a link has: its settings in, a maker of fresh adapters out."""

from __future__ import annotations

from collections.abc import Callable

from services.link.desk import Adapter, Desk
from shared.settings import LineSettings


def make_adapter(settings: LineSettings, owner: str, desk: Desk) -> Callable[[], Adapter]:
    """Called once; what it returns is called for each connection."""
    link = settings.links[owner.removeprefix("link-")]
    raise NotImplementedError(link.kind)
