"""The operations: each common way to call a worker of gtask, repeated a given number of times.

All operations call ``echo("hello", 1)``. Clock and instruction counter measure the same functions. Only public names of
gtask are used, so any version can be measured.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import gevent
import gevent.event

import gtask
from gtask.address import Address

__all__ = ["FUNCTION", "IN_FLIGHT", "METHODS", "OPERATIONS", "SHORT_LINE", "Operation", "Run", "echo", "line"]

IN_FLIGHT = 100
"""Unanswered calls that ``submit`` keeps."""

SHORT_LINE = 10
"""Waiting callers in a short line."""

PATIENCE = 300
"""Seconds that a call may take: under valgrind everything is slow."""

Run = Callable[[int], None]
"""Does the work the given number of times."""


def echo(text: str, number: int) -> str:
    """The function that every contestant has called elsewhere."""
    return text


METHODS = {"echo": echo}
"""An interface of named methods."""

FUNCTION = echo
"""An interface that is one function."""


@dataclass(frozen=True)
class Operation:
    """A way to call a worker.

    Args:
        name: for ``--only`` and JSON.
        title: for tables.
        begin: takes the address of a server; a context with the work, whose client has one worker.
        interface: the server's interface; default METHODS.
        most: limit of the instructions, as a ratio to the bare prototype's; default None, for no limit.
    """

    name: str
    title: str
    begin: Callable[[Address], AbstractContextManager[Run]]
    interface: object = field(default_factory=METHODS.copy)
    most: float | None = None


def client_of(address: Address, workers: int = 1) -> gtask.Client:
    return gtask.Client(address, min_workers=1, max_workers=workers, timeout=PATIENCE)


@contextlib.contextmanager
def call(address: Address) -> Iterator[Run]:
    with client_of(address) as client, client.checkout() as checkout:

        def run(times: int) -> None:
            for _ in range(times):
                checkout.echo("hello", 1)

        yield run


@contextlib.contextmanager
def checkout_and_call(address: Address) -> Iterator[Run]:
    """In a greenlet, as a web server does it."""
    with in_main_greenlet(address) as run:
        yield lambda times: gevent.spawn(run, times).get()


@contextlib.contextmanager
def in_main_greenlet(address: Address) -> Iterator[Run]:
    """As a script does it, whose hub perhaps never turns again: so each end is told at once."""
    with client_of(address) as client:

        def run(times: int) -> None:
            for _ in range(times):
                with client.checkout() as checkout:
                    checkout.echo("hello", 1)

        yield run


@contextlib.contextmanager
def keywords(address: Address) -> Iterator[Run]:
    with client_of(address) as client, client.checkout() as checkout:

        def run(times: int) -> None:
            for _ in range(times):
                checkout.echo(text="hello", number=1)

        yield run


@contextlib.contextmanager
def own_timeout(address: Address) -> Iterator[Run]:
    with client_of(address) as client, client.checkout(timeout=PATIENCE / 2) as checkout:

        def run(times: int) -> None:
            for _ in range(times):
                checkout.echo("hello", 1)

        yield run


@contextlib.contextmanager
def by_name(address: Address) -> Iterator[Run]:
    with client_of(address) as client, client.checkout() as checkout:

        def run(times: int) -> None:
            for _ in range(times):
                checkout.call("echo", "hello", 1)

        yield run


@contextlib.contextmanager
def client_call(address: Address) -> Iterator[Run]:
    with client_of(address) as client:

        def run(times: int) -> None:
            for _ in range(times):
                client.call("echo", "hello", 1)

        yield run


@contextlib.contextmanager
def remote(address: Address) -> Iterator[Run]:
    with client_of(address) as client:

        def run(times: int) -> None:
            for _ in range(times):
                client.remote.echo("hello", 1)

        yield run


@contextlib.contextmanager
def function(address: Address) -> Iterator[Run]:
    with client_of(address) as client, client.checkout() as checkout:

        def run(times: int) -> None:
            for _ in range(times):
                checkout("hello", 1)

        yield run


@contextlib.contextmanager
def submit(address: Address) -> Iterator[Run]:
    """A window of unanswered calls: the oldest one is awaited, then another one is submitted."""
    with client_of(address) as client, client.checkout() as checkout:

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
    """Bursts of calls: all of a burst are submitted, then all are awaited."""
    with client_of(address) as client, client.checkout() as checkout:

        def run(times: int) -> None:
            for _ in range(times // IN_FLIGHT):
                for result in [checkout.echo.submit("hello", 1) for _ in range(IN_FLIGHT)]:
                    result.get()

        yield run


@contextlib.contextmanager
def line(address: Address, waiters: int = SHORT_LINE, workers: int = 1) -> Iterator[Run]:
    """Hand-offs of one worker to a line of constant length: a served caller queues up again.

    Between two runs the last served caller keeps the worker, so the line stands still. Each caller has a time-out that
    is never reached, because the timer is a part of the cost.

    Args:
        waiters: callers in line.
        workers: workers of the client; all but one are lent to greenlets that keep them.
    """
    client = client_of(address, workers)
    left = 0
    over, go_on, end = gevent.event.Event(), gevent.event.Event(), gevent.event.Event()

    def keeper() -> None:
        with client.checkout() as checkout:
            checkout.echo("hello", 1)
            end.wait()

    def caller() -> None:
        nonlocal left
        with contextlib.suppress(gtask.ClientClosed):
            while True:
                with client.checkout() as checkout:
                    checkout.echo("hello", 1)
                    left -= 1
                    if left <= 0:
                        over.set()
                        go_on.wait()

    def run(times: int) -> None:
        nonlocal left, go_on
        left = times
        over.clear()
        resume, go_on = go_on, gevent.event.Event()
        resume.set()
        over.wait()

    greenlets = [gevent.spawn(keeper) for _ in range(workers - 1)]
    while client.stats().busy < workers - 1:
        gevent.sleep(0.01)
    greenlets += [gevent.spawn(caller) for _ in range(waiters + 1)]
    over.wait()
    while client.stats().waiting < waiters:
        gevent.sleep(0.001)
    run(waiters)  # each caller once, to warm up
    yield run
    assert client.stats().waiting == waiters
    client.close()
    end.set()
    go_on.set()
    gevent.joinall(greenlets)


OPERATIONS = (
    Operation("call", "call on a held checkout", call, most=1.7),
    Operation("checkout", "checkout, call, release", checkout_and_call, most=2.6),
    Operation("script", "the same in the main greenlet", in_main_greenlet),
    Operation("keywords", "call with keyword arguments", keywords),
    Operation("own-timeout", "call, time-out of the checkout", own_timeout),
    Operation("by-name", "checkout.call", by_name),
    Operation("client-call", "client.call", client_call),
    Operation("remote", "client.remote", remote),
    Operation("function", "call of a function interface", function, FUNCTION),
    Operation("submit", "submit, window of 100", submit),
    Operation("bursts", "submit, bursts of 100", submit_bursts),
    Operation("hand-off", "hand-off, 10 in line", line),
)
