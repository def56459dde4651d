"""A server that is down: the share of a processor that its client takes, with a thousand callers in line."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import gevent

import gtask

__all__ = ["processor_shares"]

CALLERS = 1000
SECONDS = 2.0


def processor_shares() -> dict[str, float]:
    """Shares of a processor, 1.0 for all of one, by what is at the server's address."""
    with tempfile.TemporaryDirectory() as directory:
        shares = {"no socket": share(f"unix:{directory}/never")}
        with refusing(socket.AF_UNIX, f"{directory}/dead"):
            shares["a unix socket that refuses"] = share(f"unix:{directory}/dead")
    with refusing(socket.AF_INET, ("127.0.0.1", 0)) as port:
        shares["a TCP port that refuses"] = share("tcp://{}:{}".format(*port))
    return shares


@contextlib.contextmanager
def refusing(family: socket.AddressFamily, address: Any) -> Iterator[Any]:
    """A bound socket that does not listen; yields its address."""
    with socket.socket(family) as sock:
        sock.bind(address)
        yield sock.getsockname()


def share(address: str) -> float:
    """The share that this process takes for one client, some seconds long."""
    client = gtask.Client(address, min_workers=2, max_workers=50, timeout=None)
    callers = [gevent.spawn(call_in_vain, client) for _ in range(CALLERS)]
    while client.stats().waiting < CALLERS or not client.stats().failed_connects:
        gevent.sleep(0.01)
    began, before = time.monotonic(), time.process_time()
    gevent.sleep(SECONDS)
    used = (time.process_time() - before) / (time.monotonic() - began)
    client.close()
    gevent.joinall(callers)
    return used


def call_in_vain(client: gtask.Client) -> None:
    with contextlib.suppress(gtask.ClientClosed):
        client.call("echo", "hello", 1)
