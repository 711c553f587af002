"""Are the weights of the line's bundle on this machine? Looks at the files, seldom; loads nothing."""

from __future__ import annotations

from shared.errors import BundleError
from shared.settings import LineSettings
from shared.vision.catalogue import MANIFEST, bundle_directory, complete, read_contents

LOOK_NS = 5_000_000_000


class Weights:
    """``trouble`` is empty while all files are there, and where the models may be on another machine."""

    def __init__(self, settings: LineSettings) -> None:
        self._bundle, self._here = settings.bundle, settings.same_clock
        self._due_ns, self._trouble = 0, ""

    def trouble(self, now_ns: int) -> str:
        """What is missing."""
        if self._here and now_ns >= self._due_ns:
            self._due_ns = now_ns + LOOK_NS
            self._trouble = missing(self._bundle)
        return self._trouble


def missing(bundle: str) -> str:
    """What of a bundle is not there; empty: nothing."""
    try:
        directory = bundle_directory(bundle)
    except BundleError as error:
        return str(error)
    contents = read_contents(directory)
    if contents is None:
        return f"{directory / MANIFEST} is missing or unreadable"
    return "" if complete(directory, contents) else f"{directory} lacks files that its {MANIFEST} names"
