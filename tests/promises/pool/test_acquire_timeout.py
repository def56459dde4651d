"""The point of this test is to ensure that a call that gets no worker in time fails with AcquireTimeout.

The error says whether the server could not be reached or all workers were busy; the call was never sent, and the
checkout keeps raising the error.
"""

import os
import re
import signal
import socket
from time import monotonic

import gevent
import pytest

import gtask
from tests.support.waiting import wait_until

SOURCE = """
    import os

    def note(text):
        with open(os.path.join(DIR, "ran"), "a") as file:
            file.write(text + "\\n")
"""


def ran(tmp_path):
    return (tmp_path / "ran").read_text().split()


def test_no_server_at_a_unix_socket(serve, connect, tmp_path):
    """It says unreachable, sticks, and nothing is sent when the server comes after all."""
    address = f"unix:{tmp_path}/late.sock"
    client = connect(address, timeout=0.2)
    with client.checkout() as worker:
        with pytest.raises(gtask.AcquireTimeout, match="unreachable") as caught:
            worker.note("too-early")
        assert isinstance(caught.value, TimeoutError)
        assert address in str(caught.value)
        assert "no such file" in str(caught.value)
        serve(SOURCE, address=address)
        with client.checkout(timeout=30) as other:
            other.note("other")
        with pytest.raises(gtask.AcquireTimeout) as again:
            worker.note("again")
        assert (type(again.value), vars(again.value)) == (type(caught.value), vars(caught.value))
    assert ran(tmp_path) == ["other"]


def test_no_server_at_a_tcp_port(connect):
    """The same over TCP; the port is bound and nobody listens at it."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        client = connect(f"tcp://127.0.0.1:{sock.getsockname()[1]}", timeout=0.2)
        with pytest.raises(gtask.AcquireTimeout, match=r"unreachable.*connection refused"):
            client.call("note", "never")


def test_all_workers_are_busy(shared, connect, tmp_path):
    """It says so, sticks, and nothing is sent when a worker becomes free; who waits behind is served."""
    client = connect(shared(SOURCE), max_workers=2)
    holders = [client.checkout() for _ in range(2)]
    for holder in holders:
        holder.note("holder")
    hasty = client.checkout(timeout=0.2)
    patient = client.checkout(timeout=None)
    waiting = patient.note.submit("patient")
    behind = hasty.note.submit("hasty-1")
    with pytest.raises(gtask.AcquireTimeout, match="2 of 2 workers busy, 0 ahead in line") as caught:
        hasty.note("hasty-2")
    assert "unreachable" not in str(caught.value)
    with pytest.raises(gtask.AcquireTimeout):
        behind.get()
    for holder in holders:
        holder.release()
    waiting.get()
    with pytest.raises(gtask.AcquireTimeout):
        hasty.note("hasty-3")
    hasty.release()
    patient.release()
    client.call("note", "afterwards")
    assert ran(tmp_path) == ["holder", "holder", "patient", "afterwards"]


def test_the_time_out_of_the_client_counts_unless_the_checkout_has_its_own(connect, tmp_path):
    """Of two that wait for a server that never comes, the one with its own time-out outlives the client's."""
    client = connect(f"unix:{tmp_path}/never.sock", timeout=0.1)
    other = client.checkout(timeout=60)
    patient = gevent.spawn(other.note, "never")
    with pytest.raises(gtask.AcquireTimeout, match=r"within 0\.1 s"):
        client.call("note", "never")
    assert not patient.ready()
    other.cancel("enough")
    with pytest.raises(gtask.Cancelled):
        patient.get()


def test_nobody_listens_any_more(connect, tmp_path):
    """A socket that refuses: it says so, where, and for how long; the longer the outage, the more."""
    path = f"{tmp_path}/dead.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        client = connect(f"unix:{path}", timeout=0.4)
        told = []
        for _ in range(2):
            with pytest.raises(gtask.AcquireTimeout) as caught:
                client.call("note", "never")
            said = re.search(r"server unreachable since (\S+) s: connection refused at unix:(\S+)", str(caught.value))
            assert said is not None, caught.value
            assert said[2] == path
            told.append(float(said[1]))
        assert told[0] >= 0.3
        assert told[1] >= 0.7


def test_an_outage_begins_anew(serve, connect, tmp_path):
    """After the server had been there, the time that is told counts from when it went."""
    client = connect(f"unix:{tmp_path}/server.sock", timeout=0.8)
    with pytest.raises(gtask.AcquireTimeout) as caught:
        client.call("note", "never")
    said = re.search(r"server unreachable since (\S+) s: no such file", str(caught.value))
    assert float(said[1]) >= 0.6
    server = serve(SOURCE, address=f"unix:{tmp_path}/server.sock")
    with client.checkout(timeout=30) as worker:
        worker.note("served")
        killed = monotonic()
        os.kill(server.pid, signal.SIGKILL)
        wait_until(server.obituary, what="the end of the server")
        with pytest.raises(gtask.AcquireTimeout) as caught, client.checkout(timeout=0.3) as other:
            other.note("never")
        said = re.search(r"server unreachable since (\S+) s", str(caught.value))
        assert said is not None
        assert float(said[1]) <= monotonic() - killed + 0.1  # it is rounded
    assert ran(tmp_path) == ["served"]


def test_how_many_are_ahead_in_line(shared, connect):
    """Of 32 that wait, the last knows of 31; and when the first of them have left, of fewer."""
    client = connect(shared(SOURCE), max_workers=2, timeout=None)
    holders = [client.checkout() for _ in range(2)]
    for holder in holders:
        holder.note("holder")
    waiting = [client.checkout() for _ in range(31)]
    hasty = [client.checkout(timeout=seconds) for seconds in (0.1, 0.2)]
    callers = [gevent.spawn(checkout.note, "never") for checkout in hasty]
    with pytest.raises(gtask.AcquireTimeout, match=r"within 0\.1 s: 2 of 2 workers busy, 31 ahead in line"):
        callers[0].get()
    for checkout in waiting[:11]:
        checkout.release()
    with pytest.raises(gtask.AcquireTimeout, match=r"within 0\.2 s: 2 of 2 workers busy, 20 ahead in line") as caught:
        callers[1].get()
    for remedy in ("raise max_workers or the timeout", "make shorter calls"):
        assert remedy in str(caught.value)
    assert client.stats().acquire_timeouts == 2


SLOW = """
    import os

    def setup():
        with open(os.path.join(DIR, "ran"), "a") as file:
            file.write(f"{os.getpid()}\\n")
        if os.path.exists(os.path.join(DIR, "gate")):
            open(os.path.join(DIR, "gate")).close()

    def note(text):
        return text
"""


@pytest.fixture
def gate(tmp_path):
    """``close, leave = gate`` hold back every setup of SLOW, and let it go on."""
    path, held = tmp_path / "gate", []

    def close():
        os.mkfifo(path)
        held.append(path)

    def leave():
        while held:
            held.pop()
            path.rename(tmp_path / "fifo")
            os.close(os.open(tmp_path / "fifo", os.O_RDWR))

    yield close, leave
    leave()


def test_a_worker_that_is_still_starting(shared, connect, tmp_path, gate):
    """The server is there, and its setup takes its time: it is not unreachable, and nobody is busy."""
    close, leave = gate
    server = shared(SLOW)
    connect(server).call("note", "the server is there")
    close()
    client = connect(server, max_workers=1)
    first = gevent.spawn(client.call, "note", "served")
    wait_until(lambda: len(ran(tmp_path)) == 2, "the setup")
    with client.checkout(timeout=0.1) as hasty, pytest.raises(gtask.AcquireTimeout) as caught:
        hasty.note("never")
    assert "0 of 1 workers busy, 1 starting, 1 ahead in line" in str(caught.value)
    assert "unreachable" not in str(caught.value)
    leave()
    assert first.get() == "served"


def test_a_worker_died_in_stock_and_the_next_is_still_starting(shared, connect, tmp_path, gate):
    """It says how the last one ended."""
    close, leave = gate
    client = connect(shared(SLOW), min_workers=1, max_workers=1)
    client.open(wait=True, timeout=30)
    close()
    os.kill(int(ran(tmp_path)[0]), signal.SIGKILL)
    wait_until(lambda: len(ran(tmp_path)) == 2, "the next setup")
    with client.checkout(timeout=0.1) as hasty, pytest.raises(gtask.AcquireTimeout, match="ended by SIGKILL"):
        hasty.note("never")
    leave()
    assert client.call("note", "served") == "served"
