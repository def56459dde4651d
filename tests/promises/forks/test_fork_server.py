"""The point of this test is to ensure that fork_server gives a program a server that shares what it has loaded.

It listens when fork_server returns, ends when it is stopped or when its program dies, keeps nothing of the program
that is not its own, and is refused where a fork would not be safe. Each test is a program of its own, because this
process has a hub.
"""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.waiting import wait_until

BEGINNING = """
import atexit, json, os, posix, signal, socket, sys, threading, time
import gtask

directory = os.getcwd()

class Application:
    def pids(self):
        return [os.getpid(), os.getppid()]

    def greet(self, name):
        return f"hello {name}"

def tell(**facts):
    with open("facts", "w") as file:
        json.dump(facts, file)

"""


@pytest.fixture
def run(tmp_path):
    """``run(source, *arguments, status=0)`` runs a program in this test's directory; gives what it told."""
    (tmp_path / "private").mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path / "private")}

    def run(source, *arguments, status=0):
        (tmp_path / "program.py").write_text(BEGINNING + textwrap.dedent(source))
        with open(tmp_path / "stdout", "w") as stdout, open(tmp_path / "stderr", "w") as stderr:
            done = subprocess.run(
                [sys.executable, "program.py", *arguments],
                cwd=tmp_path,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                timeout=50,
            )
        assert done.returncode == status, (tmp_path / "stderr").read_text()
        facts = tmp_path / "facts"
        return json.loads(facts.read_text()) if facts.exists() else {}

    return run


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until_gone(*pids):
    for pid in pids:
        wait_until(lambda pid=pid: is_gone(pid), f"the end of process {pid}")


def test_it_listens_when_it_returns(run):
    """The very first connection is accepted, by a socket only its user may use."""
    run("""
        with gtask.fork_server(Application()) as server:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(server.address.path)
            assert os.stat(server.address.path).st_mode & 0o777 == 0o600
            assert os.stat(os.path.dirname(server.address.path)).st_mode & 0o777 == 0o700
    """)


def test_it_serves_until_it_is_stopped(run, tmp_path):
    """``.pid`` is the master's, a child of the program; after ``.stop()`` nothing of it is left."""
    facts = run("""
        server = gtask.fork_server(Application())
        client = gtask.Client(server.address, min_workers=0)
        worker, master = client.call("pids")
        assert master == server.pid
        assert client.call("greet", "ada") == "hello ada"
        server.stop()
        try:
            os.kill(server.pid, 0)
            raise AssertionError("the server still runs")
        except ProcessLookupError:
            pass
        assert not os.path.exists(os.path.dirname(server.address.path))
        server.stop()
        assert "stopped" in repr(server)
        tell(pids=[worker, master])
    """)
    wait_until_gone(*facts["pids"])
    assert list((tmp_path / "private").iterdir()) == []


def test_it_is_a_context_manager(run):
    """Leaving the ``with`` block stops it, also by an exception."""
    run("""
        try:
            with gtask.fork_server(Application()) as server:
                1 / 0
        except ZeroDivisionError:
            pass
        try:
            os.waitpid(server.pid, os.WNOHANG)
            raise AssertionError("it was not waited for")
        except ChildProcessError:
            pass
        assert not os.path.exists(server.address.path)
    """)


@pytest.mark.parametrize("address", ["unix:given.sock", "tcp://127.0.0.1:0"])
def test_an_address(run, address):
    """It listens where it is told to; of a TCP port 0, ``.address`` has the port that was chosen."""
    run(
        """
        with gtask.fork_server(Application(), sys.argv[1], name="given") as server:
            assert str(server.address) == sys.argv[1] or server.address.port > 0
            client = gtask.Client(str(server.address), min_workers=0)
            assert client.call("greet", "ada") == "hello ada"
            client.close()
        assert not os.path.exists("given.sock")
        """,
        address,
    )


def test_it_shares_what_the_program_has_loaded(run):
    """Workers have the program's objects as they were at the fork; what they do to them is theirs alone."""
    run("""
        table = {number: number * number for number in range(1000)}
        with gtask.fork_server({"square": table.get, "clear": table.clear}) as server:
            client = gtask.Client(server.address, min_workers=0)
            with client.checkout() as worker:
                assert worker.square(12) == 144
                worker.clear()
                assert worker.square(12) is None
            assert table[12] == 144
    """)


def test_a_bind_that_fails_raises_in_the_program(run):
    """If it cannot listen, fork_server itself raises, with the reason, and there is no child."""
    run("""
        from gtask.server.listener import AddressUnavailable

        os.mkdir("occupied")
        for address in ("unix:occupied", "unix:no/such/directory/s.sock"):
            try:
                gtask.fork_server(Application(), address)
                raise AssertionError("it did not raise")
            except AddressUnavailable as error:
                assert address in str(error)
        with gtask.fork_server(Application(), "unix:taken.sock"):
            try:
                gtask.fork_server(Application(), "unix:taken.sock")
                raise AssertionError("it did not raise")
            except AddressUnavailable as error:
                assert "another server" in str(error)
        try:
            os.waitpid(-1, os.WNOHANG)
            raise AssertionError("there is a child")
        except ChildProcessError:
            pass
    """)


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("stop = threading.Event(); threading.Thread(target=stop.wait, daemon=True).start()", "thread"),
        ("import gevent; gevent.get_hub()", "hub"),
        ("import gevent; gevent.sleep(0)", "hub"),
        ("import gevent; gevent.spawn(print)", "hub"),
        ("from gevent import monkey; monkey.patch_all()", "monkey-patched"),
    ],
)
def test_it_is_refused_where_a_fork_is_not_safe(run, state, why, tmp_path):
    """Where threads run, a hub exists or gevent has patched the program, a RuntimeError names spawn_server instead."""
    facts = run(f"""
        {state}
        try:
            gtask.fork_server(Application())
        except RuntimeError as error:
            tell(error=str(error))
    """)
    assert why in facts["error"]
    assert "gtask.spawn_server" in facts["error"]
    assert list((tmp_path / "private").iterdir()) == []


def test_importing_gevent_alone_is_no_hindrance(run):
    """A program that has imported gevent and made a Client, but has not run the hub, may still fork a server."""
    run("""
        import gevent, gevent.monkey, gevent.pool
        client = gtask.Client(f"unix:{directory}/own.sock", min_workers=0)
        with gtask.fork_server(Application(), f"unix:{directory}/own.sock"):
            assert client.call("greet", "ada") == "hello ada"
            client.close()
    """)


def test_a_program_that_is_patched_afterwards(run, tmp_path):
    """A server forked before ``monkey.patch_all()`` serves the patched program, and is stopped by it."""
    run("""
        server = gtask.fork_server(Application())
        from gevent import monkey
        monkey.patch_all()
        with gtask.Client(server.address, min_workers=0) as client:
            assert client.call("greet", "ada") == "hello ada"
            assert client.call("pids")[1] == server.pid
        server.stop()
        assert not os.path.exists(server.address.path)
    """)
    assert list((tmp_path / "private").iterdir()) == []


def test_sockets_of_the_program_are_not_kept_open(run):
    """What the program closes is closed, though the server was forked while it was open."""
    run("""
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        here, there = socket.socketpair()
        reading, writing = os.pipe()
        with gtask.fork_server(Application()) as server:
            client = gtask.Client(server.address, min_workers=0)
            worker = client.checkout()
            worker.pids()
            listener.close()
            there.close()
            os.close(writing)
            here.settimeout(5)
            assert here.recv(1) == b""
            assert os.read(reading, 1) == b""
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                raise AssertionError("somebody still listens")
            except ConnectionRefusedError:
                pass
    """)


def test_files_of_the_program_can_be_used_by_the_workers(run, tmp_path):
    """A file that the program had open can be read by a worker's code."""
    (tmp_path / "data").write_text("the data")
    run("""
        data = open("data", "rb")
        with gtask.fork_server({"read": lambda: os.pread(data.fileno(), 100, 0)}) as server:
            assert gtask.Client(server.address, min_workers=0).call("read") == b"the data"
    """)


def test_the_end_of_the_program_is_not_run_in_the_server(run, tmp_path):
    """What the program registered with atexit, or had in its buffers, is run and written by the program alone."""
    facts = run("""
        def note():
            with open("ended", "a") as file:
                file.write(f"{os.getpid()} ")

        atexit.register(note)
        sys.stdout.write("written once, ")
        with gtask.fork_server(Application()) as server:
            worker = gtask.Client(server.address, min_workers=0).call("pids")[0]
        sys.stdout.write("at the end")
        tell(program=os.getpid())
    """)
    assert (tmp_path / "ended").read_text().split() == [str(facts["program"])]
    assert (tmp_path / "stdout").read_text() == "written once, at the end"


def test_handlers_of_the_program_are_not_run_in_the_server(run, tmp_path):
    """The program's signal handlers are its own; the server and its workers do not have them."""
    run("""
        def note(*_):
            with open("handled", "a") as file:
                file.write(f"{os.getpid()} ")

        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, note)
        with gtask.fork_server({"handler": lambda: str(signal.getsignal(signal.SIGUSR1))}) as server:
            client = gtask.Client(server.address, min_workers=0)
            assert client.call("handler") == str(signal.SIG_DFL)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    """)
    assert not (tmp_path / "handled").exists()


DYING = """
    server = gtask.fork_server(Application())
    client = gtask.Client(server.address)
    checkouts = client.checkout(), client.checkout()
    pids = [server.pid, *(checkout.pids()[0] for checkout in checkouts)]
    sibling = 0
    if sys.argv[2] == "with a sibling":
        sibling = posix.fork()  # it inherits the writing end of the pipe that tells the server of its parent's end
        if not sibling:
            signal.pause()
            os._exit(0)
    tell(pids=pids, sibling=sibling)
    exec(sys.argv[1])
"""


@pytest.mark.parametrize("sibling", ["alone", "with a sibling"])
@pytest.mark.parametrize(
    ("end", "status"),
    [("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL), ("os._exit(4)", 4), ("sys.exit()", 0)],
    ids=["SIGKILL", "os._exit", "sys.exit"],
)
def test_it_dies_with_its_program(run, tmp_path, end, status, sibling):
    """When the program ends, in whatever way, the server and all workers end, and the private socket is removed.

    Also while a sibling, forked by the program, holds the pipe that tells the server of the program's end.
    """
    facts = run(DYING, end, sibling, status=status)
    try:
        wait_until_gone(*facts["pids"])
        assert list((tmp_path / "private").iterdir()) == []
    finally:
        if facts["sibling"]:
            assert not is_gone(facts["sibling"])
            os.kill(facts["sibling"], signal.SIGKILL)


def test_it_dies_with_its_program_while_a_worker_is_busy(run, tmp_path):
    """A worker in the middle of a call, and one that ignores SIGTERM, are killed within the server's stop_timeout."""
    facts = run(
        """
        from gtask import testing

        def hang():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            open("hanging", "w").close()
            while True:
                time.sleep(60)

        server = gtask.fork_server({"pid": os.getpid, "hang": hang}, stop_timeout=0.2)
        client = gtask.Client(server.address)
        checkout = client.checkout()
        tell(pids=[server.pid, checkout.pid()])
        checkout.hang.submit()
        testing.wait_until(lambda: os.path.exists("hanging"), 10)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        status=-signal.SIGKILL,
    )
    wait_until_gone(*facts["pids"])
    assert list((tmp_path / "private").iterdir()) == []


def test_a_stop_in_a_forked_child_is_no_stop(run):
    """Only the program that made the server stops it: a child that inherits the object does not."""
    run("""
        server = gtask.fork_server(Application())
        child = posix.fork()
        if not child:
            server.stop()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        client = gtask.Client(server.address, min_workers=0)
        assert client.call("greet", "ada") == "hello ada"
        client.close()
        server.stop()
    """)
