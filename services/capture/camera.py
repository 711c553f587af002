"""Opens and reads what takes pictures: RTSP camera, USB camera, video file, folder of pictures -> shots.

OpenCV's calls block, at times for ever; they are made in the reader's thread only (reader.py).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import cv2
import numpy as np

from services.capture.clock import Pace, StreamClock
from services.capture.rtsp_fault import rtsp_fault
from services.capture.shot import Image, Shot
from shared.errors import SourceError
from shared.settings import CameraSettings

# TCP: a lost UDP packet is a torn picture that looks like a defect. Video only: a sound track would shift timestamps.
# fpsprobesize: two pictures are enough to open a stream; the default waits for half a second of them.
FFMPEG_OPTIONS = "rtsp_transport;tcp|allowed_media_types;video|fpsprobesize;2|analyzeduration;2000000"
AV_LOG_QUIET = "-8"
PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
HELD_BACK = frozenset({"h264", "hevc"})  # FFmpeg knows that such a picture is complete when the next one begins
USUAL_FPS = 25.0
MAX_BACKLOG = 250  # pictures thrown away at most when a stream opens with old ones

Wait = Callable[[float], object]  # sleeps so many seconds, or less when the process ends


class EndedError(SourceError):
    """A recording is over; opening it again would begin it anew."""


class Source(Protocol):
    """An open camera or file."""

    fps: float  # pictures a second, as announced; 0: unknown
    unreadable: int  # pictures skipped so far

    def read(self) -> Shot:
        """The next picture. Raises SourceError when there is none."""

    def close(self) -> None:
        """Let go of the device."""


def prepare_decoder(camera: CameraSettings) -> None:
    """Set what OpenCV and FFmpeg read from the environment, before the first camera is opened.

    Both are silenced whatever the environment says: they print addresses with their passwords when they debug.
    """
    for variable in ("OPENCV_FFMPEG_DEBUG", "OPENCV_VIDEOIO_DEBUG"):
        os.environ.pop(variable, None)
    os.environ["OPENCV_FFMPEG_LOGLEVEL"] = AV_LOG_QUIET
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", FFMPEG_OPTIONS)
    os.environ["OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"] = str(max(1, round(camera.read_timeout_ms / 1000)))  # seconds


def shown_source(source: str) -> str:
    """The source as logs and screens may show it: without user, password and query, which may hold one."""
    if "://" not in source:
        return source
    url = urlsplit(source)
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"


def open_source(camera: CameraSettings, wait: Wait) -> Source:
    """Open what ``camera.source`` names.

    Raises:
        SourceError: it cannot be opened; the message says what is wrong and never holds a password.
    """
    if "://" in camera.source:
        return NetworkCamera(camera)
    if camera.source.startswith(("usb:", "/dev/")):
        return UsbCamera(camera)
    path = Path(camera.source).expanduser()
    if path.is_dir():
        return PictureFolder(path, round(camera.trigger.every_ms * 1e6), camera.loop, wait)
    if not path.exists():
        raise SourceError(f"{path}: there is no such video file or folder")
    return VideoFile(path, camera, wait)


class NetworkCamera:
    """RTSP (or HTTP) through FFmpeg; delivers the newest picture, stamped with the time it was taken."""

    unreadable = 0

    def __init__(self, camera: CameraSettings) -> None:
        self._name = shown_source(camera.source)
        began_ns = time.monotonic_ns()
        # one decoder thread: each further one would hold back one more picture
        self._capture = cv2.VideoCapture(camera.url(), cv2.CAP_FFMPEG, [*_timeouts(camera), cv2.CAP_PROP_N_THREADS, 1])
        if not self._capture.isOpened():
            waited_ms = (time.monotonic_ns() - began_ns) / 1e6
            raise SourceError(f"{self._name} {self._fault(camera, waited_ms)}")
        self.fps = _fps(self._capture)
        self._clock = StreamClock(held_back=_codec(self._capture) in HELD_BACK)
        self._skip_backlog()

    def _fault(self, camera: CameraSettings, waited_ms: float) -> str:
        if waited_ms >= camera.open_timeout_ms:
            return f"does not answer within {camera.open_timeout_ms} ms: is it switched on, is the address right?"
        if self._name.startswith("rtsp://"):
            return rtsp_fault(camera.source, camera.open_timeout_ms / 1000)
        return "cannot be opened: check address, username and password"

    def _skip_backlog(self) -> None:
        """Opening probes the stream and keeps what it saw; a grab that has to wait is the first of the present."""
        waits_ns = 0.3e9 / (self.fps or USUAL_FPS)
        for _ in range(MAX_BACKLOG):
            began_ns = time.monotonic_ns()
            self._grab()
            if time.monotonic_ns() - began_ns > waits_ns:
                return

    def _grab(self) -> None:
        if not self._capture.grab():
            self._capture.release()
            raise SourceError(f"{self._name} sends no more pictures")

    def read(self) -> Shot:
        """The next picture."""
        self._grab()
        arrival_ns, arrived_at = time.monotonic_ns(), time.time()
        stamp_ns = round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
        capture_ns = self._clock.capture_ns(stamp_ns, arrival_ns)
        return Shot(_retrieve(self._capture, self._name), capture_ns, arrived_at - (arrival_ns - capture_ns) / 1e9)

    def close(self) -> None:
        """Hang up."""
        self._capture.release()


class UsbCamera:
    """A camera of this machine through V4L2."""

    unreadable = 0

    def __init__(self, camera: CameraSettings) -> None:
        self._name = camera.source
        device = re.sub(r"^usb:(\d+)$", r"/dev/video\1", camera.source)
        if not device.startswith("/dev/"):
            raise SourceError(f"{camera.source}: write usb:NUMBER, such as usb:0, or a path under /dev/v4l/by-id")
        if not Path(device).exists():
            raise SourceError(f"{camera.source}: there is no {device}: is the camera plugged in?")
        # OpenCV takes a number for /dev/videoN and a name for everything else
        number = re.fullmatch(r"/dev/video(\d+)", str(Path(device).resolve()))
        self._capture = cv2.VideoCapture(int(number[1]) if number else device, cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise SourceError(f"{camera.source} cannot be opened: is another program using it, may this user read it?")
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self.fps = _fps(self._capture)

    def read(self) -> Shot:
        """The next picture."""
        if not self._capture.grab():
            self._capture.release()
            raise SourceError(f"{self._name} sends no more pictures: is it still plugged in?")
        capture_ns, captured_at = time.monotonic_ns(), time.time()
        return Shot(_retrieve(self._capture, self._name), capture_ns, captured_at)

    def close(self) -> None:
        """Let go of the device."""
        self._capture.release()


class VideoFile:
    """A recording, played in real time; pictures are left out when the machine is too slow for it."""

    unreadable = 0

    def __init__(self, path: Path, camera: CameraSettings, wait: Wait) -> None:
        self._path, self._loop, self._wait = path, camera.loop, wait
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, _timeouts(camera))
        if not self._capture.isOpened():
            raise SourceError(f"{path} cannot be read as a video")
        self.fps = _fps(self._capture) or USUAL_FPS
        self._pace = Pace(round(1e9 / self.fps))

    def read(self) -> Shot:
        """The next picture, when it is due."""
        period_ns = 1e9 / self.fps
        while True:
            self._grab()
            now_ns = time.monotonic_ns()
            due_ns = self._pace.next_due_ns(now_ns)
            if now_ns - due_ns <= period_ns:
                break
        self._wait(max(0, due_ns - now_ns) / 1e9)
        return Shot(_retrieve(self._capture, str(self._path)), due_ns, time.time())

    def _grab(self) -> None:
        if self._capture.grab():
            return
        if not self._loop:
            raise EndedError(f"{self._path} has ended (`loop: true` starts it again)")
        self._capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
        if not self._capture.grab():
            raise SourceError(f"{self._path} holds no picture that can be decoded")

    def close(self) -> None:
        """Close the file."""
        self._capture.release()


class PictureFolder:
    """The pictures of a folder in the order of their names, one each period; unreadable ones are counted, skipped."""

    def __init__(self, folder: Path, period_ns: int, loop: bool, wait: Wait) -> None:
        self._paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
        if not self._paths:
            raise SourceError(f"{folder} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))})")
        self._folder, self._loop, self._wait = folder, loop, wait
        self._next = 0
        self._pace = Pace(period_ns)
        self.fps = 1e9 / period_ns
        self.unreadable = 0

    def read(self) -> Shot:
        """The next readable picture, when it is due."""
        image = self._next_image()
        now_ns = time.monotonic_ns()
        due_ns = self._pace.next_due_ns(now_ns)
        self._wait(max(0, due_ns - now_ns) / 1e9)
        return Shot(image, due_ns, time.time())

    def _next_image(self) -> Image:
        for _ in self._paths:
            if self._next == len(self._paths) and not self._loop:
                break
            path = self._paths[self._next % len(self._paths)]
            self._next = self._next % len(self._paths) + 1
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if image is not None:
                return np.asarray(image, np.uint8)
            self.unreadable += 1
        if self._next == len(self._paths) and not self._loop:
            raise EndedError(f"{self._folder} has no more pictures (`loop: true` starts again)")
        raise SourceError(f"{self._folder}: not one of its {len(self._paths)} pictures can be read")

    def close(self) -> None:
        """Nothing is held open."""


def _timeouts(camera: CameraSettings) -> list[int]:
    return [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        camera.open_timeout_ms,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        camera.read_timeout_ms,
    ]


def _fps(capture: cv2.VideoCapture) -> float:
    """As announced; 0 when that is missing or nonsense (some cameras announce 90000)."""
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if 0 < fps <= 1000 else 0.0


def _codec(capture: cv2.VideoCapture) -> str:
    return int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode("ascii", "replace").lower()


def _retrieve(capture: cv2.VideoCapture, name: str) -> Image:
    decoded, image = capture.retrieve()
    if not decoded or image is None or image.size == 0:
        raise SourceError(f"{name} sends a picture that cannot be decoded")
    return np.asarray(image, np.uint8)
