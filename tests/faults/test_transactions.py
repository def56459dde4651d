"""What becomes of a transaction, and of the log, when a call is given up.

A hung call that can be interrupted runs its ``finally`` blocks and checkout_done before its worker exits. Whoever
closes a database in peace is left in peace.
"""

import os
import re
import signal
import sqlite3
from contextlib import closing
from time import monotonic

import gevent
import pytest

import gtask
from tests.support.process import children, is_reaped, stop
from tests.support.waiting import SOON, turn_hub, wait_until

from .conftest import raised_by, ran, steady_hub

DATABASE = """
    _database = None

    def setup():
        global _database
        _database = sqlite3.connect(os.path.join(DIR, "database"), isolation_level=None)
        _database.execute("create table if not exists entries (text)")

    def insert(text, hang=0):
        _database.execute("begin immediate")
        try:
            _database.execute("insert into entries values (?)", [text])
            note("inserted")
            time.sleep(hang)
            _database.execute("commit")
        finally:
            note("finally")

    def begin(text):
        _database.execute("begin immediate")
        _database.execute("insert into entries values (?)", [text])

    def checkout_done():
        note("checkout_done")
        if _database.in_transaction:
            _database.execute("rollback")
            note("rolled back")

    def teardown():
        time.sleep(0.5)  # longer than the grace of the ladder
        _database.close()
        note("closed")
"""


def entries(directory):
    with closing(sqlite3.connect(directory / "database", timeout=0)) as database:
        database.execute("begin immediate")  # nobody holds a lock
        return [text for (text,) in database.execute("select text from entries")]


@pytest.mark.parametrize("how", ["timeout", "cancel", "killed caller"])
def test_a_hung_call_is_rolled_back(faulty, connect, tmp_path, how):
    """Its ``finally`` blocks, checkout_done and teardown have run when the worker exits, in that order."""
    client = connect(faulty(more=DATABASE), max_workers=1)
    client.call("insert", "kept")
    with client.checkout(timeout=0.5 if how == "timeout" else None) as worker:
        pid = worker.pid()
        wait_until(lambda: ran(tmp_path) == ["inserted", "finally", "checkout_done"])
        caller = gevent.spawn(raised_by, worker.insert, "lost", 60)
        with steady_hub():
            wait_until(lambda: ran(tmp_path)[3:] == ["inserted"])
            if how == "cancel":
                worker.cancel("enough")
            elif how == "killed caller":
                caller.kill()
            caller.join()
            wait_until(lambda: is_reaped(pid), what="the end of the worker")
    expected = {"timeout": gtask.CallTimeout, "cancel": gtask.Cancelled, "killed caller": gevent.GreenletExit}[how]
    assert type(caller.get()) is expected
    assert ran(tmp_path)[4:] == ["finally", "checkout_done", "rolled back", "closed"]
    assert entries(tmp_path) == ["kept"]


def test_a_transaction_left_open_is_rolled_back(faulty, connect, tmp_path):
    """Between two calls of a transaction the checkout is cancelled: no ladder, the hooks take their time."""
    client = connect(faulty(more=DATABASE), max_workers=1)
    with client.checkout() as worker:
        pid = worker.pid()
        worker.begin("lost")
        worker.cancel("enough")
    wait_until(lambda: is_reaped(pid), what="the end of the worker")
    assert ran(tmp_path) == ["checkout_done", "rolled back", "closed"]
    assert entries(tmp_path) == []


def test_the_application_may_catch_interrupted(faulty, connect, tmp_path):
    """``gtask.Interrupted`` is a BaseException; whatever the code then does, the call is over, and the hooks run."""
    source = """
        def clean_up(then):
            try:
                note("inside")
                time.sleep(60)
            except Exception:
                note("an Exception")
            except gtask.Interrupted:
                note("cleaned up")
                if then == "raise":
                    raise
                if then == "raise another":
                    raise ValueError("while cleaning up")
            return "a value"

        def checkout_done():
            time.sleep(0.5)  # longer than the grace of the ladder
            note("checkout_done")
    """
    client = connect(faulty(more=source), max_workers=1)
    client.call("pid")
    wait_until(lambda: ran(tmp_path) == ["checkout_done"])
    for then in ("return", "raise", "raise another"):
        (tmp_path / "ran").unlink()
        with client.checkout(timeout=0.3) as worker:
            pid = worker.pid()
            with pytest.raises(gtask.CallTimeout):
                worker.clean_up(then)
            wait_until(lambda pid=pid: is_reaped(pid), what="the end of the worker")
        assert ran(tmp_path) == ["inside", "cleaned up", "checkout_done"]


def test_hooks_get_stop_timeout_and_no_more(faulty, connect, server_log, tmp_path):
    """Then they are interrupted, and their own ``finally`` blocks run."""
    source = """
        def checkout_done():
            try:
                note("hook")
                time.sleep(60)
            finally:
                note("finally")

        def teardown():
            note("teardown")
    """
    client = connect(faulty("--stop-timeout", "0.5", more=source), max_workers=1, timeout=0.3)
    with client.checkout(timeout=30) as worker:
        pid = worker.pid()
    wait_until(lambda: ran(tmp_path) == ["hook"])
    started = monotonic()
    client.close()
    wait_until(lambda: is_reaped(pid), what="the end of the worker")
    assert 0.4 < monotonic() - started < SOON
    assert ran(tmp_path) == ["hook", "finally", "teardown"]
    assert f"worker {pid}" in server_log()


@pytest.mark.parametrize("how", ["client", "server"])
def test_a_normal_close_starts_no_ladder(faulty, connect, server_log, tmp_path, how):
    """A worker that is closing its database is left alone, and nothing is logged."""
    server = faulty(more=DATABASE)
    client = connect(server, max_workers=2)
    with client.checkout() as one, client.checkout() as two:
        pids = one.pid(), two.pid()
        two.insert("kept")
    wait_until(lambda: ran(tmp_path).count("checkout_done") == 2)
    if how == "client":
        client.close()
    else:
        os.kill(server.pid, signal.SIGTERM)
    wait_until(lambda: all(map(is_reaped, pids)), what="the end of the workers")
    assert ran(tmp_path).count("closed") == 2
    assert entries(tmp_path) == ["kept"]
    assert not re.search("WARNING|ERROR|Traceback", server_log())


@pytest.mark.parametrize("how", ["timeout", "cancel", "killed caller"])
def test_a_worker_that_finishes_just_as_its_caller_gives_up(faulty, connect, server_log, tmp_path, how):
    """Nobody reads its reply any more; that is no error in the log.

    The master is stopped meanwhile, so that the call ends after its caller has gone and before the ladder begins.
    """
    server = faulty(
        more="""
        def checkout_done():
            note("checkout_done")
    """
    )
    client = connect(server, max_workers=1)
    client.call("pid")
    wait_until(lambda: ran(tmp_path) == ["checkout_done"])
    os.mkfifo(tmp_path / "gate")
    with client.checkout(timeout=0.3 if how == "timeout" else None) as worker:
        pid = worker.pid()
        stop(server.pid)
        caller = gevent.spawn(raised_by, worker.wait_for, str(tmp_path / "gate"))
        turn_hub()
        with open(tmp_path / "gate", "w") as gate:  # opens when the call has begun
            if how == "cancel":
                worker.cancel("enough")
            elif how == "killed caller":
                caller.kill()
            caller.join()
            gate.write("finished")
        wait_until(lambda: ran(tmp_path) == ["checkout_done"] * 2)
    os.kill(server.pid, signal.SIGCONT)
    wait_until(lambda: is_reaped(pid), what="the end of the worker")
    wait_until(lambda: not children(server.pid))
    assert not re.search("WARNING|ERROR|Traceback", server_log())


def test_time_outs_of_all_lengths_around_the_call(faulty, connect, server_log):
    """A call of 10 ms with time-outs from 5 to 15 ms: the value or CallTimeout, and no error in the log."""
    client = connect(
        faulty(
            more="""
        def nap():
            time.sleep(0.01)
            return "value"
    """
        )
    )
    pids = {client.call("pid")}
    outcomes = set()
    for step in range(100):
        with client.checkout(timeout=30) as worker:
            pids.add(worker.pid())
        with client.checkout(timeout=0.005 + step * 1e-4) as worker:
            try:
                outcomes.add(worker.nap())
            except gtask.CallTimeout as error:
                outcomes.add("timeout")
                pids.add(error.pid)
    client.close()
    wait_until(lambda: all(map(is_reaped, pids)), what="the end of the workers")
    assert outcomes == {"value", "timeout"}
    assert not re.search("WARNING|ERROR|Traceback", server_log())
