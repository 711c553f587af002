"""The line's side of a link on real sockets: what it hears, what it asks for, who does not answer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from services.link.desk import Peers
from services.link.handshake import ChangeJob, ResetAlarms, SilenceHorn, TakePicture
from services.link.line_side import Ear, Facts, Hands
from shared.messages import (
    AlarmOrder,
    AlarmReply,
    Alarms,
    Audit,
    BeltState,
    EncoderCount,
    Heartbeat,
    JobChange,
    JobReply,
    Pulse,
    State,
    Trigger,
    TriggerReply,
)
from shared.settings import LineSettings
from shared.wire import Bus
from tests.rtsp import free_port
from tests.service_process import wait_for, write_line
from tests.services.link.played_desk import on_a_loop
from tests.services.link.told import MS, heartbeat, result, signal

pytestmark = pytest.mark.process
OWNER = "link-plc"
MESSAGE = {"kind": "message"}


def line(folder: Path, link: dict[str, object] | None = None, **changes: object) -> LineSettings:
    cameras = {
        name: {"source": "folder:nothing", "recipe": "nut", "trigger": trigger}
        for name, trigger in (("cam1", MESSAGE), ("cam2", MESSAGE), ("cam3", {"kind": "every"}))
    }
    links = {"plc": {"modbus_server": {"port": 5020}, **(link or {})}}
    return write_line(folder, cameras=cameras, links=links, **changes)[1]


# --- the ear ---


class Heard:
    """An ear that listens, and what it heard."""

    def __init__(self, settings: LineSettings, bus: Bus) -> None:
        self.messages: list[Any] = []
        self.recipes: list[tuple[str, str]] = []
        self.facts = Facts(Peers(1, "10.0.0.1:4000"), {"PartsPassed": 3})
        self.ear = Ear(bus, settings, OWNER, self.messages.append, self.note, lambda: self.facts)

    def note(self, camera: str, recipe: str) -> None:
        self.recipes.append((camera, recipe))

    def wait(self, holds: Callable[[], bool], again: Callable[[], None]) -> None:
        """Publish it until it is heard: a subscriber needs a while to join."""
        deadline_s = time.monotonic() + 10
        while not holds():
            assert time.monotonic() < deadline_s, (self.messages, self.recipes)
            again()
            time.sleep(0.02)


@contextmanager
def listening(settings: LineSettings) -> Iterator[Heard]:
    with Bus(settings, OWNER) as bus:
        heard = Heard(settings, bus)
        heard.ear.start()
        try:
            yield heard
        finally:
            heard.ear.finish()


def pulse(camera: str, recipe: str) -> Pulse:
    return Pulse(f"capture-{camera}", State.OK, 1, 0.0, 0.0, detail={"recipe": recipe})


def test_the_ear_hears_the_ledger_and_the_alarms_word_for_word(private_surroundings: Path) -> None:
    settings = line(private_surroundings)
    with Bus(settings, "reject") as reject, Bus(settings, "alarm") as alarm, listening(settings) as heard:
        signals, alarms = reject.publisher("signals"), alarm.publisher("alarms")
        told = [heartbeat(5), result(1, 9), signal(1, 9)]

        def publish() -> None:
            for topic, message in zip(("heartbeat", "result", "signal"), told, strict=True):
                signals.send(topic, message)
            alarms.send("", Alarms(1.0, ()))

        heard.wait(lambda: all(message in heard.messages for message in (*told, Alarms(1.0, ()))), publish)


def test_the_ear_refuses_what_is_no_message_counts_it_and_listens_on(private_surroundings: Path) -> None:
    settings = line(private_surroundings)
    with Bus(settings, "reject") as reject, Bus(settings, "console") as console, listening(settings) as heard:
        signals, pulses = reject.publisher("signals"), console.subscriber("pulse", [OWNER])
        heard.wait(lambda: bool(heard.messages), lambda: signals.send("heartbeat", heartbeat(5)))
        for raw in (b"", b"{", b'{"type":"signal"}', b"\xff" * 100):
            signals._socket.send_multipart([b"signal", raw])
        counted: list[int] = []

        def look() -> None:
            received = pulses.latest(100)
            if received is not None and isinstance(received.message, Pulse):
                counted.append(received.message.counters["refused"])

        heard.wait(lambda: 4 in counted, look)
        before = len(heard.messages)
        heard.wait(lambda: len(heard.messages) > before, lambda: signals.send("heartbeat", heartbeat(6)))


def test_the_ear_tells_each_cameras_recipe_when_it_changes_and_no_strangers(private_surroundings: Path) -> None:
    settings = line(private_surroundings, {"cameras": ["cam1", "cam2"]})
    with ExitStack() as stack:
        buses = {name: stack.enter_context(Bus(settings, f"capture-{name}")) for name in ("cam1", "cam2", "cam3")}
        pulses = {name: bus.publisher("pulse") for name, bus in buses.items()}
        heard = stack.enter_context(listening(settings))

        def publish(**recipes: str) -> None:
            for name, recipe in recipes.items():
                pulses[name].send(f"capture-{name}", pulse(name, recipe))

        heard.wait(lambda: len(heard.recipes) == 2, lambda: publish(cam1="nut", cam2="nut", cam3="bolt"))
        heard.wait(lambda: len(heard.recipes) == 3, lambda: publish(cam1="nut", cam2="bolt", cam3="nut"))
        assert sorted(heard.recipes[:2]) == [("capture-cam1", "nut"), ("capture-cam2", "nut")]
        assert heard.recipes[2:] == [("capture-cam2", "bolt")]


def test_the_ears_pulse_tells_who_is_connected_or_what_is_wrong(private_surroundings: Path) -> None:
    settings = line(private_surroundings)
    with Bus(settings, "console") as console, listening(settings) as heard:
        pulses = console.subscriber("pulse", [OWNER])
        told: list[Pulse] = []

        def look() -> None:
            received = pulses.latest(100)
            told.extend([received.message] if received and isinstance(received.message, Pulse) else [])

        heard.wait(lambda: bool(told) and told[-1].state is State.OK, look)
        assert told[-1].detail == {"peers": "1", "peer": "10.0.0.1:4000"}
        assert told[-1].counters == {"PartsPassed": 3, "refused": 0}
        heard.facts.peers = Peers()
        heard.wait(lambda: told[-1].state is State.DEGRADED, look)
        assert told[-1].last_error == "no controller is connected"
        heard.facts.peers = Peers(0, "cannot listen on 0.0.0.0:502")
        heard.wait(lambda: told[-1].last_error == "cannot listen on 0.0.0.0:502", look)


def test_the_ear_hears_another_machines_times_on_its_own_clock(private_surroundings: Path) -> None:
    wire = {"transport": "tcp", "base_port": free_port()}
    settings = line(private_surroundings, wire=wire)
    with Bus(settings, "reject") as reject, listening(settings) as heard:
        signals = reject.publisher("signals")
        ahead_ns, count = 10**15, 0

        def beat() -> None:
            nonlocal count
            count += 1
            signals.send("heartbeat", heartbeat(time.monotonic_ns() + ahead_ns, count=count))

        heard.wait(lambda: len(heard.messages) >= 3, beat)
        now_ns = time.monotonic_ns()
        assert isinstance(heard.messages[-1], Heartbeat)
        assert now_ns - 5000 * MS < heard.messages[-1].sent_ns <= now_ns
        ahead_ns, count = -(10**12), 0  # its machine was started anew
        heard.wait(lambda: heard.messages[-1].count == 2, beat)
        now_ns = time.monotonic_ns()
        signals.send("signal", signal(1, now_ns + ahead_ns))
        wait_for(lambda: not isinstance(heard.messages[-1], Heartbeat), 5, "the signal")
        assert now_ns - 100 * MS < heard.messages[-1].deadline_ns < now_ns + 5000 * MS


def test_the_ear_ends_within_its_turn(private_surroundings: Path) -> None:
    with listening(line(private_surroundings)):
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 2


# --- the hands ---


class Owner(threading.Thread):
    """Answers requests as one process of the line; ``answer`` None: it is silent."""

    def __init__(self, settings: LineSettings, owner: str, stream: str, answer: object) -> None:
        super().__init__(daemon=True)
        self._settings, self._owner, self._stream = settings, owner, stream
        self.answer = answer
        self.asked: list[object] = []
        self.is_over = threading.Event()

    def run(self) -> None:
        with Bus(self._settings, self._owner) as bus:
            server = bus.server(self._stream)
            while not self.is_over.wait(0.005):
                request = server.receive() if self.answer is not None else None
                if request is not None:
                    self.asked.append(request)
                    server.answer(self.answer)


@contextmanager
def played(settings: LineSettings, **answers: object) -> Iterator[dict[str, Owner]]:
    """cam1, cam2, cam3, alarm: whoever is given an answer (or None, for silence) is there."""
    owners = {
        name: Owner(settings, name, "alarm_orders", answer)
        if name == "alarm"
        else Owner(settings, f"capture-{name}", "triggers", answer)
        for name, answer in answers.items()
    }
    for owner in owners.values():
        owner.start()
    try:
        yield owners
    finally:
        for owner in owners.values():
            owner.is_over.set()
            owner.join()


@contextmanager
def hands(settings: LineSettings) -> Iterator[Hands]:
    with Bus(settings, OWNER) as bus:
        one = Hands(bus, settings, OWNER)
        try:
            yield one
        finally:
            one.close()


@on_a_loop
async def test_a_trigger_reaches_every_camera_that_waits_for_one(private_surroundings: Path) -> None:
    settings = line(private_surroundings)
    answers = {name: TriggerReply(f"{name}:s:1") for name in ("cam1", "cam2", "cam3")}
    with played(settings, **answers) as cameras, hands(settings) as one:
        assert await one.carry_out(TakePicture("A1", 7)) == ("cam1:s:1", "cam2:s:1")
        assert [camera.asked for camera in cameras.values()] == [[Trigger("A1", 7)], [Trigger("A1", 7)], []]


@pytest.mark.parametrize("bad", [TriggerReply(error="no"), JobReply("nut"), None], ids=["refuses", "foreign", "silent"])
@on_a_loop
async def test_a_trigger_is_in_doubt_when_one_camera_has_no_ticket(private_surroundings: Path, bad: object) -> None:
    settings = line(private_surroundings)
    with played(settings, cam1=TriggerReply("cam1:s:1"), cam2=bad), hands(settings) as one:
        began_s = time.monotonic()
        assert await one.carry_out(TakePicture("A1")) == ()
        assert time.monotonic() - began_s < 3


@on_a_loop
async def test_a_camera_that_wakes_up_late_takes_no_picture_of_the_part_before(private_surroundings: Path) -> None:
    settings = line(private_surroundings, {"cameras": ["cam1"]})
    with hands(settings) as one:
        assert await one.carry_out(TakePicture("A1")) == ()
        with played(settings, cam1=TriggerReply("cam1:s:1")) as cameras:
            tickets: tuple[str, ...] = ()
            while not tickets:
                tickets = await one.carry_out(TakePicture("A2"))
            assert Trigger("A1") not in cameras["cam1"].asked


@on_a_loop
async def test_a_change_of_job_is_asked_of_every_camera_of_the_link_and_audited(private_surroundings: Path) -> None:
    settings = line(private_surroundings)
    with Bus(settings, "record") as record:
        audit = record.puller("audit")
        answers = {"cam1": JobReply("bolt"), "cam2": JobReply("nut", "no such recipe"), "cam3": JobReply("bolt")}
        with played(settings, **answers) as cameras, hands(settings) as one:
            expected = "capture-cam2: no such recipe"
            assert await one.carry_out(ChangeJob("bolt", "plc", "nut")) == (expected,)
            assert all(camera.asked == [JobChange("bolt", "plc")] for camera in cameras.values())
            received = await asyncio.to_thread(audit.receive, 5000)
            cameras["cam2"].answer = JobReply("bolt")
            assert await one.carry_out(ChangeJob("bolt", "plc")) == ("",)
    assert received is not None and isinstance(received.message, Audit)
    note = received.message
    assert (note.by, note.action, note.reason) == ("link-plc plc", "job_change", expected)
    assert (note.before, note.after) == ("nut", "bolt")


@on_a_loop
async def test_the_belt_is_told_and_what_nobody_takes_is_counted(private_surroundings: Path) -> None:
    settings = line(private_surroundings)
    with Bus(settings, "reject") as reject, hands(settings) as one:
        belt = reject.puller("belt")
        told = [EncoderCount(7, 1), BeltState(True, "plc")]
        assert [await one.carry_out(order) for order in told] == [("",), ("",)]
        received = [await asyncio.to_thread(belt.receive, 5000) for _ in told]
        assert [one.message for one in received if one] == told
    with hands(line(private_surroundings, {"results": "latest"})) as one:
        while not one.unsent:
            why = await one.carry_out(EncoderCount(8, 2))
        assert why == ("the ledger is away",)


@on_a_loop
async def test_alarms_are_acknowledged_silenced_and_reset_or_it_is_said_why_not(private_surroundings: Path) -> None:
    settings = line(private_surroundings)
    with played(settings, alarm=AlarmReply()) as owners, hands(settings) as one:
        assert await one.carry_out(SilenceHorn("plc")) == ("",)
        owners["alarm"].answer = AlarmReply("nothing to reset")
        assert await one.carry_out(ResetAlarms("plc")) == ("nothing to reset",)
        assert owners["alarm"].asked == [AlarmOrder("silence", "link-plc plc"), AlarmOrder("reset", "link-plc plc")]
    with hands(settings) as one:
        assert await one.carry_out(SilenceHorn("plc")) == ("the alarms' process did not answer",)
