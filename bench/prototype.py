"""The least that a call can take: a bare prototype of gtask without any feature, and a ping-pong without even a protocol.

The prototype has what cannot be left out: a message in msgpack with its length before it, one forked worker that knows
functions by their names, and a gevent client whose hub reads the reply and switches to the greenlet that waits for it.
It checks nothing, so its cost is what gtask's cost is compared with.
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
"""Bytes without a meaning, and as many as ``echo("hello", 1)`` has on gtask's wire."""

LENGTH = struct.Struct("!I")


class Prototype:
    """The client's side of the prototype: calls of one worker, of which one at a time is under way."""

    __slots__ = ("_buffer", "_caller", "_hub", "_socket", "_watcher")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = memoryview(bytearray(CHUNK))
        self._hub = gevent.get_hub()
        self._caller: Any = None
        self._watcher = self._hub.loop.io(sock.fileno(), 1)
        self._watcher.start(self._receive)

    def call(self, name: str, *args: object) -> Any:
        """Send the request, and block this greenlet until the hub switches back to it with the value."""
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
    """Run calls until the client hangs up; the worker's side of the prototype."""
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
    """The prototype's ``echo("hello", 1)``, of the worker at this socket."""
    client = Prototype(sock)

    def run(times: int) -> None:
        for _ in range(times):
            client.call("echo", "hello", 1)

    yield run
    client.close()


def ping_pong(sock: socket.socket | gevent.socket.socket) -> Run:
    """The ping-pong at this socket, which may be a blocking one or one of gevent's."""
    buffer = bytearray(CHUNK)

    def run(times: int) -> None:
        for _ in range(times):
            sock.sendall(FRAME)
            sock.recv_into(buffer)

    return run


@contextlib.contextmanager
def echoing_process() -> Iterator[int]:
    """Fork a process that sends back what it gets.

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
