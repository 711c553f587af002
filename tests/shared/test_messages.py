"""Messages: their arithmetic, and old and new versions reading each other."""

from __future__ import annotations

from types import ModuleType
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.messages import Message, Ticket
from shared.streams import STREAMS
from tests.shared.strategies import messages

KINDS = get_args(Message)
WITH_A_DEFAULT_LAST = [kind for kind in KINDS if kind.__struct_defaults__]


def version(kind: type[msgspec.Struct], fields: list[tuple]) -> type[msgspec.Struct]:
    return msgspec.defstruct(kind.__name__, fields, tag=kind.__struct_config__.tag, frozen=True)


def fields_of(kind: type[msgspec.Struct]) -> list[tuple]:
    return [
        (one.name, one.type)
        if one.required
        else (one.name, one.type, msgspec.field(default=one.default, default_factory=one.default_factory))
        for one in msgspec.structs.fields(kind)
    ]


def form_of(kind: type[msgspec.Struct]) -> ModuleType:
    return (
        msgspec.json if any(kind in stream.carries and stream.json for stream in STREAMS.values()) else msgspec.msgpack
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_old_version_reads_new_one_with_one_field_more(kind, data) -> None:
    form = form_of(kind)
    message = data.draw(messages(kind))
    newer = version(kind, [*fields_of(kind), ("added_later", str, "")])
    sent = newer(**{name: getattr(message, name) for name in kind.__struct_fields__}, added_later="new")
    assert form.decode(form.encode(sent), type=kind) == message


@pytest.mark.parametrize("kind", WITH_A_DEFAULT_LAST, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_new_version_reads_old_one_with_its_default(kind, data) -> None:
    message = data.draw(messages(kind))
    *kept, last = fields_of(kind)
    older = version(kind, kept)
    form = form_of(kind)
    read = form.decode(form.encode(older(**{name: getattr(message, name) for name, *_ in kept})), type=kind)
    assert [getattr(read, name) for name, *_ in kept] == [getattr(message, name) for name, *_ in kept]
    fresh = msgspec.structs.fields(kind)[-1]
    assert getattr(read, last[0]) == (
        fresh.default if fresh.default is not msgspec.NODEFAULT else fresh.default_factory()
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_message_is_refused_under_another_name(kind) -> None:
    foreign = msgspec.msgpack.encode({"type": "somebody else's"})
    with pytest.raises(msgspec.ValidationError, match="somebody else's"):
        msgspec.msgpack.decode(foreign, type=kind)


def test_tags_of_all_messages_differ() -> None:
    assert len({kind.__struct_config__.tag for kind in KINDS}) == len(KINDS)


def test_ticket_knows_its_name_and_deadline() -> None:
    ticket = Ticket("cam1", "s1", 7, "part 7", "nut", capture_ns=1_000, captured_at=0.0, travel_ms=1.5)
    assert ticket.id == "cam1:s1:7"
    assert ticket.deadline_ns == 1_501_000
    assert [ticket.has_passed(at_ns) for at_ns in (1_501_000, 1_501_001)] == [False, True]
    assert not msgspec.structs.replace(ticket, travel_counts=5).has_passed(10**18)
