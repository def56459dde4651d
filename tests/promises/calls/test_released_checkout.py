"""The point of this test is to ensure that a checkout raises CheckoutReleased after its end, whatever is tried.

Ending it again does nothing, above all nothing to the worker's next user.
"""

import gevent
import pytest

import gtask
from tests.support.waiting import turn_hub

SOURCE = """
    import os

    def pid():
        return os.getpid()

    def fail():
        raise LookupError("on purpose")
"""


@pytest.mark.parametrize("used", [True, False])
def test_every_way_of_calling_is_refused(shared, connect, used):
    """Also by a method that was taken before; whether or not the checkout ever had a worker."""
    with connect(shared(SOURCE)).checkout() as worker:
        method = worker.pid
        if used:
            worker.pid()
    for use in (worker.pid, method, worker.pid.submit, worker, worker.submit, lambda: worker.call("pid")):
        with pytest.raises(gtask.CheckoutReleased, match="make a new one"):
            use()


def test_releasing_again_does_nothing(shared, connect):
    """The worker is another's by now, and stays it: who waits behind does not get it."""
    client = connect(shared(SOURCE), max_workers=1)
    over = client.checkout()
    pid = over.pid()
    over.release()
    over.release()
    with client.checkout() as worker:
        assert worker.pid() == pid
        waiting = gevent.spawn(client.call, "pid")
        turn_hub()
        over.release()
        with over:
            pass
        assert worker.pid() == pid
        assert not waiting.ready()
    assert waiting.get() == pid


def test_a_block_that_raises_releases(shared, connect):
    """The exception passes on, and the next checkout gets the worker."""
    client = connect(shared(SOURCE), max_workers=1, refork_after_error=False)
    pid = client.call("pid")
    with pytest.raises(LookupError), client.checkout() as worker:
        worker.fail()
    with pytest.raises(ZeroDivisionError), client.checkout() as worker:
        worker(1 / 0)
    assert client.call("pid") == pid


def test_a_sticky_error_comes_first(shared, connect):
    """Who overlooked it in the block is told it afterwards, too."""
    with connect(shared(SOURCE)).checkout() as worker:
        worker.cancel("on purpose")
    with pytest.raises(gtask.Cancelled, match="on purpose"):
        worker.pid()
