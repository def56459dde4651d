"""Row 27 of the table of faults: a worker hangs, and no deadline of a caller ends it, but ``hung_worker_timeout`` does.

With the client alive, dead or stopped. The hooks run where the call can be interrupted.
"""

import os
import re
import signal
import traceback
from time import monotonic

import pytest

import gtask
from tests.support.process import is_gone, is_reaped, state_of
from tests.support.waiting import SOON, wait_until

from .conftest import line_of, ran, steady_hub

LIMIT = 0.5

OPTIONS = ("--hung-worker-timeout", str(LIMIT))

HOOKS = """
    def checkout_done():
        note("checkout_done")

    def teardown():
        note("teardown")
"""

BEREAVED = """
    child = os.fork()  # it holds the connection, so that the server cannot hear its client's death
    if not child:
        while True:
            time.sleep(60)
    checkout.note(child)
    checkout.{call}()
"""


def assert_ended_in_time(started, pid):
    wait_until(lambda: is_reaped(pid), what="the end of the worker")
    assert LIMIT <= monotonic() - started < SOON


def test_the_client_is_alive(faulty, connect, server_log, tmp_path):
    """A call without a time-out ends with CallTimeout, which shows the line and what to raise."""
    client = connect(faulty(*OPTIONS, more=HOOKS), max_workers=1, timeout=None)
    client.call("pid")
    with client.checkout() as worker:
        pid = worker.pid()
        started = monotonic()
        with steady_hub(), pytest.raises(gtask.CallTimeout, match="server's hung_worker_timeout") as caught:
            worker.sleep()
        assert LIMIT <= monotonic() - started < SOON
        assert_ended_in_time(started, pid)
    error = caught.value
    assert (error.pid, error.method) == (pid, "sleep")
    assert traceback.extract_tb(error.__traceback__)[-1].line == "time.sleep(seconds)  # sleeps here"
    assert ran(tmp_path)[-2:] == ["checkout_done", "teardown"]
    assert client.call("pid") != pid
    assert is_gone(int((tmp_path / "grandchild").read_text()))


def test_the_client_is_alive_and_nothing_can_be_interrupted(faulty, connect, server_log, tmp_path):
    """The stacks show the line; it is CallTimeout all the same, and the log says why the worker was ended."""
    client = connect(faulty(*OPTIONS), max_workers=1, timeout=None)
    client.call("pid")
    with client.checkout() as worker:
        pid = worker.pid()
        started = monotonic()
        with steady_hub(), pytest.raises(gtask.FatalError) as caught:
            worker.c_loop()
        assert_ended_in_time(started, pid)
    error = caught.value
    number = line_of(tmp_path, "# loops in C here")
    assert re.search(rf'served_\d+\.py", line {number} in c_loop\n', error.stacks)
    assert re.search(
        rf"worker {pid} was ended by SIGABRT in c_loop after [\d.]+ s, because it was hung for [\d.]+ s "
        r"\(hung_worker_timeout\)",
        server_log(),
    )
    assert isinstance(error, gtask.CallTimeout)


@pytest.mark.parametrize("call", ["sleep", "c_loop"])
def test_the_client_is_dead(faulty, program, tmp_path, call):
    """Its connection is held open by a process that it forked, so the server hears nothing of its death."""
    server = faulty(*OPTIONS, more=HOOKS)
    process, pid = program(BEREAVED.format(call=call), server)
    wait_until((tmp_path / "grandchild").exists)
    started = monotonic()
    process.kill()
    wait_until(lambda: is_reaped(pid), what="the end of the worker")
    assert monotonic() - started < SOON
    holder, *hooks = ran(tmp_path)
    assert not is_gone(holder)
    os.kill(int(holder), signal.SIGKILL)
    assert hooks == (["checkout_done", "teardown"] if call == "sleep" else [])


@pytest.mark.parametrize("call", ["sleep", "c_loop"])
def test_the_client_is_stopped(faulty, program, tmp_path, call):
    """It neither hangs up nor reads."""
    process, pid = program(f"checkout.{call}()", faulty(*OPTIONS, more=HOOKS))
    wait_until((tmp_path / "grandchild").exists)
    started = monotonic()
    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: is_reaped(pid), what="the end of the worker")
    assert monotonic() - started < SOON
    assert state_of(process.pid) == "T"
    assert ran(tmp_path) == (["checkout_done", "teardown"] if call == "sleep" else [])


def test_the_client_is_stopped_and_does_not_read_the_reply(faulty, program, tmp_path):
    """A worker that cannot get rid of its reply is hung, too."""
    source = """
        def large():
            note("large")
            return "x" * 50_000_000  # text, for bytes would go through shared memory, which takes no reader
    """
    process, pid = program("checkout.large.submit(); os.kill(os.getpid(), 19)", faulty(*OPTIONS, more=source))
    wait_until(lambda: ran(tmp_path) == ["large"])
    started = monotonic()
    wait_until(lambda: is_reaped(pid), what="the end of the worker")
    assert monotonic() - started < SOON
    assert state_of(process.pid) == "T"


def test_none_for_no_limit(faulty, connect):
    """0 on the command line means no limit."""
    client = connect(faulty("--hung-worker-timeout", "0"), timeout=None)
    assert client.call("sleep", 0.3) is None


def test_an_idle_worker_is_not_hung(faulty, connect):
    """A worker that waits for its client, in a checkout or not, may do so for any time; so may quick calls go on."""
    client = connect(faulty("--hung-worker-timeout", "0.2"), timeout=None, max_workers=2)
    with client.checkout() as busy, client.checkout() as idle:
        pids = busy.pid(), idle.pid()
        until = monotonic() + 0.7
        while monotonic() < until:
            busy.echo(1)
        assert (busy.pid(), idle.pid()) == pids
