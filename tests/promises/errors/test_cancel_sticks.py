"""The point of this test is to ensure that cancel(reason) ends a running call at once with that reason, and sticks.

All calls of the checkout get it, running, queued and later ones, and its worker is not used again.
"""

import gevent
import pytest

import gtask
from tests.support.waiting import turn_hub, wait_until

SOURCE = """
    import os, time

    def pid():
        return os.getpid()

    def hang():
        open(os.path.join(DIR, "inside"), "w").close()
        time.sleep(60)

    def note(text):
        with open(os.path.join(DIR, "ran"), "a") as file:
            file.write(text + "\\n")
"""


def test_a_running_call_ends_at_once(shared, connect, tmp_path):
    """Without any time-out, so that nothing else could end it; calls queued behind it and later ones end, too."""
    client = connect(shared(SOURCE), timeout=None, max_workers=1)
    checkout = client.checkout()
    pid = checkout.pid()
    running = gevent.spawn(checkout.hang)
    wait_until((tmp_path / "inside").exists)
    behind = checkout.note.submit("behind")
    checkout.cancel("the user went away")
    for result in (running, behind):
        with pytest.raises(gtask.Cancelled, match=r"\Athe user went away\Z"):
            result.get()
    for late in (checkout.pid, checkout.note.submit):
        with pytest.raises(gtask.Cancelled, match=r"\Athe user went away\Z"):
            late()
    checkout.release()
    with pytest.raises(gtask.Cancelled):
        checkout.pid()
    assert client.call("pid") != pid
    assert not (tmp_path / "ran").exists()


def test_a_second_reason_changes_nothing(shared, connect):
    """The first one sticks."""
    with connect(shared(SOURCE)).checkout() as worker:
        worker.cancel("first")
        worker.cancel("second")
        with pytest.raises(gtask.Cancelled, match="first"):
            worker.pid()


def test_one_that_waits_for_a_worker_ends_at_once(shared, connect, tmp_path):
    """Its calls are never sent, and the next in line gets the worker."""
    client = connect(shared(SOURCE), timeout=None, max_workers=1)
    holder = client.checkout()
    pid = holder.pid()
    waiting, following = client.checkout(), client.checkout()
    call = gevent.spawn(waiting.note, "waiting")
    result = waiting.note.submit("waiting")
    turn_hub()
    waiting.cancel("no longer wanted")
    for ended in (call, result):
        with pytest.raises(gtask.Cancelled, match="no longer wanted"):
            ended.get()
    holder.release()
    assert following.pid() == pid
    following.note("following")
    following.release()
    assert (tmp_path / "ran").read_text().split() == ["following"]


def test_calls_that_outlive_their_checkout_can_be_cancelled(shared, connect, tmp_path):
    """Released with a call under way: the call goes on until it is cancelled."""
    client = connect(shared(SOURCE), timeout=None)
    with client.checkout() as worker:
        result = worker.hang.submit()
    wait_until((tmp_path / "inside").exists)
    worker.cancel("shutting down")
    with pytest.raises(gtask.Cancelled, match="shutting down"):
        result.get()


def test_after_the_end_it_does_nothing(shared, connect):
    """A checkout that is over cannot harm the worker's next one."""
    client = connect(shared(SOURCE), max_workers=1)
    with client.checkout() as over:
        pid = over.pid()
    with client.checkout() as worker:
        over.cancel("too late")
        assert worker.pid() == pid
    with pytest.raises(gtask.CheckoutReleased):
        over.pid()
