"""Files that more than one process looks at: replaced whole or not at all, held by one process at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to; what stands there in the end is on the disk before it takes the path's place.

    Whoever reads meanwhile sees the old file. The folder is made. OSError: it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished.touch()
    mode = unfinished.stat().st_mode
    yield unfinished
    unfinished.chmod(mode)  # safetensors makes files that nobody else can read, whatever the umask says
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.replace(path)


def hold(path: Path) -> TextIO:
    """Take the lock file, made where it is not there, for as long as it is open; a killed holder lets go.

    BlockingIOError: another process holds it. OSError: it cannot be made.
    """
    lock = path.open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise
    return lock
