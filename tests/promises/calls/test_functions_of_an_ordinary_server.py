"""The point of this test is to ensure that every server serves its functions by "module:name", too: so an executor, a
task and map_unordered work with the server of a module, and an error names the server that other functions need.
"""

from __future__ import annotations

import importlib
import os

import pytest

import gtask

SOURCE = """
    import os
    from json import dumps

    def pid():
        return os.getpid()

    def double(number, *, times=1):
        return 2 * number * times

    def _secret():
        return "secret"

    class Report:
        @staticmethod
        def blank():
            return "blank"

    class Jobs:
        def __init__(self):
            self.rate = 3

        def triple(self, number):
            return self.rate * number

        @staticmethod
        def half(number):
            return number / 2

    MAPPING = {"twice": double}
"""


@pytest.fixture
def ordinary(serve):
    """``ordinary(attribute="", source=SOURCE)`` serves a module; gives the server, and the module as it is here."""

    def start(attribute="", source=SOURCE):
        server = serve(source, attribute=attribute)
        return server, importlib.import_module(os.path.basename(server.address.path).removesuffix(".sock"))

    return start


def test_executor_task_and_map(ordinary, connect):
    """They run the module's functions in workers: as functions, by full names, with keyword arguments, in chunks."""
    server, jobs = ordinary()
    client = connect(server)
    with client.executor() as executor:
        assert executor.submit(jobs.double, 4, times=3).result() == 24
        assert executor.submit(f"{jobs.__name__}:double", 4).result() == 8
        assert executor.submit(jobs.pid).result() != os.getpid()
        assert list(executor.map(jobs.double, range(5), chunksize=2)) == [0, 2, 4, 6, 8]
    assert gtask.task(client)(jobs.double)(5, times=2) == 20
    assert sorted(client.map_unordered(jobs.double, range(3))) == [0, 2, 4]
    assert client.call("double", 1) == client.call(f"{jobs.__name__}:double", 1) == 2


def test_what_is_imported_for_all(ordinary, connect, tmp_path):
    """A function that a module offers by __all__ is served by its own home's name, and by that of the module."""
    (tmp_path / "home_of_it.py").write_text("def found():\n    return 'found'\n")
    server, jobs = ordinary(source="from home_of_it import found\n__all__ = ['found']\n")
    client = connect(server)
    assert client.executor().submit(jobs.found).result() == "found"
    assert client.call(f"{jobs.__name__}:found") == "found"


@pytest.mark.parametrize(
    ("attribute", "named", "argument", "value"),
    [("Jobs", "Jobs.triple", 2, 6), ("Jobs", "Jobs.half", 2, 1), ("MAPPING", "double", 2, 4)],
)
def test_classes_and_mappings(ordinary, connect, attribute, named, argument, value):
    """What they offer has its full name as well, and nothing else of the module has."""
    server, jobs = ordinary(attribute)
    client = connect(server)
    assert client.call(f"{jobs.__name__}:{named}", argument) == value
    with pytest.raises(AttributeError, match="has no function"):
        client.call(f"{jobs.__name__}:pid")


@pytest.mark.parametrize("named", ["_secret", "dumps", "os", "os.system", "Report", "Report.blank", "Jobs.triple"])
def test_nothing_else_is_reached(ordinary, connect, named):
    """What has no short name has no full one."""
    server, jobs = ordinary()
    with pytest.raises(AttributeError, match="has no function") as caught:
        connect(server).call(f"{jobs.__name__}:{named}")
    assert "has no function" in str(caught.value)


def test_the_error_says_which_server_is_needed(ordinary, connect):
    """For functions of other modules; a misspelt name is corrected; and the advice works as it stands."""
    server, jobs = ordinary()
    client = connect(server)
    with pytest.raises(AttributeError, match=f"did you mean {jobs.__name__}:double") as caught:
        client.call(f"{jobs.__name__}:duoble")
    with pytest.raises(AttributeError) as caught:
        client.executor().submit("math:sqrt", 9).result()
    text = str(caught.value)
    assert f"it serves {jobs.__name__}:double, {jobs.__name__}:pid" in text
    assert "gtask-server gtask.server.functions --allow math" in text
    advised = text.partition('gtask.Client("')[2].partition('"')[0]
    assert connect(advised).executor().submit("math:sqrt", 9).result() == 3
