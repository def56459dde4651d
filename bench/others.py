"""The alternatives of a gevent program that has a function called elsewhere; each leaves the hub free."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import gevent.event
import gevent.hub
import gevent.threadpool

from bench.operations import Run, echo

if TYPE_CHECKING:
    import gipc.gipc

try:
    import gipc
except ModuleNotFoundError:
    gipc = None

__all__ = ["crowd", "has_gipc", "over_gipc", "process_pool", "threadpool", "threadpool_of"]

has_gipc = gipc is not None


def threadpool() -> Run:
    """gevent's threadpool: no process at all, so the function shares the lock of the caller's interpreter."""
    pool = gevent.get_hub().threadpool

    def run(times: int) -> None:
        for _ in range(times):
            pool.apply(echo, ("hello", 1))

    return run


@contextlib.contextmanager
def over_gipc() -> Iterator[Run]:
    """A duplex pipe of gipc: values are pickled, and the protocol is the program's."""
    with gipc.pipe(duplex=True) as (ours, theirs):
        process = gipc.start_process(answer, args=(theirs,))

        def run(times: int) -> None:
            for _ in range(times):
                ours.put(("hello", 1))
                ours.get()

        yield run
        ours.put(None)
        process.join()


def answer(pipe: gipc.gipc._GIPCDuplexHandle) -> None:
    while arguments := pipe.get():
        pipe.put(echo(*arguments))


@contextlib.contextmanager
def process_pool() -> Iterator[Run]:
    """A ProcessPoolExecutor, whose thread wakes the hub at the end of a call: ``result()`` would block the hub."""
    watcher = gevent.get_hub().loop.async_()

    def run(times: int) -> None:
        for _ in range(times):
            answered = gevent.event.Event()
            watcher.start(answered.set)
            future = pool.submit(echo, "hello", 1)
            future.add_done_callback(lambda _: watcher.send())
            answered.wait()
            watcher.stop()
            future.result()

    with ProcessPoolExecutor(max_workers=1) as pool:
        yield run
    watcher.close()


def crowd(function: Callable[[], object], callers: int) -> Run:
    """Many greenlets that call a function at the same time, again and again."""

    def run(times: int) -> None:
        left = times

        def caller() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                function()

        gevent.joinall([gevent.spawn(caller) for _ in range(callers)], raise_error=True)

    return run


@contextlib.contextmanager
def threadpool_of(threads: int, callers: int) -> Iterator[Run]:
    """A threadpool of this size, used by a crowd of greenlets."""
    pool = gevent.threadpool.ThreadPool(threads)
    yield crowd(lambda: pool.apply(echo, ("hello", 1)), callers)
    pool.kill()
