"""The point of this test is to ensure that systemd can hand the listening sockets over (sd_listen_fds(3)).

It is done by hand, as systemd does it, and by systemd-socket-activate where that is installed.
"""

import os
import re
import shutil
import signal
import socket
import sys

import gevent
import gevent.socket
import pytest

from tests.support.daemon import SOURCE, daemon, refused
from tests.support.waiting import turn_hub, wait_until

BECOME = """
import os, sys
count = int(sys.argv[1])
for number in range(count):
    os.dup2(int(sys.argv[2 + number]), 50 + number)
for number in range(count):
    os.dup2(50 + number, 3 + number)
    os.close(50 + number)
os.environ.update(LISTEN_PID=str(os.getpid() + int(os.environ.get("WRONG", "0"))), LISTEN_FDS=str(count))
os.execv(sys.argv[2 + count], sys.argv[2 + count :])
"""

SHOWING = (
    SOURCE
    + """
def environment():
    return sorted(name for name in os.environ if name.startswith("LISTEN_"))
"""
)


def handing_over(*socks):
    """Options of a daemon that gets these sockets as systemd gives them."""
    numbers = [sock.fileno() for sock in socks]
    launcher = [sys.executable, "-c", BECOME, str(len(socks)), *map(str, numbers)]
    return {"launcher": launcher, "pass_fds": numbers, "source": SHOWING}


@pytest.fixture
def sockets(tmp_path):
    """``sockets(where...)``: listening sockets, unix for a str and TCP for a tuple."""
    made = []

    def make(*places):
        for where in places:
            made.append(socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET))
            made[-1].bind(where)
            made[-1].listen()
        return made

    yield make
    for sock in made:
        sock.close()


def test_the_sockets_make_listen_unnecessary(connect, tmp_path, sockets):
    """It serves at all of them. Who connected before it was started is served; the application sees nothing of it."""
    path = str(tmp_path / "theirs")
    first, second = sockets(path, ("127.0.0.1", 0))
    early = gevent.spawn(connect(f"unix:{path}").call, "pids")
    turn_hub()
    with daemon(tmp_path, **handing_over(first, second)) as server:
        assert early.get()[1] == server.master
        client = connect(f"tcp://127.0.0.1:{second.getsockname()[1]}")
        assert client.call("pids")[1] == server.master
        assert client.call("environment") == []


def test_their_paths_stay(connect, tmp_path, sockets):
    """They are systemd's: neither removed nor locked; the next daemon gets the same socket, and who waits meanwhile."""
    path = str(tmp_path / "theirs")
    (sock,) = sockets(path)
    client = connect(f"unix:{path}", timeout=30)
    for _ in range(2):
        with daemon(tmp_path, **handing_over(sock)) as server:
            assert client.call("pids")[1] == server.master
            assert server.end() == 0
        assert os.path.exists(path)
        assert not os.path.exists(f"{path}.lock")


def test_listen_adds_to_them(connect, tmp_path, sockets):
    """An address that is given besides is listened at, too."""
    path = str(tmp_path / "theirs")
    with daemon(tmp_path, "--listen", f"unix:{tmp_path}/own", **handing_over(*sockets(path))) as server:
        for where in (path, f"{tmp_path}/own"):
            assert connect(f"unix:{where}").call("pids")[1] == server.master


def test_they_stay_through_a_reload(connect, tmp_path, sockets):
    """The next master has them as well."""
    path = str(tmp_path / "theirs")
    with daemon(tmp_path, **handing_over(*sockets(path))) as server:
        first = server.master
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: server.masters and first not in server.masters, "another master")
        assert connect(f"unix:{path}").call("pids")[1] == server.master


def test_those_for_another_process_are_not_taken(tmp_path, sockets):
    """LISTEN_PID is somebody else's: the variables were inherited by mistake."""
    options = handing_over(*sockets(str(tmp_path / "theirs")))
    status, line = refused(tmp_path, env={"WRONG": "1"}, **options)
    assert status == 2
    assert "--listen" in line


def test_where_others_can_connect(tmp_path, sockets):
    """An inherited TCP socket needs --insecure like any other."""
    status, line = refused(tmp_path, **handing_over(*sockets(("0.0.0.0", 0))))
    assert status == 2
    assert "--insecure" in line


def test_what_is_no_socket(tmp_path):
    """A descriptor that does not listen is refused, with its number and no traceback."""
    with open(tmp_path / "file", "w") as file:
        status, line = refused(tmp_path, **handing_over(file))
    assert status == 1
    assert "descriptor 3 is no socket" in line


def test_check_config_knows_them(tmp_path, sockets):
    """``--check-config`` says that it would listen there."""
    (sock,) = sockets(("127.0.0.1", 0))
    options = handing_over(sock)
    options["launcher"] = ["/bin/sh", "-c", 'exec "$@" >plan', "sh", *options["launcher"]]
    with daemon(tmp_path, "--check-config", wait=False, **options) as server:
        assert server.wait() == 0
    assert f"listens at tcp://127.0.0.1:{sock.getsockname()[1]}" in (tmp_path / "plan").read_text()


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="systemd-socket-activate is not installed")
def test_by_systemd_socket_activate(connect, tmp_path):
    """It listens first, and starts the daemon when somebody connects, who is served."""
    path = f"{tmp_path}/activated"
    python_path = os.pathsep.join(filter(None, sys.path))
    launcher = [shutil.which("systemd-socket-activate"), "-l", path, "-E", f"PYTHONPATH={python_path}"]
    with daemon(tmp_path, launcher=launcher, wait=False) as server:
        server.wait_for("Listening on")
        assert not server.masters
        assert connect(f"unix:{path}", timeout=30).call("pids")[1] == server.master
        assert re.search(f"is listening at unix:{path}", server.log)
        assert server.end() == 0
