"""The point of this test is to ensure that no cleaner of temporary directories makes a server unreachable.

systemd-tmpfiles removes what is old in ``/tmp``, sockets too, unless the kernel knows their paths or their directory is
locked. Whatever else has removed a socket: the server notices, says so, and makes it anew.
"""

import os
import shutil
import signal
import subprocess
import time

import pytest

import gtask
from tests.support.daemon import daemon
from tests.support.needs import needs_program
from tests.support.process import is_gone
from tests.support.waiting import wait_until

SOURCE = """
    import os

    def pid():
        return os.getpid()
"""


def clean(directory):
    """Run the cleaner of stock distributions on a directory, as if all in it were old."""
    (directory.parent / "clean.conf").write_text(f"d {directory} 0700 root root 1s\n")
    time.sleep(2.1)  # a change of the status's time cannot be faked
    subprocess.run(["systemd-tmpfiles", "--clean", str(directory.parent / "clean.conf")], check=True)


@pytest.fixture
def cleaned(tmp_path, monkeypatch):
    """A directory for temporary files that the cleaner may clean."""
    needs_program("systemd-tmpfiles", "systemd")
    directory = tmp_path / "tmp"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr("tempfile.tempdir", str(directory))
    (directory / "old").write_text("")
    return directory


def test_a_private_server(cleaned, tmp_path, connect, monkeypatch):
    """Of ``spawn:``. The cleaner removes other things there."""
    (tmp_path / "served.py").write_text("import os\n\ndef pid():\n    return os.getpid()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with gtask.spawn_server("served") as server:
        assert connect(server).call("pid")
        clean(cleaned)
        assert os.listdir(cleaned) == [os.path.basename(os.path.dirname(server.address.path))]
        assert sorted(os.listdir(os.path.dirname(server.address.path))) == ["socket", "socket.lock"]
        assert connect(server).call("pid")


def test_a_daemon(cleaned, tmp_path, connect):
    """With a path in such a directory; also after a server before it was killed there."""
    with daemon(tmp_path, "--listen", f"unix:{cleaned}/sock", source=SOURCE) as killed:
        address = f"unix:{cleaned}/sock"
        os.kill(killed.master, signal.SIGKILL)
        killed.process.kill()
        wait_until(lambda: is_gone(killed.pid))
    with daemon(tmp_path, "--listen", address, source=SOURCE):
        clean(cleaned)
        assert "sock" in os.listdir(cleaned)
        assert connect(address).call("pid")


def test_a_removed_socket_is_made_anew(tmp_path, connect):
    """A daemon's, by its keeper; a held checkout goes on, and SIGTERM ends all as ever."""
    with daemon(tmp_path, source=SOURCE) as server:
        with connect(server).checkout() as held:
            pid = held.pid()
            for count in (1, 2):
                os.unlink(tmp_path / "sock")
                wait_until(lambda: os.path.exists(tmp_path / "sock"), "a new socket")
                server.wait_for("somebody has removed the socket", count)
                server.wait_for(" serves", count + 1)
                assert connect(server).call("pid") != pid
            assert held.pid() == pid
        assert server.end() == 0
    assert not os.path.exists(tmp_path / "sock")


@pytest.mark.parametrize("private", [True, False])
def test_so_is_that_of_a_server_without_a_keeper(tmp_path, connect, private, monkeypatch):
    """Also if its directory is gone as well, where that is its own."""
    (tmp_path / "served.py").write_text("import os\n\ndef pid():\n    return os.getpid()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    address = None if private else f"unix:{tmp_path}/sock"
    with gtask.spawn_server("served", address) as server, connect(server).checkout() as held:
        pid = held.pid()
        if private:
            shutil.rmtree(os.path.dirname(server.address.path))
        else:
            os.unlink(server.address.path)
        wait_until(lambda: os.path.exists(server.address.path), "a new socket")
        assert connect(server).call("pid") != pid
        assert held.pid() == pid
    assert not os.path.exists(os.path.dirname(server.address.path) if private else server.address.path)
