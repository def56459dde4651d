"""The point of this test is to ensure that spawn: takes the options reload, allow and log_level, and refuses others.

A private server that reloads serves new code without an error, keeps the old one if the new one is broken, and ends
with its client and with its program, as any private server does.
"""

from __future__ import annotations

import os
import signal
import tempfile

import gevent
import pytest

import gtask
from gtask.target import LEVELS, Private, private
from tests.support.process import children, is_gone
from tests.support.program import run_program
from tests.support.waiting import stays, wait_until

SOURCE = """
import os

def version():
    return {version}

def pids():
    return [os.getpid(), os.getppid()]
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """``write(version)`` writes the module ``fresh``, which private servers of this test find."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    def write_it(version):
        (tmp_path / "fresh.py").write_text(SOURCE.format(version=version))

    write_it(1)
    return write_it


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("jobs", Private("jobs")),
        ("jobs:Jobs?reload", Private("jobs:Jobs", reload=True)),
        ("jobs?log_level=info&reload", Private("jobs", (), True, "info")),
        ("gtask.server.functions?allow=a.b&allow=c", Private("gtask.server.functions", ("a.b", "c"))),
    ],
)
def test_what_is_read(text, wanted):
    """One option or several, in any order."""
    assert private(text) == wanted


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "write spawn:module or spawn:module:attribute"),
        ("?reload", "write spawn:module"),
        ("jobs?relaod", "there is no option 'relaod'.*did you mean reload"),
        ("jobs?nice=5", "there is no option 'nice'.*allow=MODULE, log_level=LEVEL and reload"),
        ("jobs?reload=1", "'reload=1' makes no sense: write reload, without a value"),
        ("jobs?log_level=loud", f"write log_level={'.'.join(LEVELS)}"),
        ("jobs?allow", "'allow' makes no sense: write allow=MODULE"),
        ("jobs?allow=other", "allow='other': that is for gtask.server.functions alone"),
        ("gtask.server.functions", "write spawn:gtask.server.functions.allow=myapp.jobs"),
        ("./jobs.py", "'./jobs.py' is a file.*write jobs$"),
        ("jobs.py:Jobs", "is a file.*write jobs:Jobs$"),
        ("lib/jobs.py", "write jobs, in the directory lib"),
        ("my-jobs", "'my-jobs' is no name that Python can import"),
        ("jobs:", "'' is no name"),
        ("jobs:a.b", "'a.b' is no name"),
    ],
)
def test_what_is_refused(text, says):
    """When the client is made; the message says what to write."""
    with pytest.raises(ValueError, match=says):
        gtask.Client(f"spawn:{text}")


def test_allow(connect, write):
    """It is for the server of functions."""
    client = connect("spawn:gtask.server.functions?allow=fresh&allow=math")
    assert client.call("fresh:version") == 1
    assert client.executor().submit("math:sqrt", 4).result() == 2


def test_reload(connect, write, tmp_path):
    """New code is served as soon as the file changes, with no call lost; broken code leaves the old one in place."""
    client = connect("spawn:fresh?reload", min_workers=1, max_workers=4)
    assert client.call("version") == 1
    answers, going_on = [], True

    def ask():
        while going_on:
            answers.append(client.call("version"))

    greenlets = [gevent.spawn(ask) for _ in range(4)]
    write(2)
    wait_until(lambda: 2 in answers and set(answers[-40:]) == {2}, "answers of new code")
    (tmp_path / "fresh.py").write_text("this is no Python\n")
    stays(lambda: set(answers[-40:]) == {2}, 0.5)
    write(3)
    wait_until(lambda: set(answers[-40:]) == {3}, "answers of repaired code")
    going_on = False
    gevent.joinall(greenlets, raise_error=True)
    assert set(answers) == {1, 2, 3}


def test_it_ends_with_its_client(connect, write, tmp_path):
    """Keeper, master and worker; and its directory goes."""
    client = connect("spawn:fresh?reload")
    worker, master = client.call("pids")
    (keeper,) = [pid for pid in children(os.getpid()) if master in children(pid)]
    client.close()
    for pid in (worker, master, keeper):
        wait_until(lambda pid=pid: is_gone(pid), f"the end of {pid}")
    wait_until(lambda: not os.listdir(tmp_path / "temporary"), "an empty directory")


@pytest.mark.parametrize("how", ["sys.exit()", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_it_ends_with_its_program(write, tmp_path, how):
    """However the program ends."""
    ran = run_program(
        f"""
        import os, signal, sys
        import gtask
        client = gtask.Client("spawn:fresh?reload")
        print(*client.call("pids"), flush=True)
        {how}
        """,
        directory=tmp_path,
        status=None,
    )
    assert ran.status in (0, -signal.SIGKILL)
    for pid in map(int, ran.stdout.split()):
        wait_until(lambda pid=pid: is_gone(pid), f"the end of {pid}")


def test_a_killed_keeper_takes_its_master_along(write):
    """No other daemon will take its place."""
    with gtask.spawn_server("fresh", reload=True) as server:
        with gtask.Client(server.address) as client:
            _, master = client.call("pids")
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: is_gone(master), "the end of the master")
