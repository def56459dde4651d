"""The point of this test is to ensure that nobody notices when a worker dies that nobody uses: another one serves."""

import os
import signal
import time

import pytest

from gtask import testing

SOURCE = """
    import os

    def pid():
        return os.getpid()
"""


def is_gone(pid):
    return not os.path.exists(f"/proc/{pid}")


def test_the_pool_forgets_it(serve, connect):
    """Once the hub has heard of its end, it is not in the pool any more."""
    client = connect(serve(SOURCE), max_workers=1)
    pid = client.call("pid")
    os.kill(pid, signal.SIGKILL)
    testing.wait_until(lambda: "of 0 workers" in repr(client), what="an empty pool")
    assert client.call("pid") != pid


@pytest.mark.parametrize("way", ["call", "submit"])
def test_it_is_not_lent_either_before_the_hub_has_run(serve, connect, way):
    """The worker is dead and the hub has had no turn to learn it when the next call is made."""
    client = connect(serve(SOURCE), max_workers=1)
    pid = client.call("pid")
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while not is_gone(pid):  # not wait_until: that would let the hub run
        assert time.monotonic() < deadline
    with client.checkout() as worker:
        assert (worker.pid() if way == "call" else worker.pid.submit().get()) != pid
