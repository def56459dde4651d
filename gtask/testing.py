"""For tests of programs that use gtask: a running server, and a check that nothing was left behind.

Nothing else in gtask imports this module.
"""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import gevent

from gtask import address as addresses
from gtask.spawn import SpawnedServer, private_address

__all__ = ["Leftovers", "no_leftovers", "running_server", "wait_until"]


def wait_until(condition: Callable[[], object], timeout: float = 5.0, what: str = "the condition") -> None:
    """Let the hub run until a condition holds, for conditions without an event.

    Args:
        condition: called again and again.
        timeout: seconds.
        what: for the error's text.

    Raises:
        AssertionError: it did not come to hold in time.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come to hold within {timeout:g} s")
        gevent.sleep(0.002)


@contextlib.contextmanager
def running_server(
    target: str, address: str | addresses.Address | None = None, *arguments: str
) -> Iterator[SpawnedServer]:
    """A ``gtask-server`` in a child process, for a ``with`` block.

    Args:
        target: ``module`` or ``module:attribute``, found along ``sys.path``.
        address: of the server; by default a private unix socket.
        arguments: further arguments of gtask-server.
    """
    private = address is None
    where = private_address() if address is None else addresses.parse(address)
    server = SpawnedServer(target, where, list(arguments), private)
    try:
        yield server
    finally:
        server.stop()


@dataclass
class Leftovers:
    """The children, descriptors and greenlets of this process at one time. Made before and after a block, two of them
    show what the block has left behind."""

    children: set[int] = field(default_factory=lambda: _children())
    descriptors: dict[int, str] = field(default_factory=lambda: _descriptors())
    greenlets: set[int] = field(default_factory=lambda: {id(greenlet) for greenlet in _greenlets()})

    def since(self) -> list[str]:
        """The things that exist now and did not then, in words."""
        left = [f"child process {pid}" for pid in _children() - self.children]
        left += [
            f"descriptor {number} ({path})"
            for number, path in _descriptors().items()
            if self.descriptors.get(number) != path
        ]
        return left + [f"{greenlet!r}" for greenlet in _greenlets() if id(greenlet) not in self.greenlets]


@contextlib.contextmanager
def no_leftovers(timeout: float = 5.0) -> Iterator[None]:
    """Check that a ``with`` block leaves no child process, descriptor or greenlet behind.

    Args:
        timeout: seconds that they get to end.

    Raises:
        AssertionError: something is left; the message lists it.
    """
    gevent.get_hub()  # its own descriptors are not the block's
    before = Leftovers()
    yield
    gc.collect()
    left: list[str] = []

    def clean() -> bool:
        left[:] = before.since()
        return not left

    try:
        wait_until(clean, timeout)
    except AssertionError:
        raise AssertionError("left behind: " + ", ".join(left)) from None


def _children() -> set[int]:
    found: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/children") as listing:
            found.update(map(int, listing.read().split()))
    return found


def _descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    # The listing itself was open while it was read.
    return {number: path for number, path in found.items() if not path.endswith("/fd")}


def _greenlets() -> list[gevent.Greenlet[..., object]]:
    return [thing for thing in gc.get_objects() if issubclass(type(thing), gevent.Greenlet) and not thing.dead]
