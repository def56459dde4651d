"""Listening sockets: who may connect, whose path it is, and what is left behind."""

from __future__ import annotations

import os
import socket
import stat

import pytest

from gtask.address import TcpAddress, UnixAddress, parse
from gtask.server.config import ServerConfig
from gtask.server.listener import AddressUnavailable, Listener


@pytest.fixture
def listen(tmp_path):
    """``listen(address, **options)`` gives a listener that is closed at the end of the test."""
    listeners = []

    def make(address, **options):
        address = parse(address)
        listeners.append(Listener(address, ServerConfig((address,), **options)))
        return listeners[-1]

    yield make
    for listener in listeners:
        listener.close()


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def greets(listener):
    """Whether a client that connects to its address is accepted by this very listener."""
    family = socket.AF_UNIX if isinstance(listener.address, UnixAddress) else socket.AF_INET
    with socket.socket(family) as client:
        client.connect(listener.address.sockaddr)
        client.sendall(b"hello")
        served = listener.accept()
        if served is None:
            return False
        with served:
            return served.recv(5) == b"hello"


# --- permissions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777], ids=oct)
@pytest.mark.parametrize("permissions", [0o600, 0o660, 0o666], ids=oct)
def test_permissions_are_right_from_the_first_moment(listen, tmp_path, monkeypatch, umask, permissions):
    """Whatever the umask, the file never allows more than it should, not even between bind and chmod."""
    moments = []
    real_chmod = os.chmod

    def chmod(path, *args, **kwargs):
        moments.append(mode(path))
        return real_chmod(path, *args, **kwargs)

    monkeypatch.setattr(os, "chmod", chmod)
    before = os.umask(umask)
    try:
        listen(f"unix:{tmp_path}/sock", socket_mode=permissions)
        assert os.umask(umask) == umask  # as it was
    finally:
        os.umask(before)
    assert mode(tmp_path / "sock") == permissions
    assert all(moment & ~permissions == 0 for moment in moments)


def test_by_default_it_is_for_its_user_alone(listen, tmp_path):
    """Mode 0600, and so it stays while it listens."""
    listener = listen(f"unix:{tmp_path}/sock")
    assert greets(listener)
    assert mode(tmp_path / "sock") == 0o600


def test_the_umask_is_restored_when_binding_fails(listen, tmp_path):
    """Also then."""
    before = os.umask(0o022)
    try:
        with pytest.raises(AddressUnavailable):
            listen(f"unix:{tmp_path}/missing/sock")
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


# --- whose path it is ------------------------------------------------------------------------------------


def test_a_stale_socket_is_taken_over(listen, tmp_path):
    """One that a killed server left, to which nobody listens any more."""
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        dead.listen()
    os.chmod(path, 0o666)
    assert greets(listen(f"unix:{path}"))
    assert mode(path) == 0o600


def test_a_living_server_is_not_disturbed(listen, tmp_path):
    """The second is refused, with what to do; the first keeps its path and goes on serving."""
    first = listen(f"unix:{tmp_path}/sock")
    inode = os.lstat(tmp_path / "sock").st_ino
    with pytest.raises(AddressUnavailable, match="another server does. Stop it, or choose another path") as caught:
        listen(f"unix:{tmp_path}/sock")
    assert f"unix:{tmp_path}/sock" in str(caught.value)
    assert os.lstat(tmp_path / "sock").st_ino == inode
    while (probe := first.accept()) is not None:  # the second one's question whether anybody is there
        probe.close()
    assert greets(first)


def test_a_living_server_with_a_full_backlog_is_alive(listen, tmp_path):
    """A server that is too busy to accept is not taken for a dead one."""
    first = listen(f"unix:{tmp_path}/sock", backlog=1)
    waiting = []
    try:
        with pytest.raises(BlockingIOError):
            while True:
                waiting.append(socket.socket(socket.AF_UNIX))
                waiting[-1].setblocking(False)
                waiting[-1].connect(first.address.sockaddr)
        with pytest.raises(AddressUnavailable, match="another server does"):
            listen(f"unix:{tmp_path}/sock")
    finally:
        for one in waiting:
            one.close()
    assert os.path.exists(tmp_path / "sock")


@pytest.mark.parametrize("kind", ["file", "directory", "link", "pipe"])
def test_what_is_no_socket_is_kept(listen, tmp_path, kind):
    """A file, a directory, a link (also to a socket) or a pipe at the path is refused and untouched."""
    path = tmp_path / "sock"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    elif kind == "link":
        listen(f"unix:{tmp_path}/other")
        path.symlink_to(tmp_path / "other")
    else:
        os.mkfifo(path)
    before = os.lstat(path)
    with pytest.raises(AddressUnavailable, match="no socket. Choose another path, or remove it"):
        listen(f"unix:{path}")
    after = os.lstat(path)
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert kind != "file" or path.read_text() == "precious"


def test_a_directory_that_is_missing_or_closed_is_said(listen, tmp_path):
    """With the system's reason."""
    with pytest.raises(AddressUnavailable, match="No such file or directory"):
        listen(f"unix:{tmp_path}/missing/sock")


@pytest.mark.parametrize("address", ["unix:{}/sock", "unix:@gtask-test-{}", "tcp://127.0.0.1:0"])
def test_a_refused_listener_leaves_no_descriptor(listen, tmp_path, address):
    """The conflict is an AddressUnavailable for every kind of address (conftest checks the descriptors)."""
    first = listen(address.format(tmp_path if "@" not in address else os.getpid()))
    with pytest.raises(AddressUnavailable, match="cannot listen at"):
        listen(first.address)
    while (probe := first.accept()) is not None:
        probe.close()
    assert greets(first)


# --- what is left behind ---------------------------------------------------------------------------------


def test_closing_removes_the_socket(listen, tmp_path):
    """And closing again does nothing."""
    listener = listen(f"unix:{tmp_path}/sock")
    listener.close()
    listener.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("successor", ["socket", "file"])
def test_closing_removes_only_its_own(listen, tmp_path, successor):
    """What meanwhile came to the path, another server's socket or a file, is not this one's to remove."""
    path = tmp_path / "sock"
    old = listen(f"unix:{path}")
    os.rename(path, tmp_path / "aside")  # so that the inode's number is not used again
    if successor == "socket":
        new = listen(f"unix:{path}")
    else:
        path.write_text("precious")
    old.close()
    assert path.exists()
    if successor == "socket":
        assert greets(new)


def test_closing_copes_with_a_path_that_is_gone(listen, tmp_path):
    """Somebody may have cleaned up."""
    listener = listen(f"unix:{tmp_path}/sock")
    os.unlink(tmp_path / "sock")
    listener.close()


def test_letting_go_keeps_the_path(listen, tmp_path):
    """Another process listens on; only the descriptor here is closed."""
    listener = listen(f"unix:{tmp_path}/sock")
    other = socket.socket(fileno=os.dup(listener.fileno()))
    listener.let_go()
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "sock"))
    finally:
        other.close()


def test_a_private_directory_goes_with_its_socket(listen, tmp_path):
    """One that was made for the socket alone."""
    (tmp_path / "private").mkdir(mode=0o700)
    listener = listen(f"unix:{tmp_path}/private/sock", private=True)
    listener.close()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_with_other_things_stays(listen, tmp_path):
    """Also if it was thought private; and one that is not private stays in any case."""
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "notes").write_text("precious")
    listen(f"unix:{tmp_path}/private/sock", private=True).close()
    assert [path.name for path in (tmp_path / "private").iterdir()] == ["notes"]
    (tmp_path / "public").mkdir()
    listen(f"unix:{tmp_path}/public/sock").close()
    assert (tmp_path / "public").is_dir()


# --- the kinds of address --------------------------------------------------------------------------------


def test_tcp_port_0_becomes_the_port_that_was_chosen(listen):
    """Which is the address that the listener tells, and where it is reached."""
    listener = listen("tcp://127.0.0.1:0")
    assert isinstance(listener.address, TcpAddress)
    assert listener.address.port > 0
    assert greets(listener)


def test_an_abstract_name_leaves_no_file(listen, tmp_path, monkeypatch):
    """It is reached by its name, and gone when it is closed."""
    monkeypatch.chdir(tmp_path)
    listener = listen(f"unix:@gtask-test-{os.getpid()}")
    assert greets(listener)
    assert list(tmp_path.iterdir()) == []
    listener.close()
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(listener.address.sockaddr)


@pytest.mark.parametrize("address", ["unix:{}/sock", "tcp://127.0.0.1:0"])
def test_accepting_does_not_wait(listen, tmp_path, address):
    """There may be nobody; who is there gets a blocking connection that no exec inherits, over TCP without delay."""
    listener = listen(address.format(tmp_path))
    assert listener.accept() is None
    unix = isinstance(listener.address, UnixAddress)
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as client:
        client.connect(listener.address.sockaddr)
        with listener.accept() as connection:
            assert connection.gettimeout() is None
            assert not connection.get_inheritable()
            if not unix:
                assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert listener.accept() is None
