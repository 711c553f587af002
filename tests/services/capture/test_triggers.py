from __future__ import annotations

import numpy as np
import pytest

from services.capture.presence import Presence
from services.capture.shot import Shot
from services.capture.triggers import Every, OnMessage, build_trigger
from shared.settings import TriggerSettings

IMAGE = np.zeros((16, 16, 3), np.uint8)


def fired_ms(every_ms: float, shots_ms: list[int]) -> list[int]:
    trigger = Every(every_ms)
    return [ms for ms in shots_ms if trigger.parts(Shot(IMAGE, 10**9 + ms * 10**6, 0.0))]


def test_every_keeps_its_mean_period_between_pictures_of_another() -> None:
    assert fired_ms(100, list(range(0, 501, 40))) == [0, 120, 200, 320, 400]


def test_every_takes_each_picture_of_a_folder_paced_alike() -> None:
    assert fired_ms(100, list(range(0, 1000, 100))) == list(range(0, 1000, 100))


def test_every_makes_no_parts_up_after_a_pause() -> None:
    assert fired_ms(100, [0, 100, 5030, 5070, 5110, 5150]) == [0, 100, 5030, 5150]


@pytest.mark.parametrize(("kind", "trigger"), [("every", Every), ("presence", Presence), ("message", OnMessage)])
def test_build_trigger_follows_the_settings(kind: str, trigger: type) -> None:
    assert isinstance(build_trigger(TriggerSettings.model_validate({"kind": kind})), trigger)
