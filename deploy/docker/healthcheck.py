"""A container's healthcheck: owner and optionally an address in -> exit code 0 when the process lives, else 1.

``python -m deploy.docker.healthcheck OWNER [URL]`` listens for one pulse of the process, and asks the URL.
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

from shared.settings import LineSettings, load_line
from shared.wire import Bus

LINE_FILE = "/etc/sightline/line.yaml"
PULSE_TIMEOUT_MS = 9000  # a picture that takes its model long delays the pulse; compose kills this check after 15 s
PAGE_TIMEOUT_S = 3


def hears_pulse(settings: LineSettings, owner: str, timeout_ms: int) -> bool:
    """Did this process send a pulse in this time?"""
    with Bus(settings, "healthcheck") as bus:
        return bus.subscriber("pulse", [owner], [owner]).receive(timeout_ms) is not None


def answers(url: str) -> bool:
    """Does the page answer 200?"""
    try:
        with urllib.request.urlopen(url, timeout=PAGE_TIMEOUT_S) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, TimeoutError):
        return False


def main(owner: str, *urls: str) -> int:
    """The exit code."""
    settings = load_line(Path(os.environ.get("LINE_FILE", LINE_FILE)))
    return 0 if hears_pulse(settings, owner, PULSE_TIMEOUT_MS) and all(answers(url) for url in urls) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
