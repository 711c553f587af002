from __future__ import annotations

from collections import Counter as Tallies
from collections.abc import Mapping

import cv2
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from services.capture.capturer import Capturer, Outlets
from services.capture.shot import Shot
from shared.live import LivePublisher
from shared.messages import Frame, LivePicture, Outcome, Reason, Ticket, Verdict
from shared.settings import CameraSettings

S, MS = 10**9, 10**6


class Stream:
    """A stream with room for ``room`` messages; all streams of a test share one ``log``."""

    def __init__(self, log: list[msgspec.Struct], room: int = 10**6) -> None:
        self.log, self.room = log, room
        self.arrays: list[Mapping[str, NDArray[np.generic]]] = []

    def send(self, message: msgspec.Struct, arrays: Mapping[str, NDArray[np.generic]] = {}) -> bool:
        if self.room == 0:
            return False
        self.room -= 1
        self.log.append(message)
        self.arrays.append(arrays)
        return True


class Screen:
    def __init__(self) -> None:
        self.pictures: list[tuple[str, LivePicture, NDArray[np.uint8]]] = []

    def send(self, topic: str, message: LivePicture, arrays: Mapping[str, NDArray[np.uint8]]) -> None:
        self.pictures.append((topic, message, arrays["jpeg"]))


class Numbers:
    series = "s"
    last = 0

    def next(self) -> int:
        self.last += 1
        return self.last


class Tally(Tallies[str]):
    def count(self, name: str) -> None:
        self[name] += 1


class Station:
    """One camera's capturer with everything around it."""

    def __init__(self, kind: str = "every", room: int = 10**6, needs_part_id: bool = False, **camera: object) -> None:
        self.log: list[msgspec.Struct] = []
        self.frames, self.screen, self.tally = Stream(self.log, room), Screen(), Tally()
        trigger = {"kind": kind, "every_ms": 100}
        settings = CameraSettings.model_validate({"source": "usb:0", "recipe": "nut", "trigger": trigger, **camera})
        outlets = Outlets(
            Stream(self.log), self.frames, Stream(self.log), LivePublisher(self.screen, {"cam1": settings.live_hz})
        )
        self.capturer = Capturer("cam1", settings, Numbers(), outlets, self.tally, needs_part_id)

    def look(self, time_ns: int, width_px: int = 64) -> None:
        self.capturer.look(Shot(np.full((48, width_px, 3), time_ns // MS % 251, np.uint8), time_ns, time_ns / 1e9))

    def unknown(self) -> list[tuple[int, Reason]]:
        verdicts = [message for message in self.log if isinstance(message, Verdict)]
        assert all((v.outcome, v.stage) == (Outcome.UNKNOWN, "capture") for v in verdicts)
        return [(verdict.ticket.seq, verdict.reason) for verdict in verdicts]


def test_capturer_sends_the_ticket_before_its_frame() -> None:
    station = Station(travel_ms=700)
    station.look(5 * S)
    ticket, frame = station.log
    assert ticket == Ticket("cam1", "s", 1, "1", "nut", 5 * S, 5.0, 700)  # a part without a name is counted
    assert frame == Frame(ticket)
    assert station.frames.arrays[0]["image"].shape == (48, 64, 3)


def test_ticket_of_a_camera_in_counts_carries_them_and_no_time() -> None:
    station = Station(travel_counts=700)
    station.look(5 * S)
    assert station.log[0] == Ticket("cam1", "s", 1, "1", "nut", 5 * S, 5.0, 0.0, 700)


def test_trigger_without_an_id_is_refused_where_the_lane_matches_ids() -> None:
    station = Station("message", needs_part_id=True)
    refused = station.capturer.trigger("", 1 * S, 1.0, connected=True)
    assert (refused.ticket_id, refused.error) == ("", "a trigger without a part_id: this camera's lane needs it")
    assert station.log == []
    assert station.tally["triggers_refused"] == 1
    assert station.capturer.trigger("A1", 1 * S, 1.0, connected=True).ticket_id == "cam1:s:1"


def test_capturer_says_overrun_at_once_when_there_is_no_room_for_the_frame() -> None:
    station = Station(room=1)
    for number in range(3):
        station.look(S + number * 100 * MS)
    assert [type(message) for message in station.log] == [Ticket, Frame, Ticket, Verdict, Ticket, Verdict]
    assert station.unknown() == [(2, Reason.OVERRUN), (3, Reason.OVERRUN)]
    assert (station.tally["tickets"], station.tally["overrun"], station.tally["frames"]) == (3, 2, 3)


@pytest.mark.parametrize(("travel", "count"), [({"travel_counts": 900}, 77), ({"travel_ms": 900}, None)])
def test_capturer_hands_on_the_count_of_a_trigger_where_parts_are_followed_by_counts(
    travel: dict[str, int], count: int | None
) -> None:
    station = Station("message", **travel)
    station.capturer.trigger("A7", 1 * S, 1.0, connected=True, count=77)
    (ticket,) = station.log
    assert isinstance(ticket, Ticket) and ticket.count == count


def test_capturer_answers_a_trigger_at_once_and_inspects_the_next_picture() -> None:
    station = Station("message")
    station.look(1 * S)
    reply = station.capturer.trigger("A7", 1 * S + 10 * MS, 1.01, connected=True)
    assert (reply.ticket_id, reply.error, reply.overrun) == ("cam1:s:1", "", False)
    assert [type(message) for message in station.log] == [Ticket]
    station.look(1 * S + 5 * MS)  # taken before the trigger, came later
    station.look(1 * S + 45 * MS)
    station.look(1 * S + 85 * MS)
    ticket, frame = station.log
    assert isinstance(ticket, Ticket) and (ticket.part_id, ticket.capture_ns) == ("A7", 1 * S + 10 * MS)
    assert frame == Frame(ticket)
    assert station.frames.arrays[0]["image"][0, 0, 0] == 1045 % 251


def test_capturer_books_a_trigger_while_busy_as_overrun() -> None:
    station = Station("message")
    station.capturer.trigger("A1", 1 * S, 1.0, connected=True)
    second = station.capturer.trigger("A2", 1 * S + MS, 1.0, connected=True)
    assert (second.ticket_id, second.overrun) == ("cam1:s:2", True)
    station.look(1 * S + 40 * MS)
    assert station.unknown() == [(2, Reason.OVERRUN)]
    assert [message.ticket.part_id for message in station.log if isinstance(message, Frame)] == ["A1"]
    assert not station.capturer.trigger("A3", 1 * S + 50 * MS, 1.0, connected=True).overrun


def test_capturer_books_a_trigger_without_a_camera_as_no_picture() -> None:
    station = Station("message")
    assert station.capturer.trigger("A1", 1 * S, 1.0, connected=False).ticket_id == "cam1:s:1"
    assert station.unknown() == [(1, Reason.NO_PICTURE)]


@pytest.mark.parametrize(
    ("waited_ms", "connected", "unknown"),
    [(900, True, []), (1100, True, [(1, Reason.NO_PICTURE)]), (5, False, [(1, Reason.NO_PICTURE)])],
)
def test_capturer_waits_for_the_picture_of_a_trigger_until_told(
    waited_ms: int, connected: bool, unknown: list[tuple[int, Reason]]
) -> None:
    station = Station("message")
    station.capturer.trigger("A1", 1 * S, 1.0, connected=True)
    for _ in range(2):
        station.capturer.wait_no_longer(waited_ms * MS, connected)
    assert station.unknown() == unknown


def test_capturer_refuses_a_part_id_nobody_can_store() -> None:
    station = Station("message")
    reply = station.capturer.trigger("x" * 201, 1 * S, 1.0, connected=True)
    assert "at most 200" in reply.error and reply.ticket_id == "" and station.log == []


@pytest.mark.parametrize("count", [-1, 1 << 32])
def test_capturer_refuses_a_count_no_encoder_shows(count: int) -> None:
    station = Station("message", travel_counts=900)
    reply = station.capturer.trigger("A1", 1 * S, 1.0, connected=True, count=count)
    assert "0 to 4294967295" in reply.error and station.log == []


def test_capturer_keeps_to_its_region_and_size() -> None:
    station = Station(roi_px=[8, 4, 40, 20], longest_side_px=32)
    station.look(1 * S)
    assert station.frames.arrays[0]["image"].shape == (16, 32, 3)


def test_capturer_says_so_when_the_region_is_outside_of_the_picture() -> None:
    station = Station("message", roi_px=[40, 0, 40, 40])
    station.capturer.trigger("A1", 1 * S, 1.0, connected=True)
    station.look(1 * S + MS)
    assert "64 x 48" in station.capturer.fault
    assert station.unknown() == [(1, Reason.BAD_PICTURE)]
    station.look(1 * S + 2 * MS, width_px=100)
    assert station.capturer.fault == ""


def test_capturer_shows_the_region_at_live_hz() -> None:
    station = Station(live_hz=5, roi_px=[0, 0, 1000, 40])
    for number in range(50):
        station.look(1 * S + number * 40 * MS, width_px=1000)
    assert len(station.screen.pictures) == 10
    topic, message, jpeg = station.screen.pictures[1]
    assert (topic, message.camera, message.kind, message.capture_ns) == ("cam1", "cam1", "view", 1 * S + 200 * MS)
    assert cv2.imdecode(jpeg, cv2.IMREAD_COLOR).shape == (26, 640, 3)
