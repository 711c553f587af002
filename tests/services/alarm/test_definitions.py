"""Which alarms a line has, and what its settings change of the table; and what is missing of a bundle."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from services.alarm.weights import LOOK_NS, Weights, missing
from shared.alarm_table import KINDS, ROWS
from shared.messages import Priority
from shared.vision.catalogue import bundle_directory
from tests.services.alarm.lines import defined, settings


def test_line_has_every_kind_of_alarm_for_each_of_its_own() -> None:
    found = defined(cameras=2)
    assert {one.row.kind for one in found.values()} == set(KINDS)
    assert {"camera_lost:cam1", "camera_lost:cam2", "output_lost:plc", "stage_slow:refine"} <= set(found)
    assert {"stage_dead:link-plc", "stage_dead:console", "weights_missing:localize-1"} <= set(found)
    assert "stage_dead:alarm" not in found  # it cannot hear itself
    assert "weights_missing:reject" not in found
    assert all(alarm_id == one.id for alarm_id, one in found.items())


def test_settings_change_what_they_name_and_nothing_else() -> None:
    changes = {"camera_dark": {"limit": 30, "priority": "high", "on_delay_s": 0.5}, "no_parts": {"enabled": False}}
    found = defined(alarms={"kinds": changes})
    dark, row = found["camera_dark:cam1"], KINDS["camera_dark"]
    assert (dark.limit, dark.priority, dark.on_delay_ns) == (30, Priority.HIGH, 500_000_000)
    assert (dark.deadband, dark.off_delay_ns) == (row.deadband, row.off_delay_s * 1e9)
    assert not found["no_parts:cam1"].enabled
    plain = defined()
    assert all(found[name] == one for name, one in plain.items() if one.row.kind not in changes)


@pytest.mark.parametrize(("below", "values"), [(False, (9, 10, 8, 7, 6)), (True, (11, 10, 12, 13, 14))])
def test_deadband_keeps_what_holds_until_it_is_well_past_the_limit(below: bool, values: tuple[float, ...]) -> None:
    kind = "camera_dark" if below else "camera_moved"
    one = defined(alarms={"kinds": {kind: {"limit": 10, "deadband": 3}}})[f"{kind}:cam1"]
    holds, seen = False, []
    for value in values:
        holds = one.compare(value, holds)
        seen.append(holds)
    assert seen == [False, True, True, True, False]


def test_rows_have_a_definition_on_every_line_but_for_links() -> None:
    bare = defined(links={})
    assert {row.kind for row in ROWS} - {one.row.kind for one in bare.values()} == {"output_lost"}


def test_shipped_bundle_is_there_and_an_unfetched_one_is_named() -> None:
    assert missing("mini") == ""
    assert "vitb" in missing("vitb")
    assert "unknown bundle" in missing("vitx")


def test_bundle_that_lost_a_file_is_missed(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(bundle_directory("mini"), folder)
    weights = Weights(settings(bundle=f"path:{folder}"))
    assert weights.trouble(0) == ""
    next(folder.glob("*.safetensors")).unlink()
    assert weights.trouble(1) == ""  # it looks seldom
    assert str(folder) in weights.trouble(LOOK_NS)


def test_weights_of_a_line_on_several_machines_are_not_judged_here() -> None:
    assert Weights(settings(bundle="vitb", wire={"transport": "tcp"})).trouble(0) == ""
