"""Rows 30, 31, 36, 37, 40 and 41 of the table of faults: what befalls the client's side.

Rows 28 and 29, an interruption at every switch and at every line, are in tests/promises/calls/test_kill_safety.py.
"""

import os
import signal
from time import monotonic

import gevent
import pytest

from tests.support.process import children, is_reaped
from tests.support.waiting import SOON, turn_hub, wait_until

from .conftest import raised_by, ran, steady_hub


@pytest.mark.parametrize("order", ["killed first", "released first"])
def test_a_waiter_is_killed_in_the_tick_of_its_hand_off(faulty, connect, tmp_path, order):
    """Row 30: the waiter gets GreenletExit, and the worker that it was handed, or its slot, goes to the next."""
    client = connect(faulty(), max_workers=1)
    holder = client.checkout()
    holder.pid()
    waiter = gevent.spawn(raised_by, client.call, "echo", "the waiter's")
    following = gevent.spawn(client.call, "echo", "the next one's")
    wait_until(lambda: "2 waiting" in repr(client))
    if order == "killed first":
        waiter.kill(block=False)
        holder.release()
    else:
        holder.release()
        waiter.kill(block=False)
    assert type(waiter.get()) is gevent.GreenletExit
    assert following.get() == "the next one's"
    assert client.call("echo", "a third one's") == "a third one's"
    assert "0 of 1 workers busy, 1 idle, 0 waiting" in repr(client)


def test_a_caller_is_killed_while_its_worker_connects(faulty, connect, tmp_path):
    """Row 31: it gets GreenletExit at once, and the connection, when it is there, joins the pool."""
    source = """
        def setup():
            note("setup")
            if os.path.exists(os.path.join(DIR, "gate")):
                wait_for(os.path.join(DIR, "gate"))
    """
    server = faulty(more=source)
    os.mkfifo(tmp_path / "gate")
    client = connect(server, max_workers=1)
    caller = gevent.spawn(raised_by, client.call, "pid")
    wait_until(lambda: ran(tmp_path) == ["setup"])
    caller.kill(block=False)
    assert type(caller.get()) is gevent.GreenletExit
    (pid,) = children(server.pid)
    (tmp_path / "gate").write_text("")
    wait_until(lambda: "0 of 1 workers busy" in repr(client))
    assert client.call("pid") == pid
    assert ran(tmp_path) == ["setup"]


def test_the_client_is_killed_in_a_call(faulty, program, tmp_path):
    """Row 36: the worker hears of it amid its call, by the ladder; checkout_done and teardown run, and it exits."""
    source = """
        def hold():
            try:
                note("call")
                time.sleep(60)
            finally:
                note("finally")

        def checkout_done():
            note("checkout_done")

        def teardown():
            note("teardown")
    """
    process, pid = program("checkout.hold()", faulty(more=source))
    wait_until(lambda: ran(tmp_path) == ["call"])
    killed = monotonic()
    process.kill()
    wait_until(lambda: is_reaped(pid), what="the end of the worker")
    assert monotonic() - killed < SOON
    assert ran(tmp_path) == ["call", "finally", "checkout_done", "teardown"]


def test_the_client_is_killed_in_an_uninterruptible_call(faulty, program, tmp_path):
    """Row 36: the ladder goes on to SIGABRT."""
    process, pid = program("checkout.c_loop()", faulty())
    wait_until((tmp_path / "grandchild").exists)
    killed = monotonic()
    process.kill()
    wait_until(lambda: is_reaped(pid), what="the end of the worker")
    assert monotonic() - killed < SOON


def test_the_client_is_killed_between_the_calls_of_a_transaction(faulty, program, tmp_path):
    """Row 37: checkout_done runs, then teardown, and the worker exits; a hook that takes its time is not disturbed."""
    source = """
        def checkout_done():
            time.sleep(0.5)  # longer than the grace of the ladder
            note("checkout_done")

        def teardown():
            note("teardown")
    """
    process, pid = program("checkout.note('begin'); time.sleep(60)", faulty(more=source))
    wait_until(lambda: ran(tmp_path) == ["begin"])
    process.kill()
    wait_until(lambda: is_reaped(pid), what="the end of the worker")
    assert ran(tmp_path) == ["begin", "checkout_done", "teardown"]


@pytest.mark.parametrize("way", ["call", "submit"])
def test_the_hub_stalls_while_the_answer_is_readable(faulty, connect, way):
    """Row 40: past the deadline, with the answer in the socket, the caller gets the value and no time-out."""
    client = connect(faulty(), max_workers=1)
    client.call("pid")
    with client.checkout(timeout=0.3) as worker:
        worker.pid()
        result = worker.echo.submit("value") if way == "submit" else gevent.spawn(worker.echo, "value")
        turn_hub()  # it is sent
        until = monotonic() + 0.8
        while monotonic() < until:
            pass  # the stall
        assert result.get() == "value"
        assert worker.echo("next") == "next"


@pytest.mark.parametrize("call", ["note", "sleep", "c_loop"])
def test_the_interpreter_exits_without_close(faulty, program, tmp_path, call):
    """Row 41: no hang and no traceback in the program, and its workers exit, idle or in whatever call."""
    argument = {"note": "'called'"}.get(call, "")
    mark = tmp_path / {"note": "ran"}.get(call, "grandchild")
    source = f"""
        result = checkout.{call}.submit({argument})
        wait_until(lambda: os.path.exists({str(mark)!r}), {SOON})
    """
    process, pid = program(source, faulty())
    with steady_hub():
        wait_until(lambda: process.poll() is not None, what="the end of the program")
        exited = monotonic()
        wait_until(lambda: is_reaped(pid), what="the end of the worker")
    assert monotonic() - exited < SOON
    assert process.returncode == 0
    assert (tmp_path / "stderr").read_text() == ""


def test_a_killed_client_takes_no_slot_of_another(faulty, connect, program, tmp_path):
    """Rows 36 and 37: the worker of another client is not disturbed."""
    server = faulty()
    other = connect(server, max_workers=1)
    with other.checkout() as worker:
        mine = worker.pid()
        process, pid = program("checkout.sleep()", server)
        wait_until((tmp_path / "grandchild").exists)
        process.send_signal(signal.SIGKILL)
        wait_until(lambda: is_reaped(pid), what="the end of the worker")
        assert worker.pid() == mine
    assert children(server.pid) == [mine]
