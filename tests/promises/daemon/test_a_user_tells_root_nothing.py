"""The point of this test is to ensure that neither a master nor its keeper believes what the application writes to it.

The keeper hears a master on a pipe, and a master sees its workers in shared memory. The application's code can write to
both. Whatever it writes, keeper and master go on, other clients are served, and limits hold.
"""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

import gtask
from gtask.tool.conversation import Session
from tests.support.daemon import daemon

GARBAGE = [
    "b'ready nan nan\\n'", "b'ready -1 -1\\n'", "b'ready 1\\n'", "b'ready x y\\nready 1 2 3\\n'",
    "bytes(range(256)) * 200",
    "b'reload \\x1b[2J\\xff\\n'", "b'ready 1 1\\n' * 2000", "b'x' * 60000",
]  # fmt: skip
NUMBERS = ["float('nan')", "float('inf')", "-float('inf')", "1e300", "-1e300", "77.0", "-1.0"]

SOURCE = """
    import gc, os, stat

    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            if number > 2 and stat.S_ISFIFO(os.fstat(number).st_mode):
                os.set_blocking(number, False)
                os.write(number, GARBAGE)
        except OSError:
            pass

    def line():
        return next(one for one in gc.get_objects() if type(one).__name__ == "BoardLine")

    def scribble(place, value):
        line()._numbers[place] = eval(value)
        return os.getpid()

    def hang(place, value):
        scribble(place, value)
        while True:
            pass

    def die(place, value):
        scribble(place, value)
        os._exit(3)

    def fill(start, stop):
        board = line()
        board._memory[start:stop] = bytes(stop - start)[:-1] + b"\\\\xff"
        os._exit(3)

    def echo(value):
        return value
"""


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_on_the_pipe(tmp_path, connect, garbage):
    """From the beginning of the application on; the server serves, reloads and ends as ever."""
    with daemon(tmp_path, source=SOURCE.replace("GARBAGE", garbage)) as server:
        client = connect(server.address)
        assert client.call("echo", 1) == 1
        server.reload()
        assert client.call("echo", 2) == 2
        client.close()
        server.end(signal.SIGTERM)
        assert "Traceback" not in server.log
        assert all(line.isprintable() for line in server.log.splitlines())


@pytest.mark.parametrize("value", NUMBERS)
def test_numbers_in_the_scoreboard(tmp_path, connect, value):
    """In each place of a worker's line; the master sees to it while the worker lives, and when it has died."""
    with daemon(tmp_path, "--hung-worker-timeout", "0.5", source=SOURCE.replace("GARBAGE", "b''")) as server:
        client, master = connect(server.address, max_workers=20), server.master
        for place in range(9):
            with contextlib.suppress(gtask.CallTimeout), client.checkout() as worker:  # it looks as if it hung
                worker.scribble(place, value)
                status(server)
            with pytest.raises(gtask.Error):  # of whatever kind: it is its own client who is told
                client.call("die", place, value)
            assert client.call("echo", place) == place
        assert server.master == master
        assert "Traceback" not in server.log


@pytest.mark.parametrize("value", ["float('nan')", "float('inf')"])
def test_limits_hold(tmp_path, connect, value):
    """A call that has made its beginning no number is interrupted, as another one."""
    with daemon(tmp_path, "--hung-worker-timeout", "0.5", source=SOURCE.replace("GARBAGE", "b''")) as server:
        client = connect(server.address)
        with pytest.raises((gtask.CallTimeout, gtask.WorkerDied, gtask.Interrupted)):
            client.call("hang", 0, value)
        assert client.call("echo", 1) == 1


def test_bytes_in_the_scoreboard(tmp_path, connect):
    """Over the whole of a worker's line."""
    with daemon(tmp_path, source=SOURCE.replace("GARBAGE", "b''")) as server:
        client, master = connect(server.address), server.master
        for start, stop in ((0, 72), (72, 300), (0, 32 * 1024)):
            with pytest.raises(gtask.Error):
                client.call("fill", start, stop)
            assert client.call("echo", start) == start
        assert server.master == master
        assert os.path.exists(f"/proc/{server.pid}")


def status(server):
    """What the server says of itself."""
    with Session(gtask.address.parse(server.address), 20, about=True) as session:
        return session.call("status")
