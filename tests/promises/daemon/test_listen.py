"""The point of this test is to ensure that ``--listen`` takes every kind of address, and refuses what is dangerous.

A unix path, an abstract name, TCP on this machine, and a socket that is open already; TCP where others can connect only
if that is asked for.
"""

import os
import re
import socket

import pytest

from tests.support.daemon import daemon, refused


def listening(family=socket.AF_INET, where=("127.0.0.1", 0)):
    sock = socket.socket(family)
    sock.bind(where)
    sock.listen()
    return sock


def test_a_unix_path(connect, tmp_path):
    """With a lock file beside it; both are gone when the server has ended."""
    with daemon(tmp_path) as server:
        assert connect(server.address).call("pid") in server.workers
        assert (tmp_path / "sock.lock").exists()
        assert server.end() == 0
    assert not {"sock", "sock.lock"} & set(os.listdir(tmp_path))


def test_a_path_as_long_as_it_may_be(connect, tmp_path):
    """106 bytes, and a file name of one byte: there is room for the name that it has before it is renamed."""
    directory = tmp_path
    while (left := 106 - len(os.fsencode(directory / "s"))) > 0:
        directory /= "d" * (left - 1 if 1 < left < 100 else min(left, 50))
    if len(os.fsencode(directory / "s")) != 106:
        pytest.skip("the temporary directory's own name is too long")
    directory.mkdir(parents=True)
    with daemon(tmp_path, "--listen", f"unix:{directory}/s"):
        assert connect(f"unix:{directory}/s").call("pid")


def test_an_abstract_name(connect, tmp_path):
    """It leaves no file."""
    name = f"unix:@gtask-test-{os.getpid()}"
    with daemon(tmp_path, "--listen", name) as server:
        assert connect(name).call("pid") in server.workers
    assert not [path for path in os.listdir(tmp_path) if "gtask" in path or path.endswith(".lock")]


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_tcp_on_this_machine(connect, tmp_path, host):
    """Port 0 is a port that is free, and the log says which."""
    if host == "[::1]":
        try:
            listening(socket.AF_INET6, ("::1", 0)).close()
        except OSError:
            pytest.skip("no IPv6 here")
    with daemon(tmp_path, "--listen", f"tcp://{host}:0") as server:
        address = re.search(r"is listening at (tcp://\S+:[1-9][0-9]*)$", server.log, re.M)[1]
        assert connect(address).call("pid") in server.workers


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "10.1.2.3", "example.org", "127.example.org"])
def test_tcp_where_others_can_connect_is_refused(tmp_path, host):
    """The message says why, and what to do; that is wrong usage. A name counts as elsewhere, whatever it looks like."""
    status, line = refused(tmp_path, "--listen", f"tcp://{host}:7001")
    assert status == 2
    assert f"tcp://{host}:7001" in line
    assert "--insecure" in line


def test_tcp_where_others_can_connect_if_told_so(connect, tmp_path):
    """``--insecure`` says that the network is trusted."""
    with daemon(tmp_path, "--listen", "tcp://0.0.0.0:0", "--insecure") as server:
        port = re.search(r"tcp://0\.0\.0\.0:([0-9]+)", server.log)[1]
        assert connect(f"tcp://127.0.0.1:{port}").call("pid") in server.workers


def test_a_socket_that_is_open_already(connect, tmp_path):
    """``fd:N``: whoever started the daemon has opened it, so its path stays when the daemon has ended."""
    path = str(tmp_path / "theirs")
    with listening(socket.AF_UNIX, path) as sock:
        with daemon(tmp_path, "--listen", f"fd:{sock.fileno()}", pass_fds=[sock.fileno()]) as server:
            assert connect(f"unix:{path}").call("pid") in server.workers
            assert server.end() == 0
        assert os.path.exists(path)
        assert not os.path.exists(f"{path}.lock")


def test_an_open_socket_of_which_others_know_is_no_way_round(tmp_path):
    """One that is bound where other machines can connect is refused as well."""
    with listening(where=("0.0.0.0", 0)) as sock:
        status, line = refused(tmp_path, "--listen", f"fd:{sock.fileno()}", pass_fds=[sock.fileno()])
    assert status == 1
    assert "--insecure" in line


@pytest.mark.parametrize("kind", ["closed", "file", "socket that does not listen"])
def test_what_is_no_listening_socket(tmp_path, kind):
    """The message names the descriptor and says what is wrong with it."""
    with open(tmp_path / "file", "w") as file, socket.socket() as sock:
        number = {"closed": 99, "file": file.fileno()}.get(kind, sock.fileno())
        passed = [] if kind == "closed" else [number]
        status, line = refused(tmp_path, "--listen", f"fd:{number}", pass_fds=passed)
    assert status == 1
    assert f"descriptor {number} is " in line
    assert ("no socket" in line) == (kind != "socket that does not listen")


def test_all_at_once(connect, tmp_path):
    """One server may have an address of each kind, and all lead to it."""
    path, name = f"unix:{tmp_path}/a", f"unix:@gtask-test-all-{os.getpid()}"
    with listening() as sock:
        arguments = ["--listen", path, "--listen", name, "--listen", f"fd:{sock.fileno()}"]
        with daemon(tmp_path, *arguments, pass_fds=[sock.fileno()]) as server:
            for address in (path, name, f"tcp://127.0.0.1:{sock.getsockname()[1]}"):
                assert connect(address).call("pids")[1] == server.master
