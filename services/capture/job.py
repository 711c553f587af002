"""The recipe that one camera inspects with: changed by the line's controller, kept through restarts in a file."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import msgspec
import structlog

from shared.files import replacing
from shared.messages import JobReply

log = structlog.get_logger()


class Kept(msgspec.Struct, frozen=True):
    """What the file holds. ``own``: the camera's recipe in line.yaml when ``recipe`` was asked for."""

    recipe: str
    own: str


class Job:
    """``recipe`` is that of the next part: the last one asked for, as long as line.yaml has it and has not changed the
    camera's own since."""

    def __init__(self, file: Path, own: str, known: Collection[str]) -> None:
        self._file, self._own, self._known = file, own, known
        kept = _read(file)
        self.recipe = kept.recipe if kept and kept.own == own and kept.recipe in known else own

    def change(self, recipe: str, by: str) -> JobReply:
        """Another recipe from the next part on; a refusal changes nothing."""
        if recipe not in self._known:
            return JobReply(self.recipe, f"there is no recipe {recipe[:40]!r}")
        try:
            with replacing(self._file) as unfinished:
                unfinished.write_bytes(msgspec.json.encode(Kept(recipe, self._own)))
        except OSError as error:
            return JobReply(self.recipe, f"{self._file} cannot be written: {error.strerror}")
        log.info("job change", before=self.recipe, after=recipe, by=by)
        self.recipe = recipe
        return JobReply(recipe)


def _read(file: Path) -> Kept | None:
    """None: there is none, or what stands there is none."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Kept)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        log.warning("the recipe asked for last is not known", file=str(file), error=str(error))
        return None
