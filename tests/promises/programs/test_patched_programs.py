"""The point of this test is to ensure that gtask works in plain and in monkey-patched gevent programs alike.

The client and the private servers behave the same in both. A server is never patched and never imports gevent,
whoever started it. Each test is a program of its own, because this process is never patched.
"""

import textwrap

import pytest

from tests.support.program import run_program

PLAIN = "import gevent"
PATCHED = "from gevent import monkey; monkey.patch_all()\nimport gevent"

APPLICATION = """
import os
import sys
import threading
import time

loaded_with = sorted(name for name in sys.modules if name.partition(".")[0] in ("gevent", "greenlet"))

def double(number):
    time.sleep(0.01)
    return 2 * number

def parent():
    return os.getppid()

def fail(key):
    return {}[key]

def wait_for(path):
    with open(path) as fifo:
        return fifo.readline()

def patched():
    "All that would tell that this process is patched, or was once."
    modules = sorted(name for name in sys.modules if name.partition(".")[0] in ("gevent", "greenlet"))
    homes = [kind.__module__ for kind in (time.sleep, os.fork, threading.Lock, threading.Thread.start)]
    return loaded_with, modules, [home for home in homes if home.startswith("gevent")]
"""

BEGINNING = """
import os, sys, threading, time
import gtask
from tests.support.waiting import wait_until
from gtask import testing

address = sys.argv[1]

"""


@pytest.fixture(params=[PLAIN, PATCHED], ids=["plain", "patched"])
def run(request, tmp_path, unmeasured):
    """``run(source, *arguments)`` runs a program that is plain or patched; all warnings but gevent's own are errors."""
    (tmp_path / "application.py").write_text(APPLICATION)

    def run(source, address="spawn:application"):
        run_program(request.param + BEGINNING + textwrap.dedent(source), address, directory=tmp_path)

    return run


def test_many_greenlets(run, serve):
    """Calls from many greenlets are served, more of them than there are workers."""
    run(
        """
        with gtask.Client(address, min_workers=1, max_workers=3) as client:
            greenlets = [gevent.spawn(client.call, "double", number) for number in range(50)]
            gevent.joinall(greenlets, raise_error=True)
            assert [greenlet.value for greenlet in greenlets] == [2 * number for number in range(50)]
        """,
        serve(APPLICATION).address,
    )


def test_other_greenlets_run_while_one_waits(run, serve):
    """A call blocks its greenlet only: another one lets the worker go on."""
    run(
        """
        os.mkfifo("may_go_on")
        fifo = os.open("may_go_on", os.O_RDWR)  # to open it for writing alone would wait for the worker
        with gtask.Client(address, min_workers=0) as client:
            waiting = gevent.spawn(client.call, "wait_for", os.path.abspath("may_go_on"))
            gevent.sleep(0)
            assert not waiting.ready()
            gevent.spawn(os.write, fifo, b"go on\\n")
            assert waiting.get() == "go on\\n"
        """,
        serve(APPLICATION).address,
    )


def test_queues_errors_and_timeouts(run, serve):
    """Submitted calls, a worker's exception and gevent.Timeout around a call are as anywhere."""
    run(
        """
        with gtask.Client(address, min_workers=0) as client:
            with client.checkout() as worker:
                results = [worker.double.submit(number) for number in range(20)]
                assert [result.get() for result in results] == [2 * number for number in range(20)]
                try:
                    worker.fail("k")
                    raise AssertionError("it did not raise")
                except KeyError as error:
                    assert isinstance(error, gtask.RemoteError)
                os.mkfifo("never")
                try:
                    with gevent.Timeout(0.05):
                        worker.wait_for(os.path.abspath("never"))
                    raise AssertionError("it did not time out")
                except gevent.Timeout:
                    pass
            assert client.call("double", 4) == 8
        os.write(os.open("never", os.O_RDWR), b"\\n")  # the worker that was given up ends with its call
        """,
        serve(APPLICATION).address,
    )


def test_over_tcp(run, serve):
    """The same over TCP, host name and all."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = f"tcp://localhost:{sock.getsockname()[1]}"
    run(
        """
        with gtask.Client(address, min_workers=2) as client:
            assert client.call("double", 21) == 42
        """,
        serve(APPLICATION, address=address).address,
    )


def test_a_server_of_its_own_is_never_patched(run, serve):
    """gtask-server and its workers have neither gevent nor anything of it, whoever calls."""
    run(
        """
        with gtask.Client(address, min_workers=0) as client:
            assert client.call("patched") == [[], [], []]
        """,
        serve(APPLICATION).address,
    )


def test_a_spawned_client(run):
    """``Client("spawn:...")`` works, its server is never patched, and ends with ``close()``."""
    run("""
        with gtask.Client(address, min_workers=0) as client:
            assert client.call("patched") == [[], [], []]
            server = client.call("parent")
        testing.wait_until(lambda: not os.path.exists(f"/proc/{server}"), 30)
    """)


def test_a_spawned_server(run):
    """spawn_server works, its server is never patched, and ``stop()`` lets it end in an orderly way."""
    run("""
        with gtask.spawn_server("application") as server:
            server.kill = lambda: sys.exit("stop() had to kill the server")
            with gtask.Client(server.address, min_workers=0) as client:
                assert client.call("patched") == [[], [], []]
                assert client.call("double", 21) == 42
        assert not os.path.exists(server.address.path)
    """)


def test_an_application_may_use_gevent_itself(run, tmp_path):
    """Code that imports gevent in a worker does so there alone, and its hub is its own."""
    (tmp_path / "greedy.py").write_text(
        "def ticks():\n"
        "    import gevent\n"
        "    return [greenlet.get() for greenlet in [gevent.spawn(int, n) for n in range(3)]]\n"
    )
    run(
        """
        with gtask.Client(address, min_workers=0) as client:
            assert client.call("ticks") == [0, 1, 2]
        """,
        "spawn:greedy",
    )
