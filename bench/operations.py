"""Each common way to call a worker of gtask, as work that is done a number of times.

All of them call ``echo("hello", 1)``. The same functions are measured by the clock and by their instructions. They use
the public names of gtask alone, so they can measure any version of it.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import gtask
from gtask.address import Address

__all__ = ["FUNCTION", "IN_FLIGHT", "METHODS", "OPERATIONS", "Operation", "Run", "echo"]

IN_FLIGHT = 100
"""Calls that ``submit`` has under way at a time."""

Run = Callable[[int], None]
"""Does the work the given number of times."""


def echo(text: str, number: int) -> str:
    """What all contestants have done elsewhere."""
    return text


METHODS = {"echo": echo}
FUNCTION = echo
"""The two interfaces: one whose methods have names, and one that is a function."""


@dataclass(frozen=True)
class Operation:
    """A way to call a worker.

    Args:
        name: for ``--only`` and JSON.
        title: for tables.
        begin: given the address of a server, a context with the work; its one client has one worker.
        interface: what the server offers.
        most_instructions: the limit of its instructions, as a ratio to those of the bare prototype; None for no limit.
    """

    name: str
    title: str
    begin: Callable[[Address], AbstractContextManager[Run]]
    interface: object = None
    most_instructions: float | None = None


def one_worker(address: Address) -> gtask.Client:
    return gtask.Client(address, min_workers=1, max_workers=1, timeout=120)


@contextlib.contextmanager
def call(address: Address) -> Iterator[Run]:
    with one_worker(address) as client, client.checkout() as checkout:

        def run(times: int) -> None:
            for _ in range(times):
                checkout.echo("hello", 1)

        yield run


@contextlib.contextmanager
def checkout_and_call(address: Address) -> Iterator[Run]:
    with one_worker(address) as client:

        def run(times: int) -> None:
            for _ in range(times):
                with client.checkout() as checkout:
                    checkout.echo("hello", 1)

        yield run


@contextlib.contextmanager
def keywords(address: Address) -> Iterator[Run]:
    with one_worker(address) as client, client.checkout() as checkout:

        def run(times: int) -> None:
            for _ in range(times):
                checkout.echo(text="hello", number=1)

        yield run


@contextlib.contextmanager
def own_timeout(address: Address) -> Iterator[Run]:
    with one_worker(address) as client, client.checkout(timeout=60) as checkout:

        def run(times: int) -> None:
            for _ in range(times):
                checkout.echo("hello", 1)

        yield run


@contextlib.contextmanager
def by_name(address: Address) -> Iterator[Run]:
    with one_worker(address) as client, client.checkout() as checkout:

        def run(times: int) -> None:
            for _ in range(times):
                checkout.call("echo", "hello", 1)

        yield run


@contextlib.contextmanager
def client_call(address: Address) -> Iterator[Run]:
    with one_worker(address) as client:

        def run(times: int) -> None:
            for _ in range(times):
                client.call("echo", "hello", 1)

        yield run


@contextlib.contextmanager
def remote(address: Address) -> Iterator[Run]:
    with one_worker(address) as client:

        def run(times: int) -> None:
            for _ in range(times):
                client.remote.echo("hello", 1)

        yield run


@contextlib.contextmanager
def function(address: Address) -> Iterator[Run]:
    with one_worker(address) as client, client.checkout() as checkout:

        def run(times: int) -> None:
            for _ in range(times):
                checkout("hello", 1)

        yield run


@contextlib.contextmanager
def submit(address: Address) -> Iterator[Run]:
    """A window: of a hundred calls under way the oldest is awaited, then one more is made."""
    with one_worker(address) as client, client.checkout() as checkout:

        def run(times: int) -> None:
            under_way = deque(checkout.echo.submit("hello", 1) for _ in range(IN_FLIGHT))
            for _ in range(times - IN_FLIGHT):
                under_way.popleft().get()
                under_way.append(checkout.echo.submit("hello", 1))
            while under_way:
                under_way.popleft().get()

        yield run


@contextlib.contextmanager
def submit_bursts(address: Address) -> Iterator[Run]:
    """A hundred calls are made, then all of them awaited."""
    with one_worker(address) as client, client.checkout() as checkout:

        def run(times: int) -> None:
            for _ in range(times // IN_FLIGHT):
                for result in [checkout.echo.submit("hello", 1) for _ in range(IN_FLIGHT)]:
                    result.get()

        yield run


OPERATIONS = [
    Operation("call", "call on a held checkout", call, METHODS, most_instructions=1.7),
    Operation("checkout", "checkout, call, release", checkout_and_call, METHODS, most_instructions=2.6),
    Operation("keywords", "call with keyword arguments", keywords, METHODS),
    Operation("own-timeout", "call, time-out of the checkout", own_timeout, METHODS),
    Operation("by-name", "checkout.call", by_name, METHODS),
    Operation("client-call", "client.call", client_call, METHODS),
    Operation("remote", "client.remote", remote, METHODS),
    Operation("function", "call of a function interface", function, FUNCTION),
    Operation("submit", "submit, window of 100", submit, METHODS),
    Operation("bursts", "submit, bursts of 100", submit_bursts, METHODS),
]
