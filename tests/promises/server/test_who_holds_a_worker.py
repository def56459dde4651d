"""The point of this test is to ensure that an operator sees which process is which, and which client has which worker.

``ps`` shows it without setproctitle; ``gtask status`` and ``gtask top`` show each worker's client.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

import gtask
from gtask.server.comm import short_name
from gtask.tool.tables import client as told_of
from tests.promises.server.test_tool_call import tool
from tests.support.daemon import daemon
from tests.support.waiting import wait_until


@pytest.fixture
def server(tmp_path, nothing_is_left_behind):
    with daemon(tmp_path, "--name", "hasher") as server:
        yield server


def comm(pid):
    """What ``ps`` shows as the command's name."""
    return subprocess.run(["ps", "-o", "comm=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()


def test_ps(server, connect):
    """Keeper, master and workers, which are numbered."""
    client = connect(server.address, min_workers=2, max_workers=2)
    client.open(wait=True)
    assert comm(server.pid) == "gtask:hasher k"
    assert comm(server.master) == "gtask:hasher m"
    assert sorted(comm(worker) for worker in server.workers) == ["gtask:hasher w1", "gtask:hasher w2"]


@pytest.mark.parametrize(
    ("server", "role", "name"),
    [
        ("hasher", "w3", b"gtask:hasher w3"),
        ("gtask.server.functions", "w12", b"gtask:gtask w12"),
        ("a\nb\x00", "k", b"gtask:a?b? k"),
        ("x", "w1234567", b"gtask: w1234567"),
        ("", "m", b"gtask: m"),
    ],
)
def test_short_names(server, role, name):
    """At most 15 bytes: the server's name is cut, so that the role is seen; whatever the name is made of."""
    assert short_name(server, role) == name
    assert len(short_name(server, role)) <= 15


def test_status(server, connect):
    """The client's name as it has said it, its process and its user; also of one without a name."""
    web, other = connect(server.address, name="web"), connect(server.address)
    with web.checkout() as one, other.checkout() as another:
        pids = {one.pid(): "web", another.pid(): ""}
        status, out, _ = tool("status", server.address, "--json")
        clients = {worker["pid"]: worker["client"] for worker in json.loads(out)["workers"]}
        assert clients == {pid: {"name": name, "pid": os.getpid(), "uid": os.getuid()} for pid, name in pids.items()}
        status, table, _ = tool("status", server.address)
        assert status == 0
        for pid, name in pids.items():
            who = f"{name}, pid {os.getpid()}, uid {os.getuid()}" if name else f"pid {os.getpid()}, uid {os.getuid()}"
            assert re.search(rf"^ *{pid} .*  {who}$", table, re.MULTILINE), table


def test_status_over_tcp(tmp_path, connect, nothing_is_left_behind):
    """The system does not tell who it is, and so the name alone is shown."""
    with daemon(tmp_path, "--listen", "tcp://127.0.0.1:0") as server:
        address = re.search(r"listening at (tcp://\S+)", server.log)[1]
        client = connect(address, name="ü" * 100)
        with client.checkout() as worker:
            worker.pid()
            _, out, _ = tool("status", gtask.address.parse(address), "--json")
            (told,) = json.loads(out)["workers"]
            assert told["client"]["name"].startswith("ü" * 10)
            assert (told["client"]["pid"], told["client"]["uid"]) == (0, -1)


@pytest.mark.parametrize(
    ("worker", "text"),
    [
        ({}, ""),
        ({"client": {"name": "web", "pid": 7, "uid": 0}}, "web, pid 7, uid 0"),
        ({"client": {"name": "", "pid": 7, "uid": 0}}, "pid 7, uid 0"),
        ({"client": {"name": "web", "pid": 0, "uid": -1}}, "web"),
    ],
)
def test_the_words(worker, text):
    """As far as it is known, also to an older server."""
    assert told_of(worker) == text


def test_methods_of_a_class_and_of_a_callable_class(serve, connect):
    """Without the instance, which no caller gives."""
    source = """
        class Jobs:
            def add(self, first, /, second=0):
                pass

            @staticmethod
            def half(number):
                pass

            @classmethod
            def made(cls, number):
                pass

            def anything(*arguments):
                pass

        class Call:
            def __call__(self, method, *args):
                pass
    """

    def told(attribute):
        server = serve(source, attribute=attribute)
        wait_until(lambda: Path(server.address.path).exists())
        _, out, _ = tool("methods", server.address, "--json")
        return {method["name"]: method["signature"] for method in json.loads(out)}

    assert told("Jobs") == {
        "add": "(first, /, second=...)", "half": "(number)", "made": "(number)", "anything": "(*arguments)",
    }  # fmt: skip
    assert told("Call") == {"()": "(method, *args)"}
