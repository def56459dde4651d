"""The point of this test is to ensure that several greenlets can share a checkout: one worker serves them in order.

Each gets its own answer or its own error.
"""

import gevent
import pytest

import gtask
from tests.support.waiting import turn_hub

SOURCE = """
    import os

    seen = []

    def note(what):
        seen.append(what)
        return [what, os.getpid()]

    def history():
        return seen

    def fail(what):
        raise LookupError(what)
"""


def test_each_gets_its_own_answer(shared, connect):
    """20 greenlets make 10 calls each, with others between, all on one worker."""
    with connect(shared(SOURCE)).checkout() as worker:

        def work(name):
            answers = []
            for turn in range(10):
                answers.append(worker.note([name, turn]))
                turn_hub()
            return answers

        shared = [gevent.spawn(work, name) for name in range(20)]
        answers = [answer for greenlet in shared for answer in greenlet.get()]
        assert [what for what, _ in answers] == [[name, turn] for name in range(20) for turn in range(10)]
        assert len({pid for _, pid in answers}) == 1


def test_they_are_served_in_the_order_of_their_calls(shared, connect):
    """Whether the worker was there already or not."""
    with connect(shared(SOURCE)).checkout() as worker:
        for _ in range(2):
            gevent.joinall([gevent.spawn(worker.note, number) for number in range(20)], raise_error=True)
        assert worker.history() == [*range(20), *range(20)]


def test_each_gets_its_own_error(shared, connect):
    """A call that raises raises in its own greenlet; the calls that lay behind it are dropped, later ones run."""
    with connect(shared(SOURCE)).checkout() as worker:
        worker.note("begin")
        first = gevent.spawn(worker.note, "first")
        failing = gevent.spawn(worker.fail, "second")
        behind = gevent.spawn(worker.note, "third")
        assert first.get()[0] == "first"
        with pytest.raises(LookupError, match="second"):
            failing.get()
        with pytest.raises(gtask.CallDropped, match="note did not run"):
            behind.get()
        assert gevent.spawn(worker.note, "fourth").get()[0] == "fourth"
        assert worker.history() == ["begin", "first", "fourth"]


def test_the_end_of_one_checkout_is_the_end_for_all(shared, connect):
    """A release lets the calls that were made finish and refuses others."""
    checkout = connect(shared(SOURCE)).checkout()
    made = gevent.spawn(checkout.note, "made")
    turn_hub()
    checkout.release()
    late = gevent.spawn(checkout.note, "late")
    assert made.get()[0] == "made"
    with pytest.raises(gtask.CheckoutReleased):
        late.get()
