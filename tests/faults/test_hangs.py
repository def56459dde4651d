"""Rows 19 to 26 of the table of faults: a call hangs, and its caller's time is over.

Whatever hangs: CallTimeout comes within 0.3 s of the deadline and shows the line; the worker and the processes that it
started are gone within 1.5 s; other greenlets run on throughout. These limits are promises, so the time is asserted.
Row 27, where the caller is gone, is in test_hung_worker_timeout.py.
"""

import os
import re
import signal
import traceback
from time import monotonic

import gevent
import pytest

import gtask
from tests.support.process import is_gone, is_reaped, state_of
from tests.support.waiting import SOON, text_once_written, wait_until

from .conftest import line_of, raised_by, ran, steady_hub

TIMEOUT = 0.5


@pytest.fixture
def hang(faulty, connect, tmp_path):
    """``hang(method, *arguments, when=None)`` calls it until its time is over, checks the limits, gives the error.

    ``when`` is called with the worker's process id once the call has left a grandchild.
    """

    def hang(method, *arguments, when=None):
        def strike(pid):
            text_once_written(tmp_path / "grandchild")
            when(pid)

        client = connect(faulty(), max_workers=1)
        client.call("pid")  # so that the server is there
        with client.checkout(timeout=TIMEOUT) as worker:
            pid = worker.pid()
            with steady_hub():
                meanwhile = gevent.spawn(strike, pid) if when is not None else None
                started = monotonic()
                with pytest.raises(gtask.CallTimeout) as caught:
                    worker.call(method, *arguments)
                late = monotonic() - started - TIMEOUT
                grandchild = int((tmp_path / "grandchild").read_text())
                wait_until(lambda: is_reaped(pid), what="the end of the worker")
                wait_until(lambda: is_gone(grandchild), what="the end of the grandchild")
                gone = monotonic() - started - TIMEOUT
            assert 0 <= late < SOON
            assert gone < SOON
        if meanwhile is not None:
            meanwhile.get()
        error = caught.value
        assert (error.pid, error.method) == (pid, method)
        assert TIMEOUT <= error.elapsed < TIMEOUT + SOON
        assert str(error).startswith(f"{method} took longer than {TIMEOUT} s in worker {pid} of ")
        assert client.call("pid") != pid
        assert "0 of 1 workers busy" in repr(client)
        return error

    return hang


def assert_raised_at(error, method, line):
    """The worker's frames are part of the traceback, with the line that hung as the last."""
    shown = "".join(traceback.format_exception(error))
    last = traceback.extract_tb(error.__traceback__)[-1]
    assert last.line == line, shown
    assert last.name == method, shown
    assert line in shown
    assert error.stacks == ""


def assert_stacks_show(error, directory, function, line):
    """What faulthandler wrote names the line that hung; a note shows it in tracebacks."""
    number = line_of(directory, line)
    assert re.search(rf'served_\d+\.py", line {number} in {function}\n', error.stacks), error.stacks
    assert any(error.stacks in note for note in error.__notes__)


def test_sleep(hang):
    """Row 19: SIGALRM raises in time.sleep."""
    assert_raised_at(hang("sleep"), "sleep", "time.sleep(seconds)  # sleeps here")


def test_sleep_of_a_submitted_call(faulty, connect):
    """Row 19: the result of a submitted call shows the line, too."""
    client = connect(faulty(), max_workers=1)
    client.call("pid")
    with client.checkout(timeout=TIMEOUT) as worker, pytest.raises(gtask.CallTimeout) as caught:
        worker.sleep.submit().get()
    assert_raised_at(caught.value, "sleep", "time.sleep(seconds)  # sleeps here")


def test_pure_python_loop(hang):
    """Row 20: SIGALRM raises in the loop."""
    error = hang("python_loop")
    last = traceback.extract_tb(error.__traceback__)[-1]
    assert last.name == "python_loop"
    assert last.line in ("while True:", "pass  # loops here")


def test_c_loop_holding_the_gil(hang, tmp_path, server_log):
    """Row 21: no Python code runs, so SIGABRT ends it, and faulthandler shows the line."""
    error = hang("c_loop")
    assert_stacks_show(error, tmp_path, "c_loop", "# loops in C here")
    assert re.search(
        rf"worker {error.pid} was ended by SIGABRT in c_loop after [\d.]+ s, because its client hung up", server_log()
    )


def test_swallows_every_exception(hang, tmp_path):
    """Row 22: what SIGALRM raises is swallowed, so SIGABRT ends it."""
    assert_stacks_show(hang("swallow"), tmp_path, "swallow", "# swallows here")


def test_hang_in_a_finaliser(hang):
    """Row 23: Python swallows what is raised in a ``__del__``, but the call is over, and the line is shown."""
    assert_raised_at(hang("finalise"), "__del__", "time.sleep(60)  # finalises here")


def test_hang_in_a_stubborn_finaliser(hang, tmp_path):
    """Row 23: one that cannot be interrupted is ended by SIGABRT."""
    assert_stacks_show(hang("finalise_stubbornly"), tmp_path, "__del__", "# finalises stubbornly here")


@pytest.mark.parametrize("how", ["blocked", "ignored", "stolen"])
def test_sigalrm_blocked_or_stolen(hang, tmp_path, how):
    """Row 24: the application has taken SIGALRM from gtask, so SIGABRT ends it."""
    assert_stacks_show(hang("do_without_alarm", how), tmp_path, "do_without_alarm", "# hears no alarm here")


def test_sigstop_from_outside(hang, server_log):
    """Row 25: a stopped process handles no signal but SIGKILL, and there is nothing to show."""
    error = hang("sleep", when=lambda pid: os.kill(pid, signal.SIGSTOP))
    assert error.stacks == ""
    assert re.search(rf"worker {error.pid} was ended by SIGKILL in sleep", server_log())


def test_sigstop_from_inside(hang):
    """Row 25: the same where the method stops its own process."""
    assert hang("stop_itself").stacks == ""


def test_sigstop_before_the_request_was_read(faulty, connect, tmp_path):
    """Row 25: stopped between calls, a worker gets ``stop_timeout``, then the ladder; its caller does not wait for it.

    The request that was never read is not executed.
    """
    client = connect(faulty("--stop-timeout", "0.3"), max_workers=1)
    client.call("pid")
    with client.checkout(timeout=TIMEOUT) as worker:
        pid = worker.pid()
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: state_of(pid) == "T")
        started = monotonic()
        with steady_hub(), pytest.raises(gtask.CallTimeout):
            worker.note("never")
        assert monotonic() - started < SOON
        wait_until(lambda: is_reaped(pid), what="the end of the worker")
        assert monotonic() - started < SOON
    assert client.call("echo", 1) == 1
    assert ran(tmp_path) == []


def test_leaves_grandchildren(faulty, connect, tmp_path):
    """Row 26: the whole process group goes, also those that ignore what can be ignored, and those that are stopped."""
    source = """
        def start_many():
            script = "trap '' TERM HUP INT ALRM; sleep 600 & echo $$ $! >> $0/many; wait"
            for _ in range(2):
                _kept.append(subprocess.Popen(["sh", "-c", script, DIR]))
            time.sleep(60)
    """
    client = connect(faulty(more=source), max_workers=1)
    client.call("pid")

    def grandchildren():
        path = tmp_path / "many"
        return [int(pid) for pid in path.read_text().split()] if path.exists() else []

    with client.checkout(timeout=TIMEOUT) as worker:
        pid = worker.pid()
        started = monotonic()
        with steady_hub():
            result = worker.start_many.submit()
            wait_until(lambda: len(grandchildren()) == 4)
            os.kill(grandchildren()[1], signal.SIGSTOP)
            with pytest.raises(gtask.CallTimeout):
                result.get()
            wait_until(lambda: is_reaped(pid) and all(map(is_gone, grandchildren())))
        assert monotonic() - started < SOON


@pytest.mark.parametrize("method", ["sleep", "c_loop"])
def test_cancel_and_an_interrupted_greenlet(faulty, connect, tmp_path, method):
    """The same ladder where the caller is interrupted or cancels instead of waiting for its deadline."""
    client = connect(faulty(), max_workers=2)
    client.call("pid")
    for way in ("cancel", "kill"):
        (tmp_path / "grandchild").unlink(missing_ok=True)
        with client.checkout(timeout=None) as worker:
            pid = worker.pid()
            with steady_hub():
                caller = gevent.spawn(raised_by, worker.call, method)
                grandchild = int(text_once_written(tmp_path / "grandchild"))
                ended = monotonic()
                if way == "cancel":
                    worker.cancel("enough")
                else:
                    caller.kill()
                wait_until(lambda pid=pid: is_reaped(pid), what="the end of the worker")
                wait_until(lambda grandchild=grandchild: is_gone(grandchild), what="the grandchild's end")
            assert monotonic() - ended < SOON
            assert type(caller.get()) is (gtask.Cancelled if way == "cancel" else gevent.GreenletExit)
