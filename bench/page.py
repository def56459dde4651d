"""A web page that calls nothing: its latency while the same server's workers compute for other requests.

A separate process serves: gevent's WSGI server, and a client of four workers that yield to other processes
(``nice``). If each connection asked again at once, only the line before a saturated process would be measured; so each
pauses before it asks. Quiet and loaded rounds take turns, and the best ones are compared: other programs disturb some
rounds, but the workers all loaded ones.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import gevent
import gevent.event
import gevent.pywsgi
import gevent.socket

import gtask

__all__ = ["Latencies", "latencies", "page_server"]

BODY = b"quick"
CONNECTIONS = 200
PAUSE = 0.4
"""Seconds that a connection pauses at most before it asks."""

WORKERS, COMPUTERS = 4, 8
SECONDS = 2.0
"""Duration of each round."""


@dataclass(frozen=True)
class Latencies:
    """99th percentiles of the page's latency, in milliseconds."""

    quiet: float
    loaded: float


def spin(seconds: float) -> int:
    """Hold the interpreter's lock."""
    end = time.monotonic() + seconds
    turns = 0
    while time.monotonic() < end:
        turns += sum(range(1000)) > 0
    return turns


@contextlib.contextmanager
def page_server() -> Iterator[tuple[str, int]]:
    """Start the web server; yields its host and port."""
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            yield "127.0.0.1", int(process.stdout.readline())
        finally:
            process.terminate()


def latencies(address: tuple[str, int], rounds: int) -> Latencies:
    """The best percentiles of some quiet and some loaded rounds."""
    quiet, loaded = [], []
    round_of(address, SECONDS / 2)
    for _ in range(rounds):
        quiet.append(round_of(address, SECONDS))
        with computing(address):
            loaded.append(round_of(address, SECONDS))
    return Latencies(min(quiet), min(loaded))


def round_of(address: tuple[str, int], seconds: float) -> float:
    """Ask for the page over many connections.

    Returns:
        the 99th percentile of the latency, in milliseconds.
    """
    took: list[float] = []
    end = time.monotonic() + seconds

    def ask() -> None:
        with gevent.socket.create_connection(address) as sock:
            while time.monotonic() < end:
                gevent.sleep(random.uniform(0, PAUSE))
                began = time.monotonic()
                get(sock, "/")
                took.append(time.monotonic() - began)

    gevent.joinall([gevent.spawn(ask) for _ in range(CONNECTIONS)], raise_error=True)
    return sorted(took)[len(took) * 99 // 100] * 1000


@contextlib.contextmanager
def computing(address: tuple[str, int]) -> Iterator[None]:
    """Have all workers compute, with more requests in line."""
    over = gevent.event.Event()

    def ask() -> None:
        with gevent.socket.create_connection(address) as sock:
            while not over.is_set():
                get(sock, "/spin")

    askers = [gevent.spawn(ask) for _ in range(COMPUTERS)]
    gevent.sleep(0.5)
    yield
    over.set()
    gevent.joinall(askers, raise_error=True)


def get(sock: gevent.socket.socket, page: str) -> None:
    """Ask for a page, and read the whole answer."""
    sock.sendall(f"GET {page} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(BODY):
        answer += (received := sock.recv(65536))
        assert received, f"the page ended with {answer!r}"


# ----- The web server's process -----------------------------------------------------------------------


def main() -> None:
    with (
        gtask.fork_server({"spin": spin}, nice=10) as workers,
        gtask.Client(workers.address, min_workers=WORKERS, max_workers=WORKERS) as client,
    ):

        def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            if environ["PATH_INFO"] == "/spin":
                client.call("spin", 0.2)
            start_response("200 OK", [("Content-Length", str(len(BODY)))])
            return [BODY]

        client.open(wait=True)
        server = gevent.pywsgi.WSGIServer(("127.0.0.1", 0), application, log=None)
        server.start()
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
