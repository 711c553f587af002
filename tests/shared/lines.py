"""Small lines for tests, and ports that are free."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from typing import Any

from shared.settings import LineSettings

PORTS_OF_A_LINE = 20


def line_values(**changes: Any) -> dict[str, Any]:
    """The least that makes a line."""
    camera = {"source": "pictures", "recipe": "nut"}
    return {"line": "test", "cameras": {"cam1": camera}, "recipes": {"nut": {"object": "nut"}}, **changes}


def line(transport: str = "ipc", **changes: Any) -> LineSettings:
    """A line on socket files or on free ports of this machine."""
    wire = {"transport": transport, **changes.pop("wire", {})}
    if transport == "tcp":
        wire["base_port"] = free_base_port()
    return LineSettings(**line_values(wire=wire, **changes))


def free_base_port() -> int:
    """The first of a row of ports nobody listens on, below those that Linux gives to outgoing connections."""
    first = os.getpid() * PORTS_OF_A_LINE  # two test runs at the same time begin at different places
    for base in (21_000 + (first + step) % 11_000 for step in range(0, 11_000, PORTS_OF_A_LINE)):
        with ExitStack() as stack:
            try:
                for port in range(base, base + PORTS_OF_A_LINE):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return base
    raise AssertionError("no free ports")
