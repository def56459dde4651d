"""The point of this test is to ensure that a root keeper touches no file of root's at another user's word.

Its log, its pid file, its socket and the lock beside it may lie in the directory of the user whom it serves as. That
user puts links there, of both kinds, FIFOs and directories, also while the keeper works.
"""

import contextlib
import os
import pwd
import random
import signal
import subprocess
import sys
from time import monotonic

import pytest

from gtask.server import custody
from gtask.server.daemon import options
from tests.support.daemon import SOURCE, daemon
from tests.support.process import ROOT
from tests.support.waiting import wait_until

IS_ROOT = os.geteuid() == 0
NOBODY = pwd.getpwnam("nobody")
FILES = ("a.log", "a.pid", "a.sock", "a.sock.lock", "a.sock~")

pytestmark = pytest.mark.skipif(not IS_ROOT, reason="only root can become another user")

THIEF = """
import os, random, sys, time
user, directory, canary, names = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]
os.setgroups([])
os.setgid(user)
os.setuid(user)
until = time.monotonic() + 20
while time.monotonic() < until:
    path = os.path.join(directory, random.choice(names))
    try:
        what = random.randrange(6)
        other = path + ".other"
        if what == 0:
            os.symlink(canary, other)
        elif what == 1:
            os.symlink(os.path.join(os.path.dirname(canary), "new"), other)
        elif what == 2:
            os.link(canary, other)
        elif what == 3:
            open(other, "x").close()
        elif what == 4:
            os.mkfifo(other)
        else:
            os.unlink(path)
            continue
        os.rename(other, path)
    except OSError:
        pass
"""


@pytest.fixture
def canary(tmp_path):
    """A directory of root's with a file that nobody else may read or change; in the end it is as it was."""
    directory = tmp_path / "roots"
    directory.mkdir(mode=0o755)
    file = directory / "canary"
    file.write_text("root's own\n")
    os.chmod(file, 0o600)
    before = os.lstat(file)
    yield file
    after = os.lstat(file)
    assert file.read_text() == "root's own\n"
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert os.listdir(directory) == ["canary"]


@pytest.fixture
def theirs(tmp_path, nothing_is_left_behind):
    """A directory of nobody's, which the way to it lets that user reach."""
    directory = tmp_path / "theirs"
    directory.mkdir()
    os.chown(directory, NOBODY.pw_uid, NOBODY.pw_gid)
    for parent in tmp_path, tmp_path.parent, tmp_path.parent.parent:
        os.chmod(parent, parent.stat().st_mode | 0o055)
    return directory


@contextlib.contextmanager
def keeper(tmp_path, theirs, **options):
    """A daemon of root's that serves as nobody, with all its files in that user's directory."""
    (tmp_path / "app.py").write_text(SOURCE)
    arguments = ("--user", "nobody", "--log-file", f"{theirs}/a.log", "--pid", f"{theirs}/a.pid")
    with daemon(tmp_path, *arguments, "--listen", f"unix:{theirs}/a.sock", **options) as server:
        yield server


def start(tmp_path, theirs):
    """The command's status and what it says on stderr; it is ended if it serves."""
    (tmp_path / "app.py").write_text(SOURCE)
    command = [sys.executable, str(ROOT / "bin/gtask-server"), "app", "--user", "nobody"]
    command += ["--log-file", f"{theirs}/a.log", "--pid", f"{theirs}/a.pid", "--listen", f"unix:{theirs}/a.sock"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.terminate()
        return process.wait(), process.stderr.read()


def test_without_a_thief(tmp_path, theirs, connect):
    """It works: the files are that user's, and are gone in the end but for the log."""
    with keeper(tmp_path, theirs, wait=False) as server:
        log = theirs / "a.log"
        wait_until(lambda: log.exists() and " serves" in log.read_text(), "it serves")
        assert {name for name in FILES if (theirs / name).exists()} == set(FILES) - {"a.sock~"}
        assert {os.lstat(theirs / name).st_uid for name in FILES[:4]} == {NOBODY.pw_uid}
        assert connect(f"unix:{theirs}/a.sock").call("pid") > 0
        os.rename(log, f"{log}.1")
        server.process.send_signal(signal.SIGUSR1)
        wait_until(log.exists, "the log is opened anew")
        assert os.lstat(log).st_uid == NOBODY.pw_uid
        assert int((theirs / "a.pid").read_text()) == server.process.pid
        assert server.end() == 0
    assert set(os.listdir(theirs)) == {"a.log", "a.log.1"}


@pytest.mark.parametrize("name", ["a.log", "a.pid", "a.sock.lock"])
@pytest.mark.parametrize("how", ["symlink", "dangling", "link", "directory"])
def test_what_lies_there(tmp_path, theirs, canary, name, how):
    """It refuses to start, says which file is in the way, and has changed nothing."""
    path = theirs / name
    if how == "symlink":
        path.symlink_to(canary)
    elif how == "dangling":
        path.symlink_to(canary.parent / "new")
    elif how == "link":
        os.link(canary, path)
    else:
        path.mkdir()
    status, said = start(tmp_path, theirs)
    said += (theirs / "a.log").read_text() if name != "a.log" and (theirs / "a.log").exists() else ""
    path.rmdir() if how == "directory" else path.unlink()
    assert status == 1
    assert str(path).removesuffix(".lock") in said


@pytest.mark.parametrize("how", ["symlink", "dangling", "link"])
def test_what_lies_there_when_the_log_is_opened_anew(tmp_path, theirs, canary, how):
    """The old log goes on, and says so."""
    with keeper(tmp_path, theirs, wait=False) as server:
        log, old = theirs / "a.log", theirs / "old"
        wait_until(lambda: log.exists() and " serves" in log.read_text(), "it serves")
        os.rename(log, old)
        if how == "link":
            os.link(canary, log)
        else:
            log.symlink_to(canary if how == "symlink" else canary.parent / "new")
        server.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: "cannot be opened anew" in old.read_text(), "the old log says so")
        log.unlink()
        assert server.end() == 0


def test_a_thief(tmp_path, theirs, canary):
    """For twenty seconds the keeper starts, opens its log anew, reloads and ends, and root's file stays as it is."""
    thief = subprocess.Popen([sys.executable, "-c", THIEF, str(NOBODY.pw_uid), str(theirs), str(canary), *FILES])
    (tmp_path / "app.py").write_text(SOURCE)
    command = [sys.executable, str(ROOT / "bin/gtask-server"), "app", "--user", "nobody"]
    command += ["--log-file", f"{theirs}/a.log", "--pid", f"{theirs}/a.pid", "--listen", f"unix:{theirs}/a.sock"]
    until = monotonic() + 20  # the length of the race
    while monotonic() < until:
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as server:
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(1)
            for number in random.choices([signal.SIGUSR1, signal.SIGHUP], [9, 1], k=30):
                if server.poll() is None:
                    server.send_signal(number)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        server.wait(0.02)
            server.send_signal(signal.SIGQUIT)
    assert thief.wait(30) == 0


def test_whose_a_path_is(tmp_path):
    """Root's, or the first other user's who can change what it leads to; a link of root's leads on."""
    theirs, roots = tmp_path / "theirs", tmp_path / "roots"
    theirs.mkdir()
    roots.mkdir()
    os.chown(theirs, NOBODY.pw_uid, NOBODY.pw_gid)
    (roots / "link").symlink_to(theirs)
    (roots / "file").touch()
    nobody = (NOBODY.pw_uid, NOBODY.pw_gid)
    assert custody.foreigner(str(roots / "file")) is custody.foreigner(str(roots / "none" / "x")) is None
    assert custody.foreigner(str(theirs / "x")) == custody.foreigner(str(roots / "link" / "x")) == nobody
    os.chmod(roots, 0o777)
    (roots / "inner").mkdir()
    assert custody.foreigner(str(roots / "file")) is None  # it is opened without following a link
    assert custody.foreigner(str(roots / "link")) is custody.foreigner(str(roots / "inner" / "x")) is custody.NOBODY
    os.chmod(roots, 0o1777)
    assert custody.foreigner(str(roots / "file")) is None
    os.chown(roots / "file", *nobody)
    assert custody.foreigner(str(roots / "file")) == nobody
    for name in ("/dev/stderr", "/proc/self/fd/2", "/dev/null", "/", "/var/log/x"):
        assert custody.foreigner(name) is None, name


@pytest.mark.parametrize("how", ["owner", "mode", "directory"])
def test_a_configuration_that_others_may_write(tmp_path, how):
    """Root does not run it, and says who could have written it."""
    directory = tmp_path / "conf"
    directory.mkdir()
    file = directory / "gtask.conf.py"
    file.write_text("target = 'json'\nlisten = 'unix:/x'\n")
    assert options.parse(["--config", str(file)], {}).target == "json"
    if how == "mode":
        os.chmod(file, 0o666)
    else:
        os.chown(file if how == "owner" else directory, NOBODY.pw_uid, NOBODY.pw_gid)
    with pytest.raises(options.BadOptions, match=r"would be run as root, and (user|everybody)"):
        options.parse(["--config", str(file)], {})


def test_home(tmp_path, theirs, connect):
    """The application is at home where its user is, unless it is told otherwise."""
    source = "import os\n\ndef home():\n    return [os.environ.get(name) for name in ('HOME', 'USER', 'LOGNAME')]\n"
    for more, home in (((), NOBODY.pw_dir), (("--env", "HOME=/srv"), "/srv")):
        with daemon(tmp_path, "--user", "nobody", *more, source=source) as server:
            assert connect(server).call("home") == [home, "nobody", "nobody"]
