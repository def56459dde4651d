"""The point of this test is to ensure that client and server can be started in either order.

A client that comes first waits, and is served when the server comes; also when it comes back.
"""

import os

import gevent
import pytest

import gtask
from tests.support.waiting import turn_hub, wait_until

SOURCE = """
    import os

    def pid():
        return os.getpid()
"""


def test_the_client_comes_first(serve, connect, tmp_path):
    """Calls, submitted calls and an opened pool wait for the server; nothing blocks before the first call."""
    address = f"unix:{tmp_path}/later.sock"
    client = connect(address, min_workers=2, max_workers=3, timeout=30)
    client.open()
    submitted = client.checkout()
    result = submitted.pid.submit()
    callers = [gevent.spawn(client.call, "pid") for _ in range(10)]
    turn_hub()
    assert not os.path.exists(f"{tmp_path}/later.sock")
    serve(SOURCE, address=address)
    pids = {caller.get() for caller in callers} | {result.get()}
    submitted.release()
    assert 1 <= len(pids) <= 3
    assert os.getpid() not in pids


@pytest.mark.parametrize("left", ["nothing", "a socket nobody listens at"])
def test_the_server_comes_back(serve, connect, tmp_path, left):
    """The client outlives its server and finds the next one, which takes over a stale socket."""
    address = f"unix:{tmp_path}/back.sock"
    first = serve(SOURCE, address=address)
    client = connect(address, timeout=30)
    pid = client.call("pid")
    if left == "nothing":
        first.stop()
        assert not os.path.exists(f"{tmp_path}/back.sock")
    else:
        with client.checkout() as worker:
            for process in (first.pid, worker.pid()):
                os.kill(process, 9)
            with pytest.raises(gtask.WorkerDied):
                worker.pid()
        first.stop()
        assert os.path.exists(f"{tmp_path}/back.sock")
    wait_until(lambda: client.stats().idle == 0, what="the client's notice of its server's end")
    waiting = gevent.spawn(client.call, "pid")
    turn_hub()
    serve(SOURCE, address=address)
    assert waiting.get() != pid
