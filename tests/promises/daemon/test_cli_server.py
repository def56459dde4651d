"""The point of this test is to ensure that the command gtask-server serves what it is told to, or says why not.

It is run as an operator runs it: in the directory of the application, stopped by signals, started twice by mistake.
"""

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import gevent
import pytest

import gtask
from tests.support.waiting import turn_hub, wait_until

ROOT = Path(gtask.__file__).parents[1]
COMMAND = [sys.executable, str(ROOT / "bin" / "gtask-server")]

HASHER = """
import hashlib
import os

salt = None

def setup():
    global salt
    salt = os.urandom(16)

def hash(password):
    return salt + hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 10)

def verify(crypted, password):
    return crypted == crypted[:16] + hashlib.pbkdf2_hmac("sha256", password.encode(), crypted[:16], 10)
"""


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """The working directory of the server, with the application; it is not on the Python path."""
    (tmp_path / "hasher.py").write_text(HASHER)
    (tmp_path / "application.py").write_text(
        "import os\n\ndef pid():\n    return os.getpid()\n\nmapping = {'double': lambda number: 2 * number}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


class Running:
    """A gtask-server that was started on the command line and has said that it listens."""

    def __init__(self, *arguments, wait=True):
        self.process = subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True)
        self.log = ""
        while wait and "is listening" not in self.log:
            line = self.process.stderr.readline()
            assert line, f"the server ended: {self.log}"
            self.log += line

    def end(self, number):
        """Send it a signal; gives its exit status. Clients may hear of it meanwhile."""
        self.process.send_signal(number)
        wait_until(lambda: self.process.poll() is not None, what="the server's end")
        self.log += self.process.communicate(timeout=30)[1]
        return self.process.returncode


@pytest.fixture
def start(directory, nothing_is_left_behind):
    """``start(*arguments)`` starts a gtask-server that ends with the test."""
    servers = []

    def start(*arguments, **options):
        servers.append(Running(*arguments, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.process.send_signal(signal.SIGQUIT)
        server.process.communicate()


def run(*arguments):
    """What a gtask-server that ends by itself returned and wrote."""
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=30)


def refused(*arguments, status=1):
    """The message of a gtask-server that cannot serve: one that its stderr ends with, and no traceback."""
    done = run(*arguments)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    message = done.stderr.rstrip("\n").rpartition("\n")[2]
    assert message.startswith("gtask-server: ")
    return message


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def hash_and_verify(client):
    with client.checkout() as hasher:
        crypted = hasher.hash("s3cret")
        return hasher.verify(crypted, "s3cret"), hasher.verify(crypted, "other")


def test_the_server_first(start, connect, directory):
    """``gtask-server hasher --listen unix:...`` in the directory of hasher.py, then a client that calls it."""
    start("hasher", "--listen", f"unix:{directory}/hasher.sock")
    assert hash_and_verify(connect(f"unix:{directory}/hasher.sock")) == (True, False)


def test_the_client_first(start, connect, directory):
    """A client made, and already used, before the server is started waits, and is served when it comes."""
    client = connect(f"unix:{directory}/hasher.sock", timeout=30)
    waiting = gevent.spawn(hash_and_verify, client)
    turn_hub()
    assert not waiting.ready()
    start("hasher", "--listen", f"unix:{directory}/hasher.sock", wait=False)
    assert waiting.get() == (True, False)


def test_an_attribute(start, connect, directory):
    """MODULE:ATTRIBUTE serves the mapping of that name."""
    start("application:mapping", "--listen", f"unix:{directory}/a.sock")
    assert connect(f"unix:{directory}/a.sock").call("double", 21) == 42


def test_a_relative_path(start, connect, directory):
    """A socket's path may be relative to the working directory; its file is only its user's."""
    start("application", "--listen", "unix:a.sock")
    assert (directory / "a.sock").stat().st_mode & 0o777 == 0o600
    assert connect(f"unix:{directory}/a.sock").call("pid")


def test_socket_mode(start, directory):
    """``--socket-mode`` opens the socket to others."""
    start("application", "--listen", "unix:a.sock", "--socket-mode", "660")
    assert (directory / "a.sock").stat().st_mode & 0o777 == 0o660


def test_tcp(start, connect):
    """``tcp://host:port`` serves at that port."""
    address = f"tcp://127.0.0.1:{free_port()}"
    start("hasher", "--listen", address)
    assert hash_and_verify(connect(address)) == (True, False)


def test_several_addresses(start, connect, directory):
    """Each ``--listen`` is an address of the same server."""
    addresses = [f"unix:{directory}/a.sock", f"unix:{directory}/b.sock", f"tcp://127.0.0.1:{free_port()}"]
    server = start("application", *(part for address in addresses for part in ("--listen", address)))
    for address in addresses:
        assert connect(address).call("pid") != server.process.pid
    assert server.end(signal.SIGTERM) == 0
    assert not list(directory.glob("*.sock"))


def test_its_name_is_in_errors(start, connect, directory):
    """``--name`` is what errors call the server."""
    start("application", "--listen", "unix:a.sock", "--name", "night-shift")
    with pytest.raises(AttributeError) as caught:
        connect(f"unix:{directory}/a.sock").call("missing")
    assert " of night-shift at " in caught.value.__notes__[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_stops_it(start, connect, directory, number):
    """TERM, INT and QUIT stop it with status 0: its workers are gone, its socket is removed, no traceback is written.

    INT and QUIT do not wait for a checkout.
    """
    server = start("application", "--listen", "unix:a.sock")
    client = connect(f"unix:{directory}/a.sock")
    with client.checkout() as worker:
        pid = worker.pid()
        if number != signal.SIGTERM:
            assert server.end(number) == 0
    assert server.end(number) == 0
    assert not Path(f"/proc/{pid}").exists()
    assert not (directory / "a.sock").exists()
    assert "Traceback" not in server.log


def test_an_unknown_module(directory):
    """A module that does not exist is named, with where it was looked for."""
    message = refused("no_such_module", "--listen", "unix:a.sock")
    assert "no module 'no_such_module'" in message
    assert str(directory) in message
    assert "no module 'no.such.module'" in refused("no.such.module", "--listen", "unix:a.sock")
    assert not (directory / "a.sock").exists()


def test_an_unknown_attribute(directory):
    """An attribute that the module does not have is named."""
    assert "'hasher' has no 'missing'" in refused("hasher:missing", "--listen", "unix:a.sock")


def test_an_application_that_offers_nothing(directory):
    """A module without a public function is refused, with what would be served."""
    (directory / "empty.py").write_text("import os\n")
    assert "offers nothing" in refused("empty", "--listen", "unix:a.sock")


@pytest.mark.parametrize(
    ("source", "last_line"),
    [
        ("import no_such_library\n", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("\n\ndef f(:\n", "SyntaxError: "),
        ("limit = 1 / 0\n", "ZeroDivisionError: division by zero"),
    ],
)
def test_an_application_that_raises_when_it_is_loaded(directory, source, last_line):
    """The application's own traceback is shown, with the line that raised; the status is 1."""
    (directory / "broken.py").write_text(source)
    done = run("broken", "--listen", "unix:a.sock")
    assert done.returncode == 1
    assert done.stderr.rstrip("\n").rpartition("\n")[2].startswith(last_line)
    assert 'broken.py", line' in done.stderr
    assert source.strip() in done.stderr
    assert not (directory / "a.sock").exists()


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("hasher.sock", "is no address: write unix:/path/to/the.sock or tcp://host:port"),
        ("unix:", "names no unix socket"),
        ("tcp://127.0.0.1", "is no address"),
        ("tcp://127.0.0.1:99999", "0 to 65535"),
        ("unix:" + "x" * 200, "may have 107 bytes"),
    ],
)
def test_a_bad_address(directory, address, why):
    """An address that is none is named with what to write instead; that is wrong usage, status 2."""
    assert why in refused("hasher", "--listen", address, status=2)


def test_an_address_at_which_nothing_can_listen(directory):
    """It is named, with the reason."""
    message = refused("hasher", "--listen", "unix:/no/such/directory/s.sock")
    assert "cannot listen at unix:/no/such/directory/s.sock: No such file" in message


def test_an_occupied_port(directory):
    """A TCP port at which another program listens is refused."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = f"tcp://127.0.0.1:{sock.getsockname()[1]}"
        message = refused("hasher", "--listen", address)
    assert f"cannot listen at {address}" in message


def test_a_path_that_is_no_socket(directory):
    """A file that is no socket is kept."""
    (directory / "notes").write_text("important")
    assert "no socket" in refused("hasher", "--listen", "unix:notes")
    assert (directory / "notes").read_text() == "important"


def test_one_bad_address_of_several(directory):
    """If one of several addresses cannot be had, none is kept."""
    refused("hasher", "--listen", "unix:a.sock", "--listen", "unix:/no/such/directory/s.sock")
    assert not (directory / "a.sock").exists()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["hasher"], "--listen"),
        (["--listen", "unix:a.sock"], "MODULE"),
        (["hasher", "--listen", "unix:a.sock", "--workers", "3"], "--workers"),
        (["hasher", "--listen", "unix:a.sock", "--limit-message", "much"], "--limit-message"),
        (["hasher", "--listen", "unix:a.sock", "--socket-mode", "rw"], "--socket-mode"),
    ],
)
def test_a_bad_option(directory, arguments, why):
    """Wrong usage is status 2, and one line that names the option in question and what to write."""
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("gtask-server: ")
    assert why in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "option", [["--limit-message", "5"], ["--stop-timeout", "-1"], ["--socket-mode", "7777"]], ids=" ".join
)
def test_an_option_out_of_range(directory, option):
    """A value that makes no sense is refused with what is allowed."""
    assert "write" in refused("hasher", "--listen", "unix:a.sock", *option, status=2)


def test_version_and_help(directory):
    """``--version`` and ``--help`` answer on stdout with status 0."""
    version, usage = run("--version"), run("--help")
    assert (version.returncode, version.stdout) == (0, f"gtask {gtask.__version__}\n")
    assert usage.returncode == 0
    assert re.search(r"--listen ADDRESS", usage.stdout)


def test_a_second_server_at_the_same_path(start, connect, directory):
    """A path at which a server lives is refused to a second one, and the first goes on undisturbed."""
    start("application", "--listen", "unix:a.sock")
    client = connect(f"unix:{directory}/a.sock")
    with client.checkout() as worker:
        pid = worker.pid()
        assert "another server" in refused("hasher", "--listen", "unix:a.sock")
        assert worker.pid() == pid
    assert connect(f"unix:{directory}/a.sock").call("pid")


def test_a_stale_socket_is_taken_over(start, connect, directory):
    """After kill -9 the socket's file is still there; the next server takes the path, and clients are served by it."""
    first = start("application", "--listen", "unix:a.sock")
    client = connect(f"unix:{directory}/a.sock")
    pid = client.call("pid")
    first.process.kill()
    first.process.wait()
    assert (directory / "a.sock").exists()
    second = start("application", "--listen", "unix:a.sock")
    other = connect(f"unix:{directory}/a.sock")
    assert other.call("pid") != pid
    assert second.end(signal.SIGTERM) == 0
    assert not (directory / "a.sock").exists()
    client.close()
    wait_until(lambda: not running(pid), "the end of the first server's worker")


def test_a_path_that_is_another_servers_by_now_is_kept(start, directory):
    """A server that stops removes only its own socket, not that of one which has taken the path meanwhile."""
    first = start("application", "--listen", "unix:a.sock")
    first.process.send_signal(signal.SIGSTOP)  # or it would make its socket anew
    (directory / "a.sock").unlink()
    assert "another server" in refused("application", "--listen", "unix:a.sock")
    (directory / "a.sock.lock").unlink()
    start("application", "--listen", "unix:a.sock")
    first.process.send_signal(signal.SIGCONT)
    assert first.end(signal.SIGTERM) == 0
    assert (directory / "a.sock").exists()


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
