"""The newest pictures of every camera: live messages in, JPEG and its age out. No socket, no clock."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from shared.messages import LivePicture

KINDS = ("view", "part")
FRESH_MS = 1000.0  # DESIGN.md, promise 4: a picture older than one second never looks live


class Shown(Struct, frozen=True):
    """One picture as it came. ``arrival_ns`` is on the console's clock, ``capture_ns`` on the camera's."""

    jpeg: bytes
    capture_ns: int
    arrival_ns: int
    caption: str


class LivePictures:
    """Keeps the newest "view" and the newest "part" picture of each camera; strangers are not kept."""

    def __init__(self, cameras: Iterable[str], same_clock: bool, now_ns: int) -> None:
        self._cameras = frozenset(cameras)
        self._same_clock = same_clock
        self._since_ns = now_ns
        self._newest: dict[tuple[str, str], Shown] = {}

    def put(self, picture: LivePicture, jpeg: bytes, now_ns: int) -> bool:
        """Keep it when it is the newest of its camera and kind; True when kept."""
        key = (picture.camera, picture.kind)
        if picture.camera not in self._cameras or picture.kind not in KINDS:
            return False
        known = self._newest.get(key)
        if known and self._same_clock and picture.capture_ns < known.capture_ns:
            return False  # the workers of one stage overtake each other
        self._newest[key] = Shown(jpeg, picture.capture_ns, now_ns, picture.caption)
        return True

    def newest(self, camera: str, kind: str) -> Shown | None:
        """The newest picture, however old; None when there has been none."""
        return self._newest.get((camera, kind))

    def age_ms(self, camera: str, kind: str, now_ns: int) -> float:
        """Time since the capture on one clock, since the arrival on two; since the console began without a picture."""
        shown = self._newest.get((camera, kind))
        if shown is None:
            begun_ns = self._since_ns
        elif self._same_clock:
            begun_ns = shown.capture_ns
        else:
            begun_ns = shown.arrival_ns
        return max(0.0, (now_ns - begun_ns) / 1e6)

    def is_live(self, camera: str, now_ns: int) -> bool:
        """Is the camera's own view younger than a second?"""
        return (camera, "view") in self._newest and self.age_ms(camera, "view", now_ns) <= FRESH_MS
