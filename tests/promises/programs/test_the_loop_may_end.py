"""The point of this test is to ensure that a client that nobody waits for holds no loop, and that one who waits does.

``gevent.wait()`` and ``gevent.get_hub().join()`` return when nothing is left to be done. An idle client is nothing that
is left, whatever it keeps an eye on; a call, a place in line and a handshake are. So no main greenlet that waits for
them gets a LoopExit, with a time-out or without. Each test is a program of its own.
"""

import socket

import pytest

from tests.support.program import run_program

SOURCE = """
    import time

    def nap(seconds=0.0):
        time.sleep(seconds)
        return seconds
"""

BEGINNING = """
import sys, time
import gevent, gtask

def ends():
    "Whether the loop ends."
    return gevent.wait(timeout=30)

client = gtask.Client(sys.argv[1], min_workers=2, max_workers=4, leak_after=60, reconnect_timeout=60, max_idle=60)
"""

LOOPS = ["libev-cext", "libev-cffi", "libuv"]

LONGER = 1.5
"""Seconds of a call that lasts longer than any look at whether it is still under way."""


@pytest.fixture(params=LOOPS)
def run(request, serve, tmp_path):
    """``run(source, *arguments)`` runs a program under each of gevent's loops; its argument is usually an address."""
    if request.param != LOOPS[0]:
        pytest.importorskip("cffi")

    def start(source, *arguments):
        arguments = arguments or (serve(SOURCE).address,)
        env = {"GEVENT_LOOP": request.param, "LONGER": str(LONGER)}
        return run_program(BEGINNING + source, *arguments, directory=tmp_path, env=env).stdout

    return start


def test_after_every_kind_of_use(run):
    """An open, calls, submitted ones, futures, an own time-out, none at all: then the loop ends, and so does all."""
    assert "done" in run("""
client.open(wait=True, timeout=None)
assert ends()
assert client.call("nap") == client.remote.nap() == 0.0
assert ends()
with client.checkout(timeout=None) as worker:
    assert worker.nap() == 0.0
    results = [worker.nap.submit() for _ in range(20)]
    assert [result.get() for result in results] == [0.0] * 20
    assert ends(), "a checkout that is held, without a call"
assert ends()
assert list(client.map_unordered("nap", [0.0] * 9)) == [0.0] * 9
workers = [client.checkout() for _ in range(4)]
assert [worker.nap() for worker in workers] == [0.0] * 4
del workers, worker
assert gevent.get_hub().join(timeout=30)
assert client.call("nap") == 0.0
client.close(timeout=10)
assert ends()
print("done")
""")


def test_while_somebody_waits(run):
    """The end of the loop waits for greenlets that are in a call or in line for one, with a time-out or without."""
    assert "done" in run("""
import os
longer = float(os.environ["LONGER"])
client.resize(1, 1)

def use(timeout, ended):
    with client.checkout(timeout=timeout) as worker:
        ended.append(worker.nap(longer))

for timeout in (None, 30):
    ended = []
    for _ in range(2):  # the second waits in line
        gevent.spawn(use, timeout, ended)
    assert ends()
    assert ended == [longer] * 2
print("done")
""")


def test_a_main_greenlet_that_waits(run):
    """It waits in a call, for a result, in line, for the workers to be there: each time without a time-out."""
    assert "done" in run("""
import os
longer = float(os.environ["LONGER"])
free = gtask.Client(sys.argv[1], timeout=None, min_workers=1, max_workers=1)
assert free.call("nap", longer) == longer
held = free.checkout()
results = [held.nap.submit(longer)]
del held
with free.checkout() as waits:
    assert waits.nap() == 0.0, "the worker comes when the result is there"
with free.checkout() as worker:
    assert worker.nap.submit(longer).get() == longer
future = free.executor(timeout=None).submit("time:sleep", longer)
assert future.exception() is not None, "it is not allowed, and that is heard"
print("done")
""")


def test_a_setup_and_a_server_that_take_their_time(run, tmp_path):
    """The server is not there yet, and then its workers' setup takes long."""
    source = SOURCE.replace("    def nap", f"    def setup():\n        time.sleep({LONGER})\n\n    def nap")
    (tmp_path / "late.py").write_text("\n".join(line[4:] for line in source.splitlines()))
    assert "done" in run(
        """
import subprocess
free = gtask.Client(sys.argv[1], timeout=None, min_workers=1, max_workers=1)
server = subprocess.Popen([sys.executable, "-c", '''
import sys, time
from gtask.server.daemon.cli import main
time.sleep(1)  # in which the client finds nobody
sys.exit(main(["late", "--listen", sys.argv[1]]))
''', sys.argv[1]])
try:
    free.open(wait=True, timeout=None)
    free.close()
    free = gtask.Client(sys.argv[1], timeout=None, min_workers=1, max_workers=1)
    assert free.call("nap") == 0.0
    assert ends()
finally:
    server.terminate()
    server.wait()
print("done")
""",
        f"unix:{tmp_path}/late.sock",
    )


def test_nobody_waits_for_the_server_that_is_away(run, tmp_path):
    """The attempts to connect go on while the loop turns for somebody else, and do not hold it."""
    assert "done" in run(
        """
client.open()
assert ends()
assert client.stats().failed_connects
try:
    client.checkout(timeout=0.3).nap()
except gtask.AcquireTimeout:
    assert ends()
print("done")
""",
        f"unix:{tmp_path}/nobody.sock",
    )


def test_over_tcp_and_in_json(run, serve):
    """Neither another kind of socket nor another language makes a difference."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{sock.getsockname()[1]}"
    serve(SOURCE, address=address)
    assert "done" in run(
        """
assert client.call("nap") == 0.0
json = gtask.Client(sys.argv[1], codec="json")
assert json.call("nap") == 0.0
assert ends()
print("done")
""",
        address,
    )
