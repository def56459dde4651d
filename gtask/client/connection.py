"""One socket to one worker, and the conversation on it.

A connection reads in a callback of the hub, never in a greenlet: what has come is delivered to the calls
that wait, in order, and the end of the stream is noticed at once, also while nobody calls. It is *dirty* from
the first byte of a request to the last byte of its reply; whoever interrupts that closes it.
"""

from __future__ import annotations

import math
import os
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

import gevent
import gevent.monkey
from gevent import socket as gevent_socket
from gevent.event import AsyncResult
from gevent.hub import Waiter

from gtask.address import Address, TcpAddress, UnixAddress
from gtask.errors import CallTimeout, Error, ProtocolError, WorkerDied
from gtask.wire.codec import Decoder, Encoder
from gtask.wire.exchange import Exchange
from gtask.wire.messages import Bye, Do, Done, Er, Hi, Message, Ok, Sk

__all__ = ["BlockingCall", "Call", "Connection", "Result"]

READ, WRITE = 1, 2

BUSY_WITH, BURST = 8, 16
"""A request that finds fewer than so many unanswered ones before it is sent at once. Others are gathered until
there are so many of them, or until the hub's next turn."""

Outcome = Ok | Er | Sk | Error
"""How a call ended: with the worker's reply, or with the error that ended its connection."""


if TYPE_CHECKING:
    Result = AsyncResult[Any]
else:
    Result = AsyncResult  # what ``submit`` returns; generic for type checkers only


class Call:
    """One request, and whoever waits for its outcome: see :class:`BlockingCall` and what ``submit`` makes.

    Args:
        method: its name, for messages.
        frame: the encoded request.
        timeout: seconds that it may take from when it is at the head of its queue; None for no limit.
    """

    __slots__ = ("deadline", "frame", "method", "sent_at", "timeout")

    sent_at: float

    def __init__(self, method: str, frame: bytes, timeout: float | None) -> None:
        self.method = method
        self.frame = frame
        self.timeout = timeout
        self.deadline = 0.0  # not at the head yet

    def deliver(self, outcome: Outcome) -> None:
        """Take the outcome; called once, in the hub."""
        raise NotImplementedError

    def post(self, outcome: Outcome) -> None:
        """Deliver the outcome from outside the hub: at its next turn."""
        gevent.get_hub().loop.run_callback(self.deliver, outcome)

    def reach_head(self, now: float) -> float:
        """Start the call's clock unless it runs already; returns its deadline (infinite for none)."""
        if not self.deadline:
            self.deadline = math.inf if self.timeout is None else now + self.timeout
        return self.deadline


class BlockingCall(Call):
    """A call whose greenlet waits."""

    __slots__ = ("_waiter", "deliver")

    def __init__(self, method: str, frame: bytes, timeout: float | None) -> None:
        Call.__init__(self, method, frame, timeout)
        self._waiter: Waiter[Outcome] = Waiter()
        self.deliver = self._waiter.switch  # type: ignore[assignment]  # saves a frame in the hot path

    def wait(self) -> Outcome:
        """Block this greenlet until the outcome is there."""
        outcome: Outcome = self._waiter.get()
        return outcome


class Owner(Protocol):
    """Who hears what befalls a connection. Called in the hub or in whatever greenlet ends the connection."""

    def drained(self, connection: Connection) -> None:
        """The last reply that was owed has come, and :meth:`Connection.tell_when_drained` had been called."""

    def settled(self, connection: Connection) -> None:
        """The worker's checkout_done hook has run."""

    def lost(self, connection: Connection, error: Error) -> None:
        """The connection is closed, though its owner had not closed it."""


class Connection:
    """A worker, as its client sees it.

    Attributes:
        pid: the worker's process id, once it has greeted.
        server: the name of the server, once the worker has greeted.
        retire: why the worker asked not to be used after this checkout, or "".
        error: why the connection is closed, or None while it is open.
    """

    __slots__ = (
        "_alarm",
        "_alarm_at",
        "_burst",
        "_client",
        "_decoder",
        "_encoder",
        "_exchange",
        "_greeting",
        "_loop",
        "_owes_done",
        "_owner",
        "_pending",
        "_reader",
        "_socket",
        "_tell_drained",
        "_unsent",
        "_writer",
        "address",
        "error",
        "holder",
        "pid",
        "retire",
        "server",
        "slot",
    )

    def __init__(
        self, sock: Any, address: Address, owner: Owner, encoder: Encoder, limit: int, client: str = ""
    ) -> None:
        self.address = address
        self._client = client
        self.pid = 0
        self.server = ""
        self.retire = ""
        self.error: Error | None = None
        self.holder: Any = None
        self.slot: Any = None
        self._owner = owner
        self._socket = sock
        self._exchange = Exchange()
        self._encoder = encoder
        self._decoder = Decoder(limit)
        self._pending: deque[Call] = deque()
        self._unsent: deque[memoryview] = deque()
        self._burst: list[bytes] = []
        self._owes_done = False
        self._tell_drained = False
        self._greeting: Waiter[Hi | Error] | None = None
        self._loop = gevent.get_hub().loop
        self._alarm: Any = None
        self._alarm_at = math.inf
        self._writer = self._loop.io(sock.fileno(), WRITE)
        self._reader = self._loop.io(sock.fileno(), READ)
        self._reader.start(self._on_readable)

    def __repr__(self) -> str:
        state = f"closed: {self.error}" if self.error is not None else self._exchange.state
        return f"<Connection to worker {self.pid or '?'} at {self.address}, {state}, {len(self._pending)} calls>"

    # --- the client speaks -----------------------------------------------------------------------------

    def greet(self, timeout: float) -> Hi:
        """Say hi and wait until the worker's setup has run; blocks this greenlet.

        Args:
            timeout: seconds to wait for the worker's greeting.

        Raises:
            Error: the worker did not greet.
        """
        hi = Hi(name=self._client)
        self._exchange.client_says(hi)
        waiter: Waiter[Hi | Error] = Waiter()
        self._greeting = waiter
        alarm = self._loop.timer(timeout)
        alarm.start(self._greeting_overdue, timeout)
        try:
            self._write(self._encoder.encode(hi))
            answer = waiter.get()
        finally:
            self._greeting = None
            alarm.stop()
            alarm.close()
        if isinstance(answer, Error):
            raise answer
        self.pid, self.server = answer.pid, answer.name
        return answer

    def send(self, call: Call) -> None:
        """Send a request behind those already sent; its outcome goes to ``call.deliver``. Never blocks."""
        self._exchange.client_says(_A_DO)
        now = call.sent_at = monotonic()
        pending = self._pending
        pending.append(call)
        if len(pending) == 1:
            deadline = call.reach_head(now)
            if deadline < self._alarm_at:
                self._set_alarm(deadline, now)
        frame = call.frame
        if self._owes_done:
            self._owes_done = False
            frame = _DONE_FRAME + frame
        if len(pending) <= BUSY_WITH:
            self._write(frame)
            return
        # The worker has enough to do: gather what follows, which saves most of the cost of sending it.
        burst = self._burst
        burst.append(frame)
        if len(burst) == 1:
            self._loop.run_callback(self._flush)
        elif len(burst) == BURST:
            self._flush()

    def end_checkout(self) -> bool:
        """Tell the worker that the checkout is over.

        Returns:
            whether the worker may be lent again at once; if not, its owner hears ``settled`` when
            checkout_done has run.
        """
        self.holder = None
        self._exchange.client_says(_A_DONE)
        if self._exchange.state == "idle":
            self._owes_done = True  # rides with the next request
            return True
        self._write(_DONE_FRAME)
        return False

    def tell_when_drained(self) -> None:
        """Call the owner's ``drained`` once the last reply that is owed has come."""
        self._tell_drained = True

    @property
    def pending(self) -> int:
        """How many replies are owed."""
        return len(self._pending)

    def owes(self, call: Call) -> bool:
        """Whether this call has been sent and its reply has not come."""
        return call in self._pending

    @property
    def label(self) -> str:
        """Which worker this is, for messages."""
        client = f", for client {self._client!r}" if self._client else ""
        return f"worker {self.pid or '(not yet greeted)'} of {self.server or 'the server'} at {self.address}{client}"

    # --- the end ---------------------------------------------------------------------------------------

    def close(self, error: Error) -> None:
        """Hang up. Calls that are still owed a reply end with ``error``. Closing again does nothing."""
        if self.error is not None:
            return
        self.error = error
        for watcher in (self._reader, self._writer, self._alarm):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        self._alarm = None
        self._socket.close()
        self._unsent.clear()
        self._burst.clear()
        pending, self._pending = self._pending, deque()
        if self._greeting is not None:
            self._loop.run_callback(self._greeting.switch, error)
        for call in pending:
            call.post(error)

    def hang_up(self, error: Error) -> None:
        """Close it, and let the owner know."""
        if self.error is None:
            self.close(error)
            self._owner.lost(self, error)

    # --- the hub calls ---------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        try:
            count = self._socket.recv_into(self._decoder.space)
            if not count:
                self.hang_up(self._death("closed the connection"))
                return
            for message in self._decoder.received(count):
                self._take(message)
                if self.error is not None:
                    return
        except BlockingIOError:
            return
        except ProtocolError as error:
            self.hang_up(ProtocolError(f"{self.label}: {error}"))
        except OSError as error:
            self.hang_up(self._death(f"broke the connection ({_reason(error)})"))
        except BaseException:  # a KeyboardInterrupt in the hub: what was read is lost, so nothing after it fits
            self.hang_up(ProtocolError(f"{self.label}: reading its reply was interrupted"))
            raise

    def _take(self, message: Message) -> None:
        self._exchange.worker_says(message)
        if isinstance(message, (Ok, Er, Sk)):
            pending = self._pending
            call = pending.popleft()
            if pending:
                now = monotonic()
                deadline = pending[0].reach_head(now)
                if deadline < self._alarm_at:
                    self._set_alarm(deadline, now)
            call.deliver(message)
            if self._tell_drained and not self._pending and self.error is None:
                self._tell_drained = False
                self._owner.drained(self)
        elif isinstance(message, Done):
            self._owner.settled(self)
        elif isinstance(message, Bye):
            self.retire = message.why or "asked to be retired"
        elif isinstance(message, Hi) and self._greeting is not None:
            self._greeting.switch(message)

    def _on_writable(self) -> None:
        while self._unsent:
            data = self._unsent[0]
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                return
            except OSError as error:
                self.hang_up(self._death(f"broke the connection ({_reason(error)})"))
                return
            if sent < len(data):
                self._unsent[0] = data[sent:]
                return
            self._unsent.popleft()
        self._writer.stop()

    def _set_alarm(self, deadline: float, now: float) -> None:
        # Set only when the deadline comes before the alarm that is already set: on a busy connection once per
        # time-out instead of once per call.
        if self._alarm is not None:
            self._alarm.stop()
            self._alarm.close()
        self._alarm_at = deadline
        self._alarm = self._loop.timer(max(0.0, deadline - now))
        self._alarm.start(self._on_alarm, update=True)

    def _on_alarm(self) -> None:
        self._alarm_at = math.inf
        if not self._pending:
            return
        now = monotonic()
        if self._pending[0].reach_head(now) <= now:
            # An answer that can already be read wins: perhaps only the hub was late.
            self._on_readable()
            if self.error is not None or not self._pending:
                return
        call = self._pending[0]
        deadline = call.reach_head(now)
        if deadline > now:
            if deadline < math.inf:
                self._set_alarm(deadline, now)
            return
        self.hang_up(
            CallTimeout(
                f"{call.method} took longer than {call.timeout:g} s in {self.label}; the worker is given up. "
                "If the call may take so long, raise the client's timeout"
            )
        )

    def _greeting_overdue(self, timeout: float) -> None:
        self.hang_up(
            ProtocolError(
                f"nobody greeted at {self.address} within {timeout:g} s: is it a gtask server, or does setup hang?"
            )
        )

    # --- helpers ---------------------------------------------------------------------------------------

    def _flush(self) -> None:
        if self._burst and self.error is None:
            data = b"".join(self._burst)
            self._burst.clear()
            self._write(data)

    def _write(self, data: bytes) -> None:
        if self._unsent:
            self._unsent.append(memoryview(data))
            return
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.hang_up(self._death(f"broke the connection ({_reason(error)})"))
            return
        if sent < len(data):
            self._unsent.append(memoryview(data)[sent:])
            self._writer.start(self._on_writable)

    def _death(self, how: str) -> Error:
        if not self._pending:
            return WorkerDied(f"{self.label} {how}", pid=self.pid or None)
        call = self._pending[0]
        elapsed = monotonic() - call.sent_at
        partly = " half way through its reply" if self._decoder.midway else ""
        return WorkerDied(
            f"{self.label} {how}{partly} {elapsed:.3g} s after {call.method} was called; "
            "whether it was executed is not known",
            pid=self.pid or None,
            method=call.method,
            elapsed=elapsed,
        )


_A_DO, _A_DONE = Do(()), Done()
_DONE_FRAME = Encoder().encode(_A_DONE)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)


def connect(address: Address, timeout: float) -> Any:
    """A connected non-blocking socket; blocks this greenlet.

    It is an ordinary socket, also under monkey-patching. gevent's own connect is not used on unix sockets:
    while the server's backlog is full it spins. Here that is an error, for the caller's backoff.

    Args:
        timeout: seconds to wait for a TCP peer; a unix socket connects at once or not at all.

    Raises:
        OSError: no connection; TimeoutError is one.
    """
    if isinstance(address, UnixAddress):
        sock = _PlainSocket(gevent_socket.AF_UNIX, gevent_socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.connect(address.sockaddr)
        except BaseException:
            sock.close()
            raise
        return sock
    return _connect_tcp(address, timeout)


def _connect_tcp(address: TcpAddress, timeout: float) -> Any:
    cooperative = gevent_socket.create_connection(address.sockaddr, timeout=timeout)
    sock = _PlainSocket(fileno=cooperative.detach())
    sock.setblocking(False)
    sock.setsockopt(gevent_socket.IPPROTO_TCP, gevent_socket.TCP_NODELAY, 1)
    return sock


_PlainSocket: Any = gevent.monkey.get_original("socket", "socket")
