"""Parts as rectangles on a noisy, textured belt whose every position is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from services.capture.presence import Presence
from services.capture.shot import Shot
from shared.synth.conveyor import Conveyor, ConveyorSettings

WIDTH_PX, HEIGHT_PX = 160, 90
MIDDLE_PX = WIDTH_PX / 2
PART_PX = 36
FPS = 25
CLOSE_PX, WIDE_PX = 1.3 * PART_PX, 2.5 * PART_PX  # from centre to centre
Way = Callable[[float], float]  # seconds -> how far the belt has gone, in pixels


def steady(speed_px_s: float) -> Way:
    return lambda time_s: speed_px_s * time_s


def legs(*speeds: tuple[float, float]) -> Way:
    """Pairs of (seconds, px per second), one after another; the last goes on."""
    ends_s = np.cumsum([0.0, *(seconds for seconds, _ in speeds)])
    ends_px = np.cumsum([0.0, *(seconds * speed for seconds, speed in speeds)])
    return lambda time_s: float(np.interp(time_s, ends_s, ends_px))


def row(count: int, first_px: float, seed: int = 0) -> list[float]:
    """Where the centres of parts behind one another are at the start."""
    gaps_px = np.random.default_rng(seed).uniform(CLOSE_PX, WIDE_PX, count)
    return [float(first_px - gap) for gap in np.cumsum(gaps_px)]


class World:
    """A part's centre is at its place plus ``way(t)``."""

    def __init__(self, way: Way, places_px: list[float], seed: int = 0, light: Way = lambda time_s: 1.0) -> None:
        self.way, self.places_px, self.light = way, places_px, light
        self.rng = np.random.default_rng(seed)
        self.texture = self.rng.normal(0, 5, (HEIGHT_PX // 3, 200)).repeat(3, 0).repeat(3, 1)
        self.noise = self.rng.normal(0, 3, (8, HEIGHT_PX, WIDTH_PX, 3)).astype(np.float32)
        tones = self.rng.choice([0, 190], len(places_px))
        self.colours = tones[:, None] + self.rng.uniform(0, 60, (len(places_px), 3))

    def image(self, time_s: float) -> NDArray[np.uint8]:
        gone_px = self.way(time_s)
        roll = round(gone_px) % self.texture.shape[1]
        image = 105 + np.roll(self.texture, roll, 1)[:, :WIDTH_PX, None].repeat(3, 2)
        for place_px, colour in zip(self.places_px, self.colours, strict=True):
            left, right = (round(place_px + gone_px + side * PART_PX / 2) for side in (-1, 1))
            if right > 0 and left < WIDTH_PX:
                image[24:66, max(left, 0) : right] = colour
        return np.clip(image * self.light(time_s) + self.rng.choice(self.noise), 0, 255).astype(np.uint8)

    def crossings_s(self, until_s: float) -> list[float]:
        """When each part's centre first crosses the middle."""
        times_s = np.arange(0, until_s, 0.001)
        gone_px = np.array([self.way(time_s) for time_s in times_s])
        beyond = [place_px + gone_px >= MIDDLE_PX for place_px in self.places_px]
        return sorted(float(times_s[one.argmax()]) for one in beyond if one.any() and not one[0])


TURNS: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    "right": lambda image: image,
    "left": lambda image: image[:, ::-1],
    "down": lambda image: image.transpose(1, 0, 2),
    "up": lambda image: image.transpose(1, 0, 2)[::-1],
}


def watch(world: World, seconds: float, direction: str = "right") -> list[float]:
    """When the shots were taken that presence chose."""
    presence, chosen_s = Presence(direction, 0.05), []
    for number in range(int(seconds * FPS)):
        time_s = number / FPS
        image = np.ascontiguousarray(TURNS[direction](world.image(time_s)))
        chosen_s += [part.captured_at for part in presence.parts(Shot(image, int(time_s * 1e9), time_s))]
    return chosen_s


def assert_each_once(chosen_s: list[float], truth_s: list[float], tolerance_s: float) -> None:
    assert len(chosen_s) == len(truth_s), f"{len(chosen_s)} tickets for {len(truth_s)} parts"
    assert np.abs(np.subtract(chosen_s, truth_s)).max() <= tolerance_s


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("speed_px_s", [25, 175, 600, 0.32 * WIDTH_PX * FPS], ids=["slow", "usual", "fast", "a third"])
def test_presence_chooses_the_nearest_shot_of_each_part_once(speed_px_s: float, seed: int) -> None:
    places_px = row(40, MIDDLE_PX - 1.8 * speed_px_s, seed)
    seconds = min(6.0, 2.0 + 36 * WIDE_PX / speed_px_s)
    world = World(steady(speed_px_s), places_px, seed)
    truth_s = [time_s for time_s in world.crossings_s(seconds) if time_s < seconds - 2 / FPS]
    chosen_s = [time_s for time_s in watch(world, seconds) if time_s < truth_s[-1] + 1 / FPS]
    assert_each_once(chosen_s, truth_s, 0.5 / FPS + 1.5 / speed_px_s + 0.002)


@pytest.mark.parametrize("direction", TURNS)
def test_presence_sees_parts_of_its_direction(direction: str) -> None:
    world = World(steady(220), row(6, -300))
    assert_each_once(watch(world, 3.5, direction), world.crossings_s(3.5), 0.5 / FPS + 0.01)


def test_presence_sees_nothing_in_parts_that_move_the_other_way() -> None:
    backwards = World(steady(-220), [WIDTH_PX - place_px for place_px in row(6, -300)])
    assert watch(backwards, 3.5) == []


WAYS = {
    "stops and goes on": legs((2.5, 180), (2, 0), (4, 180)),
    "creeps through the middle": legs((2.6, 180), (3, 4), (3, 180)),
    "goes back a little": legs((2.6, 180), (0.5, -60), (4, 180)),
    "goes back and forth": legs((2.6, 180), (0.3, -100), (0.3, 100), (0.3, -100), (0.3, 100), (4, 180)),
    "changes its speed": legs((2, 100), (0.3, 300), (0.5, 800), (0.5, 300), (4, 120)),
    "stops hard and starts hard": legs((2.3, 700), (0.6, 0), (0.5, 700), (0.6, 0), (3, 700)),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_presence_counts_each_part_once_when_the_belt(way: Way) -> None:
    world = World(way, row(24, MIDDLE_PX - way(1.9)))
    truth_s = [time_s for time_s in world.crossings_s(7.0) if time_s < 6.9]
    chosen_s = [time_s for time_s in watch(world, 7.0) if time_s < truth_s[-1] + 2 / FPS]
    assert len(truth_s) > 3
    assert_each_once(chosen_s, truth_s, 0.3)


LIGHTS: dict[str, Way] = {
    "flickers": lambda time_s: 1 + 0.06 * float(np.sin(2 * np.pi * 7.3 * time_s)),
    "fades": lambda time_s: 1 - 0.08 * time_s,
    "is switched down at once": lambda time_s: 1.0 if time_s < 3 else 0.7,
}


@pytest.mark.parametrize("light", LIGHTS.values(), ids=LIGHTS)
def test_presence_counts_each_part_once_when_the_light(light: Way) -> None:
    world = World(steady(180), row(12, MIDDLE_PX - 330), light=light)
    assert_each_once(watch(world, 6.0), world.crossings_s(6.0), 0.5 / FPS + 0.02)


@pytest.mark.parametrize("seed", range(2))
def test_presence_learns_the_belt_while_parts_pass(seed: int) -> None:
    world = World(steady(180), row(24, WIDTH_PX, seed), seed)
    truth_s = [time_s for time_s in world.crossings_s(5.9) if time_s > 2.0]
    assert_each_once(
        [time_s for time_s in watch(world, 6.0) if 2.0 < time_s < truth_s[-1] + 1 / FPS], truth_s, 0.5 / FPS + 0.02
    )


def test_presence_learns_the_belt_below_parts_that_look_all_alike_and_hide_it_mostly() -> None:
    gaps_px = np.random.default_rng(1).uniform(1.3, 1.7, 30) * PART_PX
    world = World(steady(180), [float(WIDTH_PX - gap_px) for gap_px in np.cumsum(gaps_px)])
    world.colours[:] = 200, 120, 190
    truth_s = [time_s for time_s in world.crossings_s(5.9) if time_s > 2.0]
    assert_each_once([time_s for time_s in watch(world, 6.0) if 2.0 < time_s < truth_s[-1] + 0.05], truth_s, 0.04)


def test_presence_forgets_a_part_that_was_learned_as_belt() -> None:
    """It stands while the belt is learned, so its place looks covered once it has gone."""
    world = World(legs((2, 0), (30, 180)), [MIDDLE_PX + 20.0, *row(40, MIDDLE_PX - 40)])
    truth_s = world.crossings_s(5.9)
    assert_each_once(
        [time_s for time_s in watch(world, 6.0) if time_s < truth_s[-1] + 1 / FPS], truth_s, 0.5 / FPS + 0.05
    )


def test_presence_learns_again_when_everything_has_changed() -> None:
    world = World(steady(180), row(30, MIDDLE_PX - 330))
    presence, chosen_s, learning = Presence("right", 0.05), [], []
    for number in range(9 * FPS):
        time_s = number / FPS
        image = world.image(time_s) if time_s < 3 else world.image(time_s) // 2 + np.array([120, 60, 0], np.uint8)
        parts = presence.parts(Shot(image, int(time_s * 1e9), time_s))
        chosen_s += [part.captured_at for part in parts]
        learning.append(presence.learning)
    truth_s = [time_s for time_s in world.crossings_s(9.0) if time_s > 6.5]
    assert_each_once([time_s for time_s in chosen_s if time_s > 6.5], truth_s, 0.5 / FPS + 0.05)
    assert learning[int(3.5 * FPS)] == "" and learning[int(4.5 * FPS)] == "the empty belt" and learning[-1] == ""


def test_presence_ignores_dirt_smaller_than_a_part() -> None:
    world = World(steady(180), row(6, MIDDLE_PX - 330))
    assert len(watch(world, 4.0)) > 0
    presence = Presence("right", 0.25)
    for number in range(4 * FPS):
        assert presence.parts(Shot(world.image(number / FPS), int(number / FPS * 1e9), 0.0)) == []


def test_presence_tickets_every_part_of_the_conveyor_once() -> None:
    conveyor = Conveyor(ConveyorSettings(seed=3))
    presence, chosen_s, seconds = Presence("right", 0.04), [], 10
    for number in range(seconds * FPS):
        time_s = number / FPS
        chosen_s += [p.captured_at for p in presence.parts(Shot(conveyor.frame(time_s), int(time_s * 1e9), time_s))]
    truth_s = [part.crossing_s for part in conveyor.parts(seconds) if 2 < part.crossing_s < seconds - 0.1]
    assert_each_once([t for t in chosen_s if 2 - 0.02 < t < truth_s[-1] + 0.1], truth_s, 0.5 / FPS + 0.01)
