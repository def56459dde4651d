"""The point of this test is to ensure that a client that hangs up ends its own worker, and never that of another client
which has come in the same moment.

The master may learn at once that a connection was closed, that its worker has ended, and that another client is there,
whose connection then gets the same descriptor.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import gevent

from tests.support.waiting import wait_until

SOURCE = """
    import os, time

    def pids():
        return [os.getpid(), os.getppid()]

    def sleep(seconds):
        time.sleep(seconds)
        return os.getpid()
"""


def is_zombie(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_one_goes_as_another_comes(serve, connect):
    """While the master stands still one client closes, its worker ends, another connects: that one is served."""
    server = serve(SOURCE)
    goes, comes = connect(server), connect(server)
    first, master = goes.call("pids")
    os.kill(master, signal.SIGSTOP)
    try:
        goes.close()
        wait_until(lambda: is_zombie(first), "the end of the first worker")
        call = gevent.spawn(comes.call, "sleep", 0.5)
        wait_until(lambda: comes._pool._connector.connections, what="its connection")
    finally:
        os.kill(master, signal.SIGCONT)
    assert call.get(timeout=20) != first
