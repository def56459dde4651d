"""The decisions of a soak can be repeated, and all kinds of faults are among them."""

from __future__ import annotations

import itertools

from tests.soak.plan import CANCEL, HANG_METHODS, KILL, TIMEOUT, turns


def test_the_same_seed_gives_the_same_turns():
    """Each caller has its own decisions, and they depend on the seed alone."""
    first, again, other_caller, other_seed = (
        list(itertools.islice(turns(*whose), 50)) for whose in ((1, 1), (1, 1), (1, 2), (2, 1))
    )
    assert first == again
    assert first not in (other_caller, other_seed)


def test_all_kinds_of_turns_come():
    """Twenty thousand turns hold each kind; a call that hangs is the first of its turn."""
    sample = list(itertools.islice(turns(1, 1), 20_000))
    assert {turn.fate for turn in sample} == {"", KILL, TIMEOUT, CANCEL}
    assert {turn.steps[0].method for turn in sample} == {"work", "fail", *HANG_METHODS}
    assert {step.method for turn in sample for step in turn.steps[1:]} == {"work", "fail"}
    assert any(turn.queued and turn.dropped for turn in sample)
    assert any(step.size >= 100_000 for turn in sample for step in turn.steps)
