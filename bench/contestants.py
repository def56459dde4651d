"""The contestants: what is measured by the clock, and what each is compared with.

A contestant is a name and a way to begin its work, so nothing runs before its contest. Only the processes of
:class:`Elsewhere` are forked before.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import gevent
import gevent.socket

import gtask
from bench.operations import FUNCTION, METHODS, OPERATIONS, SHORT_LINE, Run, client_of, line
from bench.others import crowd, has_gipc, over_gipc, process_pool, threadpool, threadpool_of
from bench.prototype import echoing_process, ping_pong, prototype, prototype_worker
from gtask.address import Address

__all__ = ["CONTESTS", "PING_PONG", "Contestant", "Elsewhere", "Limit", "elsewhere"]

CROWD, CROWD_WORKERS = 200, 8
FEW_WORKERS, MANY_WORKERS = 8, 256
LONG_LINE = 10_000


@dataclass(frozen=True)
class Elsewhere:
    """The forked processes of all contests.

    Args:
        methods, function: addresses of servers of gtask, by their interfaces.
        blocking, raw: sockets of echoing processes, for a blocking client and for one of gevent.
        prototype: a socket of a worker of the prototype.
    """

    methods: Address
    function: Address
    blocking: socket.socket
    raw: gevent.socket.socket
    prototype: socket.socket


@contextlib.contextmanager
def elsewhere() -> Iterator[Elsewhere]:
    """Fork the processes; to be called before threads run, and before there is a hub."""
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        methods = enter(gtask.fork_server(METHODS)).address
        function = enter(gtask.fork_server(FUNCTION)).address
        worker, _ = enter(prototype_worker(METHODS))
        blocking = enter(socket.socket(fileno=enter(echoing_process())))
        raw = enter(gevent.socket.socket(fileno=enter(echoing_process())))
        yield Elsewhere(methods, function, blocking, raw, worker)


@dataclass(frozen=True)
class Limit:
    """A limit of a contestant's time.

    Args:
        most: as a ratio to the time of another contestant; in microseconds if there is no other one.
        than: the name of the other contestant; default "", for none.
    """

    most: float
    than: str = ""


@dataclass(frozen=True)
class Contestant:
    """A line of the table.

    Args:
        name: for ``--only`` and JSON.
        title: for the table.
        begin: a context with the work.
        limits: of its time.
        moment: seconds for which the work is done in each round.
    """

    name: str
    title: str
    begin: Callable[[Elsewhere], AbstractContextManager[Run]]
    limits: tuple[Limit, ...] = ()
    moment: float = 0.06


def operation(name: str, *limits: Limit) -> Contestant:
    """The operation of this name as a contestant."""
    (found,) = (one for one in OPERATIONS if one.name == name)
    server = "function" if found.interface is FUNCTION else "methods"
    return Contestant(name, f"gtask: {found.title}", lambda there: found.begin(getattr(there, server)), limits)


def of_run(name: str, title: str, begin: Callable[[Elsewhere], Run], *limits: Limit) -> Contestant:
    """A contestant whose work needs no end."""
    return Contestant(name, title, lambda there: contextlib.nullcontext(begin(there)), limits)


def scoreboard() -> Run:
    """A worker's entries in the scoreboard, at the beginning and the end of a call."""
    from gtask.server.scoreboard import BoardLine, label

    board, method = BoardLine(time.monotonic(), 0), label("echo")

    def run(times: int) -> None:
        for _ in range(times):
            board.begin_call(time.monotonic(), method)
            board.end(time.monotonic())

    return run


@contextlib.contextmanager
def gtask_crowd(address: Address) -> Iterator[Run]:
    """A crowd of greenlets that share the workers of one client."""
    with client_of(address, CROWD_WORKERS) as client:
        run = crowd(lambda: client.call("echo", "hello", 1), CROWD)
        while client.stats().idle < CROWD_WORKERS:
            run(CROWD)
        yield run


PING_PONG = of_run("ping-pong", "raw ping-pong, gevent", lambda there: ping_pong(there.raw))
"""The contestant that takes part in each contest: all others are compared with it."""

CONTESTS: tuple[tuple[Contestant, ...], ...] = (
    (
        of_run("blocking", "raw ping-pong, blocking", lambda there: ping_pong(there.blocking)),
        PING_PONG,
        Contestant("prototype", "bare prototype", lambda there: prototype(there.prototype)),
        operation(
            "call", Limit(1.75, "ping-pong"), Limit(1.1, "threadpool"), *([Limit(1.0, "gipc")] if has_gipc else [])
        ),
        operation("checkout", Limit(2.2, "ping-pong")),
        operation("keywords", Limit(1.1, "call")),
        operation("own-timeout", Limit(1.1, "call")),
        operation("by-name", Limit(1.1, "call")),
        operation("client-call", Limit(1.1, "checkout")),
        operation("remote", Limit(1.1, "checkout")),
        operation("function", Limit(1.1, "call")),
        operation("submit", Limit(0.25, "call")),
        operation("bursts"),
        of_run("scoreboard", "gtask: scoreboard, one call", lambda _: scoreboard(), Limit(1.0)),
        *([Contestant("gipc", "gipc: duplex pipe", lambda _: over_gipc())] if has_gipc else []),
        Contestant("executor", "ProcessPoolExecutor", lambda _: process_pool()),
        of_run("threadpool", "gevent's threadpool", lambda _: threadpool()),
    ),
    (
        Contestant(
            "crowd",
            f"gtask: {CROWD} callers, {CROWD_WORKERS} workers",
            lambda there: gtask_crowd(there.methods),
            (Limit(1.25, "crowd-threads"),),
            moment=0.3,
        ),
        Contestant(
            "crowd-threads",
            f"threadpool: {CROWD} callers, {CROWD_WORKERS} threads",
            lambda _: threadpool_of(CROWD_WORKERS, CROWD),
            moment=0.3,
        ),
    ),
    (
        operation("hand-off"),
        Contestant(
            "long-line",
            f"gtask: hand-off, {LONG_LINE:,} in line",
            lambda there: line(there.methods, LONG_LINE),
            (Limit(1.3, "hand-off"),),
        ),
    ),
    (
        Contestant(
            "few-workers",
            f"gtask: hand-off, {FEW_WORKERS} workers",
            lambda there: line(there.methods, SHORT_LINE, FEW_WORKERS),
        ),
        Contestant(
            "many-workers",
            f"gtask: hand-off, {MANY_WORKERS} workers",
            lambda there: line(there.methods, SHORT_LINE, MANY_WORKERS),
            (Limit(1.1, "few-workers"),),
        ),
    ),
)
"""The contests. The last ones have many greenlets and workers, which would slow down all others."""
