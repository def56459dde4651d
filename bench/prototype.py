"""The lower bounds of a call's cost: a bare prototype of gtask without any feature, and a ping-pong without a protocol.

The prototype has only what no call can do without: a msgpack message with its length before it, one forked worker that
finds functions by name, and a gevent hub that reads the reply and switches to the calling greenlet.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import gevent
import gevent.socket
import msgpack

from bench.operations import Run

__all__ = ["Prototype", "echoing_process", "ping_pong", "prototype", "prototype_worker"]

CHUNK = 65536
FRAME = b"x" * 26
"""A meaningless message, as long as the request ``echo("hello", 1)`` is on gtask's wire."""

LENGTH = struct.Struct("!I")


class Prototype:
    """The client of one worker, with one call at a time."""

    __slots__ = ("_buffer", "_caller", "_hub", "_socket", "_watcher")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = memoryview(bytearray(CHUNK))
        self._hub = gevent.get_hub()
        self._caller: Any = None
        self._watcher = self._hub.loop.io(sock.fileno(), 1)
        self._watcher.start(self._receive)

    def call(self, name: str, *args: object) -> Any:
        """Send the request, and block this greenlet until the hub delivers the value."""
        body = msgpack.packb(("do", None, name, *args))
        self._caller = gevent.getcurrent()
        self._socket.send(LENGTH.pack(len(body)) + body)
        return self._hub.switch()

    def close(self) -> None:
        """Hang up, which ends the worker."""
        self._watcher.stop()
        self._watcher.close()
        self._socket.close()

    def _receive(self) -> None:
        self._socket.recv_into(self._buffer)
        (length,) = LENGTH.unpack_from(self._buffer)
        _, value = msgpack.unpackb(self._buffer[4 : 4 + length])
        self._caller.switch(value)


def serve(sock: socket.socket, functions: Mapping[str, Callable[..., object]]) -> NoReturn:
    """The prototype's worker: run calls until the client hangs up."""
    buffer = memoryview(bytearray(CHUNK))
    while sock.recv_into(buffer):
        (length,) = LENGTH.unpack_from(buffer)
        _, _, name, *args = msgpack.unpackb(buffer[4 : 4 + length])
        body = msgpack.packb(("ok", functions[name](*args)))
        sock.send(LENGTH.pack(len(body)) + body)
    os._exit(0)


@contextlib.contextmanager
def prototype_worker(functions: Mapping[str, Callable[..., object]]) -> Iterator[tuple[socket.socket, int]]:
    """Fork a worker of the prototype.

    Yields:
        a socket to it, and its process id.
    """
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        ours.close()
        serve(theirs, functions)
    theirs.close()
    yield ours, pid
    ours.close()
    os.waitpid(pid, 0)


@contextlib.contextmanager
def prototype(sock: socket.socket) -> Iterator[Run]:
    """Calls of ``echo("hello", 1)`` through the prototype, to the worker at this socket."""
    client = Prototype(sock)

    def run(times: int) -> None:
        for _ in range(times):
            client.call("echo", "hello", 1)

    yield run
    client.close()


def ping_pong(sock: socket.socket | gevent.socket.socket) -> Run:
    """Messages to an echoing process and back, over a blocking socket or one of gevent's."""
    buffer = bytearray(CHUNK)

    def run(times: int) -> None:
        for _ in range(times):
            sock.sendall(FRAME)
            sock.recv_into(buffer)

    return run


@contextlib.contextmanager
def echoing_process() -> Iterator[int]:
    """Fork a process that sends every message back.

    Yields:
        the descriptor of a socket to it.
    """
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        ours.close()
        buffer = memoryview(bytearray(CHUNK))
        while count := theirs.recv_into(buffer):
            theirs.sendall(buffer[:count])
        os._exit(0)
    theirs.close()
    with ours:
        yield os.dup(ours.fileno())
    os.waitpid(pid, 0)
