"""The pictures of an event, read from its evidence folder through fsspec: event and name in, encoded picture out."""

from __future__ import annotations

import fsspec

from shared.overlay import decode_picture, draw_heat, draw_outlines, encode_jpeg
from shared.store import Event

MAX_FILE_BYTES = 1 << 27  # 128 MiB: larger is no picture of ours


def read_picture(event: Event, name: str, heat: bool = True) -> tuple[bytes, str]:
    """`picture`, `map`, `mask-1`… as stored, or `overlay` drawn now, with or without heat -> bytes, media type.

    Raises:
        FileNotFoundError: the event has no such picture, or its evidence is gone.
        PictureError: a file that is no picture.
        OSError: the evidence store does not answer.
    """
    if name == "overlay":
        return _overlay(event, heat), "image/jpeg"
    file = _files(event).get(name)
    if file is None:
        raise FileNotFoundError(f"event {event.id} has no picture {name!r}")
    return _read(event, file), "image/png" if file.endswith(".png") else "image/jpeg"


def _files(event: Event) -> dict[str, str]:
    """Public name -> file name; only plain names count, whatever stands in Redis."""
    named = {"picture": event.image, "map": event.map}
    named |= {f"mask-{number}": file for number, file in enumerate(event.masks, start=1)}
    return {
        name: file for name, file in named.items() if file and "/" not in file and "\\" not in file and file != ".."
    }


def _read(event: Event, file: str) -> bytes:
    if not event.evidence:
        raise FileNotFoundError(f"event {event.id} has no evidence: {event.evidence_error or 'none was taken'}")
    filesystem, folder = fsspec.core.url_to_fs(event.evidence)
    path = f"{folder.rstrip('/')}/{file}"
    with filesystem.open(path, "rb") as stream:
        content: bytes = stream.read(MAX_FILE_BYTES)
    return content


def _overlay(event: Event, heat: bool) -> bytes:
    files = _files(event)
    if "picture" not in files:
        raise FileNotFoundError(f"event {event.id} has no picture")
    picture = decode_picture(_read(event, files["picture"]))
    if heat and "map" in files:
        picture = draw_heat(picture, decode_picture(_read(event, files["map"]), grey=True))
    masks = [decode_picture(_read(event, file), grey=True) for name, file in files.items() if name.startswith("mask-")]
    return encode_jpeg(draw_outlines(picture, masks))
