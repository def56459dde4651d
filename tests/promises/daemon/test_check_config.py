"""The point of this test is to ensure that --check-config loads the application, says what would be done, and does not
do it.
"""

from __future__ import annotations

import os

import pytest

APPLICATION = """
import os

open("loaded", "w").close()

def setup(): pass

def teardown(): pass

def count(): pass

def where(): return os.getcwd()
"""


@pytest.fixture
def check(operator):
    """``check(*arguments)`` gives the lines on stdout of a check that has succeeded."""
    operator.write("app.py", APPLICATION)

    def check(*arguments, **options):
        done = operator.run("--check-config", *arguments, **options)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    return check


def test_it_says_what_would_be_done(check):
    """What is served under which name, with its methods and hooks, and where."""
    assert check("app", "--listen", "unix:a.sock", "--listen", "tcp://127.0.0.1:0") == [
        "serves app as app: count, where",
        "hook: setup",
        "hook: teardown",
        "listens at unix:a.sock",
        "listens at tcp://127.0.0.1:0",
    ]


def test_it_says_which_options_are_not_the_usual_ones(check):
    """Wherever they come from; the others are left out."""
    lines = check("app", "--listen", "unix:a.sock", "--nice", "3", "--no-freeze", "--socket-mode", "660", "--name", "x")
    assert lines[0] == "serves app as x: count, where"
    assert lines[4:] == ["socket-mode: 660", "nice: 3", "freeze: False"]


def test_options_of_the_file_and_the_environment(check, operator):
    """They are put together as for a server."""
    operator.write("gtask.conf.py", "target = 'app'\nlisten = ['unix:a.sock']\nnice = 1\nmax_workers = 4\n")
    lines = check("--max-workers", "6", env={**os.environ, "GTASK_SERVER_ARGS": "--nice 2"})
    assert lines[-2:] == ["max-workers: 6", "nice: 2"]


def test_nothing_is_done(check, operator):
    """The application is loaded; no socket, lock, pid file or log is made, and a running server is not disturbed."""
    options = ("--listen", "unix:a.sock", "--pid", "a.pid", "--log-file", "a.log", "--daemon")
    check("app", *options)
    assert (operator.directory / "loaded").exists()
    assert sorted(path.name for path in operator.directory.glob("a.*")) == []
    server = operator.start()
    check("app", *options)
    assert server.process.poll() is None
    assert server.log.count("listening") == 1


def test_a_callable(check, operator):
    """It has no list of methods."""
    assert check("app:where", "--listen", "unix:a.sock")[0] == "serves app:where as app:where: a callable"


def test_it_is_loaded_as_the_server_would(check, operator):
    """In its directory, with its path and its environment."""
    (operator.directory / "inner").mkdir()
    (operator.directory / "library").mkdir()
    operator.write("library/helper.py", "")
    operator.write(
        "inner/other.py",
        "import os, helper\nassert os.environ['COLOUR'] == 'red'\nassert os.path.exists('other.py')\ndef f(): pass\n",
    )
    lines = check(
        "other", "--listen", "unix:a.sock", "--chdir", "inner", "--pythonpath", "../library", "--env", "COLOUR=red"
    )
    assert lines[0] == "serves other as other: f"


@pytest.mark.parametrize(
    ("source", "last_line"),
    [
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("import no_such_library\n", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("import sys\nsys.exit(0)\n", "SystemExit: 0"),
        ("_hidden = 1\n", "gtask-server: the interface app offers nothing"),
    ],
)
def test_an_application_that_cannot_be_loaded(operator, source, last_line):
    """The status is 1, and the reason stands on stderr as it would for a server; even if the application just ends."""
    operator.write("app.py", source)
    done = operator.run("app", "--listen", "unix:a.sock", "--check-config")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith(last_line)


def test_wrong_arguments(operator):
    """The status is 2, and the application is not loaded."""
    operator.write("app.py", APPLICATION)
    done = operator.run("app", "--listen", "unix:a.sock", "--check-config", "--nice", "99")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "gtask-server: nice=99: write a number from 0 to 19\n"
    assert not (operator.directory / "loaded").exists()
