"""The point of this test is to ensure that a server that is down costs its clients under 1 % of a processor.

However many wait for it, and whether or not anybody does. (Row 57 of the table of faults.)
"""

import socket
from time import monotonic, process_time

import gevent
import pytest

import gtask
from gtask import testing

SECONDS = 2


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


def test_it_costs_under_one_percent(down, connect):
    """With 1,000 in line and min_workers wanted, over two seconds; they are all told at their time that it is down."""
    client = connect(down, min_workers=2, max_workers=50, timeout=None)
    checkouts = [client.checkout() for _ in range(1000)]
    callers = [gevent.spawn(raised_by, checkout.call, "never") for checkout in checkouts]
    impatient = client.checkout(timeout=SECONDS)
    told = gevent.spawn(raised_by, impatient.call, "never")
    testing.wait_until(lambda: client.stats().failed_connects and client.stats().calls == 1001)
    began, before = monotonic(), process_time()
    error = told.get()  # which is when the time is over
    share = (process_time() - before) / (monotonic() - began)
    assert share < 0.01
    assert type(error) is gtask.AcquireTimeout
    assert "server unreachable since" in str(error)
    stats = client.stats()
    assert stats.waiting == 1000
    assert stats.failed_connects >= 3  # it did try
    for checkout in checkouts:
        checkout.cancel("enough")
    assert {type(caller.get()) for caller in callers} == {gtask.Cancelled}
