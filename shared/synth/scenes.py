"""What is in front of the camera before the camera: product, background and light as separate layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.synth.noise import Plane, even, plane, three


@dataclass
class Scene:
    """One product. Planes are float32 of one (H, W); colours are BGR 0..1 and may leave that range slightly."""

    colour: Plane  # (H, W, 3) the product, painted also a little outside its outline
    coverage: Plane | None = None  # (H, W) 0..1 how much of each pixel the product covers; None = all of it
    background: Plane | None = None  # (H, W, 3) what lies behind; set exactly when coverage is
    light_rad: float = -2.3  # where the light comes from, in picture coordinates (x right, y down)
    shadow: float = 0.5  # how dark the product's shadow is, 0..1
    under: Plane | None = None  # (H, W, 3) the product without its removable features
    intact: Plane | None = None  # (H, W) the coverage before defects took pieces away; None = nothing is missing
    features: list[Plane] = field(default_factory=list)  # (N, 2) outlines x, y in px of what can be missing
    prints: list[Plane] = field(default_factory=list)  # (H, W) 0..1 how much ink lies on each pixel

    @property
    def shape(self) -> tuple[int, int]:
        return self.colour.shape[0], self.colour.shape[1]

    def outline(self) -> NDArray[np.bool_]:
        """(H, W) the product's pixels."""
        return np.ones(self.shape, np.bool_) if self.coverage is None else self.coverage > 0.5


Painter = Callable[[np.random.Generator, tuple[int, int]], Scene]


def printed(scene: Scene, ink: Plane | None) -> Scene:
    """The scene, with a print (H, W) 0..1 noted that its colours already show."""
    if ink is not None:
        scene.prints.append(ink)
    return scene


def over(below: Plane, above: Plane, coverage: Plane) -> Plane:
    """`above` laid over `below`; either may be (H, W, 3) or one (3,) colour."""
    lower, upper = (
        even(side, (coverage.shape[0], coverage.shape[1])) if side.ndim == 1 else side for side in (below, above)
    )
    return lower + (upper - lower) * three(coverage)


def cast_shadow(coverage: Plane, light_rad: float, depth_px: float, darkness: float) -> Plane:
    """(H, W) factor on the background: soft, opposite to the light, with a contact shadow all around."""
    shift = np.array([[1, 0, -np.cos(light_rad) * depth_px], [0, 1, -np.sin(light_rad) * depth_px]], np.float32)
    thrown = cv2.warpAffine(coverage, shift, coverage.shape[::-1])
    soft = plane(cv2.blur(cv2.blur(thrown, _odd(depth_px)), _odd(depth_px)))
    return 1 - np.float32(darkness) * soft


def compose(scene: Scene) -> Plane:
    """(H, W, 3) the product on its background. Its shadow stays that of the intact product, so that a missing piece
    changes no pixel outside itself."""
    if scene.coverage is None or scene.background is None:
        return scene.colour
    whole = scene.coverage if scene.intact is None else scene.intact
    shadow = cast_shadow(whole, scene.light_rad, 0.02 * scene.shape[0], scene.shadow)
    floor = scene.background * three(np.where(whole > 0.5, np.float32(1 - 0.5 * scene.shadow), shadow))
    return over(floor, scene.colour, scene.coverage)


def _odd(depth_px: float) -> tuple[int, int]:
    side = 2 * int(depth_px * 0.8) + 3
    return side, side
