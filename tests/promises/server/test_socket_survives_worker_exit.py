"""The point of this test is to ensure that the socket file survives the exit of a worker, however it exits."""

import os

import pytest

import gtask
from tests.support.waiting import wait_until

SOURCE = """
    import os, signal

    def pid():
        return os.getpid()

    def die(how):
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif how == "exit":
            raise SystemExit(3)
        else:
            os._exit(7)
"""


def test_the_file_stays_and_serves(shared, connect):
    """After an orderly end, a SystemExit, an _exit and a kill -9 it is the same file, and a new client is served."""
    server = shared(SOURCE)
    pid = connect(server).call("pid")
    before = os.stat(server.address.path)

    def check():
        after = os.stat(server.address.path)
        assert (after.st_dev, after.st_ino) == (before.st_dev, before.st_ino)
        with gtask.Client(server.address, min_workers=0) as client:
            assert client.call("pid") != pid

    with gtask.Client(server.address, min_workers=0) as client:
        leaving = client.call("pid")
    wait_until(lambda: not os.path.exists(f"/proc/{leaving}"), what="the end of the worker")
    check()
    for how in ("exit", "os._exit", "killed"):
        with pytest.raises(gtask.Error):
            connect(server).call("die", how)
        check()
