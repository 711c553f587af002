"""Parts as rectangles on a noisy, textured belt whose every position is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from services.capture.presence import Presence
from services.capture.shot import Shot
from shared.synth.conveyor import Conveyor, ConveyorSettings

WIDTH_PX, HEIGHT_PX = 320, 180
PART_PX = 70
FPS = 25


@dataclass
class World:
    """``offset_px(t)`` is how far the belt has gone; a part's centre is at its place plus that."""

    offset_px: Callable[[float], float]
    places_px: list[float]
    noise: float = 3.0
    flicker: float = 0.0
    light: Callable[[float], float] = lambda time_s: 1.0
    seed: int = 0
    texture: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        coarse = self.rng.normal(0, 4, (HEIGHT_PX // 3, 400))
        self.texture = coarse.repeat(3, 0).repeat(3, 1).astype(np.float32)
        self.colours = self.rng.uniform(0, 60, (len(self.places_px), 3)) + self.rng.choice([0, 190], len(self.places_px))[:, None]

    def centres_px(self, time_s: float) -> list[float]:
        return [place + self.offset_px(time_s) for place in self.places_px]

    def image(self, time_s: float) -> NDArray[np.uint8]:
        roll = round(self.offset_px(time_s)) % self.texture.shape[1]
        belt = np.roll(self.texture, roll, 1)[:, :WIDTH_PX, None] + np.full(3, 105.0)
        for centre_px, colour in zip(self.centres_px(time_s), self.colours, strict=True):
            left, right = round(centre_px - PART_PX / 2), round(centre_px + PART_PX / 2)
            if right > 0 and left < WIDTH_PX:
                belt[50:130, max(left, 0) : right] = colour
        light = self.light(time_s) * (1 + self.flicker * np.sin(2 * np.pi * 7.3 * time_s))
        noisy = belt * light + self.rng.normal(0, self.noise, belt.shape)
        return np.clip(noisy, 0, 255).astype(np.uint8)

    def first_crossings_s(self, until_s: float) -> list[float]:
        """When each part's centre first crosses the middle."""
        times = np.arange(0, until_s, 0.002)
        firsts = []
        for place in self.places_px:
            beyond = np.array([place + self.offset_px(float(t)) >= WIDTH_PX / 2 for t in times])
            if beyond.any() and not beyond[0]:
                firsts.append(float(times[beyond.argmax()]))
        return sorted(firsts)


def watch(world: World, seconds: float, direction: str = "right", fps: float = FPS) -> list[float]:
    """The times of the shots that presence chose."""
    turn = {
        "right": lambda image: image,
        "left": lambda image: image[:, ::-1],
        "down": lambda image: image.transpose(1, 0, 2),
        "up": lambda image: image.transpose(1, 0, 2)[::-1],
    }[direction]
    presence, chosen = Presence(direction, 0.04), []
    for number in range(int(seconds * fps)):
        time_s = number / fps
        shot = Shot(np.ascontiguousarray(turn(world.image(time_s))), int(time_s * 1e9), time_s)
        chosen += [part.captured_at for part in presence.parts(shot)]
    return chosen


def spaced(count: int, gap_px: tuple[float, float], seed: int, first_px: float) -> list[float]:
    """Places of parts behind one another, the first at ``first_px``."""
    gaps = np.random.default_rng(seed).uniform(*gap_px, count)
    return [first_px - float(g) for g in np.cumsum(gaps)]


def steady(speed_px_s: float) -> Callable[[float], float]:
    return lambda time_s: speed_px_s * time_s


def assert_each_once(chosen_s: list[float], truth_s: list[float], tolerance_s: float) -> None:
    assert len(chosen_s) == len(truth_s), f"{len(chosen_s)} tickets for {len(truth_s)} parts"
    assert np.abs(np.subtract(chosen_s, truth_s)).max() <= tolerance_s


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("speed_px_s", [40, 350, 1200, 0.32 * WIDTH_PX * FPS], ids=["slow", "usual", "fast", "third"])
def test_presence_gives_one_ticket_per_part_at_the_nearest_shot(speed_px_s: float, seed: int) -> None:
    gaps_px = (1.3 * PART_PX, 2.5 * PART_PX)
    world = World(steady(speed_px_s), spaced(30, gaps_px, seed, WIDTH_PX / 2 - 2.0 * speed_px_s), seed=seed)
    seconds = min(8.0, 2.0 + 32 * 2.5 * PART_PX / speed_px_s)
    truth_s = [t for t in world.first_crossings_s(seconds - 2 / FPS)]
    chosen_s = [t for t in watch(world, seconds) if t <= truth_s[-1] + 0.5 / FPS + 0.01]
    assert_each_once(chosen_s, truth_s, 0.5 / FPS + 3 / speed_px_s + 0.002)


@pytest.mark.parametrize("direction", ["right", "left", "down", "up"])
def test_presence_sees_parts_that_move_in_its_direction_only(direction: str) -> None:
    world = World(steady(400), spaced(8, (100, 160), 4, -600))
    opposite = {"right": "left", "left": "right", "down": "up", "up": "down"}[direction]
    seconds = 5.0
    assert len(watch(world, seconds, direction)) == len(world.first_crossings_s(seconds)) > 4
    mirrored = World(lambda t: -400 * t, [WIDTH_PX - p for p in world.places_px])
    assert watch(mirrored, seconds, direction) == []
    assert opposite != direction
