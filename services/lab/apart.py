"""Measures in a process of its own: module and task -> what it says; so that the peak of its memory is its own.

The process starts as `python -m MODULE TASK ARGUMENTS`, and prints its answer, or why it cannot measure.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import msgspec

from shared.errors import SettingsError, SightlineError
from shared.life import die_with_parent

REFUSED = 3  # exit code of a measuring process that says on its output why it cannot


def ask_apart(module: str, subject: str, task: msgspec.Struct, *arguments: str) -> bytes:
    """JSON of the answer of one measuring process; ``subject`` is what it measures, for messages.

    Raises:
        SettingsError: it refused, with its reason.
        SightlineError: it failed; its message stands on the terminal.
    """
    command = [sys.executable, "-m", module, msgspec.json.encode(task).decode(), *arguments]
    finished = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if finished.returncode == REFUSED:
        raise SettingsError(finished.stdout.decode().strip())
    if finished.returncode:
        ended = f"measuring {subject} ended with {finished.returncode}"
        raise SightlineError(f"bench models: {ended}; see its message above")
    return finished.stdout


def answer_apart(measure: Callable[[], msgspec.Struct]) -> None:
    """The measuring process's whole duty: measure, and print the answer or the refusal."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the first process ends this one
    try:
        answer = measure()
    except SightlineError as error:
        os.write(sys.stdout.fileno(), str(error).encode())
        sys.exit(REFUSED)
    os.write(sys.stdout.fileno(), msgspec.json.encode(answer))
