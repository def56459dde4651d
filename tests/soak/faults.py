"""What befalls the server while it is called."""

from __future__ import annotations

import contextlib
import os
import random
import signal

import gevent

from tests.soak.record import Record

__all__ = ["INJECTORS", "workers_of"]

KILL_EVERY = 0.05


def kill_workers(server: int, record: Record, seed: int) -> None:
    """Kill -9 a random worker every 50 ms, whatever it does; runs in a greenlet until that is killed."""
    decide = random.Random(f"{seed}/killer")
    while True:
        gevent.sleep(KILL_EVERY)
        chance = decide.random()
        workers = workers_of(server)
        if workers:
            pid = workers[int(chance * len(workers))]
            record.kill(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


INJECTORS = [kill_workers]
"""Each runs in a greenlet beside the load. Reloads join them when the daemon can reload."""


def workers_of(server: int) -> list[int]:
    """The children of this process, zombies included."""
    with open(f"/proc/{server}/task/{server}/children") as file:
        return sorted(map(int, file.read().split()))
