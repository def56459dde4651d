"""Large values and many items: what they take beside the means of the standard library, as ratios of the least times.

The functions that are called elsewhere stand here, too. All take turns.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import gtask

__all__ = ["bytes_of", "echo", "large", "many", "size"]

LARGE = 60 * 1024 * 1024
ITEMS = 2000
CHUNK = 100

_value = b""


def size(value: Any) -> int:
    """How many bytes a value has."""
    return memoryview(value).nbytes


def bytes_of(count: int) -> bytes:
    """This number of bytes, the same object each time."""
    global _value  # to make them would be measured, too
    if len(_value) != count:
        _value = bytes(count)
    return _value


def echo(value: Any) -> Any:
    """The value itself."""
    return value


def large(rounds: int) -> Mapping[str, float]:
    """The time of a large value's way there and of its way back, as a ratio to that of a Pipe; and for an array that
    was made to be shared the time of its way there."""
    value = bytes(LARGE)
    try:
        born = gtask.shared.empty(LARGE, "u1")
    except ImportError:  # without numpy
        born = None
    with contextlib.ExitStack() as stack:
        pipe = stack.enter_context(pipe_peer())
        work: dict[str, Callable[[], object]] = {
            "Pipe, argument": lambda: ask(pipe, size, value),
            "Pipe, result": lambda: ask(pipe, bytes_of, LARGE),
        }
        for way, address, limit in (("shared", None, None), ("unix", None, 0), ("TCP", free_port(), None)):
            server = stack.enter_context(gtask.spawn_server("bench.bulk", address))
            options = {} if limit is None else {"limit_shared": limit}
            client = stack.enter_context(gtask.Client(server.address, max_workers=1, timeout=300, **options))
            checkout = stack.enter_context(client.checkout())
            work[f"{way}, argument"] = lambda checkout=checkout: checkout.size(value)  # type: ignore[misc]
            work[f"{way}, result"] = lambda checkout=checkout: checkout.bytes_of(LARGE)  # type: ignore[misc]
            if way == "shared" and born is not None:
                work["array made to be shared"] = lambda checkout=checkout: checkout.size(born)  # type: ignore[misc]
        least = least_times(work, rounds)
    return {
        name: least[name] / least["Pipe, result" if name.endswith("result") else "Pipe, argument"]
        for name in work
        if not name.startswith("Pipe")
    }


def many(rounds: int) -> Mapping[str, float]:
    """The time of an item of a map, as a ratio to that of a call; in chunks to that of a ProcessPoolExecutor."""
    items = range(ITEMS)
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ProcessPoolExecutor(2, multiprocessing.get_context("spawn")))
        server = stack.enter_context(gtask.spawn_server("bench.bulk"))
        client = stack.enter_context(gtask.Client(server.address, max_workers=8, timeout=300))
        one = stack.enter_context(gtask.Client(server.address, max_workers=1, timeout=300))
        checkout = stack.enter_context(one.checkout())
        least = least_times(
            {
                "call": lambda: [checkout.echo(item) for item in items],
                "map_unordered": lambda: sum(1 for _ in client.map_unordered("echo", items)),
                "in chunks": lambda: sum(1 for _ in client.map_unordered("echo", items, chunksize=CHUNK)),
                "pool": lambda: sum(1 for _ in pool.map(echo, items, chunksize=CHUNK)),
            },
            rounds,
        )
    return {"item": least["map_unordered"] / least["call"], "chunks": least["in chunks"] / least["pool"]}


def least_times(work: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The least seconds of each, over rounds in which all take turns; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds + 1):
        for name, do in work.items():
            start = time.perf_counter()
            do()
            times[name].append(time.perf_counter() - start)
    return {name: min(found[1:]) for name, found in times.items()}


@contextlib.contextmanager
def pipe_peer() -> Iterator[Connection]:
    """One end of a Pipe, at whose other end a process answers."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=answer, args=(theirs,))
    process.start()
    try:
        yield ours
    finally:
        ours.send(None)
        process.join()


def answer(pipe: Connection) -> None:
    """Call what comes, until None comes."""
    while request := pipe.recv():
        function, argument = request
        pipe.send(function(argument))


def ask(pipe: Connection, function: Callable[[Any], Any], argument: object) -> object:
    pipe.send((function, argument))
    return pipe.recv()


def free_port() -> str:
    """An address of TCP at which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{sock.getsockname()[1]}"
