"""The point of this test is to ensure that with --reload a changed file is served soon, and a broken one is
survived.
"""

from __future__ import annotations

import os
import signal
import socket

import gevent
import pytest

from tests.support.waiting import stays, wait_until


@pytest.fixture
def write(operator):
    """``write(name, text)`` changes a file as editors do, so that its time differs however coarse the clock is."""
    stamps = iter(range(1_000_000_000, 2_000_000_000))

    def write(name, text):
        operator.write(f"{name}~", text)
        stamp = next(stamps)
        os.utime(operator.directory / f"{name}~", (stamp, stamp))
        (operator.directory / f"{name}~").rename(operator.directory / name)

    return write


@pytest.fixture
def look(operator):
    """``look()`` lets the master look at its files now: it does so every second, and whenever something happens."""

    def look():
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(operator.address.removeprefix("unix:"))

    return look


def answer(server, client, value):
    """Wait until a call gives this value."""
    try:
        wait_until(lambda: client.call("value") == value, f"the answer {value}")
    except AssertionError as error:
        raise AssertionError(f"{error}; {client.call('value')}: {server.log}") from None


def test_a_changed_file_is_served(operator, connect, write):
    """The module itself and what it imports are watched; the log says what has changed, and the pid stays."""
    write("app.py", "import library\n\ndef value(): return library.number\n")
    write("library.py", "number = 1\n")
    server = operator.start("--reload")
    client = connect(operator.address)
    assert client.call("value") == 1
    write("library.py", "number = 2\n")
    answer(server, client, 2)
    assert f"reload, because of {operator.directory}/library.py\n" in server.log, server.log
    write("app.py", "import library\n\ndef value(): return -library.number\n")
    answer(server, client, -2)
    assert f"reload, because of {operator.directory}/app.py\n" in server.log, server.log
    assert server.end() == 0


@pytest.mark.parametrize("broken", ["def value(:\n", "1 / 0\n", "_nothing = 1\n", "import sys\nsys.exit()\n"])
def test_a_broken_change_is_survived(operator, connect, write, look, broken):
    """The old code goes on serving, the log says why, and the next change is noticed."""
    write("app.py", "def value(): return 1\n")
    server = operator.start("--reload")
    client = connect(operator.address)
    write("app.py", broken)
    look()
    server.wait_for("the old one goes on serving")
    assert client.call("value") == 1
    write("app.py", "def value(): return 3\n")
    look()
    answer(server, client, 3)


def test_a_file_that_is_away_for_a_moment(operator, connect, write, look):
    """A file that is missing, as while a branch is changed, is a broken change like others."""
    write("app.py", "def value(): return 1\n")
    server = operator.start("--reload")
    (operator.directory / "app.py").unlink()
    look()
    server.wait_for("the old one goes on serving")
    write("app.py", "def value(): return 2\n")
    look()
    answer(server, connect(operator.address), 2)


def test_a_change_while_the_new_code_is_loaded(operator, connect, write, look):
    """A file that changes after the new master has read it, and before that one can watch it, is noticed by the old."""
    write("library.py", "number = 1\n")
    write("app.py", "import library\n\ndef value(): return library.number\n")
    server = operator.start("--reload")
    slow = """
        import library, os

        open("loading", "w").close()
        if os.path.exists("go"):
            open("go").read()

        def value(): return library.number
    """
    os.mkfifo(operator.directory / "go")
    write("app.py", slow)
    look()
    wait_until(lambda: (operator.directory / "loading").exists(), "the second master")
    write("library.py", "number = 2\n")
    with (operator.directory / "go").open("w"):
        (operator.directory / "go").unlink()
    server.wait_for("library.py")
    server.wait_for(" serves", count=3)
    answer(server, connect(operator.address), 2)  # the old one may accept until it has heard of the new


def test_callers_do_not_notice(operator, connect, write, look):
    """Calls go on while the code changes, and none fails."""
    write("app.py", "def value(): return 0\n")
    server = operator.start("--reload")
    client = connect(operator.address, min_workers=1, max_workers=2)
    seen = []

    def call():
        while not seen or seen[-1] != 3:
            seen.append(client.call("value"))

    calling = gevent.spawn(call)
    for number in (1, 2, 3):
        write("app.py", f"def value(): return {number}\n")
        look()
        wait_until(lambda number=number: number in seen or calling.ready(), f"the answer {number}")
    calling.get()
    assert sorted(set(seen)) == [0, 1, 2, 3]
    assert "Traceback" not in server.log


def test_without_it_nothing_changes(operator, connect, write):
    """A server that was not told to watch serves what it has loaded, until SIGHUP."""
    write("app.py", "def value(): return 1\n")
    server = operator.start()
    client = connect(operator.address)
    write("app.py", "def value(): return 2\n")
    stays(lambda: client.call("value") == 1, 1.2)  # longer than between two looks, if it looked
    assert "reload" not in server.log
    server.process.send_signal(signal.SIGHUP)
    answer(server, client, 2)


def test_a_program_that_has_spawned_its_server_is_left_alone(serve, connect, monkeypatch, tmp_path):
    """The watch asks a keeper to reload, by a signal that would end any other program."""
    monkeypatch.setenv("GTASK_SERVER_ARGS", "--reload")
    told = []
    usual = signal.signal(signal.SIGHUP, lambda *_: told.append(True))
    try:
        change_it_behind_its_back(serve, connect, tmp_path)
    finally:
        signal.signal(signal.SIGHUP, usual)
    assert not told


def change_it_behind_its_back(serve, connect, tmp_path):
    server = serve("def value(): return 1\n")
    client = connect(server)
    assert client.call("value") == 1
    (path,) = tmp_path.glob("served_*.py")
    path.write_text("def value(): return 2\n")
    os.utime(path, (1, 1))
    stays(lambda: client.call("value") == 1, 1.2)  # longer than between two looks, if it looked


def test_a_file_that_was_written_but_not_changed(operator, connect, write, look):
    """Its contents are compared: an editor may save what it has read, and a build may write all anew."""
    write("app.py", "def value(): return 1\n")
    server = operator.start("--reload")
    client = connect(operator.address)
    write("app.py", "def value(): return 1\n")
    look()
    write("other.py", "")
    assert client.call("value") == 1
    write("app.py", "def value(): return 2\n")
    answer(server, client, 2)
    assert server.log.count("reload, because of") == 1
    assert server.end() == 0


def test_an_application_that_writes_what_is_watched(operator, connect, write):
    """At each start, and something else each time: that ends after some reloads, with a word that names the file."""
    write("stamp.py", "value = 0\n")
    write(
        "app.py",
        """
        import os
        import stamp

        with open(os.path.join(os.path.dirname(__file__), "stamp.py"), "w") as file:
            file.write(f"value = {os.getpid()}\\n")

        NUMBER = 1

        def value():
            return NUMBER
        """,
    )
    server = operator.start("--reload")
    client = connect(operator.address)
    assert client.call("value") == 1
    write("app.py", (operator.directory / "app.py").read_text().replace("NUMBER = 1", "NUMBER = 2"))
    server.wait_for(f"no reload because of {operator.directory}/stamp.py")
    serves = server.log.count(" serves")
    assert serves <= 8
    answer(server, client, 2)
    assert server.end() == 0
