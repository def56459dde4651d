"""Row 60 of the table of faults: the client's process is out of file descriptors.

Who waits gets an error with the reason, those who have a worker are not disturbed, and the pool recovers by itself.
"""

import contextlib
import os
import resource
import socket

import gevent
import pytest

import gtask
from tests.support.waiting import wait_until

from .conftest import steady_hub


@contextlib.contextmanager
def no_descriptors():
    """All descriptors that this process may have are in use."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 1, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(taken[0]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in taken:
            os.close(descriptor)


@pytest.fixture(params=["unix", "tcp"])
def address(request, faulty):
    """Where a server is, over each kind of socket."""
    if request.param == "unix":
        return faulty().address
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{sock.getsockname()[1]}"
    faulty("--listen", address)
    return address


def test_a_typed_error_and_then_service(address, connect):
    """It says that there are too many open files, not that the server is at fault; then the same client serves."""
    client = connect(address, timeout=1)
    with steady_hub(), no_descriptors():
        with pytest.raises(gtask.AcquireTimeout, match="too many open files") as caught:
            client.call("echo", 1)
        assert "server unreachable" not in str(caught.value)
        stats = client.stats()
        assert stats.failed_connects >= 2
        assert (stats.busy, stats.idle, stats.waiting) == (0, 0, 0)
        assert stats.connecting <= 1
    with client.checkout(timeout=30) as worker:
        assert worker.echo("afterwards") == "afterwards"


def test_who_waits_is_served_when_there_are_descriptors_again(address, connect):
    """Nothing needs to be done but to close some files."""
    client = connect(address, timeout=30, max_workers=3)
    with no_descriptors():
        callers = [gevent.spawn(client.call, "echo", number) for number in range(5)]
        wait_until(lambda: client.stats().failed_connects >= 3, what="attempts")
        assert not any(caller.ready() for caller in callers)
    assert [caller.get() for caller in callers] == list(range(5))


def test_the_workers_that_are_there_serve_on(address, connect):
    """One worker has come before; two callers share it, though the pool would like to have a second one."""
    client = connect(address, max_workers=2)
    client.call("echo", "first")
    with no_descriptors():
        with client.checkout() as worker:
            caller = gevent.spawn(client.call, "echo", "behind")
            wait_until(lambda: client.stats().failed_connects, what="an attempt")
            assert worker.echo("amid") == "amid"
        assert caller.get() == "behind"
