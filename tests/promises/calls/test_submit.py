"""The point of this test is to ensure that submitted calls are sent at once and run in order on one worker.

Their results are AsyncResults. However much is under way, in both directions, nothing jams; and a queue has a bound.
"""

import os

import gevent
import pytest

import gtask
from tests.support.waiting import turn_hub, wait_until

SOURCE = """
    import os

    seen = []

    def pid():
        return os.getpid()

    def note(what):
        seen.append(what)
        return what

    def history():
        return seen

    def echo(data):
        return data

    def fail():
        raise LookupError("on purpose")

    def hold():
        open(os.path.join(DIR, "inside"), "w").close()
        with open(os.path.join(DIR, "gate")) as gate:
            gate.read()
"""


def test_they_run_in_order_on_one_worker(shared, connect):
    """Whether submitted before the worker was there or after, mixed with calls that are waited for."""
    client = connect(shared(SOURCE))
    with client.checkout() as worker:
        before = [worker.note.submit(number) for number in range(50)]
        assert worker.note(50) == 50
        after = [worker.note.submit(number) for number in range(51, 100)]
        assert worker.history() == list(range(100))
        assert all(result.ready() for result in before + after)
        assert [result.get() for result in before + after] == [*range(50), *range(51, 100)]
        assert len({result.get() for result in [worker.pid.submit() for _ in range(20)]}) == 1


def test_they_are_sent_at_once(shared, connect, tmp_path):
    """They lie in the worker's socket while it is busy and nobody waits for them: no turn of the hub is needed."""
    os.mkfifo(tmp_path / "gate")
    client = connect(shared(SOURCE))
    with client.checkout() as worker:
        worker.pid()
        held = worker.hold.submit()
        while not (tmp_path / "inside").exists():  # not wait_until: that would let the hub run
            pass
        rest = [worker.note.submit(number) for number in range(10)]
        assert not held.ready()
        (tmp_path / "gate").write_text("")
        assert [result.get() for result in rest] == list(range(10))


def test_results_are_async_results(shared, connect, tmp_path):
    """get with a time-out, ready, rawlink, gevent.wait, iwait; an exception is raised by get and told by the rest."""
    os.mkfifo(tmp_path / "gate")
    client = connect(shared(SOURCE))
    linked = []
    with client.checkout() as worker:
        held, value, failing = worker.hold.submit(), worker.note.submit("value"), worker.fail.submit()
        value.rawlink(linked.append)
        with pytest.raises(gevent.Timeout):
            value.get(timeout=0.01)
        assert not value.ready()
        wait_until((tmp_path / "inside").exists)
        (tmp_path / "gate").write_text("")
        assert gevent.wait([held, value, failing], timeout=30) == [held, value, failing]
        assert value.ready()
        assert value.successful()
        assert value.value == value.get() == value.get(block=False) == "value"
        assert failing.ready()
        assert not failing.successful()
        assert isinstance(failing.exception, LookupError)
        for _ in range(2):
            with pytest.raises(LookupError, match="on purpose"):
                failing.get()
        turn_hub()
        assert linked == [value]
        assert {result.get() for result in gevent.iwait([worker.note.submit(n) for n in range(5)])} == set(range(5))


def test_a_result_does_not_wait_for_the_call_behind_it(serve, connect, tmp_path):
    """A method that was always quick blocks for once: what ran before it has been answered all the same."""
    source = """
        import os

        def hold(gate):
            with open(os.path.join(DIR, gate)) as file:
                file.read()
            return gate

        def step(gate):
            return hold(gate) if gate else gate
    """
    os.mkfifo(tmp_path / "first")
    os.mkfifo(tmp_path / "second")
    with connect(serve(source)).checkout() as worker:
        for _ in range(300):
            worker.step("")
        # While the first blocks, the other two come to lie in the worker's socket side by side.
        first, between, second = (worker.hold.submit("first"), worker.step.submit(""), worker.step.submit("second"))
        (tmp_path / "first").write_text("")
        assert [first.get(timeout=30), between.get(timeout=30)] == ["first", ""]
        assert not second.ready()
        (tmp_path / "second").write_text("")
        assert second.get() == "second"


def test_who_gives_up_waiting_for_a_result_harms_nobody(shared, connect, tmp_path):
    """A time-out of get is only its caller's: the call goes on, and the checkout can be used."""
    os.mkfifo(tmp_path / "gate")
    with connect(shared(SOURCE)).checkout() as worker:
        held = worker.hold.submit()
        with pytest.raises(gevent.Timeout):
            held.get(timeout=0.01)
        wait_until((tmp_path / "inside").exists)
        (tmp_path / "gate").write_text("")
        assert held.get() is None
        assert worker.note("after") == "after"


def test_many_small_ones_in_flight(shared, connect):
    """5,000 at once: more than the socket's buffers take."""
    with connect(shared(SOURCE)).checkout() as worker:
        results = [worker.echo.submit([number, "x" * 100]) for number in range(5000)]
        assert [result.get()[0] for result in results] == list(range(5000))


def test_large_ones_in_flight_both_ways(shared, connect):
    """30 of 1 MB each, and back: worker and client both have more to write than the other takes."""
    blocks = [bytes([number]) * 1_000_000 for number in range(30)]
    with connect(shared(SOURCE), timeout=30).checkout() as worker:
        results = [worker.echo.submit(block) for block in blocks]
        small = worker.note.submit("behind them")
        assert small.get() == "behind them"
        assert all(result.get() == block for result, block in zip(results, blocks, strict=True))


def test_a_full_queue_is_overload(shared, connect, tmp_path):
    """The call that has no room is not sent, the checkout raises that from then on; those before it run."""
    os.mkfifo(tmp_path / "gate")
    client = connect(shared(SOURCE), max_queue=3, max_workers=1)
    with client.checkout() as worker:
        worker.pid()
        results = [worker.hold.submit(), worker.note.submit(1), worker.note.submit(2)]
        with pytest.raises(gtask.Overloaded, match="note was not sent") as caught:
            worker.note.submit(3)
        wait_until((tmp_path / "inside").exists)
        (tmp_path / "gate").write_text("")
        assert [result.get() for result in results] == [None, 1, 2]
        for late in (worker.note, worker.note.submit):
            with pytest.raises(gtask.Overloaded) as again:
                late(4)
            assert str(again.value) == str(caught.value)
    assert client.call("history") == [1, 2]


def test_a_queue_that_is_full_before_there_is_a_worker_is_overload_too(shared, connect):
    """Those before it are sent when the worker comes, as if nothing had happened."""
    client = connect(shared(SOURCE), max_queue=2, max_workers=1)
    with client.checkout() as worker:
        results = [worker.note.submit(1), worker.note.submit(2)]
        with pytest.raises(gtask.Overloaded, match="note was not sent"):
            worker.note.submit(3)
        assert [result.get(timeout=30) for result in results] == [1, 2]
        with pytest.raises(gtask.Overloaded):
            worker.note(4)
    assert client.call("history") == [1, 2]


def test_a_drained_queue_has_room_again(shared, connect):
    """The bound is of what is under way, not of what ever was."""
    with connect(shared(SOURCE), max_queue=2).checkout() as worker:
        for _ in range(3):
            assert [result.get() for result in [worker.note.submit(1), worker.note.submit(2)]] == [1, 2]
