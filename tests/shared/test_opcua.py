"""The OPC UA node table: ids that stay, all points in it, settings that fit together."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from shared.links import OpcUaSettings
from shared.opcua import METHODS, STATES, opcua_nodes
from shared.points import COMMANDS, STATUS


def test_every_point_has_a_node_with_a_stable_id() -> None:
    rows = {node_id: (kind, words) for node_id, kind, words in opcua_nodes()}
    assert rows["ns=2;s=Status.Ready"] == ("Boolean", "1 = a trigger or a part would be inspected now")
    assert rows["ns=2;s=Command.EncoderCount"][0] == "UInt32"
    assert rows["ns=2;s=Status.MarginMs"][0] == "Int16"
    assert rows["ns=2;s=Command.TriggerPartId"][0] == "String"
    for point in STATUS:
        assert rows[f"ns=2;s=Status.{point.name}"][1] == point.words
    for point in COMMANDS:
        assert rows[f"ns=2;s=Command.{point.name}"][1] == point.words


def test_no_node_stands_twice_and_each_has_words() -> None:
    rows = opcua_nodes()
    assert len({node_id for node_id, _, _ in rows}) == len(rows)
    assert all(kind and words for _, kind, words in rows)


def test_methods_and_states_have_the_standards_names() -> None:
    rows = {node_id.rpartition(".")[2]: kind for node_id, kind, _ in opcua_nodes()}
    assert rows["StartSingleJob"] == (
        "method(MeasId String, PartId String, RecipeId String, ProductId String) -> (JobId String, Error Int32)"
    )
    names = {method.id.rpartition(".")[2] for method in METHODS}
    assert {"StartContinuous", "Stop", "Reset", "ConfirmAll", "PrepareRecipe", "GetResultById"} <= names
    assert [STATES[name] for name in ("Preoperational", "Halted", "Error", "Operational")] == [1, 2, 3, 4]
    assert [STATES[name] for name in ("Initialized", "Ready", "SingleExecution", "ContinuousExecution")] == [5, 6, 7, 8]


def test_a_certificate_without_its_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="certificate and private_key: give both or none"):
        OpcUaSettings.model_validate({"certificate": "a.der"})


def test_a_short_password_is_refused_and_not_shown() -> None:
    with pytest.raises(ValidationError, match=r"users\.plc") as refused:
        OpcUaSettings.model_validate({"users": {"plc": "se-cret"}})
    assert "se-cret" not in str(refused.value)
