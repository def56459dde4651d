"""The point of this test is to ensure that gtask works whenever and however a program has itself monkey-patched.

Before gtask is imported or after, once or twice, wholly or in part, by ``patch_all`` or by ``python -m gevent.monkey``,
with clients made or even used before: each program calls through a private server's client and through another one. A
part that is left out takes with it what gevent can do without it, and nothing of gtask.
"""

import os
import re
import subprocess
import sys

import pytest

from tests.support.waiting import wait_until

APPLICATION = """
import logging
import os
import sys
import time

logging.getLogger("told").propagate = False
logging.getLogger("told").addHandler(logging.NullHandler())  # this program logs nothing itself

def double(number):
    time.sleep(0.001)  # the work, so that calls overlap
    return 2 * number

def pid():
    return os.getpid()

def fail(key):
    return {}[key]

def hang():
    time.sleep(3600)  # until the time-out

def tell(text):
    logging.getLogger("told").error("%s", text)

def traces():
    "All that would tell that this process is patched."
    homes = [kind.__module__ for kind in (time.sleep, os.fork, os.waitpid)]
    return [name for name in [*sys.modules, *homes] if name.partition(".")[0] in ("gevent", "greenlet")]
"""

CLIENTS = """
import sys, gtask
clients = [gtask.Client(where, min_workers=1, max_workers=4) for where in ("spawn:application", sys.argv[1])]
"""

CHECKS = """
import concurrent.futures, logging, queue, signal, sys, threading, time, traceback
import gevent, gevent.monkey, gtask

signal.alarm(120)  # what hangs is killed, and what it has forked, too

class Handler(logging.Handler):
    def emit(self, record):
        assert self.lock is not None
        time.sleep(0)  # lets others run while it holds the lock, where that is patched
        told.append(record.getMessage())

told = []
logging.getLogger("told").addHandler(Handler())
logging.getLogger("told").propagate = False

def greenlets(client):
    started = [gevent.spawn(client.call, "double", number) for number in range(30)]
    assert [each.get() for each in started] == [2 * number for number in range(30)]

def errors(client):
    try:
        client.call("fail", "k")
    except KeyError as error:
        assert isinstance(error, gtask.RemoteError)
        assert "return {}[key]" in traceback.format_exc()
    else:
        raise AssertionError("it did not raise")

def checkouts(client):
    with client.checkout() as one, client.checkout() as other:
        pids = {one.pid(), other.pid()}
        assert len(pids) == 2
        results = [one.pid.submit() for _ in range(5)]
        assert {result.get() for result in results} | {other.pid()} == pids

def timeouts(client):
    try:
        with client.checkout(timeout=0.3) as worker:
            worker.hang()
    except gtask.CallTimeout as error:
        assert error.method == "hang"
    else:
        raise AssertionError("it did not time out")
    started = time.monotonic()
    try:
        with gevent.Timeout(0.05):
            client.call("hang")
    except gevent.Timeout:
        assert time.monotonic() - started < 20
    else:
        raise AssertionError("it did not time out")

def logs(client):
    told.clear()
    gevent.joinall([gevent.spawn(client.call, "tell", number) for number in range(10)], raise_error=True)
    assert sorted(told) == sorted(map(str, range(10))), told

def threads(client):
    told.clear()
    seen, mine = queue.Queue(), threading.local()

    def work(number):
        mine.number = number
        client.call("tell", number)
        seen.put((client.call("double", number), mine.number))

    started = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    assert sorted(seen.get() for _ in started) == [(2 * number, number) for number in range(10)]
    assert sorted(told) == sorted(map(str, range(10))), told

def executor(client):
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        assert list(pool.map(lambda number: client.call("double", number), range(20))) == list(range(0, 40, 2))

patched = gevent.monkey.is_module_patched
checks = [greenlets, errors, checkouts, timeouts, logs]
if patched("threading") and patched("queue"):  # unpatched, a queue stops all greenlets
    checks += [threads, executor]

for client in clients:
    for check in checks:
        check(client)
    assert client.call("traces") == []
clients[1].close(timeout=20)
assert clients[1].stats().busy == 0
print("done", [check.__name__ for check in checks])
"""


@pytest.fixture
def run(serve, tmp_path, unmeasured):
    """``run(programs)`` runs programs that end with the checks, all at the same time; gives what each prints, by name.

    They say nothing else, have one private server however many greenlets wanted it first, and leave none behind.
    """

    def start(place, program, options, warnings, environment, address):
        place.mkdir()
        (place / "application.py").write_text(APPLICATION)
        (place / "program.py").write_text(program)
        with open(place / "stderr", "w") as stderr:
            return subprocess.Popen(
                [sys.executable, "-W", warnings, *options, str(address)],
                cwd=place,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(place), **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )

    def finish(name, place, process):
        printed, _ = process.communicate(timeout=150)
        log = (place / "stderr").read_text()
        said = re.sub(r".* (INFO|WARNING) .* gtask.server: .*\n", "", log)
        assert (process.returncode, said) == (0, ""), f"{name}: {said}"
        wait_until(lambda: not list(place.glob("gtask-*")), "the end of the private server")
        return printed

    def run(programs, options=None, environments=None, warnings="error"):
        address, running = serve(APPLICATION).address, {}
        try:
            for name, program in programs.items():
                place = tmp_path / f"program_{len(running)}"
                how = (options or {}).get(name, ["program.py"]), warnings, (environments or {}).get(name, {})
                running[name] = place, start(place, program, *how, address)
            return {name: finish(name, *each) for name, each in running.items()}
        finally:
            for _, process in running.values():
                process.kill()
                process.communicate()

    return run


PATCH = "from gevent import monkey; monkey.patch_all()\n"

ORDERS = {
    "first": PATCH + CLIENTS,
    "twice": PATCH + PATCH + CLIENTS + PATCH,
    "after gtask": "import gtask\n" + PATCH + CLIENTS,
    "after all of gtask": "import gtask.client.client, gtask.server.embed, gtask.spawn, gtask.testing\n"
    + PATCH
    + CLIENTS,
    "after the standard library": (
        "import concurrent.futures, logging, multiprocessing, queue, select, socket, subprocess, threading\n"
        "import gevent, gevent.pool, gevent.event\n" + PATCH + CLIENTS
    ),
    "after clients were made": CLIENTS + PATCH,
    "after clients were used": CLIENTS + "for client in clients: client.call('pid')\n" + PATCH,
    "amid a checkout and a call": (
        CLIENTS
        + "import gevent; held = clients[1].checkout(); pid = held.pid()\n"
        + "greenlet = gevent.spawn(clients[0].call, 'double', 2); gevent.sleep(0)\n"
        + PATCH
        + "assert greenlet.get() == 4 and held.pid() == pid; held.release()\n"
    ),
    "one by one": (
        "import gtask.client.client\nfrom gevent import monkey\n"
        "for patch in (monkey.patch_socket, monkey.patch_time, monkey.patch_thread, monkey.patch_queue): patch()\n"
        + CLIENTS
    ),
}
"""How a program begins: gevent's documentation says to patch as early as possible, and programs do what they do."""

ALL = "['greenlets', 'errors', 'checkouts', 'timeouts', 'logs', 'threads', 'executor']"


def test_the_order_does_not_matter(run):
    """Whatever has been imported, made or used when the patch comes."""
    said = run({name: beginning + CHECKS for name, beginning in ORDERS.items()})
    assert said == dict.fromkeys(ORDERS, f"done {ALL}\n")


COMMANDS = {
    "a script": ["program.py"],
    "a module": ["--module", "program"],
    "without some parts": ["--no-subprocess", "--no-signal", "program.py"],
    "some parts": ["--socket", "--time", "program.py"],
}


def test_programs_that_know_nothing_of_gevent(run):
    """``python -m gevent.monkey`` patches, wholly or in part, and runs a program."""
    options = {name: ["-m", "gevent.monkey", *command] for name, command in COMMANDS.items()}
    said = run(dict.fromkeys(COMMANDS, CLIENTS + CHECKS), options)
    assert "'logs'" in said.pop("some parts")  # and no patched threads
    assert set(said.values()) == {f"done {ALL}\n"}


PARTS = {
    "sockets": ["socket=False", "dns=False", "ssl=False", "select=False", "aggressive=False"],
    "threads": ["thread=False", "Event=False", "queue=False", "contextvars=False", "time=False"],
    "processes": ["subprocess=False", "os=False, signal=False", "os=False", "signal=False", "builtins=False, sys=True"],
}

FORKS = """
import posix, sys
import gtask.client.client
from gevent import monkey

children = {{}}
for part in {parts!r}:
    pid = posix.fork()
    if not pid:
        break
    children[pid] = part
else:
    ended = dict(posix.waitpid(pid, 0) for pid in children)
    sys.exit(str({{part: ended[pid] for pid, part in children.items()}}) if any(ended.values()) else 0)
exec(f"monkey.patch_all({{part}})")
"""


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_parts_that_are_left_out(run, parts):
    """Each parameter of ``patch_all`` off (and ``sys`` on), in a program of its own.

    These are forks of one that has imported gevent and gtask, because to import them takes the most time.
    """
    said = run({"forks": FORKS.format(parts=parts) + CLIENTS + CHECKS}, warnings="ignore")  # gevent warns of some
    assert said["forks"].count("done") == len(parts)


def test_other_loops_of_gevent(run):
    """The loops that gevent has besides its usual one, where they can be had."""
    pytest.importorskip("cffi")
    loops = {name: {"GEVENT_LOOP": name} for name in ("libuv", "libev-cffi")}
    said = run(dict.fromkeys(loops, PATCH + CLIENTS + CHECKS), environments=loops)
    assert said == dict.fromkeys(loops, f"done {ALL}\n")
