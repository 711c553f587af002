"""Plays the rest of the line for the console: pictures and pulses on real sockets, events in a real Redis."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import redis
from numpy.typing import NDArray

from shared.messages import Heartbeat, LivePicture, Pulse, State
from shared.settings import LineSettings
from shared.store import Keys
from shared.wire import Bus

PERIOD_S = 0.1


def part_picture(seed: int) -> NDArray[np.uint8]:
    """(240, 320, 3) uint8 BGR: a grey part with a dark scratch that moves with the seed."""
    rng = np.random.default_rng(seed)
    image = rng.normal(150, 6, (240, 320, 3)).clip(0, 255).astype(np.uint8)
    cv2.circle(image, (160, 120), 90, (190, 180, 170), -1)
    cv2.line(image, (120 + seed % 40, 90), (190, 150), (40, 40, 60), 3)
    return image


def jpeg(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 BGR -> (N,) uint8."""
    return np.asarray(cv2.imencode(".jpg", image)[1], np.uint8).reshape(-1)


class PlayedLine:
    """Publishes at 10 Hz as every process of the line until it is told to be silent."""

    def __init__(self, settings: LineSettings) -> None:
        self._settings = settings
        services = ("capture", "localize", "refine", "reject", "record")
        self.owners = {owner: service for service in services for owner in settings.owners(service)}
        self._buses = {owner: Bus(settings, owner) for owner in self.owners}
        self._pulses = {owner: bus.publisher("pulse") for owner, bus in self._buses.items()}
        self._live = {owner: self._buses[owner].publisher("live") for owner in settings.owners_of("live")}
        self._signals = self._buses["reject"].publisher("signals")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._play)
        self._frames = 0
        self.silent: set[str] = set()
        self.errors: dict[str, str] = {}
        self.counters: dict[str, dict[str, int]] = {}

    def __enter__(self) -> PlayedLine:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for bus in self._buses.values():
            bus.__exit__()

    def _play(self) -> None:
        turn = 0
        while not self._stop.wait(PERIOD_S):
            turn += 1
            for owner in self.owners:
                if owner not in self.silent:
                    self._turn(owner, turn)

    def _turn(self, owner: str, turn: int) -> None:
        self._pulses[owner].send(owner, self._pulse(owner))
        if owner == "reject":
            self._signals.send("heartbeat", Heartbeat("l", turn, time.monotonic_ns(), time.time(), True))
        for camera in self._settings.cameras:
            if owner == f"capture-{camera}":
                self._send_picture(owner, camera, "view", turn)
            elif owner == "localize-1" and turn % 10 == 0:
                self._send_picture(owner, camera, "part", turn)

    def _pulse(self, owner: str) -> Pulse:
        error = self.errors.get(owner, "")
        self._frames += owner.startswith("capture-")
        return Pulse(
            service=owner,
            state=State.DEGRADED if error else State.OK,
            pid=os.getpid(),
            started_at=0.0,
            sent_at=time.time(),
            rate_hz=2.0,
            last_error=error,
            counters={"frames": self._frames, "tickets": self._frames, **self.counters.get(owner, {})},
            detail={"connected": "no" if error else "yes"} if owner.startswith("capture-") else {},
        )

    def _send_picture(self, owner: str, camera: str, kind: str, turn: int) -> None:
        message = LivePicture(camera, kind, time.monotonic_ns(), time.time())
        self._live[owner].send(camera, message, {"jpeg": jpeg(part_picture(turn))})


def write_event(client: redis.Redis, line: str, folder: Path, seq: int, outcome: str = "ng") -> str:
    """One event with its evidence, as record stores it; returns its id."""
    event_id = f"cam1:s1:{seq}"
    fields: dict[str, str] = {
        "id": event_id,
        "camera": "cam1",
        "series": "s1",
        "seq": str(seq),
        "part_id": f"P-{seq:05d}",
        "recipe": "nut",
        "outcome": outcome,
        "reason": "defect" if outcome == "ng" else "late",
        "action": "reject",
        "captured_at": str(time.time()),
        "settled_at": str(time.time()),
    }
    if outcome == "ng":
        fields |= _found(folder / f"event-{seq}", seq)
    client.xadd(Keys(line).events, fields)
    client.hincrby(Keys(line).counts("cam1", int(time.time() // 3600)), outcome)
    return event_id


def _found(folder: Path, seq: int) -> dict[str, str]:
    folder.mkdir(parents=True)
    image = part_picture(seq)
    mask = np.zeros((240, 320), np.uint8)
    cv2.line(mask, (120 + seq % 40, 90), (190, 150), 1, 9)
    heat = cv2.GaussianBlur(mask * 255, (31, 31), 9)
    cv2.imwrite(str(folder / "picture.jpg"), image)
    cv2.imwrite(str(folder / "map.png"), cv2.normalize(heat, None, 0, 255, cv2.NORM_MINMAX))
    cv2.imwrite(str(folder / "mask-1.png"), mask * 255)
    defect = {
        "type": "defect",
        "box_px": [118, 88, 196, 154],
        "area_px": int(mask.sum()),
        "length_px": 92.0,
        "confidence": 0.87,
        "area_mm2": 12.4,
        "length_mm": 4.6,
        "name": "scratch",
    }
    return {
        "stage": "refine",
        "score": "0.83",
        "threshold": "0.5",
        "latency_ms": "412",
        "margin_ms": "1088",
        "bundle": "mini",
        "defects": json.dumps([defect]),
        "evidence": str(folder),
        "image": "picture.jpg",
        "map": "map.png",
        "masks": json.dumps(["mask-1.png"]),
    }


@contextmanager
def alarm_process(line_file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The real one, beside the played line."""
    command = [sys.executable, "-m", "services.alarm", "--line", str(line_file)]
    with subprocess.Popen(command) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def console_process(line_file: Path) -> Iterator[subprocess.Popen[str]]:
    """The real process; killed at the end if it still runs."""
    command = [sys.executable, "-m", "services.console", "--line", str(line_file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(true: Callable[[], object], what: str, timeout_s: float = 10.0) -> None:
    """Ask again and again until the answer is yes."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain: {what}"
        time.sleep(0.02)
