"""The point of this test is to ensure that a server that is down costs its clients next to nothing.

However many wait for it: a few attempts a second are made, and the process rests between them. (Row 57 of the table of
faults; the share of a processor is measured by bench/.)
"""

import os
import socket
from time import monotonic

import gevent
import pytest

import gtask
from tests.support.process import check_that_it_rests
from tests.support.waiting import wait_until

SECONDS = 2

LONGEST = 0.25
"""Seconds of the longest pause between two attempts, at the least; until the pauses are as long there are
MORE_AT_FIRST, of which some are under way together."""

MORE_AT_FIRST = 16


@pytest.fixture(params=["no socket", "a unix socket that refuses", "a tcp port that refuses"])
def down(request, tmp_path):
    """The address of a server that is not there."""
    if request.param == "no socket":
        yield f"unix:{tmp_path}/never.sock"
        return
    with socket.socket(socket.AF_INET if "tcp" in request.param else socket.AF_UNIX) as sock:
        sock.bind(("127.0.0.1", 0) if "tcp" in request.param else f"{tmp_path}/dead.sock")
        yield f"tcp://127.0.0.1:{sock.getsockname()[1]}" if "tcp" in request.param else f"unix:{tmp_path}/dead.sock"


def raised_by(function, *arguments):
    """What a call raises, as a value: for a greenlet of its own."""
    with pytest.raises(gtask.Error) as caught:
        function(*arguments)
    return caught.value


def test_it_rests_and_tries_seldom(down, connect):
    """With 1,000 in line and min_workers wanted; who has a time is told then that it is down."""
    client = connect(down, min_workers=2, max_workers=50, timeout=None)
    checkouts = [client.checkout() for _ in range(1000)]
    callers = [gevent.spawn(raised_by, checkout.call, "never") for checkout in checkouts]
    impatient = client.checkout(timeout=SECONDS)
    told = gevent.spawn(raised_by, impatient.call, "never")
    wait_until(lambda: client.stats().failed_connects and client.stats().calls == 1001)
    began, attempts = monotonic(), client.stats().failed_connects
    check_that_it_rests(os.getpid(), 1.0)
    error = told.get()  # which is when the time is over
    assert client.stats().failed_connects - attempts <= MORE_AT_FIRST + (monotonic() - began) / LONGEST
    assert type(error) is gtask.AcquireTimeout
    assert "server unreachable since" in str(error)
    stats = client.stats()
    assert stats.waiting == 1000
    assert stats.failed_connects >= 3  # it did try
    for checkout in checkouts:
        checkout.cancel("enough")
    assert {type(caller.get()) for caller in callers} == {gtask.Cancelled}
