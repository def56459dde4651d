"""The point of this test is to ensure that a worker that dies raises WorkerDied at once, and that it sticks.

The call is never sent a second time, and the next checkout has another worker.
"""

import os
import signal

import gevent
import pytest

import gtask
from tests.support.waiting import text_once_written, wait_until

SOURCE = """
    import os, signal, time

    def pid():
        return os.getpid()

    def note(text):
        with open(os.path.join(DIR, "ran"), "a") as file:
            file.write(text + "\\n")

    def die(how):
        note(how)
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(7)

    def hang():
        note("hang")
        time.sleep(60)
"""


def ran(tmp_path):
    return (tmp_path / "ran").read_text().split()


@pytest.mark.parametrize("how", ["killed", "exit"])
def test_it_dies_in_the_method(shared, connect, tmp_path, how):
    """By kill -9 or os._exit(7), without any time-out; the method ran exactly once, those behind it never."""
    client = connect(shared(SOURCE), timeout=None, max_workers=1)
    with client.checkout() as worker:
        pid = worker.pid()
        first, behind = worker.die.submit(how), worker.note.submit("behind")
        with pytest.raises(gtask.WorkerDied, match=f"worker {pid} .* after die was called") as caught:
            first.get()
        error = caught.value
        assert (error.pid, error.method, error.executed) == (pid, "die", None)
        assert error.elapsed > 0
        assert isinstance(error, ConnectionError)
        with pytest.raises(gtask.WorkerDied):
            behind.get()
        for late in (worker.pid, worker.note.submit):
            with pytest.raises(gtask.WorkerDied) as again:
                late()
            assert (type(again.value), vars(again.value)) == (type(error), vars(error))
    assert client.call("pid") != pid
    assert ran(tmp_path) == [how]


def test_it_is_killed_from_outside(shared, connect, tmp_path):
    """While one greenlet waits for it; the others' workers go on."""
    client = connect(shared(SOURCE), timeout=None)
    with client.checkout() as worker, client.checkout() as other:
        pid, other_pid = worker.pid(), other.pid()
        call = gevent.spawn(worker.hang)
        text_once_written(tmp_path / "ran")
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(gtask.WorkerDied, match="hang"):
            call.get()
        assert other.pid() == other_pid
    assert ran(tmp_path) == ["hang"]


def test_it_dies_between_two_calls_of_a_checkout(shared, connect, tmp_path):
    """A transaction may be lost with it, so the checkout does not go on with another worker."""
    client = connect(shared(SOURCE), max_workers=1)
    with client.checkout() as worker:
        pid = worker.pid()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not os.path.exists(f"/proc/{pid}"), what="the end of the worker")
        for _ in range(2):
            with pytest.raises(gtask.WorkerDied):
                worker.note("half a transaction")
    assert client.call("pid") != pid
    assert not (tmp_path / "ran").exists()
