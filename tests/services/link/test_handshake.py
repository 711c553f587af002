"""The handshake with a line's controller: every request in two phases, whatever else happens meanwhile."""

from __future__ import annotations

import pytest

from services.link.handshake import (
    NOTHING_DONE,
    AcknowledgeAlarms,
    ChangeJob,
    Handshake,
    Order,
    ResetAlarms,
    Rules,
    SilenceHorn,
    TakePicture,
)
from services.link.results import Done
from shared.messages import (
    Action,
    Alarm,
    Alarms,
    AlarmState,
    BeltState,
    EncoderCount,
    Outcome,
    Priority,
    Reason,
)
from shared.points import FAULT_CODES, Fault, Value
from tests.services.link.told import MS, heartbeat, result, signal

T0 = 1_000_000 * MS
PLC = "10.0.0.1:4000"
JOBS = {7: "nut", 9: "bolt"}


class Bench:
    """A handshake, its clock, and a ledger that beats as long as it lives."""

    def __init__(self, done: Done = NOTHING_DONE, **rules: object) -> None:
        self.handshake = Handshake(Rules(("cam1",), JOBS, **rules), done)  # type: ignore[arg-type]
        self.now_ns = T0
        self.ready, self.alive = True, True
        self.pass_ms(0)

    def __getitem__(self, name: str) -> Value:
        return self.handshake.values(self.now_ns)[name]

    def pass_ms(self, ms: float) -> None:
        until_ns = self.now_ns + round(ms * MS)
        while True:
            if self.alive:
                self.handshake.hear(heartbeat(self.now_ns, self.ready), self.now_ns)
            self.handshake.turn(self.now_ns)
            if self.now_ns == until_ns:
                return
            self.now_ns = min(self.now_ns + 100 * MS, until_ns)

    def hear(self, *messages: object) -> None:
        for message in messages:
            self.handshake.hear(message, self.now_ns)  # type: ignore[arg-type]
            self.handshake.turn(self.now_ns)

    def write(self, peer: str = PLC, image: bool = False, **values: Value) -> object:
        refusal = self.handshake.write(values, peer, self.now_ns, image)
        self.handshake.turn(self.now_ns)
        return refusal

    def away(self, peer: str = PLC) -> None:
        self.handshake.peer_away(peer, self.now_ns)
        self.handshake.turn(self.now_ns)

    def orders(self) -> list[Order]:
        return self.handshake.take_orders()

    def take(self, *tickets: str) -> None:
        """The answer to the trigger."""
        self.handshake.picture_taken(tickets, self.now_ns)
        self.handshake.turn(self.now_ns)

    def tell(self, *seqs: int, outcome: Outcome = Outcome.OK) -> None:
        """Results of parts that are at the ejector in a second."""
        self.hear(*(result(seq, self.now_ns + 1000 * MS, outcome) for seq in seqs))

    def read(self) -> int:
        """Read the shown result and acknowledge it in both phases; -> its PartNumber."""
        assert self["ResultValid"]
        number = self["PartNumber"]
        self.write(ResultAck=True)
        assert not self["ResultValid"]
        self.write(ResultAck=False)
        return int(number)

    @property
    def fault(self) -> Fault:
        return next(fault for fault, (code, _) in FAULT_CODES.items() if code == self["FaultCode"])


# --- trigger ---


def test_the_first_part_of_a_count_is_told_first_though_a_later_one_is_decided_before() -> None:
    bench = Bench()
    for number in (1, 2):
        bench.write(TriggerPartId=f"P{number}", Trigger=True)
        bench.take(f"cam1:s1:{number}")
        bench.write(Trigger=False)
    bench.hear(result(2, bench.now_ns))
    assert not bench["ResultValid"]
    bench.hear(result(1, bench.now_ns))
    assert [bench.read() for _ in range(2)] == [1, 2]
    assert (bench["ResultsLost"], bench["ResultOverrun"]) == (0, False)


def test_a_trigger_carries_the_count_that_was_written_with_it_and_no_older_one() -> None:
    bench = Bench()
    bench.write(TriggerPartId="A1", Trigger=True, EncoderCount=0)
    assert TakePicture("A1", 0) in bench.orders()
    bench.take("cam1:s1:1")
    bench.write(Trigger=False, EncoderCount=70_000)
    bench.write(TriggerPartId="A2", Trigger=True)
    assert TakePicture("A2") in bench.orders()


def test_a_trigger_is_acknowledged_when_its_picture_is_in_the_books_and_busy_until_its_result() -> None:
    bench = Bench()
    bench.write(TriggerPartId="A1", Trigger=True)
    assert bench.orders() == [TakePicture("A1")]
    assert (bench["TriggerAck"], bench["Busy"], bench["Ready"]) == (False, True, False)
    bench.take("cam1:s1:1")
    assert (bench["TriggerAck"], bench["Busy"], bench["Ready"], bench["TriggersTaken"]) == (True, True, True, 1)
    bench.write(Trigger=False)
    assert (bench["TriggerAck"], bench["Busy"]) == (False, True)
    bench.tell(1)
    assert (bench["Busy"], bench["ResultValid"]) == (False, True)


def test_a_result_that_is_faster_than_the_triggers_answer_leaves_nobody_busy() -> None:
    bench = Bench()
    bench.write(Trigger=True)
    bench.tell(1)
    bench.take("cam1:s1:1")
    assert (bench["TriggerAck"], bench["Busy"]) == (True, False)


def test_busy_ends_though_the_part_never_gets_a_result() -> None:
    bench = Bench()
    bench.write(Trigger=True)
    bench.take("cam1:s1:1")
    bench.pass_ms(4900)
    assert bench["Busy"]
    bench.pass_ms(200)
    assert not bench["Busy"]


@pytest.mark.parametrize("fault", ["not ready", "silent"])
def test_a_trigger_is_missed_while_the_line_is_not_ready(fault: str) -> None:
    bench = Bench()
    bench.ready, bench.alive = fault == "silent", fault == "not ready"
    bench.pass_ms(1000)
    bench.write(Trigger=True)
    assert bench.orders() == []
    assert (bench["TriggerAck"], bench["MissedTrigger"], bench["TriggersMissed"]) == (False, True, 1)
    assert bench.fault is Fault.NONE, "to be not ready is no fault"
    bench.ready = bench.alive = True
    bench.pass_ms(0)
    bench.write(Trigger=False)
    bench.write(Trigger=True)
    assert not bench["MissedTrigger"], "until the next accepted one"
    assert len(bench.orders()) == 1


def test_the_answer_to_one_trigger_is_no_acknowledgement_of_the_next() -> None:
    bench = Bench()
    bench.write(TriggerPartId="A1", Trigger=True)
    bench.write(Trigger=False)
    bench.write(TriggerPartId="A2", Trigger=True)
    assert bench.orders() == [TakePicture("A1")]
    bench.take("cam1:s1:1")
    assert (bench["TriggerAck"], bench["MissedTrigger"], bench["TriggersTaken"]) == (False, True, 1)


def test_a_trigger_that_falls_early_is_taken_without_an_acknowledgement() -> None:
    bench = Bench()
    bench.write(Trigger=True)
    bench.write(Trigger=False)
    bench.take("cam1:s1:1")
    assert (bench["TriggerAck"], bench["MissedTrigger"], bench["TriggersTaken"]) == (False, False, 1)


def test_a_trigger_that_no_camera_takes_is_a_fault() -> None:
    bench = Bench()
    bench.write(Trigger=True)
    bench.take()
    assert (bench["TriggerAck"], bench["MissedTrigger"], bench["SystemHealth"]) == (False, True, False)
    assert bench.fault is Fault.TRIGGER_REFUSED
    bench.write(Reset=True)
    assert (bench["MissedTrigger"], bench["Fault"], bench["SystemHealth"]) == (False, False, True)


def test_a_trigger_with_the_part_id_of_the_one_before_is_a_replay() -> None:
    bench = Bench()
    for _ in range(2):
        bench.write(TriggerPartId="A1", Trigger=True)
        bench.take("cam1:s1:1")
        bench.write(Trigger=False)
    assert bench.orders() == [TakePicture("A1")]
    assert (bench.fault, bench["TriggersTaken"], bench["TriggersMissed"]) == (Fault.TRIGGER_REPLAYED, 1, 1)


def test_parts_without_ids_are_no_replay() -> None:
    bench = Bench()
    for _ in range(2):
        bench.write(Trigger=True)
        bench.take("cam1:s1:1")
        bench.write(Trigger=False)
    assert bench["TriggersTaken"] == 2


def test_a_missed_trigger_may_be_tried_again_with_the_same_part_id() -> None:
    bench = Bench()
    bench.write(TriggerPartId="A1", Trigger=True)
    bench.take()
    bench.write(Trigger=False)
    bench.write(Trigger=True)
    assert len(bench.orders()) == 2


def test_a_trigger_that_stood_up_already_in_a_controllers_first_image_is_no_rise() -> None:
    bench = Bench()
    bench.write(image=True, Trigger=True, ResultAck=False, TriggerPartId="A1")
    assert (bench.orders(), bench["MissedTrigger"], bench.fault) == ([], True, Fault.TRIGGER_REPLAYED)
    bench.write(image=True, Trigger=False, ResultAck=False, TriggerPartId="A1")
    bench.write(image=True, Trigger=True, ResultAck=False, TriggerPartId="A1")
    assert bench.orders() == [TakePicture("A1")]


def test_a_bit_that_is_set_on_purpose_is_a_rise_at_once() -> None:
    bench = Bench()
    bench.write(Trigger=True)
    assert len(bench.orders()) == 1


@pytest.mark.parametrize("image", [True, False])
def test_a_controller_that_comes_back_with_its_trigger_still_up_triggers_no_second_part(image: bool) -> None:
    bench = Bench()
    bench.write(Trigger=True)
    bench.away()
    bench.take("cam1:s1:1")
    bench.write(image=image, Trigger=True)
    assert len(bench.orders()) == 1
    assert (bench["TriggerAck"], bench["MissedTrigger"], bench.fault) == (False, True, Fault.TRIGGER_REPLAYED)


# --- results ---


def test_a_result_stays_until_it_is_acknowledged_and_the_next_one_waits_for_the_end_of_that() -> None:
    bench = Bench()
    bench.tell(1, 2)
    assert (bench["PartNumber"], bench["PartId"], bench["ResultsQueued"], bench["ResultNumber"]) == (1, "P1", 2, 1)
    bench.pass_ms(900)
    assert bench["PartNumber"] == 1
    bench.write(ResultAck=True)
    assert (bench["ResultValid"], bench["PartNumber"], bench["ResultsQueued"]) == (False, 0, 1)
    bench.pass_ms(50)
    assert not bench["ResultValid"]
    bench.write(ResultAck=False)
    assert (bench["ResultValid"], bench["PartNumber"], bench["ResultNumber"]) == (True, 2, 2)


def test_an_acknowledgement_that_rises_while_nothing_is_shown_is_of_nothing() -> None:
    bench = Bench()
    bench.write(ResultAck=True)
    bench.tell(1)
    assert not bench["ResultValid"]
    bench.write(ResultAck=False)
    assert bench.read() == 1


def test_what_is_known_of_a_part_is_shown_in_whole_numbers() -> None:
    bench = Bench()
    told = {"score": 0.123456, "defects": 3, "latency_ms": 81.6, "margin_ms": -4.4}
    bench.hear(result(1, bench.now_ns, Outcome.NG, **told))
    names = ("Pass", "ResultCode", "Score", "DefectCount", "LatencyMs", "MarginMs")
    assert [bench[name] for name in names] == [False, 2, 1235, 3, 82, -4]
    bench.read()
    told = {"score": None, "latency_ms": None, "margin_ms": None, "reason": Reason.NO_PICTURE}
    bench.hear(result(2, bench.now_ns, Outcome.UNKNOWN, **told))
    assert [bench[name] for name in names] == [False, 7, 65535, 0, 65535, -32768]
    bench.read()
    told = {"score": 7.0, "defects": 1 << 20, "latency_ms": 1e9, "margin_ms": -1e9, "part_id": "ä" * 20 + "\0"}
    bench.hear(result(3, bench.now_ns, Outcome.NG, **told))
    assert [bench[name] for name in (*names, "PartId")] == [False, 2, 10000, 65535, 65534, -32767, "ä" * 16]


def test_every_reason_has_a_code_and_only_a_good_part_passes() -> None:
    bench = Bench()
    codes = set()
    for seq, reason in enumerate(Reason, start=1):
        bench.hear(result(seq, bench.now_ns, Outcome.OK if reason is Reason.NONE else Outcome.UNKNOWN, reason=reason))
        assert bench["Pass"] == (bench["ResultCode"] == 1) == (reason is Reason.NONE)
        codes.add(bench["ResultCode"])
        bench.read()
    assert len(codes) == len(Reason) and 0 not in codes


def test_a_part_that_may_go_on_though_nobody_knows_it_passes_with_its_reason() -> None:
    bench = Bench()
    bench.hear(result(1, bench.now_ns, Outcome.UNKNOWN, action=Action.ACCEPT))
    assert (bench["Pass"], bench["ResultCode"]) == (True, 3)


def test_eight_results_wait_and_the_ninth_is_an_overrun_that_stays_until_reset() -> None:
    bench = Bench()
    bench.tell(*range(1, 9))
    assert (bench["ResultsQueued"], bench["ResultOverrun"]) == (8, False)
    bench.tell(9)
    assert (bench["ResultsQueued"], bench["ResultOverrun"], bench["ResultsLost"]) == (8, True, 1)
    assert [bench.read() for _ in range(8)] == [1, 3, 4, 5, 6, 7, 8, 9], "the one that is read right now stays"
    assert bench["ResultOverrun"]
    bench.write(Reset=True)
    assert (bench["ResultOverrun"], bench["ResultsLost"]) == (False, 1)


def test_a_result_is_not_shown_longer_than_its_time_after_the_part_has_passed() -> None:
    bench = Bench(keep_ns=2_000 * MS)
    bench.tell(1)  # passes in a second
    bench.pass_ms(1000)
    bench.hear(signal(1, bench.now_ns))
    bench.pass_ms(2000)
    assert (bench["ResultValid"], bench["ResultOverrun"]) == (True, False)
    bench.pass_ms(1)
    assert (bench["ResultValid"], bench["ResultOverrun"], bench["ResultsLost"]) == (False, True, 1)


def test_a_part_behind_it_at_the_ejector_shows_that_a_part_has_passed() -> None:
    bench = Bench(keep_ns=2_000 * MS)
    bench.tell(1, 2)
    bench.hear(signal(2, bench.now_ns))  # the signal of 1 was lost on its way
    bench.pass_ms(2001)
    assert (bench["ResultsQueued"], bench["ResultsLost"]) == (0, 2)


def test_a_belt_that_stands_makes_no_result_outdated() -> None:
    bench = Bench(keep_ns=2_000 * MS)
    bench.hear(result(1, 0), result(2, bench.now_ns + 500 * MS))  # expected by nobody; expected soon
    bench.pass_ms(60_000)
    assert (bench["ResultValid"], bench["ResultsQueued"], bench["ResultOverrun"]) == (True, 2, False)


def test_a_dead_ledger_leaves_no_result_standing() -> None:
    bench = Bench(keep_ns=2_000 * MS)
    bench.tell(1)  # in a second
    bench.alive = False
    bench.pass_ms(3000)
    assert bench["ResultValid"]
    bench.pass_ms(1)
    assert (bench["ResultValid"], bench["ResultOverrun"]) == (False, True)


def test_a_part_has_one_result_though_it_is_told_twice() -> None:
    bench = Bench()
    bench.tell(1)
    bench.pass_ms(500)
    bench.hear(signal(1, bench.now_ns))
    assert (bench["ResultsQueued"], bench["PartsPassed"]) == (1, 1)
    assert bench.read() == 1
    bench.hear(result(1, bench.now_ns))
    assert not bench["ResultValid"]


def test_a_part_that_nobody_decided_in_time_has_its_result_at_the_ejector() -> None:
    bench = Bench()
    bench.hear(signal(1, bench.now_ns, Outcome.UNKNOWN))
    assert (bench["ResultValid"], bench["Pass"], bench["ResultCode"], bench["PartsLate"]) == (True, False, 3, 1)


def test_a_part_that_turns_out_worse_after_it_was_shown_is_shown_again() -> None:
    bench = Bench()
    bench.tell(1, 2)
    assert bench["Pass"]
    bench.tell(1, outcome=Outcome.UNKNOWN)
    assert (bench.read(), bench.read()) == (1, 2)
    assert (bench["PartNumber"], bench["Pass"], bench["ResultNumber"]) == (1, False, 3)
    bench.tell(1, outcome=Outcome.OK)
    assert bench.read() == 1
    assert not bench["ResultValid"], "it never turns out better"


def test_a_part_that_turns_out_worse_before_it_was_shown_is_shown_once() -> None:
    bench = Bench()
    bench.tell(1, 2)
    bench.tell(2, outcome=Outcome.NG)
    bench.read()
    assert (bench["PartNumber"], bench["Pass"], bench["ResultsQueued"]) == (2, False, 1)


def test_results_come_in_the_order_of_the_parts_whatever_order_they_are_decided_in() -> None:
    bench = Bench()
    bench.tell(1)
    assert bench.read() == 1
    bench.tell(4, 3)
    assert (bench["ResultValid"], bench["ResultsQueued"]) == (False, 0)
    bench.tell(2)
    assert [bench.read() for _ in range(3)] == [2, 3, 4]
    assert not bench["ResultOverrun"]


def test_busy_lasts_until_the_result_is_there_also_when_it_waits_for_an_earlier_part() -> None:
    bench = Bench()
    bench.tell(1)
    bench.write(Trigger=True)
    bench.take("cam1:s1:3")
    bench.tell(3)
    assert bench["Busy"]
    bench.tell(2)
    assert not bench["Busy"]


def test_a_part_that_is_never_told_is_flagged_and_holds_up_nobody_for_long() -> None:
    bench = Bench()
    bench.tell(1)
    bench.read()
    bench.tell(3)
    bench.pass_ms(1000)
    bench.hear(signal(3, bench.now_ns))
    assert not bench["ResultValid"], "the missing one may be told just behind it"
    bench.pass_ms(250)
    assert (bench.read(), bench["ResultOverrun"], bench["ResultsLost"]) == (3, True, 1)


def test_a_missing_part_is_shown_in_its_place_before_and_behind_the_part_that_showed_it() -> None:
    bench = Bench()
    bench.tell(1)
    bench.hear(signal(3, bench.now_ns, Outcome.UNKNOWN, reason=Reason.GAP))  # at once, when 4 was in the picture
    bench.tell(2)
    bench.hear(signal(6, bench.now_ns), signal(4, bench.now_ns), signal(5, bench.now_ns, reason=Reason.GAP))
    assert [bench.read() for _ in range(6)] == [1, 2, 3, 4, 5, 6]
    assert not bench["ResultOverrun"]


def test_parts_that_were_on_their_way_when_the_link_began_are_lost_but_not_hidden() -> None:
    bench = Bench()
    bench.tell(8)
    bench.hear(signal(6, bench.now_ns))
    assert (bench.read(), bench["ResultValid"], bench["ResultOverrun"], bench["ResultsLost"]) == (8, False, True, 1)


def test_what_is_acknowledged_or_lost_is_done_with() -> None:
    bench = Bench()
    bench.tell(*range(5, 14))
    assert bench.handshake.done == {"cam1:s1": (5, 4)}, "6 is lost, but 5 is still to be read"
    bench.read()
    assert bench.handshake.done == {"cam1:s1": (5, 6)}
    bench.read()
    assert bench.handshake.done == {"cam1:s1": (5, 7)}


def test_results_that_were_lost_between_two_lives_are_flagged() -> None:
    bench = Bench(done={"cam1:s1": (2, 4)})
    bench.hear(signal(7, bench.now_ns))
    bench.tell(8)
    assert not bench["ResultValid"]
    bench.pass_ms(2000)
    assert (bench["ResultOverrun"], bench["ResultsLost"]) == (True, 2)
    assert (bench.read(), bench.read()) == (7, 8)


def test_a_new_life_comes_into_step_also_when_results_are_outdated_soon() -> None:
    bench = Bench(done={"cam1:s1": (2, 4)}, keep_ns=100 * MS)
    for seq in range(7, 40):
        bench.hear(signal(seq, bench.now_ns))
        bench.pass_ms(300)
    assert bench["ResultNumber"] > 20


def test_a_link_that_missed_nothing_goes_on_as_if_nothing_had_been() -> None:
    bench = Bench(done={"cam1:s1": (2, 4)})
    bench.tell(6, 5)
    bench.hear(signal(4, bench.now_ns))
    assert (bench.read(), bench.read(), bench["ResultOverrun"]) == (5, 6, False)
    assert not bench["ResultValid"]


def test_a_part_that_no_life_ever_told_is_flagged() -> None:
    bench = Bench(done={"cam1:s1": (2, 4)})
    bench.tell(1)
    assert (bench["ResultValid"], bench["ResultsLost"]) == (False, 1)


def test_a_part_that_turned_out_worse_after_an_earlier_life_told_it_is_shown() -> None:
    bench = Bench(done={"cam1:s1": (2, 4)})
    bench.hear(signal(4, bench.now_ns, Outcome.UNKNOWN))
    assert (bench["PartNumber"], bench["Pass"]) == (4, False)


def test_a_new_numbering_begins_wherever_it_begins() -> None:
    bench = Bench()
    bench.tell(700)
    bench.hear(result(1, bench.now_ns, ticket_id="cam1:s2:1"), result(3, bench.now_ns, ticket_id="cam1:s2:3"))
    assert (bench.read(), bench.read(), bench["ResultValid"]) == (700, 1, False)
    assert not bench["ResultOverrun"]


def test_parts_of_cameras_that_the_link_does_not_tell_are_left_out() -> None:
    bench = Bench()
    bench.hear(result(1, bench.now_ns, camera="cam2"), signal(1, bench.now_ns, camera="cam2"))
    assert (bench["ResultValid"], bench["Accept"], bench["PartsPassed"]) == (False, False, 0)
    bench.hear(result(1, bench.now_ns, camera="cam2", cameras=("cam1", "cam2")))
    assert bench["ResultValid"]


def test_parts_of_a_lane_are_shown_as_they_are_decided_whichever_camera_speaks_for_them() -> None:
    """Their news name the ticket of the worst camera: no camera's count tells the lane's parts without gaps."""
    bench = Bench()
    lane = {"cameras": ("cam1", "cam2")}
    bench.hear(result(1, bench.now_ns, **lane))
    bench.hear(result(2, bench.now_ns, Outcome.NG, camera="cam2", ticket_id="cam2:s9:2", **lane))
    bench.hear(result(3, bench.now_ns, **lane))
    assert [bench.read() for _ in range(3)] == [1, 2, 3]
    bench.hear(signal(1, bench.now_ns, **lane))
    assert (bench["ResultValid"], bench["ResultOverrun"]) == (False, False)


def test_part_of_a_lane_that_another_camera_finds_worse_is_one_part() -> None:
    bench = Bench()
    lane = {"cameras": ("cam1", "cam2"), "part": "cam1:s1:1", "number": 1}
    worse = {"camera": "cam2", "ticket_id": "cam2:s9:7", **lane}
    bench.hear(result(9, bench.now_ns), result(1, bench.now_ns, **lane))  # the second waits behind the first
    bench.hear(result(7, bench.now_ns, Outcome.NG, **worse))
    assert bench["ResultsQueued"] == 2
    assert bench.read() == 9
    assert (bench["PartNumber"], bench["Pass"]) == (1, False)
    bench.hear(signal(7, bench.now_ns, Outcome.NG, **worse))
    assert (bench["EjectorPartNumber"], bench["ResultsQueued"]) == (1, 1)


def test_the_latest_result_replaces_the_one_before_without_an_overrun() -> None:
    bench = Bench(acknowledged=False)
    for seq in (1, 2, 3):
        bench.tell(seq)
        assert (bench["PartNumber"], bench["ResultNumber"], bench["ResultsQueued"]) == (seq, seq, 1)
    bench.write(ResultAck=True)
    assert not bench["ResultValid"]
    bench.write(ResultAck=False)
    bench.pass_ms(1000)
    assert (bench["ResultValid"], bench["ResultOverrun"], bench["ResultsLost"]) == (False, False, 0)


@pytest.mark.parametrize("image", [True, False])
def test_an_acknowledgement_of_before_a_lost_connection_takes_no_unread_result(image: bool) -> None:
    bench = Bench()
    bench.tell(1, 2)
    bench.write(ResultAck=True)
    bench.away()
    assert (bench["ResultValid"], bench["PartNumber"], bench["ResultNumber"]) == (True, 2, 2)
    bench.write(image=image, ResultAck=True)
    assert (bench["ResultValid"], bench["ResultsQueued"]) == (False, 1), "what the controller waits for, to let go"
    bench.write(image=image, ResultAck=False)
    assert (bench["PartNumber"], bench["ResultNumber"]) == (2, 2), "the same showing"
    assert bench.read() == 2
    assert (bench["ResultsLost"], bench["ResultOverrun"]) == (0, False)


# --- jobs ---


def with_recipes(**recipes: str) -> Bench:
    bench = Bench()
    for camera, recipe in recipes.items():
        bench.handshake.active_recipe(camera, recipe)
    return bench


def test_a_change_of_job_is_acknowledged_when_every_camera_has_it() -> None:
    bench = with_recipes(cam1="nut", cam2="nut")
    assert bench["JobId"] == 7
    bench.write(NewJobId=9, JobChange=True)
    assert bench.orders() == [ChangeJob("bolt", PLC, "nut")]
    assert (bench["JobChangeAck"], bench["JobId"]) == (False, 7)
    bench.handshake.job_changed("")
    assert (bench["JobChangeAck"], bench["JobId"]) == (True, 9), "both at once: the controller compares them"
    bench.handshake.active_recipe("cam1", "bolt")
    assert bench["JobId"] == 9
    bench.write(JobChange=False)
    assert not bench["JobChangeAck"]


def test_an_unknown_job_is_refused_with_its_code() -> None:
    bench = with_recipes(cam1="nut")
    bench.write(NewJobId=8, JobChange=True)
    assert (bench.orders(), bench["JobChangeAck"], bench["JobId"]) == ([], False, 7)
    assert (bench.fault, bench["WritesRefused"]) == (Fault.UNKNOWN_JOB, 1)


def test_a_change_that_a_camera_refuses_is_a_fault_and_cameras_that_differ_have_no_job() -> None:
    bench = with_recipes(cam1="nut", cam2="nut")
    bench.write(NewJobId=9, JobChange=True)
    bench.handshake.job_changed("capture-cam2: no answer")
    bench.handshake.active_recipe("cam1", "bolt")
    assert (bench["JobChangeAck"], bench["JobId"], bench.fault) == (False, 0, Fault.JOB_REFUSED)


def test_the_answer_to_one_change_of_job_is_no_acknowledgement_of_another() -> None:
    bench = with_recipes(cam1="nut")
    bench.write(NewJobId=9, JobChange=True)
    bench.write(JobChange=False)
    bench.write(NewJobId=7, JobChange=True)
    bench.handshake.job_changed("")
    assert (bench["JobChangeAck"], bench["JobId"], bench.fault) == (False, 9, Fault.JOB_REFUSED)


def test_a_recipe_without_a_number_has_no_job() -> None:
    assert with_recipes(cam1="washer")["JobId"] == 0


# --- the ejector ---


def test_accept_holds_exactly_as_long_as_its_window() -> None:
    bench = Bench()
    bench.hear(signal(5, bench.now_ns))
    assert (bench["Accept"], bench["Reject"], bench["EjectorPartNumber"]) == (True, False, 5)
    due_ns = bench.handshake.next_due_ns(bench.now_ns)
    assert due_ns == bench.now_ns + 100 * MS + 1
    bench.pass_ms(100)
    assert bench["Accept"]
    bench.now_ns = due_ns
    bench.handshake.turn(due_ns)
    assert (bench["Accept"], bench["Reject"], bench["EjectorPartNumber"]) == (False, False, 0)


@pytest.mark.parametrize("outcome", [Outcome.NG, Outcome.UNKNOWN])
def test_a_part_that_must_not_go_on_is_never_accepted(outcome: Outcome) -> None:
    bench = Bench()
    bench.hear(signal(5, bench.now_ns, outcome))
    assert (bench["Accept"], bench["Reject"], bench["PartsRejected"]) == (False, True, 1)


def test_a_late_signal_opens_what_is_left_of_its_window_or_nothing() -> None:
    bench = Bench()
    bench.hear(signal(5, bench.now_ns - 60 * MS))
    assert bench["Accept"]
    bench.pass_ms(40.001)
    assert not bench["Accept"]
    bench.hear(signal(6, bench.now_ns - 101 * MS))
    assert not bench["Accept"]
    assert (bench["PartsPassed"], bench["PartsRejected"], bench.handshake.counters["WindowsMissed"]) == (1, 1, 1)


def test_the_next_part_ends_the_window_of_the_one_before() -> None:
    bench = Bench()
    bench.hear(signal(5, bench.now_ns))
    bench.pass_ms(60)
    bench.hear(signal(6, bench.now_ns, Outcome.NG))
    assert (bench["Accept"], bench["Reject"], bench["EjectorPartNumber"]) == (False, True, 6)
    bench.pass_ms(60)
    assert (bench["Reject"], bench["EjectorPartNumber"]) == (True, 6)


def test_a_signal_that_was_overtaken_never_accepts_the_part_that_overtook_it() -> None:
    bench = Bench()
    bench.hear(signal(6, bench.now_ns, Outcome.NG), signal(5, bench.now_ns - 30 * MS))
    assert (bench["Accept"], bench["Reject"], bench["EjectorPartNumber"]) == (False, True, 6)
    assert bench["PartsPassed"] == 0


@pytest.mark.parametrize("reason", [Reason.GAP, Reason.POSITION, Reason.RESTART])
def test_a_part_that_is_nobody_knows_where_is_never_accepted_in_anothers_place(reason: Reason) -> None:
    """The recipe's policy lets unknown parts pass; the part at the ejector is another one, and bad."""
    bench = Bench()
    bench.hear(signal(5, bench.now_ns, Outcome.NG))
    bench.pass_ms(20)
    bench.hear(signal(9, bench.now_ns, Outcome.UNKNOWN, reason=reason, action=Action.ACCEPT))
    assert (bench["Accept"], bench["Reject"], bench["EjectorPartNumber"]) == (False, True, 5)
    assert (bench["PartsPassed"], bench["PartsRejected"]) == (0, 2)


def test_a_missing_part_takes_no_good_one_with_it() -> None:
    bench = Bench()
    bench.hear(signal(5, bench.now_ns))
    bench.hear(signal(8, bench.now_ns, Outcome.UNKNOWN, reason=Reason.GAP))
    assert (bench["Accept"], bench["Reject"], bench["EjectorPartNumber"]) == (True, False, 5)


def test_what_is_at_the_ejector_is_rejected_when_nobody_knows_where_anything_is() -> None:
    bench = Bench()
    bench.hear(signal(5, bench.now_ns))
    bench.hear(signal(6, bench.now_ns, Outcome.UNKNOWN, reason=Reason.POSITION))
    assert (bench["Accept"], bench["Reject"]) == (False, True)


def test_a_signal_from_the_future_accepts_no_longer_than_its_pulse() -> None:
    bench = Bench()
    bench.hear(signal(5, bench.now_ns + 3_600_000 * MS))
    assert bench["Accept"]
    bench.pass_ms(100.001)
    assert not bench["Accept"]


def test_a_long_window_ends_within_a_second_of_the_ledgers_death() -> None:
    bench = Bench()
    bench.hear(signal(5, bench.now_ns, pulse_ms=10_000))
    bench.alive = False
    while bench["Accept"]:
        bench.now_ns = bench.handshake.next_due_ns(bench.now_ns)
        bench.handshake.turn(bench.now_ns)
    assert bench.now_ns - T0 < 1000 * MS
    assert (bench["Online"], bench["Ready"], bench["SystemHealth"]) == (False, False, False)


def test_a_part_that_asks_for_a_stop_stops_the_line_until_reset() -> None:
    bench = Bench()
    bench.hear(signal(5, bench.now_ns - 5000 * MS, Outcome.UNKNOWN, action=Action.STOP))
    bench.pass_ms(500)
    assert (bench["StopLine"], bench["Accept"]) == (True, False)
    bench.write(Reset=True)
    assert not bench["StopLine"]


def test_three_late_parts_in_a_row_are_a_fault_and_two_are_not() -> None:
    bench = Bench()
    outcomes = [Outcome.UNKNOWN, Outcome.UNKNOWN, Outcome.OK, Outcome.UNKNOWN, Outcome.UNKNOWN, Outcome.UNKNOWN]
    for seq, outcome in enumerate(outcomes, start=1):
        assert bench.fault is Fault.NONE
        bench.hear(signal(seq, bench.now_ns, outcome))
    assert (bench.fault, bench["PartsLate"]) == (Fault.LATE_RESULTS, 5)


# --- health ---


def test_the_heartbeat_changes_once_a_second_and_stands_still_when_the_ledger_is_dead() -> None:
    bench = Bench()
    changes = []
    for _ in range(100):
        before = bench["Heartbeat"]
        bench.pass_ms(100)
        changes += [bench.now_ns] if bench["Heartbeat"] != before else []
    assert len(changes) in (9, 10, 11)
    bench.alive = False
    bench.pass_ms(801)
    assert not bench["Online"]
    before = bench["Heartbeat"]
    bench.pass_ms(10_000)
    assert bench["Heartbeat"] == before


def test_a_line_that_is_not_ready_beats_on() -> None:
    bench = Bench()
    bench.ready = False
    bench.pass_ms(100)
    before = bench["Heartbeat"]
    bench.pass_ms(1100)
    assert (bench["Online"], bench["Ready"], bench["SystemHealth"]) == (True, False, False)
    assert bench["Heartbeat"] != before


def test_the_first_fault_stays_until_reset() -> None:
    bench = Bench()
    bench.write(NewJobId=8, JobChange=True)
    bench.write(Trigger=True)
    bench.take()
    assert bench.fault is Fault.UNKNOWN_JOB


def alarm(priority: Priority, state: AlarmState, active: bool = True) -> Alarm:
    return Alarm("kind:subject", "kind", "subject", "words", priority, state, active, 0.0, 0.0)


LAMPS = ("AlarmHigh", "AlarmMedium", "AlarmLow", "StackRed", "StackAmber", "StackGreen", "Horn")


@pytest.mark.parametrize(
    ("alarms", "lamps"),
    [
        ([], "0000010"),
        ([alarm(Priority.HIGH, AlarmState.ACKNOWLEDGED)], "1001000"),
        ([alarm(Priority.LOW, AlarmState.ACKNOWLEDGED)], "0010110"),
        ([alarm(Priority.MEDIUM, AlarmState.SHELVED)], "0000010"),
        ([alarm(Priority.HIGH, AlarmState.RETURNED, active=False)], "0000010"),
        ([alarm(Priority.HIGH, AlarmState.OUT_OF_SERVICE)], "0000010"),
    ],
)
def test_the_lamps_show_active_alarms_that_nobody_put_aside(alarms: list[Alarm], lamps: str) -> None:
    bench = Bench()
    bench.hear(Alarms(0.0, tuple(alarms)))
    assert "".join(str(int(bench[name])) for name in LAMPS) == lamps


def test_the_lamp_of_an_unseen_alarm_blinks_and_the_horn_sounds_as_it_is_told() -> None:
    bench = Bench()
    seen = set()
    for _ in range(10):
        bench.hear(Alarms(0.0, (alarm(Priority.HIGH, AlarmState.UNACKNOWLEDGED),), horn=True))
        seen.add(bench["StackRed"])
        assert (bench["Horn"], bench["StackGreen"]) == (True, False)
        bench.pass_ms(150)
    assert seen == {True, False}


def test_nobody_who_watches_is_an_alarm_itself() -> None:
    bench = Bench()
    assert (bench["AlarmHigh"], bench["StackRed"], bench["StackGreen"]) == (True, True, False)
    bench.hear(Alarms(0.0, ()))
    assert not bench["AlarmHigh"]
    bench.pass_ms(2100)
    assert (bench["AlarmHigh"], bench["StackRed"], bench["StackGreen"]) == (True, True, False)


# --- who is in control ---


def test_a_second_controller_reads_and_is_refused_until_the_first_one_is_gone() -> None:
    bench = Bench()
    bench.write(Trigger=True)
    refusal = bench.write("10.0.0.2:1", Trigger=False)
    assert refusal is not None and refusal.fault is Fault.NOT_IN_CONTROL and PLC in refusal.words  # type: ignore[attr-defined]
    assert (bench["Trigger"], bench["WritesRefused"]) == (True, 1)
    bench.away("10.0.0.2:1")
    assert bench["Trigger"], "the one that goes was not in control"
    bench.away()
    assert bench.write("10.0.0.2:1", NewJobId=7) is None
    assert bench.write(NewJobId=9) is not None


@pytest.mark.parametrize(
    "values",
    [
        {"Trigger": 1},
        {"NewJobId": True},
        {"NewJobId": 65536},
        {"NewJobId": -1},
        {"EncoderCount": 1 << 32},
        {"TriggerPartId": "x" * 33},
        {"TriggerPartId": "ä" * 17},
        {"TriggerPartId": "A\0B"},
        {"Heartbeat": True},
        {"Nothing": True},
    ],
)
def test_a_value_that_its_point_cannot_hold_changes_nothing(values: dict[str, Value]) -> None:
    bench = Bench()
    refusal = bench.write(SilenceHorn=True, **values)
    assert refusal is not None and refusal.fault is Fault.OUT_OF_RANGE  # type: ignore[attr-defined]
    assert (bench.orders(), bench["SilenceHorn"], bench["WritesRefused"]) == ([], False, 1)
    assert bench.write("10.0.0.2:1", NewJobId=1) is None, "who was refused is not in control"


def test_pushbuttons_and_the_encoder_are_passed_on_the_encoder_first() -> None:
    bench = Bench()
    bench.write(Reset=True, SilenceHorn=True, AcknowledgeAlarms=True, LineStopped=True, EncoderCount=77)
    assert bench.orders() == [
        EncoderCount(77, bench.now_ns),
        ResetAlarms(PLC),
        SilenceHorn(PLC),
        AcknowledgeAlarms(PLC),
        BeltState(True, PLC),
    ]
    bench.write(Reset=True, SilenceHorn=False, AcknowledgeAlarms=False, LineStopped=True, EncoderCount=77)
    assert bench.orders() == [EncoderCount(77, bench.now_ns)], "no rise, no order; but a standing encoder is news"


def test_a_controller_that_vanishes_leaves_its_commands_at_rest_but_for_the_standing_line() -> None:
    bench = Bench()
    bench.tell(1)
    bench.write(LineStopped=True, Trigger=True, JobChange=True, NewJobId=7, TriggerPartId="A1", Reset=True)
    bench.take("cam1:s1:1")
    bench.handshake.job_changed("")
    bench.orders()
    bench.away()
    assert (bench["TriggerAck"], bench["JobChangeAck"], bench["Trigger"], bench["TriggerPartId"]) == (
        False,
        False,
        False,
        "",
    )
    assert bench["LineStopped"] and bench["ResultValid"]
    assert bench.orders() == []
    bench.write("10.0.0.2:1", image=True, LineStopped=False)
    assert bench.orders() == [BeltState(False, "10.0.0.2:1")]


def test_pushbuttons_that_a_new_controller_finds_pressed_do_nothing() -> None:
    bench = Bench()
    bench.write(NewJobId=8, JobChange=True)
    bench.write(Reset=True)
    bench.write(Trigger=True)
    bench.take()
    bench.away()
    bench.orders()
    bench.write(image=True, Reset=True, SilenceHorn=True, AcknowledgeAlarms=True)
    assert (bench.orders(), bench["WritesRefused"]) == ([], 4), "and the unknown job"
    assert bench["Fault"], "nobody has seen it yet"


def test_orders_that_come_as_messages_are_checked_like_triggers() -> None:
    bench = Bench()
    for _ in range(2):
        bench.handshake.order(TakePicture("A1"), bench.now_ns)
        bench.take("cam1:s1:1")
    bench.handshake.order(SilenceHorn("app"), bench.now_ns)
    assert bench.orders() == [TakePicture("A1"), SilenceHorn("app")]
    assert (bench["TriggersTaken"], bench["TriggerAck"], bench.fault) == (1, False, Fault.TRIGGER_REPLAYED)


def test_counters_wrap_at_the_end_of_their_registers() -> None:
    bench = Bench()
    last = (1 << 32) - 1
    bench.handshake._counters["PartsPassed"] = last
    bench.handshake._results.count = bench.handshake._results.lost = last
    bench.hear(signal(1, bench.now_ns), signal(last + 3, bench.now_ns, ticket_id="cam1:s2:1"))
    assert (bench["PartsPassed"], bench["ResultNumber"], bench["EjectorPartNumber"]) == (1, 0, 2)
    bench.tell(*range(2, 11))
    assert bench["ResultsLost"] < 10
