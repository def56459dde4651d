"""The point of this test is to ensure that a server says once, when it loads, what will surprise those who call it."""

import subprocess

import pytest

from tests.support.daemon import COMMAND, daemon
from tests.support.process import environment
from tests.support.program import run_program

BARE_THREAD = """
import _thread, time

started = _thread.allocate_lock()

def _run():
    started.release()
    time.sleep(600)

started.acquire()
_thread.start_new_thread(_run, ())
started.acquire()
"""

SAID = {
    "call": ("def call(): pass", "call: a checkout has a method of this name"),
    "submit": ("def submit(): pass", "submit: a checkout has a method of this name"),
    "cancel": ("def cancel(): pass", "cancel: a checkout has a method of this name"),
    "release": ("def release(): pass", "release: a checkout has a method of this name"),
    "async": ("async def fetch(): pass", "fetch: no worker awaits the value of an async function"),
    "async generator": ("async def rows():\n    yield 1", "rows: no worker awaits"),
    "thread": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), name='ticker', daemon=True).start()",
        "1 thread runs (ticker) in the master",
    ),
    "bare thread": (
        BARE_THREAD,
        "1 thread runs in the master",
    ),
}

OF_A_CLASS = """
import functools

class Store:
    def get(self):
        pass

    def cancel(self):
        pass

    @property
    def size(self):
        raise AssertionError("looked at")

    @functools.cached_property
    def sum(self):
        raise AssertionError("looked at")

    def _flush(self):
        pass

    async def fetch(self):
        pass

store = Store()
"""

WORDS = [
    "cancel: a checkout has a method of this name",
    "fetch: no worker awaits",
    "not served: _flush (private), size (a property), sum (a property)",
]


def checked(directory, target, source):
    """What ``--check-config`` prints."""
    (directory / "app.py").write_text(source)
    command = [*COMMAND, "--check-config", target, "--listen", "unix:sock"]
    return subprocess.run(
        command, cwd=directory, env=environment(), capture_output=True, text=True, check=True, timeout=60
    ).stdout


@pytest.mark.parametrize("name", SAID)
def test_of_a_module(tmp_path, name):
    """One line for each."""
    source, said = SAID[name]
    lines = [line for line in checked(tmp_path, "app", f"{source}\n\ndef plain(): pass\n").splitlines() if said in line]
    assert len(lines) == 1
    assert lines[0].startswith("warning: app: ")


@pytest.mark.parametrize("target", ["app:Store", "app:store"])
def test_of_a_class_or_an_object(tmp_path, target):
    """Looking runs no code of it."""
    out = checked(tmp_path, target, OF_A_CLASS)
    assert [out.count(words) for words in WORDS] == [1] * len(WORDS)


def test_functions_that_are_not_served(tmp_path):
    """In one line, and no warning: helpers are usual."""
    listed = "__all__ = ['listed']\ndef listed(): pass\ndef other(): pass\n"
    assert "not served: other (not in __all__)\n" in checked(tmp_path, "app", listed)
    private = "def listed(): pass\ndef _helper(): pass\n"
    assert "not served: _helper (private)\n" in checked(tmp_path, "app", private)


def test_a_module_of_pythons_own(tmp_path):
    """``gtask-server json`` in a directory with the user's json.py serves Python's."""
    assert "json is a module of Python's own" in checked(tmp_path, "json", "")


@pytest.mark.parametrize("target", ["app", "app:function", "app:mapping", "app:Plain"])
def test_nothing_is_said_of_what_is_usual(tmp_path, target):
    """Functions, mappings, classes."""
    source = (
        "def function(): pass\ndef setup(): pass\ndef _helper(): pass\nmapping = {'get': function}\n"
        "class Plain:\n    def __init__(self): pass\n    def get(self): pass\n"
    )
    assert "warning" not in checked(tmp_path, target, source)


def test_a_server_of_a_program_says_it_as_well(tmp_path):
    """To the program's log."""
    program = f"""
        import os, signal
        import gtask

        class Store:
            def cancel(self):
                pass

        if not os.fork():
            while not os.path.exists("{tmp_path}/sock"):
                pass
            os.kill(os.getppid(), signal.SIGTERM)
            os._exit(0)
        gtask.Server("unix:{tmp_path}/sock", Store()).run()
    """
    assert (
        "Store: cancel: a checkout has a method of this name"
        in run_program(program, directory=tmp_path, status=None).stderr
    )


def test_the_log_has_it_once(tmp_path, connect):
    """As a WARNING, however many workers there are."""
    source = "import os\n\nasync def fetch():\n    pass\n\ndef pid():\n    return os.getpid()\n"
    with daemon(tmp_path, source=source) as server:
        for _ in range(2):
            assert connect(server).call("pid")
    (line,) = [line for line in server.log.splitlines() if "fetch: no worker awaits" in line]
    assert " WARNING " in line
