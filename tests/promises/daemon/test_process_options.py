"""The point of this test is to ensure that the application runs where and as whom the options of the process say."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import signal
import socket
import stat
import sys
import tempfile
from pathlib import Path

import pytest

from gtask.server.daemon import cli
from tests.support.waiting import wait_until

APPLICATION = """
import os

at_load = [os.getcwd(), os.environ.get("COLOUR"), os.geteuid(), os.getegid(), os.getpriority(os.PRIO_PROCESS, 0)]

def loaded():
    return at_load

def now():
    return [os.getcwd(), os.environ.get("COLOUR"), os.geteuid(), os.getegid(), os.getpriority(os.PRIO_PROCESS, 0)]

def groups():
    return sorted(os.getgroups())

def mode_of_a_new_file(path):
    open(path, "w").close()
    return os.stat(path).st_mode & 0o777

def pids():
    return [os.getpid(), os.getppid()]
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def answers(operator, connect):
    """``answers(method, *options)`` is what a worker of a server with these options answers."""
    operator.write("app.py", APPLICATION)

    def answers(method, *options, arguments=(), **others):
        operator.start(*options, **others)
        return connect(operator.address).call(method, *arguments)

    return answers


def test_chdir(answers, operator):
    """The application is loaded and runs there; its modules are found there, and paths of the daemon are not meant."""
    (operator.directory / "inner").mkdir()
    (operator.directory / "app.py").rename(operator.directory / "inner" / "app.py")
    there = str(operator.directory / "inner")
    assert answers("loaded", "--chdir", "inner", "--pid", "a.pid")[0] == there
    assert (operator.directory / "a.pid").exists()
    assert (operator.directory / "a.sock").exists()


def test_chdir_to_nowhere(operator):
    """The option is named, with the reason."""
    done = operator.run("app", "--listen", "unix:a.sock", "--chdir", "no")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "gtask-server: chdir='no': No such file or directory"
    assert not (operator.directory / "a.sock").exists()


def test_pythonpath(operator, connect):
    """Its directories are searched first, in their order, before the working directory."""
    for name in ("one", "two"):
        (operator.directory / name).mkdir()
        operator.write(f"{name}/app.py", f"def where(): return {name!r}\n")
        operator.write(f"{name}/only_{name}.py", "")
    operator.write("two/both.py", "import only_one, only_two\n\ndef f(): pass\n")
    operator.start("--pythonpath", "one", "--pythonpath", "two")
    assert connect(operator.address).call("where") == "one"
    assert operator.run("both", "--listen", "unix:b.sock", "--check-config", "--pythonpath", "two").returncode == 1
    paths = ["--pythonpath", "two", "--pythonpath", "one"]
    assert operator.run("both", "--listen", "unix:b.sock", "--check-config", *paths).returncode == 0


def test_env(answers):
    """The application has the variables as it is loaded, also one that was there with another value."""
    environment = {**os.environ, "COLOUR": "blue"}
    assert answers("loaded", "--env", "COLOUR=red=green", env=environment)[1] == "red=green"


def test_umask(answers, operator):
    """It is that of the application; the socket's permissions are an option of their own."""
    path = str(operator.directory / "new")
    assert answers("mode_of_a_new_file", "--umask", "077", arguments=[path]) == 0o600
    assert stat.S_IMODE(os.stat(operator.directory / "a.sock").st_mode) == 0o600


def test_umask_that_is_not_told(answers, operator):
    """It is that of whoever started the daemon."""
    usual = os.umask(0o027)
    try:
        assert answers("mode_of_a_new_file", arguments=[str(operator.directory / "new")]) == 0o640
    finally:
        os.umask(usual)


def test_nice(operator, connect):
    """The workers yield, while keeper and master do not: they are to accept and to stop in time."""
    operator.write("app.py", APPLICATION)
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    server = operator.start("--nice", "5")
    with connect(operator.address).checkout() as checkout:
        assert checkout.now()[4] == usual + 5
        assert checkout.loaded()[4] == usual
        master = checkout.pids()[1]
    assert os.getpriority(os.PRIO_PROCESS, server.pid) == usual
    assert os.getpriority(os.PRIO_PROCESS, master) == usual


def title(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()


def test_name(operator, connect):
    """It is in the log and in the titles of keeper, master and worker."""
    pytest.importorskip("setproctitle")
    server = operator.start("--name", "night-shift")
    with connect(operator.address).checkout() as checkout:
        worker, master = checkout.pids()
        titles = [title(pid).replace(str(operator.address), "HERE") for pid in (server.pid, master, worker)]
    titles[1] = titles[1].partition("]")[0] + "]"  # behind it stands what the workers do
    assert titles == [
        "gtask-server: night-shift keeper [HERE]",
        "gtask-server: night-shift master [HERE]",
        "gtask-server: night-shift worker",
    ]
    assert f"night-shift is listening at {operator.address}" in server.log


# --- another user --------------------------------------------------------------------------------------


@pytest.fixture
def open_directory(operator, monkeypatch):
    """The operator works where everybody may look, but not write, and the application can be read."""
    directory = Path(tempfile.mkdtemp(prefix="gtask-test-"))
    directory.chmod(0o755)
    operator.directory, operator.address = directory, f"unix:{directory}/a.sock"
    operator.write("app.py", APPLICATION)
    yield directory
    operator.close()
    shutil.rmtree(directory)


@pytest.fixture
def nobody():
    """A user who may do nothing."""
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        pytest.skip("there is no user nobody")


def connects_as(uid, gid, address):
    """Whether this user can connect."""
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(address.removeprefix("unix:"))
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


@as_root
@pytest.mark.parametrize("by", ["name", "number"])
def test_user(operator, open_directory, connect, nobody, by):
    """Master and workers are this user with its groups, as the application is loaded already; the keeper stays root."""
    user = nobody.pw_name if by == "name" else str(nobody.pw_uid)
    server = operator.start("--user", user)
    with connect(operator.address).checkout() as checkout:
        assert checkout.loaded()[2:4] == [nobody.pw_uid, nobody.pw_gid]
        assert checkout.now()[2:4] == [nobody.pw_uid, nobody.pw_gid]
        assert checkout.groups() == sorted(os.getgrouplist(nobody.pw_name, nobody.pw_gid))
        master = checkout.pids()[1]
        assert os.stat(f"/proc/{master}").st_uid == nobody.pw_uid
        assert os.stat(f"/proc/{server.pid}").st_uid == 0
    assert server.end() == 0
    assert not list(open_directory.glob("a.sock*"))


@as_root
def test_group(operator, open_directory, connect, nobody):
    """The group may be another than the user's own, and may be told alone."""
    group = grp.getgrgid(1)
    operator.start("--user", "nobody", "--group", group.gr_name)
    assert connect(operator.address).call("now")[2:4] == [nobody.pw_uid, 1]
    operator.address += "2"
    operator.start("--group", "1")
    assert connect(operator.address).call("now")[2:4] == [0, 1]


@as_root
def test_the_socket_is_the_users(operator, open_directory, connect, nobody):
    """Clients that run as the server's user can connect, others still cannot."""
    operator.start("--user", "nobody")
    status = os.stat(open_directory / "a.sock")
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (nobody.pw_uid, nobody.pw_gid, 0o600)
    assert connects_as(nobody.pw_uid, nobody.pw_gid, operator.address)
    assert not connects_as(1, 1, operator.address)


@as_root
def test_the_socket_is_the_groups(operator, open_directory, nobody):
    """With ``--socket-mode 660`` those of the group can, too."""
    operator.start("--user", "nobody", "--group", "1", "--socket-mode", "660")
    assert connects_as(2, 1, operator.address)
    assert not connects_as(2, 2, operator.address)


@as_root
def test_reload_and_status_as_another_user(operator, open_directory, connect, nobody):
    """The root keeper goes on ruling its masters: they are replaced, asked, and told to open their log anew, which root
    makes for them.
    """
    log = open_directory / "a.log"
    done = operator.run(
        "app", "--listen", operator.address, "--user", "nobody", "--daemon", "--pid", "a.pid", "--log-file", "a.log"
    )
    assert done.returncode == 0, done.stderr
    pid = int((open_directory / "a.pid").read_text())
    try:
        assert log.stat().st_uid == nobody.pw_uid
        master = connect(operator.address).call("pids")[1]
        os.kill(pid, signal.SIGHUP)
        wait_until(lambda: log.read_text().count(" serves") == 2, "the second master")
        wait_until(lambda: master not in operator.children_of(pid), "the first master's end")
        log.rename(open_directory / "a.log.1")
        os.kill(pid, signal.SIGUSR1)
        (master,) = operator.children_of(pid)
        wait_until(lambda: os.readlink(f"/proc/{master}/fd/2") == str(log), "the new log file")
        os.kill(pid, signal.SIGUSR2)
        wait_until(lambda: "app: up " in log.read_text(), "the status in the log")
    finally:
        os.kill(pid, signal.SIGQUIT)
        wait_until(lambda: operator.is_gone(pid), "the daemon's end")


@as_root
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--user", "no-such-user"], "gtask-server: user='no-such-user': there is no such user"),
        (["--group", "no-such-group"], "gtask-server: group='no-such-group': there is no such group"),
        (["--user", "4294967295"], "gtask-server: user='4294967295': there is no such user"),
    ],
)
def test_nobody_of_that_name(operator, options, message):
    """The option is named; status 1, and nothing is left."""
    done = operator.run("app", "--listen", "unix:a.sock", "--pid", "a.pid", *options)
    assert (done.returncode, done.stderr) == (1, message + "\n")
    assert sorted(path.name for path in operator.directory.glob("a.*")) == []


def test_only_root_may_become_another(tmp_path, nobody):
    """Another user is told so, and what to do, before anything is done."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            if os.geteuid() == 0:
                os.setgid(nobody.pw_gid)
                os.setuid(nobody.pw_uid)
            sys.stderr = open(writing, "w")  # noqa: SIM115
            status = cli.main(["app", "--listen", f"unix:{tmp_path}/a.sock", "--user", "root"])
            sys.stderr.flush()
            os._exit(status)
        finally:
            os._exit(99)
    os.close(writing)
    with open(reading) as told:
        assert told.read() == (
            "gtask-server: user='root', group='': only root may become another user; leave them out\n"
        )
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert list(tmp_path.iterdir()) == []
