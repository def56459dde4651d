"""Rows 52 to 55 and 57 of the table of faults: what befalls the master, or all workers at once."""

import json
import os
import signal
import subprocess
import sys
from time import monotonic

import gevent
import pytest

import gtask
from tests.support.process import children, is_gone, stop
from tests.support.waiting import SOON, turn_hub, wait_until

from .conftest import raised_by, ran, steady_hub


def test_the_master_is_killed(faulty, connect, tmp_path):
    """Row 52: checkouts that are held finish, also a call that runs; the workers exit when their client closes."""
    server = faulty(
        more="""
        def checkout_done():
            note("checkout_done")
    """
    )
    client = connect(server, max_workers=3)
    os.mkfifo(tmp_path / "gate")
    with client.checkout() as one, client.checkout() as two, client.checkout() as three:
        pids = [one.pid(), two.pid(), three.pid()]
        running = one.wait_for.submit(str(tmp_path / "gate"))
        with open(tmp_path / "gate", "w") as gate:  # opens when the call has begun
            os.kill(server.pid, signal.SIGKILL)
            wait_until(server.obituary)
            gate.write("finished")
        assert running.get() == "finished"
        assert two.pid() == pids[1]
        os.kill(pids[2], signal.SIGKILL)  # nobody is left to say how it died
        wait_until(lambda: "ended by" in repr(three), what="the client's notice")
        with pytest.raises(gtask.WorkerDied, match="closed the connection") as caught:
            three.echo("dead")
        assert (caught.value.pid, caught.value.signal, caught.value.exitcode) == (pids[2], "", None)
    wait_until(lambda: ran(tmp_path) == ["checkout_done"] * 2)
    with client.checkout() as again:
        assert again.pid() in pids
    client.close()
    wait_until(lambda: all(map(is_gone, pids)), what="the end of the workers")


FORKING = """
import json, os, posix, signal, sys
import gtask

server = gtask.fork_server({"pid": os.getpid})
client = gtask.Client(server.address)
checkouts = client.checkout(), client.checkout()
pids = [server.pid, *(checkout.pid() for checkout in checkouts)]
sibling = 0
if sys.argv[1] == "with a sibling":
    sibling = posix.fork()  # it inherits the end of the pipe that tells the server of its parent's end
    if not sibling:
        os.close(1)
        signal.pause()
print(json.dumps({"pids": pids, "sibling": sibling, "address": server.address.path}), flush=True)
signal.pause()
"""


@pytest.mark.parametrize("sibling", ["alone", "with a sibling"])
def test_the_parent_of_fork_server_is_killed(tmp_path, sibling):
    """Row 53: master and workers are gone soon, also while a sibling holds the pipe."""
    (tmp_path / "program.py").write_text(FORKING)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    program = subprocess.Popen(
        [sys.executable, "program.py", sibling],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    with program, program.stdout as stdout:
        facts = json.loads(stdout.readline())
        started = monotonic()
        program.kill()
        try:
            wait_until(lambda: all(map(is_gone, facts["pids"])), what="the end of master and workers")
            assert monotonic() - started < SOON
            assert not os.path.exists(facts["address"])
        finally:
            if facts["sibling"]:
                # A sibling holds the worker's connections, too: only the master's order can have ended them.
                assert not is_gone(facts["sibling"])
                os.kill(facts["sibling"], signal.SIGKILL)


def test_the_master_is_stopped_and_continued(faulty, connect, tmp_path):
    """Row 54: stopped for longer than hung_worker_timeout, it kills nobody healthy: the same pids answer."""
    server = faulty("--hung-worker-timeout", "0.4")
    client = connect(server, max_workers=4)
    with client.checkout() as busy, client.checkout() as idle, client.checkout() as ended, client.checkout() as running:
        pids = [worker.pid() for worker in (busy, idle, ended, running)]
        os.mkfifo(tmp_path / "ending")
        os.mkfifo(tmp_path / "gate")
        ending = ended.wait_for.submit(str(tmp_path / "ending"))
        with open(tmp_path / "ending", "w") as gate:
            stop(server.pid)
            gate.write("ended meanwhile")
        assert ending.get() == "ended meanwhile"
        until = monotonic() + 0.8
        while monotonic() < until:
            busy.echo("meanwhile")
        healthy = running.wait_for.submit(str(tmp_path / "gate"))
        with open(tmp_path / "gate", "w") as gate:
            os.kill(server.pid, signal.SIGCONT)
            other = connect(server).call("pid")  # so the master has had its turn
            gate.write("healthy")
        assert healthy.get() == "healthy"
        assert other not in pids
        assert [worker.pid() for worker in (busy, idle, ended, running)] == pids


def test_fifty_workers_are_killed_at_once(faulty, connect, server_log):
    """Row 55: no zombie stays, each caller is told, each death is logged, and all slots can be had again."""
    server = faulty()
    client = connect(server, max_workers=50, timeout=30)
    checkouts = [client.checkout() for _ in range(50)]
    pids = [worker.pid() for worker in checkouts]
    assert sorted(children(server.pid)) == sorted(pids)
    running = [worker.sleep.submit() for worker in checkouts[:25]]
    turn_hub()
    stop(server.pid)  # so that they all lie there, and one SIGCHLD stands for them all
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    os.kill(server.pid, signal.SIGCONT)
    wait_until(lambda: not children(server.pid), what="a server without zombies")
    wait_until(lambda: server_log().count("was ended by SIGKILL") >= 50, what="a log of fifty deaths")
    assert not any(map(os.path.exists, [f"/proc/{pid}" for pid in pids]))
    for result in running:
        with pytest.raises(gtask.WorkerDied):
            result.get()
    for worker in checkouts[25:]:
        with pytest.raises(gtask.WorkerDied):
            worker.echo("dead")
    for worker in checkouts:
        worker.release()
    assert server_log().count("was ended by SIGKILL") == 50
    again = [client.checkout() for _ in range(50)]
    results = [worker.echo.submit(number) for number, worker in enumerate(again)]
    assert [result.get() for result in results] == list(range(50))
    for worker in again:
        worker.release()


def test_the_server_never_starts(connect, tmp_path):
    """Row 57: AcquireTimeout at the deadline, which says unreachable; waiting costs no more than a few attempts."""
    client = connect(f"unix:{tmp_path}/never.sock", timeout=2, max_workers=20)
    callers = [gevent.spawn(raised_by, client.call, "pid") for _ in range(20)]
    started = monotonic()
    gevent.joinall(callers)
    took = monotonic() - started
    assert 2 <= took < SOON
    assert client.stats().failed_connects <= 2 / 0.25 + 10  # after the first ones it is tried every 0.25 s at most
    for caller in callers:
        assert isinstance(caller.get(), gtask.AcquireTimeout)
        assert "server unreachable since " in str(caller.get())
    with steady_hub(), pytest.raises(gtask.AcquireTimeout, match="pid was not sent"), client.checkout(timeout=0.2) as c:
        c.pid()
