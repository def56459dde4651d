"""Memory: of a caller in line, and of the processes of a daemon that has nothing to do."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import gevent
import gevent.hub

import gtask
from bench.operations import client_of
from gtask.address import Address

__all__ = ["bytes_in_line", "resident_daemon"]

ROOT = Path(__file__).resolve().parent.parent
WEIGHED = 2000
"""Callers in line, by whose number their memory is divided."""


class BareWaiter:
    """A caller that waits for nothing of gtask, as deep in function calls as one of ``client.call``."""

    def client_call(self, name: str, *args: object, **kwargs: object) -> object:
        return self.checkout_call(name, *args, **kwargs)

    def checkout_call(self, name: str, *args: object, **kwargs: object) -> object:
        return self.lease_call(name, (name, *args), kwargs)

    def lease_call(self, method: str, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        return self.call_wait()

    def call_wait(self) -> object:
        return gevent.hub.Waiter().get()


def bytes_in_line(address: Address) -> int:
    """Bytes of a caller in line, with its timer, beyond those of a greenlet that is as deep in function calls."""
    bare = weigh(lambda: BareWaiter().client_call("echo", "hello", 1))
    with client_of(address) as client, client.checkout() as only_worker:
        only_worker.echo("hello", 1)
        return round(weigh(lambda: client.call("echo", "hello", 1)) - bare)


def weigh(function: Callable[[], object]) -> float:
    """Bytes of a greenlet that is blocked in this function."""
    begun = 0

    def begin() -> None:
        nonlocal begun
        begun += 1
        function()

    for number in (100, WEIGHED):  # the first greenlets fill free lists
        begun = 0
        tracemalloc.start()
        greenlets = [gevent.spawn(begin) for _ in range(number)]
        while begun < number:
            gevent.sleep(0)
        gc.collect()
        size = tracemalloc.get_traced_memory()[0] / number
        tracemalloc.stop()
        gevent.killall(greenlets)
    return size


def resident_daemon() -> dict[str, int]:
    """Resident bytes of the keeper and of the master of an idle daemon."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "application.py").write_text("def echo(text): return text\n")
        command = [sys.executable, str(ROOT / "bin/gtask-server"), "application", "--listen", "unix:socket"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        keeper = subprocess.Popen([*command, "--log-level", "error"], cwd=directory, env=environment)
        try:
            with gtask.Client(f"unix:{directory}/socket", timeout=60) as client:
                client.call("echo", "hello")
            (master,) = Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children").read_text().split()
            return {"keeper": resident(keeper.pid), "master": resident(int(master))}
        finally:
            keeper.terminate()
            keeper.wait()


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
