"""What client and server have open while all workers are held: before the soak and after, to be compared."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import monotonic

import gevent

import gtask
from gtask import testing
from tests.soak.daemon import Daemon
from tests.support.process import descriptors
from tests.support.waiting import wait_until

__all__ = ["Footprint", "differences", "memory"]

BACK_TO_NORMAL = 20.0
"""Seconds within which everything is as it was before."""


@dataclass(frozen=True)
class Footprint:
    """Counts, each of which must come back to what it was.

    Attributes:
        slots: how many checkouts were served at once.
        pool: what the client says of its pool.
        workers: the server's child processes.
        server_descriptors, client_descriptors, greenlets: those open or alive.
    """

    slots: int
    pool: str
    workers: int
    server_descriptors: int
    client_descriptors: int
    greenlets: int

    @classmethod
    def of_all_workers(cls, client: gtask.Client, count: int, server: Daemon, name: str) -> Footprint:
        """Take so many checkouts at once, each with a call that is answered, and count."""
        # A master that still starts or drains after the last reload has descriptors of its own.
        wait_until(lambda: len(server.masters) == 1, "a single master")
        checkouts = [client.checkout(timeout=BACK_TO_NORMAL if name != "before" else 20) for _ in range(count)]
        results = [checkout.work.submit(f"{name}-{i}.0", b"", 0) for i, checkout in enumerate(checkouts)]
        gevent.wait(results)
        gc.collect()
        left = testing.Leftovers()
        footprint = cls(
            slots=sum(result.successful() for result in results),
            pool=repr(client),
            workers=len(server.workers),
            server_descriptors=sum(map(descriptors, [server.pid, *server.masters])),
            client_descriptors=len(left.descriptors),
            greenlets=len(left.greenlets),
        )
        for checkout in checkouts:
            checkout.release()
        return footprint

    def changes(self, now: Footprint) -> list[str]:
        """What is not as it was, in words."""
        then = asdict(self)
        return [
            f"back to normal: {key} was {then[key]}, is {value}"
            for key, value in asdict(now).items()
            if value != then[key]
        ]


def differences(look: Callable[[int], list[str]]) -> list[str]:
    """Look, counting the looks, until there is nothing to be seen or the time for that is over; returns what is."""
    deadline = monotonic() + BACK_TO_NORMAL
    number = 0
    gc.collect()
    while (found := look(number)) and monotonic() < deadline:
        number += 1
        gevent.sleep(0.05)
    return found


def memory() -> int:
    """The bytes of this process that are in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
