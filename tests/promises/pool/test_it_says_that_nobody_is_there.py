"""The point of this test is to ensure that a client which gets no worker says so in its log: once after a second, and
then only when that changes.
"""

from __future__ import annotations

import asyncio
import logging
import os

import gevent
import pytest

import gtask
from tests.support.program import run_program
from tests.support.waiting import stays, wait_until

SOURCE = """
    def add(first, second):
        return first + second
"""


def said(caplog):
    """The warnings of the client."""
    return [record.getMessage() for record in caplog.records if record.name == "gtask.client"]


def test_a_missing_server(connect, serve, caplog, tmp_path):
    """One warning names client, address and reason; another one tells that a server has come."""
    address = f"unix:{tmp_path}/late.sock"
    client = connect(address, name="web")
    call = gevent.spawn(client.call, "add", 1, 2)
    wait_until(lambda: said(caplog))
    (first,) = said(caplog)
    stays(lambda: said(caplog) == [first], 1.5)
    assert first.startswith(f"client 'web' of {address}: no worker can be had for ")
    assert f"no such file or directory at {address}" in first
    assert all(record.levelno == logging.WARNING for record in caplog.records if record.name == "gtask.client")
    serve(SOURCE, address=address)
    assert call.get() == 3
    wait_until(lambda: len(said(caplog)) == 2)
    assert said(caplog)[1].startswith(f"client 'web' of {address}: workers can be had again, after ")


def test_another_reason(connect, caplog, tmp_path):
    """It is said as well."""
    client = connect(f"unix:{tmp_path}/sock", min_workers=1)
    client.open()
    wait_until(lambda: len(said(caplog)) == 1)
    (tmp_path / "sock").write_text("no socket")
    wait_until(lambda: len(said(caplog)) == 2)
    assert "connection refused" in said(caplog)[1]


def test_a_setup_that_fails(connect, serve, caplog):
    """Its text differs each time, and is said once."""
    source = "import os\ndef setup():\n    raise OSError(f'no disk in {os.getpid()}')\ndef f():\n    pass\n"
    server = serve(source)
    wait_until(lambda: os.path.exists(server.address.path))
    client = connect(server, min_workers=1)
    client.open()
    wait_until(lambda: said(caplog))
    seen = client.stats().failed_connects
    wait_until(lambda: client.stats().failed_connects > seen + 3)
    (only,) = said(caplog)
    assert "its setup has raised OSError: no disk in " in only


def test_a_short_absence_is_no_news(connect, serve, caplog):
    """Nor is a client that is closed before."""
    server = serve(SOURCE)
    wait_until(lambda: os.path.exists(server.address.path))
    assert connect(server).call("add", 1, 2) == 3
    other = connect("unix:/nowhere/sock", min_workers=1)
    other.open()
    wait_until(lambda: other.stats().failed_connects)
    other.close()
    stays(lambda: said(caplog) == [], 1.2)


def test_a_private_server_that_loads_is_no_news(connect, caplog, tmp_path, monkeypatch):
    """It takes its time; a caller who does not wait so long learns what it is about."""
    (tmp_path / "slow_to_load.py").write_text("import time\ntime.sleep(2.5)\ndef f():\n    return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    client = connect("spawn:slow_to_load", timeout=1.5)
    with pytest.raises(gtask.AcquireTimeout, match="the private server still loads its application, for "):
        client.call("f")
    assert connect("spawn:slow_to_load").call("f") == 1
    assert said(caplog) == []


def test_a_relative_path_is_said_with_its_directory(connect, caplog, tmp_path, monkeypatch):
    """In the log and in the error."""
    monkeypatch.chdir(tmp_path)
    client = connect("unix:a.sock", timeout=1.5)
    with pytest.raises(gtask.AcquireTimeout, match=rf"at unix:a\.sock \(in {tmp_path}\)"):
        client.call("add", 1, 2)
    assert f"of unix:a.sock (in {tmp_path}): no worker can be had" in said(caplog)[0]


ASYNC = """
import asyncio
import sys
import gtask

client = gtask.Client("spawn:served_async", max_workers=1)

async def main():
    for _ in range(3):
        client.call("add", 1, 2)
        client.call("wait")

if __name__ == "__main__":
    if "before" in sys.argv:
        client.call("add", 1, 2)
    asyncio.run(main())
    client.close()
"""


@pytest.mark.parametrize("order", ["", "before"])
def test_a_loop_of_asyncio_in_the_same_thread(tmp_path, order):
    """One warning says that calls stop it, and what to do; also if the client was used before the loop ran."""
    source = "import time\ndef add(a, b):\n    return a + b\ndef wait():\n    time.sleep(0.3)\n"
    (tmp_path / "served_async.py").write_text(source)
    ran = run_program(ASYNC, order, directory=tmp_path)
    assert ran.stderr.count("an event loop of asyncio runs") == 1
    assert "docs/howto/asyncio.rst" in ran.stderr


def test_asyncio_in_another_thread_is_none_of_its_business(tmp_path, connect, serve, caplog):
    """Nor one that is merely imported, or has ended."""
    asyncio.run(asyncio.sleep(0))
    server = serve(SOURCE)
    wait_until(lambda: os.path.exists(server.address.path))
    assert connect(server).call("add", 1, 2) == 3
    stays(lambda: said(caplog) == [], 0.3)
