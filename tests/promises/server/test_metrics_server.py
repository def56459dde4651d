"""The point of this test is to ensure that ``--metrics`` tells Prometheus what a server does, and never costs it more
than a fork.

A helper answers, not the master: whoever asks slowly, or only connects, holds nobody up, and keeps no process for long.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request
from pathlib import Path
from time import monotonic

import gevent
import pytest
from prometheus_client.parser import text_string_to_metric_families

import gtask
from gtask.server.metrics.scrapes import DEADLINE, HELPERS, STRANGERS
from tests.support.daemon import daemon, refused
from tests.support.process import ROOT, children, is_gone, state_of
from tests.support.waiting import PATIENCE, wait_until

SOURCE = """
    import os, signal

    def pid():
        return os.getpid()

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def hold(path):
        with open(path) as fifo:
            return fifo.read()
"""
HEAD, REST = b"GET /metrics HTTP/1.1\r\n", b"Host: x\r\n\r\n"


def connected(path, *pieces):
    """A connection to the metrics, on which this was sent."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(PATIENCE)
        wait_until(lambda: sock.connect_ex(str(path)) != errno.ECONNREFUSED)  # it is bound, and listens in a moment
        assert sock.getpeername() == str(path)
        for piece in pieces:
            sock.sendall(piece)
    except BaseException:
        sock.close()
        raise
    return sock


def heard(sock):
    """All that comes until the other side closes, or is killed with something unread."""
    answer = b""
    with sock, contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            answer += piece
    return answer


def samples(answer):
    """Each sample of an answer, by its name and its labels other than ``server``."""
    head, _, text = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    return {
        (
            sample.name.removeprefix("gtask_server_"),
            *(v for k, v in sample.labels.items() if k != "server"),
        ): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def scrape(path):
    return samples(heard(connected(path, HEAD, REST)))


@pytest.fixture
def path(tmp_path):
    """Where the metrics are."""
    return tmp_path / "metrics"


@pytest.fixture
def start(tmp_path, path):
    """``start(*arguments)`` gives a daemon with metrics at ``path``; it ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(*arguments, **options):
            arguments = ("--metrics", f"unix:{path}", *arguments)
            return stack.enter_context(daemon(tmp_path, *arguments, source=SOURCE, **options))

        yield start


def helpers(server, workers=()):
    """The children of its master that are none of these."""
    return set(children(server.master)) - set(workers)


def wait_for_helpers(server, number=1):
    """Wait until there are so many, and nothing but them; gives them."""
    wait_until(lambda: len(helpers(server)) == number, f"{number} helpers")
    return helpers(server)


def test_what_it_tells(start, connect, path, tmp_path):
    """Calls, deaths, states, memory and times are those of the workers, and no helper is among them."""
    server = start("--name", "app", "--max-workers", "7")
    client = connect(server.address)
    os.mkfifo(tmp_path / "fifo")
    with client.checkout() as dying, pytest.raises(gtask.WorkerDied):
        dying.die()
    with client.checkout() as one, client.checkout() as two:
        result = one.hold.submit(str(tmp_path / "fifo"))
        two.pid()
        wait_until(lambda: scrape(path)["workers", "call"] == 1, "the call")
        wait_until(lambda: scrape(path)["exits_total",] == 1, "the end of the worker that died")
        told = scrape(path)
        (tmp_path / "fifo").write_text("go on")
        assert result.get() == "go on"
    assert told["info", gtask.__version__] == 1
    assert told["workers", "lent"] == 1
    assert sum(value for key, value in told.items() if key[0] == "workers") == 2
    assert (told["forks_total",], told["exits_total",], told["calls_total",], told["max_workers",]) == (3, 1, 3, 7)
    assert {key[1]: value for key, value in told.items() if key[0] == "deaths_total"} == {"SIGKILL": 1}
    assert told["workers_memory_bytes",] > told["largest_worker_memory_bytes",] > 1 << 20
    assert told["master_memory_bytes",] > 1 << 20
    assert told["busy_seconds_total",] >= told["longest_call_seconds",] > 0
    assert told["uptime_seconds",] > 0
    assert told["reloads_total",] == told["refused_connections_total",] == 0
    assert scrape(path)["busy_seconds_total",] > told["busy_seconds_total",]


def test_over_tcp(tmp_path):
    """As Prometheus asks; the log says where. Port 0 is a port that is free."""
    with daemon(tmp_path, "--metrics", "tcp://127.0.0.1:0") as server:
        where = re.search(r"tells its metrics at tcp://(127\.0\.0\.1:[1-9][0-9]*)$", server.log, re.M)[1]
        with urllib.request.urlopen(f"http://{where}/metrics", timeout=PATIENCE) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert b"\ngtask_server_forks_total{" in answer.read()


def test_while_all_workers_are_busy(start, connect, path):
    """max_workers is for workers: the metrics are told all the same, and cost no client its place."""
    server = start("--max-workers", "1")
    client = connect(server.address, max_workers=2)
    with client.checkout() as one:
        one.pid()
        other = gevent.spawn(client.call, "pid")
        server.wait_for("(max_workers)")
        for _ in range(HELPERS + 1):
            told = scrape(path)
        assert (told["forks_total",], told["max_workers",], told["workers", "lent"]) == (1, 1, 1)
    assert other.get(timeout=PATIENCE) in server.workers


def test_the_master_does_not_answer(start, path):
    """It has forked a helper when the first bytes have come. While the master stands still the helper goes on."""
    server = start()
    sock = connected(path, HEAD)
    (helper,) = wait_for_helpers(server)
    os.kill(server.master, signal.SIGSTOP)
    wait_until(lambda: state_of(server.master) == "T", "the master's stop")
    sock.sendall(REST)
    assert samples(heard(sock))["forks_total",] == 0
    os.kill(server.master, signal.SIGCONT)
    wait_until(lambda: is_gone(helper), "the helper's end")


def test_a_helper_has_nothing_else(start, connect, path):
    """No descriptor but its connection and the standard streams, and no handler of the master's."""
    server = start()
    client = connect(server.address)
    with client.checkout() as worker:
        pid = worker.pid()
        with connected(path, HEAD):
            wait_until(lambda: helpers(server, [pid]), "a helper")
            (helper,) = helpers(server, [pid])
            wait_until(lambda: len(os.listdir(f"/proc/{helper}/fd")) == 4, "its own descriptors alone")
            status = Path(f"/proc/{helper}/status").read_text()
            caught = int(re.search(r"^SigCgt:\s+(\w+)$", status, re.M)[1], 16)
            blocked = int(re.search(r"^SigBlk:\s+(\w+)$", status, re.M)[1], 16)
            assert not [number for number in signal.Signals if caught >> (number - 1) & 1]
            assert not blocked


def test_silent_ones_cost_nothing(start, path):
    """They get no helper, so others are answered at once; few are kept, and each only for a while."""
    server = start()
    held = len(os.listdir(f"/proc/{server.master}/fd"))
    silent = [connected(path) for _ in range(STRANGERS + 3)]
    began = monotonic()
    assert scrape(path)["forks_total",] == 0
    assert monotonic() - began < DEADLINE
    assert len(os.listdir(f"/proc/{server.master}/fd")) <= held + STRANGERS
    assert [heard(sock) for sock in silent] == [b""] * len(silent)
    wait_until(lambda: len(os.listdir(f"/proc/{server.master}/fd")) == held, "none is kept")


def test_slow_ones_do_not_hurt(start, connect, path):
    """Clients are served as ever. There are a few helpers, not more; who comes then waits until one ends."""
    server = start()
    silent = [connected(path, HEAD) for _ in range(HELPERS)]
    wait_for_helpers(server, HELPERS)
    waiting = connected(path)
    client = connect(server.address)
    assert client.call("pid") in server.workers
    client.close()
    wait_for_helpers(server, HELPERS)
    waiting.sendall(HEAD + REST)
    silent.pop().close()
    assert samples(heard(waiting))["forks_total",] == 1
    for sock in silent:
        sock.close()
    wait_for_helpers(server, 0)
    assert "WARNING" not in server.log


@pytest.mark.parametrize("rubbish", [b"\x16\x03\x01\x02", b"G" * 10_000, b"hello\r\n\r\n"])
def test_rubbish(start, path, rubbish):
    """It gets its answer at once, and the log no line."""
    server = start()
    before = server.log
    assert heard(connected(path, rubbish)).startswith(b"HTTP/1.1 400 ")
    wait_for_helpers(server, 0)
    assert server.log == before


def test_more_than_a_head(start, path):
    """What comes behind it is heard out, for to close with something unread would take the answer back."""
    start()
    answer = b""
    with connected(path, b"POST /metrics HTTP/1.1\r\n\r\n", b"x" * 100_000) as sock:
        while piece := sock.recv(65536):  # and no ConnectionResetError
            answer += piece
    assert answer.startswith(b"HTTP/1.1 405 ")


def test_one_that_hangs_up(start, path):
    """Before it has said all, or before it has heard all: nobody minds."""
    server = start()
    before = server.log
    connected(path).close()
    connected(path, HEAD).close()
    connected(path, HEAD, REST).close()
    assert scrape(path)["forks_total",] == 0
    wait_for_helpers(server, 0)
    assert server.log == before


def test_a_killed_master(start, path):
    """The next one answers."""
    server = start()
    sock = connected(path, HEAD)
    wait_for_helpers(server)
    os.kill(server.master, signal.SIGKILL)
    assert heard(sock) == b""
    assert scrape(path)["forks_total",] == 0


def test_a_reload(start, path, tmp_path):
    """It is answered all the time; the new master begins to count anew."""
    server = start("--name", "app")
    first = server.master
    os.kill(server.pid, signal.SIGHUP)
    while first in server.masters:
        assert scrape(path)["reloads_total",] in (0, 1)  # for a moment both answer
    assert scrape(path)["reloads_total",] == 1


def test_a_drain_lets_helpers_finish(start, path):
    """Whoever was accepted gets an answer."""
    server = start()
    held = Path(f"/proc/{server.master}/fd")
    before = len(list(held.iterdir()))
    sock = connected(path, HEAD)
    wait_for_helpers(server)
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: len(list(held.iterdir())) <= before - 2, "that it listens no more")
    sock.sendall(REST)
    assert samples(heard(sock))["forks_total",] == 0
    assert server.wait() == 0
    assert not path.exists()


def test_a_stop_does_not_wait(start, path):
    """At once means also for those who ask."""
    server = start()
    sock = connected(path, HEAD)
    (helper,) = wait_for_helpers(server)
    assert server.end(signal.SIGQUIT) == 0
    assert is_gone(helper)
    assert heard(sock) == b""
    assert not path.exists()


def test_a_lost_keeper(start, path):
    """The master that it leaves behind gives up the address of the metrics at once, so a new daemon can have it."""
    server = start()
    (master,) = server.masters
    server.process.kill()
    server.process.wait()

    def is_given_up():
        with socket.socket(socket.AF_UNIX) as sock:
            return sock.connect_ex(str(path)) in (errno.ECONNREFUSED, errno.ENOENT)

    wait_until(is_given_up, "that nobody listens there")
    connected(path.parent / "sock").close()  # clients are still accepted
    start()
    assert scrape(path)["reloads_total",] == 0
    wait_until(lambda: is_gone(master), "the end of the old master")


def test_who_may_not_connect(start, path):
    """--allow-uid holds for a unix socket of metrics, too."""
    server = start("--allow-uid", str(os.getuid() + 1))
    assert heard(connected(path)) == b""
    server.wait_for(f"may not connect to unix:{path} (allow_uid)")


def test_addresses_that_are_refused(tmp_path):
    """Where other machines could look, without --insecure; where clients connect; and an open socket."""
    status, line = refused(tmp_path, "--metrics", "tcp://0.0.0.0:9000")
    assert status == 2
    assert "metrics=tcp://0.0.0.0:9000: other machines could look" in line
    status, line = refused(tmp_path, "--metrics", f"unix:{tmp_path}/sock")
    assert status == 2
    assert "that is where clients connect" in line
    assert refused(tmp_path, "--metrics", "fd:3")[0] == 2


PROGRAM = """
    import contextlib, os, signal, sys
    import gtask
    from gtask.server.metrics import scrapes

    scrapes.DEADLINE = float(sys.argv[3])

    def ping():
        pass

    path = sys.argv[1]
    if sys.argv[2] == "fork_server":
        with gtask.fork_server({"ping": ping}, metrics=f"unix:{path}"):
            print("ready", flush=True)
            sys.stdin.read()
    else:
        signal.signal(signal.SIGALRM, lambda *_: None)  # the program's own; no helper has it
        gtask.Server(f"unix:{path}.calls", {"ping": ping}, metrics=f"unix:{path}").run()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
            sys.exit("a helper is left")
"""


@contextlib.contextmanager
def running(path, how, deadline):
    """The program, in a process that has begun to serve."""
    (path.parent / "program.py").write_text(textwrap.dedent(PROGRAM))
    program = subprocess.Popen(
        [sys.executable, path.parent / "program.py", path, how, str(deadline)],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
    )
    with program:
        try:
            wait_until(lambda: path.exists() or program.poll() is not None, "the socket")
            yield program
        except BaseException:
            program.kill()
            raise


@pytest.mark.parametrize("how", ["fork_server", "Server"])
def test_from_a_program(path, how):
    """Servers of programs have metrics, too. A helper ends at its deadline."""
    with running(path, how, 0.2) as program:
        silent = connected(path, HEAD)
        assert scrape(path)["forks_total",] == 0
        assert heard(silent) == b""
        program.stdin.close()
        if how == "Server":
            program.terminate()
        assert program.wait(PATIENCE) == 0
    assert not path.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it has its deadline")
def test_it_dies_with_its_master(path):
    """At once, however much time it has, and also when the master is killed."""
    with running(path, "Server", 1000) as program, connected(path, HEAD) as sock:
        wait_until(lambda: children(program.pid), "a helper")
        (helper,) = children(program.pid)
        program.kill()
        program.wait()
        wait_until(lambda: is_gone(helper), "the helper's end")
        assert heard(sock) == b""


def test_a_program_goes_on_without_them(path):
    """A server that was stopped at once has left no helper behind in its program."""
    with running(path, "Server", 1000) as program, connected(path, HEAD):
        wait_until(lambda: children(program.pid), "a helper")
        program.send_signal(signal.SIGQUIT)
        assert program.wait(PATIENCE) == 0
