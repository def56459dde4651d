"""What all tests share: servers and clients that end with the test, and the check that nothing is left behind."""

from __future__ import annotations

import gc
import itertools
import sys
import textwrap

import gevent
import pytest

import gtask
from gtask import testing
from gtask.spawn import SpawnedServer

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items):
    """Last the tests that trace: coverage sees less of what comes after them."""
    items.sort(key=lambda item: "test_kill_safety" in item.nodeid)


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


@pytest.fixture(autouse=True)
def nothing_is_left_behind(request):
    """Every test ends with a check of children, descriptors and greenlets."""
    with testing.no_leftovers():
        yield


@pytest.fixture
def unmeasured(monkeypatch):
    """Processes that this test starts are not measured by coverage, which would import greenlet into them."""
    for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def serve(tmp_path, monkeypatch, nothing_is_left_behind):
    """``serve(source, *arguments, attribute="")`` runs gtask-server on a module with this source; gives the server.

    The module finds its test's directory as ``DIR`` (a str), to leave marks in.
    """
    monkeypatch.syspath_prepend(str(tmp_path))
    servers = []

    def start(source, *arguments, attribute="", address=None):
        name = f"served_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(f"DIR = {str(tmp_path)!r}\n" + textwrap.dedent(source))
        target = f"{name}:{attribute}" if attribute else name
        server = SpawnedServer(target, gtask.address.parse(address or f"unix:{tmp_path}/{name}.sock"), list(arguments))
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def connect(nothing_is_left_behind):
    """``connect(server_or_address, **options)`` makes a client that is closed at the end of the test.

    Unless told otherwise it has no workers in stock and a time-out of 10 s.
    """
    clients = []

    def make(server, **options):
        options = {"min_workers": 0, "timeout": 10, **options}
        client = gtask.Client(getattr(server, "address", server), **options)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()
    gevent.sleep(0)
