"""What all tests share: servers and clients that end with the test, and the check that nothing is left behind."""

from __future__ import annotations

import gc
import itertools
import signal
import sys
import textwrap

import gevent
import pytest

import gtask
from gtask import testing
from gtask.spawn import SpawnedServer
from tests.support import examples  # noqa: F401  # chooses how many there are
from tests.support.process import children
from tests.support.waiting import turn_hub, wait_until

collect_ignore = ["compliance/sqlalchemy"]
"""The suite of another project, which is run by a command of its own."""

_numbers = itertools.count(1)

# A shell has what it runs in the background ignore these, and whatever that starts would ignore them, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup


def pytest_collection_finish():
    """Each test looks through all objects for greenlets that were left behind: not those of the tests' modules."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def tracing_goes_on():
    """A debugger under test ends all tracing when it quits, coverage's too."""
    usual = sys.gettrace()
    yield
    if sys.gettrace() is not usual:
        sys.settrace(usual)


@pytest.fixture(scope="module", autouse=True)
def garbage_is_sought_among_few():
    """What lives when a module's tests begin lives on: the collections after its tests need not look through it."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    """Every test ends with a check of children, descriptors and greenlets; gives what was there at its beginning."""
    gevent.get_hub()  # its own descriptors are not the test's
    before = testing.Leftovers()
    yield before
    gc.collect()
    left = []

    def is_clean():
        left[:] = before.since()
        return not left

    try:
        wait_until(is_clean)
    except AssertionError:
        raise AssertionError("left behind: " + ", ".join(left)) from None


@pytest.fixture
def unmeasured(monkeypatch):
    """Coverage does not measure the processes that this test starts: it would import greenlet into them."""
    monkeypatch.delenv("COVERAGE_PROCESS_START", raising=False)


def start_server(directory, source, *arguments, attribute="", address=None, marks=None):
    """Run gtask-server on a new module with this source, in this directory; it is to be stopped."""
    name = f"served_{next(_numbers)}"
    (directory / f"{name}.py").write_text(f"DIR = {str(marks or directory)!r}\n" + textwrap.dedent(source))
    target = f"{name}:{attribute}" if attribute else name
    where = gtask.address.parse(address or f"unix:{directory}/{name}.sock")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(directory), *([str(marks)] if marks else []), *sys.path])
        return SpawnedServer(target, where, list(arguments))


@pytest.fixture
def serve(tmp_path, monkeypatch, nothing_is_left_behind):
    """``serve(source, *arguments, attribute="")`` runs gtask-server on a module with this source; gives the server.

    The module finds its test's directory as ``DIR`` (a str), to leave marks in. Modules in there can be imported.
    """
    monkeypatch.syspath_prepend(str(tmp_path))
    servers = []

    def start(source, *arguments, **options):
        servers.append(start_server(tmp_path, source, *arguments, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def shared_servers():
    """The servers of this module's tests that share them: source and arguments to the server and its ``DIR``."""
    servers = {}
    yield servers
    for server, _ in servers.values():
        server.stop()


@pytest.fixture
def shared(shared_servers, tmp_path, tmp_path_factory, monkeypatch, nothing_is_left_behind):
    """``shared(source, *arguments, attribute="")`` is as ``serve``, but all tests of a module that ask for the same get
    one server: for those that do it no harm. Each test finds it without workers, and its ``DIR`` is the test's
    directory. Its clients must be closed before that is checked: ask for ``connect`` after this.
    """
    monkeypatch.syspath_prepend(str(tmp_path))
    used = []

    def get(*arguments, attribute=""):
        what = (*arguments, attribute)
        if what not in shared_servers:
            before, directory = testing.Leftovers(), tmp_path_factory.mktemp("shared")
            here = directory / "here"
            shared_servers[what] = start_server(directory, *arguments, attribute=attribute, marks=here), here
            after = testing.Leftovers()
            nothing_is_left_behind.children |= after.children - before.children
            nothing_is_left_behind.descriptors |= {
                number: path for number, path in after.descriptors.items() if number not in before.descriptors
            }
        server, here = shared_servers[what]
        here.unlink(missing_ok=True)
        here.symlink_to(tmp_path)
        used.append(server)
        return server

    yield get
    gc.collect()  # the last references to checkouts
    for server in used:
        wait_until(lambda pid=server.pid: not children(pid), "a server without workers")


@pytest.fixture
def connect(nothing_is_left_behind):
    """``connect(server_or_address, **options)`` makes a client that is closed at the end of the test.

    Unless told otherwise it has no workers in stock and a time-out of 30 s.
    """
    clients = []

    def make(server, **options):
        options = {"min_workers": 0, "timeout": 30, **options}
        client = gtask.Client(getattr(server, "address", server), **options)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()
    turn_hub()
