"""One blocking conversation with one worker, for a command line that has nothing else to do meanwhile."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator
from time import monotonic
from typing import Any

from gtask import address as addresses
from gtask.errors import AcquireTimeout, CallTimeout, ProtocolError, SetupError, WorkerDied, reason_of
from gtask.wire.conversation import Conversation
from gtask.wire.exceptions import failure
from gtask.wire.frames import Encoder
from gtask.wire.lastwords import ReplyDecoder
from gtask.wire.messages import Failure, Greeting, LastWords, Message, Request, Retire, Value
from gtask.wire.values import offers

__all__ = ["Session"]

LAST_WORDS = 0.5
"""Seconds after the time-out in which an interrupted worker may still say where it was."""

AGAIN = 0.05
"""Seconds between attempts while a server's backlog is full."""


class Session:
    """A connection to a worker of a server. Also a context manager that closes it.

    Args:
        address: of the server.
        timeout: seconds for the connection and the greeting, and then for each call.
        about: whether to ask about the server instead of calling the application.

    Raises:
        AcquireTimeout: nobody is there, or nobody greets in time.
        SetupError: the worker's setup raised.
        ProtocolError: the peer is no gtask server.
    """

    def __init__(self, address: addresses.Address, timeout: float, *, about: bool = False) -> None:
        self.address = address
        self._timeout = timeout
        self._deadline = monotonic() + timeout
        self._conversation = Conversation()
        self._encoder = Encoder()
        self._decoder = ReplyDecoder()
        self._early: Iterator[Message] = iter(())
        self._socket = self._connect()
        try:
            self._greet(about)
        except BaseException:  # whatever it was, nobody will have the socket
            self._socket.close()
            raise

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method and wait for its value.

        Raises:
            RemoteError: the worker's code raised.
            CallTimeout: it took longer than the time-out.
            WorkerDied: the worker ended before it had replied.
            EncodeError: an argument cannot travel.
        """
        self._deadline = monotonic() + self._timeout
        self._say(Request([method, *args], kwargs))
        reply = self._hear()
        if reply is None:
            raise self._overdue(method)
        if isinstance(reply, Value):
            return reply.value
        if isinstance(reply, Failure):
            raise failure.rebuild(reply.exc, reply.text, note=f"{method} raised this in a worker at {self.address}")
        if isinstance(reply, LastWords):
            raise _died(method, reply)
        raise ProtocolError(f"{self.address} answered with {reply!r:.60}")

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _connect(self) -> socket.socket:
        while True:
            unix = isinstance(self.address, addresses.UnixAddress)
            sock = socket.socket(socket.AF_UNIX) if unix else socket.socket(self.address.family)  # type: ignore[union-attr]
            sock.settimeout(self._timeout)
            try:
                sock.connect(self.address.sockaddr)
                return sock
            except BlockingIOError:  # a unix socket whose backlog is full
                sock.close()
                if monotonic() > self._deadline:
                    raise AcquireTimeout(f"{self.address} has no room for another connection") from None
                select.select((), (), (), AGAIN)
            except OSError as error:
                sock.close()
                reason = reason_of(error)
                raise AcquireTimeout(f"server unreachable: {reason} at {addresses.shown(self.address)}") from None

    def _greet(self, about: bool) -> None:
        mine = offers.offered(())
        self._say(Greeting(name="gtask", about=about, offers=mine))
        try:
            hi = self._hear()
        except WorkerDied:
            raise AcquireTimeout(
                f"{self.address} closed the connection without a greeting: it may not let you in, or be no gtask server"
            ) from None
        if isinstance(hi, LastWords):
            raise _died("setup", hi)
        if hi is None:
            raise AcquireTimeout(
                f"nobody greeted at {self.address} within {self._timeout:g} s: all its workers may be taken "
                "(max_workers), setup may take longer, or it is no gtask server"
            )
        assert isinstance(hi, Greeting)  # the conversation lets nothing else pass
        if hi.exc is not None or hi.text:
            server = f"{hi.name} at {self.address}"
            note = f"setup raised this in worker {hi.pid} of {server}" if hi.pid else f"said by {server}"
            raise failure.rebuild(hi.exc, hi.text, mixin=SetupError, note=note)
        agreed = offers.at_client(mine, hi)
        self._encoder.agree(agreed)
        self._decoder.agree(agreed)

    def _overdue(self, method: str) -> CallTimeout:
        """Hang up, so that the server ends the call, and hear where it was."""
        error = CallTimeout(f"{method} took longer than {self._timeout:g} s at {self.address}", method=method)
        reply: Message | None = None
        with contextlib.suppress(OSError, WorkerDied, ProtocolError):  # nobody has to say it
            self._socket.shutdown(socket.SHUT_WR)
            self._deadline = monotonic() + LAST_WORDS
            reply = self._hear()
        if isinstance(reply, Failure):
            error.__traceback__ = failure.rebuild(reply.exc, reply.text).__traceback__
        elif isinstance(reply, LastWords) and reply.stacks:
            error.stacks = reply.stacks
            error.add_note(f"Where the worker was:\n{reply.stacks}")
        return error

    def _say(self, message: Message) -> None:
        frame = self._encoder.encode(message)
        self._conversation.client_says(message)
        self._socket.settimeout(max(1e-3, self._deadline - monotonic()))
        with contextlib.suppress(ConnectionError, TimeoutError):  # the last words say more, or there is no time left
            self._socket.sendall(frame)

    def _hear(self) -> Message | None:
        """The next message, or the last words of the worker; None at the deadline.

        Raises:
            WorkerDied: the connection has ended without a word.
        """
        while True:
            for message in self._early:
                self._conversation.worker_says(message)
                if not isinstance(message, Retire):  # who makes but one call retires every worker anyway
                    return message
            left = self._deadline - monotonic()
            if left <= 0:
                return None
            self._socket.settimeout(left)
            try:
                count = self._socket.recv_into(self._decoder.space)
            except TimeoutError:
                continue
            except ConnectionError:
                count = 0
            if not count:
                rip = self._decoder.ended()
                if rip is None:
                    raise WorkerDied(f"the worker at {self.address} closed the connection before it had answered")
                return rip
            self._early = iter(self._decoder.received(count))


def _died(method: str, rip: LastWords) -> WorkerDied:
    how = f"was ended by {rip.signal}" if rip.signal else f"exited with status {rip.exitcode}"
    because = f", because {rip.why}" if rip.why else ""
    error = WorkerDied(
        f"worker {rip.pid} {how} in {method} after {rip.elapsed:.3g} s{because}; "
        f"it had used {rip.maxrss / 1024:.0f} MiB of memory at the most",
        pid=rip.pid,
        exitcode=rip.exitcode,
        signal=rip.signal,
        method=method,
        elapsed=rip.elapsed,
        maxrss=rip.maxrss,
        stacks=rip.stacks,
    )
    if rip.stacks:
        error.add_note(f"Where the worker was:\n{rip.stacks}")
    return error
