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

collect_ignore = ["compliance/sqlalchemy"]
"""The suite of another project, which is run by a command of its own."""

_numbers = itertools.count(1)

OF_THE_CLIENT = {
    "test_acquire_timeout", "test_bottle_plugin", "test_call_timeout_sticks", "test_cancel_sticks",
    "test_client_before_server", "test_client_close", "test_connecting_is_capped", "test_disconnect_cancels",
    "test_django_settings", "test_drain", "test_dropped_reference_releases", "test_error_clears_queue",
    "test_error_names_client_and_method", "test_executor", "test_executor_compliance", "test_executor_document",
    "test_failing_setup_is_no_fork_storm", "test_fair_line", "test_flask_extension", "test_fork", "test_full_backlog",
    "test_howto_databases", "test_howto_django", "test_howto_flask", "test_howto_gunicorn", "test_howto_legacy",
    "test_howto_moving", "test_idle_order", "test_idle_shrink", "test_idle_worker_death_is_not_noticed",
    "test_interpreter_exit", "test_interrupted_call_destroys_connection", "test_kill_safety",
    "test_late_connection_joins", "test_leaks", "test_legacy_forks", "test_legacy_orders", "test_legacy_threads",
    "test_logging_document", "test_map_unordered", "test_max_checkouts", "test_max_lifetime", "test_max_waiting",
    "test_nested_checkout", "test_open_and_wait", "test_patched_programs", "test_plain_scripts", "test_pool_history",
    "test_prometheus_collector", "test_quick_page_stays_quick", "test_readme", "test_reconnect_failed",
    "test_released_checkout", "test_reprs", "test_resize", "test_server_down_costs_nothing", "test_settling",
    "test_several_greenlets_share_a_checkout", "test_shedding", "test_sqlalchemy", "test_sqlalchemy_postgresql",
    "test_stats", "test_strict_order_with_one_worker", "test_structlog", "test_submit", "test_surge", "test_threads",
    "test_tool_top", "test_tuning_document",
    "test_web_applications", "test_web_process_changes", "test_worker_count", "test_worker_death_sticks",
}  # fmt: skip
"""Promises of the client, whose servers and programs show nothing that others do not show."""


# A shell has what it runs in the background ignore these, and whatever that starts would ignore them, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


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


@pytest.fixture(autouse=True)
def measured_where_it_shows(request, monkeypatch):
    """To be measured makes the start of each process three times as long: those that are only there to be called by
    the client under test are not."""
    name = request.node.nodeid.rpartition("/")[2].partition(".py")[0]
    if "/promises/" in f"/{request.node.nodeid}" and name in OF_THE_CLIENT:
        for variable in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
            monkeypatch.delenv(variable, raising=False)


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
