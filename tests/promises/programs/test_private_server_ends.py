"""The point of this test is to ensure that the end of a private server is no end for its client.

A server that had served and was killed is replaced by another one: that is counted, and a warning says why. One that
never served fails its callers at once, with the reason. Neither leaves anything in the directory for temporary files.
"""

import logging
import os
import signal
import tempfile
import time

import pytest

import gtask
from tests.support.process import is_gone
from tests.support.waiting import wait_until

JOBS = """
import os

def echo(value):
    return value

def server():
    return os.getppid()

def end_of_server(how):
    os.kill(os.getppid(), how)
"""


@pytest.fixture
def private(tmp_path, monkeypatch, nothing_is_left_behind):
    """``private(source, **options)`` is a client of a private server for a module with this source."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.syspath_prepend(str(tmp_path))
    clients = []

    def make(source, **options):
        name = f"private_{os.getpid()}_{len(clients)}_{tmp_path.name}"
        (tmp_path / f"{name}.py").write_text(source)
        clients.append(gtask.Client(f"spawn:{name}", **{"timeout": 60, "min_workers": 0, **options}))
        return clients[-1]

    yield make
    for client in clients:
        client.close(timeout=60)
    wait_until(lambda: os.listdir(temporary) == [], "an empty directory")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGQUIT, signal.SIGSEGV])
@pytest.mark.parametrize("where", ["from outside", "by a worker"])
def test_another_one_is_started(private, caplog, how, where):
    """However it has ended; the client serves its callers as before, without an error for any of them."""
    client = private(JOBS, max_workers=2)
    first = client.call("server")
    with caplog.at_level(logging.WARNING, "gtask.client"):
        if where == "from outside":
            os.kill(first, how)
        else:
            client.call("end_of_server", how)
        client.drain()  # so that no worker of before is lent any more
        wait_until(lambda: is_gone(first), "the end of the server")
        assert [client.call("echo", number) for number in range(5)] == list(range(5))
    assert client.call("server") != first
    assert client.stats().server_restarts == 1
    warnings = [record.getMessage() for record in caplog.records if "another one is started" in record.getMessage()]
    assert len(warnings) == 1


def test_again_and_again(private):
    """Each time that it ends."""
    client = private(JOBS, max_workers=1)
    seen = set()
    for _ in range(3):
        seen.add(client.call("server"))
        os.kill(client.call("server"), signal.SIGKILL)
        client.drain()
    assert client.call("echo", 1) == 1
    assert len(seen) == 3
    assert client.stats().server_restarts == 3


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("import nothing_of_this_name\n", "No module named 'nothing_of_this_name'"),
        ("raise SystemExit(5)\n", "SystemExit: 5"),
        ("x = 1\n", "offers nothing to call"),
        ("import os\nos._exit(7)\n", "ended with status 7"),
        ("import os\nos.kill(os.getpid(), 9)\n", "was killed by SIGKILL"),
    ],
)
def test_one_that_never_served(private, source, reason):
    """Its callers are told why, long before their time-out, and so is ``open``."""
    client = private(source, timeout=600, min_workers=1)
    began = time.monotonic()
    with pytest.raises(gtask.SetupError, match=reason):
        client.call("echo", 1)
    with pytest.raises(gtask.SetupError, match=reason):
        client.open(wait=True, timeout=600)
    assert time.monotonic() - began < 300
    assert client.stats().server_restarts == 0


def test_one_that_is_mended(private, tmp_path):
    """A later call starts the server anew."""
    client = private("1 / 0\n")
    with pytest.raises(gtask.SetupError, match="ZeroDivisionError"):
        client.call("echo", 1)
    (source,) = tmp_path.glob("private_*.py")
    source.write_text(JOBS)
    os.utime(source, (1, 1))
    assert client.call("echo", 1) == 1
