"""The check of a soak finds each kind of violation, planted in logs that are otherwise right."""

from __future__ import annotations

import pytest

from tests.soak.check import check
from tests.soak.record import NOTHING

WORKERS = {
    "worker-1": "begin 1.0.0 | end 1.0.0 | begin 1.0.1 | end 1.0.1 | done | begin 2.0.0",
    "worker-2": "begin 3.0.0 | end 3.0.0 | done",
}

CLIENT = """
    call 1.0.0 work 30 1.0 2.0 value 1.0.0
    call 1.0.1 fail 30 2.0 3.0 OnPurpose 1.0.1
    call 1.0.2 work 30 2.0 3.0 CallDropped -
    kill 1 4.5
    call 2.0.0 work 30 4.0 5.0 WorkerDied 1
    call 2.0.1 work 30 4.0 5.0 WorkerDied 1
    call 3.0.0 work 30 4.0 5.0 value 3.0.0
    fault 3.0 interrupted 5.1
    call 3.0.1 work 30 4.0 5.2 GreenletExit -
    call 4.0.0 hang_asleep 0.5 5.0 5.6 CallTimeout -
    call 4.0.1 work 0.5 5.0 5.6 CallTimeout -
    fault 5.0 cancelled 6.0
    call 5.0.0 work 30 5.0 6.0 Cancelled -
"""


def violations(workers=None, client=CLIENT, has_hook=True):
    """What the check finds; the logs are written as above, with blanks and bars instead of tabs and newlines."""
    logs = {}
    for name, text in {**WORKERS, **(workers or {})}.items():
        events = [event.split() for event in text.split("|") if event.strip()]
        logs[name] = ["\t".join((*event, "")[:2]) + "\t1.0\n" for event in events]
    lines = ["\t".join(line.split(maxsplit=7)) + "\n" for line in client.splitlines() if line.strip()]
    return list(check(logs, lines, has_hook))


def test_nothing_is_found_where_nothing_is_wrong():
    """Each kind of failure that a fault explains is in these logs."""
    assert violations() == []


@pytest.mark.parametrize(
    ("worker", "log", "found"),
    [
        ("worker-2", "begin 2.0.0 | done | begin 3.0.0 | end 3.0.0", "at most once: 2.0.0 was begun a second time"),
        ("worker-2", "begin 1.0.2 | end 1.0.2 | done | begin 3.0.0 | end 3.0.0", "exclusivity: checkout 1.0"),
        ("worker-2", "begin 3.0.0 | begin 9.0.0 | end 3.0.0", "exclusivity: worker-2 began 9.0.0 while 3.0.0 ran"),
        ("worker-2", "begin 3.0.0 | end 3.0.0 | begin 9.0.0", "before checkout_done had run for 3.0"),
        ("worker-2", "begin 3.0.0 | end 3.0.0 | done | begin 3.0.1", "though that checkout was over"),
        ("worker-2", "begin 3.0.0 | end 3.0.0 | end 3.0.0", "worker-2 ended 3.0.0 while nothing ran"),
        ("worker-2", "begin 3.0.0", "at most once: 3.0.0 returned, but no worker has run it to its end"),
        ("worker-2", "", "at most once: 3.0.0 returned, but no worker has run it to its end"),
    ],
)
def test_a_workers_log(worker, log, found):
    """A violation that a worker has written down is found."""
    assert any(found in violation for violation in violations({worker: log}))


def test_checkouts_that_interleave_without_the_hook():
    """Between the calls of one checkout the worker has served another."""
    log = "begin 3.0.0 | end 3.0.0 | begin 9.0.0 | end 9.0.0 | begin 3.0.2 | end 3.0.2"
    (found,) = violations({"worker-1": WORKERS["worker-1"].replace("done |", ""), "worker-2": log}, has_hook=False)
    assert found == "exclusivity: checkout 3.0, begun in worker-2, went on in worker-2"


def test_a_dropped_call_that_ran():
    """CallDropped promises that the call never began."""
    log = WORKERS["worker-1"].replace("done", "begin 1.0.2 | end 1.0.2 | done")
    assert violations({"worker-1": log}) == ["at most once: 1.0.2 was dropped, but worker-1 began it"]


@pytest.mark.parametrize(
    ("line", "instead", "found"),
    [
        ("value 3.0.0", "value 1.0.0", "answers: 3.0.0 got the answer 1.0.0"),
        ("fail 30 2.0 3.0 OnPurpose 1.0.1", "fail 30 2.0 3.0 value 1.0.1", "answers: 1.0.1 (fail) returned"),
        ("30 4.0 5.0 value 3.0.0", "30 4.0 35.2 value 3.0.0", "answers: 3.0.0 (work) ended 1.2 s after its deadline"),
        ("value 3.0.0", f"{NOTHING} -", "answers: 3.0.0 (work) never ended"),
        ("call 2.0.1", "call 2.0.0", "answers: 2.0.0 ended a second time, with WorkerDied"),
        ("OnPurpose 1.0.1", "OnPurpose 1.0.0", "no fault explains OnPurpose of 1.0.1"),
        ("kill 1 4.5", "kill 2 4.5", "no fault explains WorkerDied of 2.0.0"),
        ("kill 1 4.5", "kill 1 1.5", "no fault explains WorkerDied of 2.0.0"),
        ("kill 1 4.5", "kill 1 5.5", "no fault explains WorkerDied of 2.0.0"),
        ("fault 3.0 interrupted", "fault 3.1 interrupted", "no fault explains GreenletExit of 3.0.1"),
        ("fault 3.0 interrupted", "fault 3.0 cancelled", "no fault explains GreenletExit of 3.0.1"),
        ("fault 5.0 cancelled", "fault 5.1 cancelled", "no fault explains Cancelled of 5.0.0"),
        ("hang_asleep", "work", "no fault explains CallTimeout of 4.0.0"),
        ("fail 30 2.0 3.0 OnPurpose", "work 30 2.0 3.0 value", "no fault explains CallDropped of 1.0.2"),
        ("5.0 6.0 Cancelled", "5.0 6.0 ProtocolError", "no fault explains ProtocolError of 5.0.0"),
        ("value 3.0.0", "AcquireTimeout all busy", "no fault explains AcquireTimeout of 3.0.0"),
    ],
)
def test_the_clients_log(line, instead, found):
    """A violation that the client has written down is found; nothing else in the logs is taken for one."""
    assert CLIENT.count(line) == 1
    assert any(found in violation for violation in violations(client=CLIENT.replace(line, instead)))


def test_a_gap_of_the_hub_is_no_lateness():
    """As far as it lies behind the deadline and before the end, also if it is written down after the end."""
    late = "call 7.0.0 work 30 1.0 {} value 7.0.0\ngap 0.5 32.2\n"
    workers = {"worker-3": "begin 7.0.0 | end 7.0.0 | done"}
    assert violations(workers, CLIENT + late.format(32.3)) == []
    (found,) = violations(workers, CLIENT + late.format(32.7))
    assert found == "answers: 7.0.0 (work) ended 1.7 s after its deadline (0.5 s of them in gaps), with value"


def test_a_deadline_begins_at_the_head_of_the_queue():
    """A call that waited behind a long one has the time-out from the other's end on."""
    slow = "call 6.0.0 work 30 1.0 25.0 Cancelled - \n call 6.0.1 work 30 1.0 {} Cancelled -"
    client = CLIENT + "fault 6.0 cancelled 1.0 \n"
    assert violations(client=client + slow.format(55.9)) == []
    assert any("6.0.1 (work) ended" in found for found in violations(client=client + slow.format(56.1)))
