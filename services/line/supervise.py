"""Runs supervisord on a rendered configuration, and dies with `sightline up`."""

from __future__ import annotations

import sys

from supervisor.supervisord import main

from shared.life import die_with_parent

if __name__ == "__main__":
    die_with_parent()
    main(["--nodaemon", "--configuration", sys.argv[1]])
