"""The point of this test is to ensure that SIGTERM ends a server at once while its clients are idle, whatever they do.

A client whose hub does not turn hears nothing of the server's end. So each release is told in time, and a client that
says nothing is hung up on. Only a checkout that is held has its graceful time.
"""

import contextlib
import os
import signal
import socket
import struct
import sys

import pytest

from tests.support.daemon import APPLICATION
from tests.support.daemon import daemon as running_daemon
from tests.support.process import Background, environment
from tests.support.waiting import PATIENCE, wait_until

GRACE = 4 * PATIENCE
"""Seconds that a server waits for checkouts that are held, and for greetings: longer than a test waits."""

BEGINNING = """
import sys, threading, time
import gevent, gtask

def stand_still():
    "Nothing turns this thread's hub any more."
    print("ready", flush=True)
    {still}

def compute():
    while True:
        sum(range(100_000))

client = gtask.Client(sys.argv[1], min_workers=1, max_workers=4, timeout=60)
"""


def frame(body):
    """As a client of any language writes a message."""
    return struct.pack(">I", len(body)) + body


GREETING = frame(b"\x92\xa2hi\x82\xa1v\x01\xa4name\xa3raw")

USES = {
    "checkout": """
with client.checkout() as worker:
    worker.pid()
stand_still()
""",
    "many calls": """
for _ in range(20):
    client.call("pid")
assert client.remote.pid()
stand_still()
""",
    "many short checkouts": """
for _ in range(2000):
    with client.checkout() as worker:
        worker.pid()
stand_still()
""",
    "several workers": """
workers = [client.checkout() for _ in range(3)]
assert len({worker.pid() for worker in workers}) == 3
del workers
stand_still()
""",
    "submitted": """
with client.checkout() as worker:
    result = worker.pid.submit()
assert result.get()
stand_still()
""",
    "executor": """
assert client.executor().submit("app:pid").result()
stand_still()
""",
    "task": """
@gtask.task(client, name="pid")
def pid():
    return 0
assert pid()
stand_still()
""",
    "dropped": """
assert client.checkout().pid()
stand_still()
""",
    "a thousand calls": """
for _ in range(1000):
    client.call("pid")
stand_still()
""",
    "a thousand calls by name": """
for _ in range(1000):
    assert client.remote.pid()
stand_still()
""",
    "a thousand submitted": """
executor = client.executor()
for future in [executor.submit("app:pid") for _ in range(1000)]:
    assert future.result()
stand_still()
""",
    "a thousand in any order": """
assert len(list(client.map_unordered("sleep", [0] * 1000))) == 1000
stand_still()
""",
    "checkouts of some milliseconds": """
for _ in range(200):
    with client.checkout() as worker:
        worker.sleep(0.005)
stand_still()
""",
    "replies that are not read": """
with client.checkout() as worker:
    for _ in range(5):
        worker.pid()
    results = [worker.pid.submit() for _ in range(20)]
stand_still()
""",
    "a reply that is not read, of a worker that came later": """
results = []
for _ in range(4):
    with client.checkout() as worker:
        results.append(worker.pid.submit())
gevent.wait(results, count=1)
stand_still()
""",
    "one call that is not waited for": """
future = client.executor().submit("app:pid")
gevent.sleep(0)
client.call("pid")
stand_still()
""",
    "a failed call": """
try:
    client.call("pid", 1, 2, 3)
except TypeError:
    stand_still()
""",
    "a greenlet": """
def use():
    for _ in range(3):
        with client.checkout() as worker:
            worker.pid()
    stand_still()
gevent.spawn(use).join()
""",
    "a thread": """
def use():
    client = gtask.Client(sys.argv[1])
    with client.checkout() as worker:
        worker.pid()
    stand_still()
thread = threading.Thread(target=use)
thread.start()
thread.join()
""",
    "only open": """
client.open(wait=True)
stand_still()
""",
    "json": """
client = gtask.Client(sys.argv[1], codec="json")
assert client.call("pid")
stand_still()
""",
    "a hub that turns": """
assert client.call("pid")
print("ready", flush=True)
gevent.sleep(3600)
""",
}


@pytest.fixture(params=["unix", "tcp"])
def daemon(request, tmp_path, unmeasured, nothing_is_left_behind):
    """A daemon at either kind of socket, which has a long time for checkouts that are held."""
    address = f"unix:{tmp_path}/sock"
    if request.param == "tcp":
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            address = f"tcp://127.0.0.1:{sock.getsockname()[1]}"
    options = ("--listen", address, "--graceful-timeout", str(GRACE), "--greeting-timeout", str(GRACE))
    with running_daemon(tmp_path, *options, source=APPLICATION) as daemon:
        daemon.address = address
        yield daemon


@pytest.fixture
def run(tmp_path):
    """``run(source, daemon)`` starts a program, and gives it when it has said that it is ready."""
    running = []

    def start(source, daemon):
        program = tmp_path / f"program{len(running)}.py"
        program.write_text(source)
        command, log = [sys.executable, program.name, daemon.address], program.with_suffix(".log")
        running.append(Background(command, log, ("stdout", "stderr"), cwd=tmp_path, env=environment()))
        running[-1].wait_for("ready")
        return running[-1]

    yield start
    for program in running:
        program.kill()


@pytest.fixture
def go(tmp_path):
    """Lets a program go on that reads the fifo of this name; it is made before the program."""
    os.mkfifo(tmp_path / "go")
    return lambda: (tmp_path / "go").write_text("")


@contextlib.contextmanager
def idle_client(daemon, says=GREETING):
    """A client in another language, which has connected and said this."""
    kind, _, where = daemon.address.partition(":")
    is_unix = kind == "unix"
    with socket.socket(socket.AF_UNIX if is_unix else socket.AF_INET) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(where if is_unix else ("127.0.0.1", int(where.rpartition(":")[2])))
        sock.sendall(says)
        if says:
            assert sock.recv(1000)
        yield sock


def ends_soon(daemon):
    """SIGTERM ends the daemon, long before the times are over for which it waits for a client."""
    daemon.send(signal.SIGTERM)
    assert daemon.wait() == 0
    assert "stops the checkouts" not in daemon.log


@pytest.mark.parametrize("use", USES)
def test_whatever_the_client_has_done(daemon, run, use):
    """It has used the server in some way, and then its hub does not turn any more."""
    run(BEGINNING.format(still="time.sleep(3600)") + USES[use], daemon)
    ends_soon(daemon)


@pytest.mark.parametrize("use", ["checkout", "a greenlet"])
def test_it_computes(daemon, run, use):
    """The hub does not turn, for the program is busy."""
    run(BEGINNING.format(still="compute()") + USES[use], daemon)
    ends_soon(daemon)


def test_it_was_stopped(daemon, run):
    """Ctrl-Z: nothing in the client runs any more."""
    program = run(BEGINNING.format(still="gevent.sleep(3600)") + USES["many calls"], daemon)
    os.kill(program.pid, signal.SIGSTOP)
    ends_soon(daemon)


@pytest.mark.parametrize("says", [b"", GREETING], ids=["nothing", "a greeting"])
def test_clients_in_other_languages(daemon, says):
    """They have connected, or greeted, and have never called; they know no word for the end."""
    with idle_client(daemon, says):
        wait_until(lambda: daemon.workers or not says, "a worker, for those who have said something")
        ends_soon(daemon)


def test_a_checkout_that_is_held_is_waited_for(daemon, run, go):
    """Also if the hub does not turn meanwhile; its next call comes through, and then the server ends."""
    program = run(
        BEGINNING.format(still="open('go').read()")
        + """
import os
with client.checkout() as worker:
    pid = worker.pid()
    stand_still()
    assert worker.pid() == pid
print("went through", flush=True)
time.sleep(3600)
""",
        daemon,
    )
    with idle_client(daemon) as idle:
        daemon.send(signal.SIGTERM)
        while idle.recv(1000):
            pass  # until it is hung up on, as it would be if nobody held the other worker
    assert daemon.process.poll() is None
    go()
    program.wait_for("went through")
    assert daemon.wait() == 0


@pytest.mark.parametrize("workers", [1, 3])
def test_the_client_goes_on_with_the_next_server(daemon, run, tmp_path, go, workers):
    """What it sends to a worker that has ended meanwhile is executed by another one, once. So it is if that worker was
    the last to be heard of, and the hub has not turned since."""
    program = run(
        BEGINNING.format(still="open('go').read()")
        + f"""
import os
client.resize(1, {workers})
for _ in range(2):
    before = [worker.pid() for worker in [client.checkout() for _ in range({workers})]]
stand_still()
after = [worker.pid() for worker in [client.checkout() for _ in range({workers})]]
assert not set(before) & set(after)
print("went on", flush=True)
time.sleep(3600)
""",
        daemon,
    )
    ends_soon(daemon)
    with running_daemon(tmp_path, "--listen", daemon.address, source=APPLICATION) as following:
        go()
        program.wait_for("went on")
        ends_soon(following)
