"""The point of this test is to ensure that a start that fails says which file, process or name is at fault, and what to
do, and leaves no file behind.
"""

from __future__ import annotations

import os
import signal
import sys

import pytest

import gtask
from gtask.server.listener import AddressUnavailable, Listener
from tests.support.daemon import COMMAND, refused
from tests.support.program import run_program

NO_LOCKS = """
import errno, fcntl, os, sys
def flock(descriptor, operation):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
fcntl.flock = flock
from gtask.server.daemon.cli import main
raise SystemExit(main())
"""
"""gtask-server on a file system that has no locks, as NFS may be."""


@pytest.fixture
def no_locks(tmp_path):
    """The command of that server."""
    (tmp_path / "no_locks.py").write_text(NO_LOCKS)
    return [sys.executable, str(tmp_path / "no_locks.py")]


def left(directory):
    """What is in the directory beside what the test has put there."""
    return sorted(set(os.listdir(directory)) - {"app.py", "log", "no_locks.py", "__pycache__"})


def test_another_server(operator):
    """The process that listens there is named, with its command; both for a path and for an abstract name."""
    for address in (operator.address, f"unix:@gtask-test-{os.getpid()}"):
        operator.address = address
        server = operator.start()
        done = operator.run("app", "--listen", address)
        assert done.returncode == 1
        assert f"cannot listen at {address}: another server does. Stop it, or choose another" in done.stderr
        assert f"(it is process {server.pid}, " in done.stderr
        assert server.end(signal.SIGQUIT) == 0
    assert [name for name in left(operator.directory) if not name.startswith("stderr")] == []


def test_a_port_that_is_taken(operator):
    """The advice is a command that tells whose it is."""
    operator.address = "tcp://127.0.0.1:0"
    server = operator.start()
    port = server.log.partition("listening at tcp://127.0.0.1:")[2].split()[0]
    done = operator.run("app", "--listen", f"tcp://127.0.0.1:{port}")
    assert f"ss -ltnp 'sport = :{port}' tells which" in done.stderr


@pytest.mark.parametrize("options", [(), ("--pid", "a.pid")], ids=["socket", "pid file"])
def test_no_locks(tmp_path, no_locks, options):
    """The file that cannot be locked has its name in the message, and goes."""
    _, line = refused(tmp_path, *options, command=no_locks)
    assert "no locks available" in line
    assert (
        "the pid file a.pid cannot be locked" if options else f"the lock {tmp_path}/sock.lock cannot be had"
    ) in line
    assert "file system that has locks" in line
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--metrics", "unix:missing/metrics"), "cannot listen at unix:missing/metrics (in "),
        (("--listen", "unix:here/sock"), "cannot listen at unix:here/sock (in "),
        (("--log-file", "missing/log"), "missing/log: No such file or directory"),
        (("--pid", "missing/pid"), "missing/pid: No such file or directory"),
    ],
)
def test_a_directory_that_is_not_there(tmp_path, options, says):
    """The message has the path, and the directory at which a relative one begins."""
    address = ("--listen", f"unix:{tmp_path}/sock")
    _, line = refused(tmp_path, *address, "--pid", "a.pid", *options)
    assert says in line
    assert left(tmp_path) == []


def test_a_file_in_the_way(tmp_path):
    """It stays, and nothing comes beside it."""
    (tmp_path / "sock").write_text("precious")
    _, line = refused(tmp_path, "--pid", "a.pid")
    assert "there is a file that is no socket. Choose another path, or remove it" in line
    assert left(tmp_path) == ["sock"]


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("./app.py", "'./app.py' is a file, and a server imports a module: write app"),
        ("app.py:pid", "write app:pid"),
        ("sub/app.py", "write app, in the directory sub"),
        ("my-app", "'my-app' is no name that Python can import"),
        ("apq", "there is no module 'apq' in "),
        ("apq", "; did you mean app?"),
        ("elsewhere", "; change into its directory (--chdir), or name that by --pythonpath"),
        ("app:PID", "the module 'app' has no 'PID'; did you mean pid?"),
        ("app:pidd", "; did you mean pid?"),
        ("app:nothing_like_it", "; it has os, pid, pids"),
    ],
)
def test_what_is_to_be_served(operator, target, says):
    """What was probably meant is offered."""
    done = operator.run(target, "--listen", "unix:a.sock")
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert sorted(os.listdir(operator.directory)) == ["app.py"] or "__pycache__" in os.listdir(operator.directory)


def test_paths_of_every_length(tmp_path, connect):
    """Up to the longest that the system has; the socket and its lock go at the end, and a stale socket is replaced."""
    room = gtask.address.UNIX_PATH_LIMIT - len(f"{tmp_path}/")
    for length in range(room - 3, room + 1):
        config = gtask.Server(f"unix:{tmp_path}/{'x' * length}", {"pid": os.getpid}).config
        for _ in range(2):
            listener = Listener(config.addresses[0], config)
            assert os.stat(f"{tmp_path}/{'x' * length}").st_mode & 0o777 == 0o600
            with pytest.raises(AddressUnavailable, match="another server does"):
                Listener(config.addresses[0], config)
            listener.let_go()  # and leaves a stale socket
        listener = Listener(config.addresses[0], config)
        listener.close()
        assert left(tmp_path) == []


def test_a_directory_with_a_colon_and_a_long_directory_for_temporary_files(tmp_path):
    """Neither is an obstacle for a private server; nothing stays in the temporary directory."""
    directory = tmp_path / "a:b;c d"
    directory.mkdir()
    (directory / "jobs.py").write_text("import os\n\ndef cwd():\n    return os.getcwd()\n")
    for temporary in (directory, directory / ("x" * 100)):
        temporary.mkdir(exist_ok=True)
        for options in ("", "?reload"):
            ran = run_program(
                f"import gtask\nwith gtask.Client('spawn:jobs{options}') as client:\n    print(client.call('cwd'))\n",
                directory=directory,
                env={"TMPDIR": str(temporary)},
            )
            assert ran.stdout == f"{directory}\n"
    assert os.listdir(directory / ("x" * 100)) == []


def test_the_command_of_the_checkout_needs_no_installation(tmp_path):
    """bin/gtask-server runs beside its gtask, wherever it is called from."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    (tmp_path / "app.py").write_text("def f():\n    pass\n")
    _, line = refused(tmp_path, "--nonsense", command=COMMAND, env=environment)
    assert "unknown option --nonsense" in line
