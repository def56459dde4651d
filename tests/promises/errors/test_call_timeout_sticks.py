"""The point of this test is to ensure that a call that takes too long fails with CallTimeout, and that it sticks.

The time counts from when the call is the first of its checkout's queue, waiting for a worker included. The worker is
not used again, and other checkouts do not notice.
"""

from time import monotonic

import gevent
import pytest

import gtask
from tests.support.waiting import SOON

SOURCE = """
    import os, time

    def pid():
        return os.getpid()

    def take(seconds):
        with open(os.path.join(DIR, "ran"), "a") as file:
            file.write(f"{seconds}\\n")
        time.sleep(seconds)
        return seconds
"""


def test_the_checkout_keeps_raising_it(shared, connect, tmp_path):
    """Also to those queued behind and to later calls, none of which runs; the next checkout has another worker."""
    client = connect(shared(SOURCE), max_workers=1)
    pid = client.call("pid")
    with client.checkout(timeout=0.5) as worker:
        behind = gevent.spawn(lambda: worker.take(0))
        with pytest.raises(gtask.CallTimeout, match=r"take took longer than 0\.5 s") as caught:
            worker.take(60)
        assert isinstance(caught.value, TimeoutError)
        with pytest.raises(gtask.CallTimeout):
            behind.get()
        for late in (worker.pid, worker.pid.submit):
            with pytest.raises(gtask.CallTimeout) as again:
                late()
            assert (type(again.value), vars(again.value)) == (type(caught.value), vars(caught.value))
    assert client.call("pid") != pid
    assert (tmp_path / "ran").read_text().split() == ["60"]


def test_others_do_not_notice(shared, connect):
    """A checkout that has its worker keeps it while another's call times out."""
    client = connect(shared(SOURCE), max_workers=2)
    with client.checkout() as one, client.checkout() as other:  # so that there are two
        assert one.pid() != other.pid()
    with client.checkout() as steady, client.checkout(timeout=0.5) as hasty:
        pid = steady.pid()
        with pytest.raises(gtask.CallTimeout):
            hasty.take(60)
        assert steady.pid() == pid


def test_a_queued_call_has_its_own_time(shared, connect):
    """Three submitted calls take longer than the time-out together, and none of them does alone."""
    client = connect(shared(SOURCE))
    client.call("pid")
    with client.checkout(timeout=2) as worker:
        assert [result.get() for result in [worker.take.submit(0.8) for _ in range(3)]] == [0.8] * 3


def test_waiting_for_a_worker_counts(shared, connect):
    """A call that waited for its worker for most of its time has only the rest of it left."""
    client = connect(shared(SOURCE), max_workers=1)
    holder = client.checkout()
    holder.pid()
    with client.checkout(timeout=2) as worker:
        started = monotonic()
        release = gevent.spawn_later(1.5, holder.release)
        with pytest.raises(gtask.CallTimeout):
            worker.take(60)
        assert 2 <= monotonic() - started < SOON
        release.get()


def test_no_time_out_means_no_limit(shared, connect):
    """None outlasts what the client allows."""
    client = connect(shared(SOURCE), timeout=0.2)
    with client.checkout(timeout=None) as worker:
        assert worker.take(0.5) == 0.5
