"""Listening sockets: who may connect, whose path it is, and what is left behind."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import socket
import stat

import pytest

from gtask.address import TcpAddress, UnixAddress, parse
from gtask.server import paths
from gtask.server.config import OpenSocket, ServerConfig
from gtask.server.listener import AddressUnavailable, Listener
from gtask.server.listener import listen as listen_at_all


@pytest.fixture
def listen(tmp_path):
    """``listen(address, **options)`` gives a listener that is closed at the end of the test."""
    listeners = []

    def make(address, defer=False, **options):
        address = parse(address)
        listeners.append(Listener(address, ServerConfig((address,), **options), defer=defer))
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
    with pytest.raises(AddressUnavailable, match=r"another server does\. Stop it, or choose another path") as caught:
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
        full = 0
        while not full:
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].setblocking(False)
            full = waiting[-1].connect_ex(first.address.sockaddr)
        assert full == errno.EAGAIN
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
    with pytest.raises(AddressUnavailable, match=r"no socket\. Choose another path, or remove it"):
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


# --- the lock beside the path ----------------------------------------------------------------------------


def left_behind(listener):
    """What a server leaves that was killed while another process, a master of its, still listens: that one's socket."""
    orphan = socket.socket(fileno=os.dup(listener.fileno()))
    listener.let_go()
    return orphan


def test_the_lock_is_for_its_user_alone_and_no_link(listen, tmp_path):
    """It is made beside the socket; a link there leads nobody elsewhere."""
    listen(f"unix:{tmp_path}/sock")
    assert mode(tmp_path / "sock.lock") == 0o600
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "other.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(AddressUnavailable, match=r"other\.lock"):
        listen(f"unix:{tmp_path}/other")
    assert (tmp_path / "precious").read_text() == "precious"


def test_the_lock_alone_refuses_a_second_server(listen, tmp_path):
    """Also where the socket itself is gone, or no longer answers."""
    first = listen(f"unix:{tmp_path}/sock")
    os.unlink(tmp_path / "sock")
    with pytest.raises(AddressUnavailable, match="another server does"):
        listen(f"unix:{tmp_path}/sock")
    assert not (tmp_path / "sock").exists()
    first.close()
    assert greets(listen(f"unix:{tmp_path}/sock"))


def test_a_lock_is_waited_for_that_is_held_for_a_moment(listen, tmp_path, monkeypatch):
    """As a worker does that was just forked when its master was killed: it closes it before all else."""
    lock = os.open(tmp_path / "sock.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)

    class Pause:
        def poll(self, milliseconds):
            os.close(lock)

    monkeypatch.setattr(paths, "poll", Pause)
    assert greets(listen(f"unix:{tmp_path}/sock"))


def test_a_lock_that_nobody_holds_means_nothing(listen, tmp_path):
    """A killed server has left it; with garbage in it, even."""
    (tmp_path / "sock.lock").write_text("garbage\n" * 100)
    listener = listen(f"unix:{tmp_path}/sock")
    assert greets(listener)
    listener.close()
    assert list(tmp_path.iterdir()) == []


def test_the_socket_of_an_orphaned_master_is_taken_over(listen, tmp_path):
    """It answers still, but its server is dead; nobody who connects meanwhile finds nothing, or another's door."""
    orphan = left_behind(listen(f"unix:{tmp_path}/sock"))
    with orphan, socket.socket(socket.AF_UNIX) as early:
        early.connect(f"{tmp_path}/sock")
        second = listen(f"unix:{tmp_path}/sock")
        assert greets(second)
        orphan.accept()[0].close()  # who came early waits at the old one
        orphan.accept()[0].close()  # the question whether anybody is there
        orphan.setblocking(False)
        with pytest.raises(BlockingIOError):
            orphan.accept()


def test_the_path_is_never_empty_while_it_is_taken_over(listen, tmp_path, monkeypatch):
    """The new socket listens already when it gets the path, in one step."""
    moments = []
    real_rename = os.rename

    def rename(old, new):
        inode = os.lstat(new).st_ino
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(old)
        real_rename(old, new)
        moments.append(inode != os.lstat(new).st_ino)

    with left_behind(listen(f"unix:{tmp_path}/sock")):
        monkeypatch.setattr(os, "rename", rename)
        listen(f"unix:{tmp_path}/sock")
    assert moments == [True]


def test_a_socket_that_the_lock_does_not_know_is_not_taken_over(listen, tmp_path):
    """Another program's, alive, at the path of a server that was killed; even if it got the same inode's number."""
    with left_behind(listen(f"unix:{tmp_path}/sock")) as theirs:
        status = os.lstat(tmp_path / "sock")
        os.utime(tmp_path / "sock", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        with pytest.raises(AddressUnavailable, match="another server does"):
            listen(f"unix:{tmp_path}/sock")
        assert os.lstat(tmp_path / "sock").st_ino == status.st_ino
        theirs.accept()[0].close()  # the question whether anybody is there


def test_a_change_of_owner_or_mode_does_not_hide_an_orphan(listen, tmp_path):
    """An operator may have opened the socket to others."""
    with left_behind(listen(f"unix:{tmp_path}/sock")):
        os.chmod(tmp_path / "sock", 0o666)
        os.chown(tmp_path / "sock", os.getuid(), os.getgid())
        assert greets(listen(f"unix:{tmp_path}/sock"))


def test_half_a_takeover_is_no_obstacle(listen, tmp_path):
    """A server that was killed between bind and rename has left its socket under the other name."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{tmp_path}/sock~")
    listener = listen(f"unix:{tmp_path}/sock")
    assert greets(listener)
    assert sorted(os.listdir(tmp_path)) == ["sock", "sock.lock"]


def test_a_file_under_that_other_name_is_kept(listen, tmp_path):
    """It is somebody's backup copy, and no socket. Where the name is wanted, for a takeover, that is refused."""
    (tmp_path / "sock~").write_text("precious")
    with left_behind(listen(f"unix:{tmp_path}/sock")):
        with pytest.raises(AddressUnavailable, match="cannot listen at"):
            listen(f"unix:{tmp_path}/sock")
        assert (tmp_path / "sock~").read_text() == "precious"
        (tmp_path / "sock~").unlink()
        assert greets(listen(f"unix:{tmp_path}/sock"))


def test_the_kernel_knows_the_path(listen, tmp_path):
    """Cleaners of temporary directories look it up there. A killed server's socket makes no difference."""
    for _ in range(2):
        listen(f"unix:{tmp_path}/sock")
        with open("/proc/net/unix") as table:
            assert f" {tmp_path}/sock\n" in table.read()
        (tmp_path / "sock.lock").unlink()
        with socket.socket(socket.AF_UNIX) as dead:
            (tmp_path / "sock").unlink()
            dead.bind(f"{tmp_path}/sock")


def test_a_takeover_may_wait_until_somebody_serves(listen, tmp_path):
    """Until then the orphan has the path. A server that ends before leaves it there."""
    with left_behind(listen(f"unix:{tmp_path}/sock")):
        first = listen(f"unix:{tmp_path}/sock", defer=True)
        assert sorted(os.listdir(tmp_path)) == ["sock", "sock.lock", "sock~"]
        first.close()
        assert sorted(os.listdir(tmp_path)) == ["sock", "sock.lock"]
        second = listen(f"unix:{tmp_path}/sock", defer=True)
        second.take_over()
        assert greets(second)
        assert sorted(os.listdir(tmp_path)) == ["sock", "sock.lock"]


def test_a_socket_that_was_removed_is_made_anew(listen, tmp_path):
    """Under the same descriptor, so that what polls it need not know. The lock may be gone as well."""
    listener = listen(f"unix:{tmp_path}/sock")
    number = listener.fileno()
    for gone in (["sock"], ["sock", "sock.lock"]):
        assert not listener.is_lost
        for name in gone:
            (tmp_path / name).unlink()
        assert listener.is_lost
        listener.bind_again()
        assert greets(listener)
        assert listener.fileno() == number
    listener.close()
    assert list(tmp_path.iterdir()) == []


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
        os.rename(tmp_path / "sock.lock", tmp_path / "lock")  # somebody has cleaned up thoroughly
        new = listen(f"unix:{path}")
    else:
        path.write_text("precious")
    old.close()
    assert path.exists()
    if successor == "socket":
        assert (tmp_path / "sock.lock").exists()
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


def test_the_metrics_come_last(tmp_path):
    """All are listened at, or none; and the directory of that socket is nobody's private one."""
    metrics = tmp_path / "m"
    metrics.mkdir()
    here = UnixAddress(f"{tmp_path}/sock")
    config = ServerConfig((here,), metrics=UnixAddress(f"{metrics}/sock"), private=True)
    first, second = listeners = listen_at_all(config)
    assert [listener.for_metrics for listener in listeners] == [False, True]
    with pytest.raises(AddressUnavailable):
        listen_at_all(dataclasses.replace(config, addresses=(UnixAddress(f"{tmp_path}/other"),)))
    assert not (tmp_path / "other").exists()
    second.close()
    assert list(metrics.iterdir()) == []
    first.close()


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


def test_a_changed_working_directory_changes_nothing(listen, tmp_path, monkeypatch):
    """A relative path is the one that it was."""
    monkeypatch.chdir(tmp_path)
    listener = listen("unix:sock")
    inherited = Listener.inherited(os.dup(listener.fileno()), "unix:sock")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert not inherited.was_replaced
    inherited.close()
    listener.close()
    assert os.listdir(tmp_path) == ["elsewhere"]


# --- sockets that are open already -----------------------------------------------------------------------


@pytest.fixture
def theirs(tmp_path):
    """A listening socket that somebody else has opened."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{tmp_path}/theirs")
        sock.listen()
        yield sock


def test_an_inherited_socket_knows_its_address(theirs, tmp_path):
    """The kernel says it; its path is neither removed nor given away when it is closed."""
    listener = Listener.inherited(os.dup(theirs.fileno()))
    listener.configure(ServerConfig((listener.address,)))
    assert listener.address == UnixAddress(f"{tmp_path}/theirs")
    assert greets(listener)
    listener.give_to(12345, 12345)
    assert os.lstat(tmp_path / "theirs").st_uid == os.geteuid()
    listener.close()
    assert (tmp_path / "theirs").exists()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_an_inherited_tcp_socket(family):
    """Its address, with the port."""
    try:
        sock = socket.create_server(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0), family=family)
    except OSError:
        pytest.skip("this machine has no such addresses")
    with sock:
        listener = Listener.inherited(os.dup(sock.fileno()))
        assert listener.address == TcpAddress(*sock.getsockname()[:2])
        assert parse(str(listener.address)) == listener.address
        listener.close()


def test_an_inherited_abstract_socket():
    """Its name begins with the at sign."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"\0gtask-test-inherited-{os.getpid()}")
        sock.listen()
        listener = Listener.inherited(os.dup(sock.fileno()))
        assert listener.address == UnixAddress(f"@gtask-test-inherited-{os.getpid()}")
        listener.close()


def test_it_is_noticed_when_an_inherited_socket_was_replaced(listen, tmp_path):
    """By which an orphaned master knows that a new server has its place; also when the path is just gone."""
    first = listen(f"unix:{tmp_path}/sock")
    orphan = Listener.inherited(os.dup(first.fileno()), f"unix:{tmp_path}/sock")
    assert not orphan.was_replaced
    first.let_go()
    second = listen(f"unix:{tmp_path}/sock")
    assert orphan.was_replaced
    second.close()
    assert orphan.was_replaced
    orphan.close()


def test_open_sockets_and_activated_ones_are_listened_at(theirs, tmp_path):
    """``fd:N`` among the addresses; and one that systemd has handed over is not bound again."""
    activated = Listener.inherited(os.dup(theirs.fileno()))
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        number = os.dup(tcp.fileno())
        config = ServerConfig((activated.address, OpenSocket(number), UnixAddress(f"{tmp_path}/own")))
        listeners = listen_at_all(config, [activated])
        assert [listener.fileno() for listener in listeners[:2]] == [activated.fileno(), number]
        assert all(map(greets, listeners))
        for listener in listeners:
            listener.close()
    assert sorted(os.listdir(tmp_path)) == ["theirs"]


@pytest.mark.parametrize("kind", ["file", "pipe", "does not listen"])
def test_what_is_no_listening_socket_is_refused(tmp_path, kind):
    """With its number; and then none of the addresses is kept."""
    sock = socket.socket(socket.AF_UNIX)
    if kind == "file":
        number = os.open(tmp_path / "file", os.O_CREAT)
    elif kind == "pipe":
        number, other = os.pipe()
        os.close(other)
    else:
        number = os.dup(sock.fileno())
    sock.close()
    config = ServerConfig((UnixAddress(f"{tmp_path}/own"), OpenSocket(number)))
    with pytest.raises(AddressUnavailable, match=f"descriptor {number} is "):
        listen_at_all(config)
    os.close(number)
    assert not os.path.exists(tmp_path / "own")
    assert not os.path.exists(tmp_path / "own.lock")


# --- who may connect -------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["unix:{}/sock", "unix:@gtask-test-uid-{}"])
@pytest.mark.parametrize(
    ("allowed", "welcome"), [((), True), ((os.geteuid(),), True), ((os.geteuid() + 1,), False), ((-1,), False)]
)
def test_only_listed_users_may_connect_to_a_unix_socket(listen, tmp_path, address, allowed, welcome):
    """If there is a list."""
    listener = listen(address.format(tmp_path if "@" not in address else os.getpid()), allow_uid=allowed)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(listener.address.sockaddr)
        with listener.accept() as connection:
            refusal = listener.refuses(connection)
    if welcome:
        assert refusal == ""
    else:
        assert refusal == (
            f"process {os.getpid()} of user {os.geteuid()} may not connect to {listener.address} (allow_uid)"
        )


def test_a_list_of_users_at_tcp(listen, tmp_path):
    """TCP does not tell who it is. So a server that listens nowhere else refuses the list; beside a unix socket
    everybody may connect who can."""
    config = ServerConfig((parse(f"unix:{tmp_path}/sock"), parse("tcp://127.0.0.1:0")), allow_uid=(os.geteuid() + 1,))
    listener = listen("tcp://127.0.0.1:0")
    listener.configure(config)
    with socket.create_connection(listener.address.sockaddr), listener.accept() as connection:
        assert listener.refuses(connection) == ""
    with pytest.raises(ValueError, match="allow_uid=7: TCP does not tell users apart"):
        ServerConfig((parse("tcp://127.0.0.1:0"),), allow_uid=(7,))
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        opened.listen()
        with pytest.raises(AddressUnavailable, match="allow_uid=7: TCP does not tell users apart"):
            listen_at_all(ServerConfig((OpenSocket(os.dup(opened.fileno())),), allow_uid=(7,)))


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
