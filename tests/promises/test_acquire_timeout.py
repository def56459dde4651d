"""The point of this test is to ensure that a call that gets no worker in time fails with AcquireTimeout.

The error says whether the server could not be reached or all workers were busy; the call was never sent, and the
checkout keeps raising the error.
"""

import socket

import gevent
import pytest

import gtask

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
        with client.checkout(timeout=10) as other:
            other.note("other")
        with pytest.raises(gtask.AcquireTimeout) as again:
            worker.note("again")
        assert again.value is caught.value
    assert ran(tmp_path) == ["other"]


def test_no_server_at_a_tcp_port(connect):
    """The same over TCP; the port is bound and nobody listens at it."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        client = connect(f"tcp://127.0.0.1:{sock.getsockname()[1]}", timeout=0.2)
        with pytest.raises(gtask.AcquireTimeout, match=r"unreachable.*connection refused"):
            client.call("note", "never")


def test_all_workers_are_busy(serve, connect, tmp_path):
    """It says so, sticks, and nothing is sent when a worker becomes free; who waits behind is served."""
    client = connect(serve(SOURCE), max_workers=2)
    holders = [client.checkout() for _ in range(2)]
    for holder in holders:
        holder.note("holder")
    hasty = client.checkout(timeout=0.2)
    patient = client.checkout(timeout=None)
    waiting = patient.note.submit("patient")
    behind = hasty.note.submit("hasty-1")
    with pytest.raises(gtask.AcquireTimeout, match="2 of at most 2 workers are busy") as caught:
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
