"""What befalls the server while it is called."""

from __future__ import annotations

import contextlib
import os
import random
import signal

import gevent

from tests.soak.daemon import Daemon
from tests.soak.record import Record

__all__ = ["INJECTORS"]

KILL_EVERY = 0.05


RELOAD_EVERY = 1.0


def kill_workers(server: Daemon, record: Record, seed: int) -> None:
    """Kill -9 a random worker every 50 ms, whatever it does; runs in a greenlet until that is killed."""
    decide = random.Random(f"{seed}/killer")
    while True:
        gevent.sleep(KILL_EVERY)
        chance = decide.random()
        workers = server.workers
        if workers:
            pid = workers[int(chance * len(workers))]
            record.kill(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def reload(server: Daemon, record: Record, seed: int) -> None:
    """Have the server reload every second; runs in a greenlet until that is killed."""
    while True:
        gevent.sleep(RELOAD_EVERY)
        record.reload()
        os.kill(server.pid, signal.SIGHUP)


INJECTORS = [kill_workers, reload]
"""Each runs in a greenlet beside the load."""
