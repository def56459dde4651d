"""A worker: reads a call, runs it and replies, until its client hangs up.

Nothing here is asynchronous but SIGALRM, by which the master interrupts a call. The application's code runs only here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

from gtask.errors import Interrupted, ProtocolError
from gtask.server.worker import failures
from gtask.server.worker.companions import Companions
from gtask.server.worker.hooks import Hooks
from gtask.server.worker.interruption import Interruption
from gtask.server.worker.methods import Methods
from gtask.server.worker.misfits import explain
from gtask.server.worker.replies import QUICK, ReplyBuffer
from gtask.server.worker.retirement import Ended, Retirement
from gtask.server.worker.teller import Teller
from gtask.wire.forms import WORDS
from gtask.wire.messages import SERVED, Done, Message, Preamble, Request, Skipped

if TYPE_CHECKING:
    import socket

    from gtask.aspects.aspect import WorkerAspectFactory
    from gtask.server.config import ServerConfig
    from gtask.server.scoreboard import BoardLine
    from gtask.server.worker.dialect import Dialect
    from gtask.server.worker.interface import Interface
    from gtask.wire.pieces import LargeFrame

__all__ = ["Worker"]

SMALL = 4096
"""Bytes of messages that are decoded so quickly that the scoreboard need not show it: within a millisecond or two."""


class Worker:
    """One worker. Aspects read what it is doing.

    Args:
        sock, interface, config, board, aspects: as of :func:`gtask.server.worker.serve.serve`.

    Attributes:
        socket: its connection.
        dialect: the client's language, once it is known.
        client: the name of the client, or "".
        timeout: seconds that its calls may take unless they say otherwise; None for no limit.
        left: seconds that the next call, or the one that runs, has left after its wait for this worker; else None.
        request: the call that runs; None between calls.
        started: when it began, on the monotonic clock: when its first byte came, if the worker had waited for it.
        companions: what comes along with it.
        replies: where frames are written.
        teller: where messages before the reply are written, by any thread.
        interruption: what SIGALRM may interrupt.
        retirement: whether it wants to be retired.
        hooks: of the interface.
        has_checkout_done: whether there is a hook of this name.
        hearers: what hears a message of the client and gives when it was done, by the message's class.
        is_waiting: whether it waits for the client's next message.
    """

    def __init__(
        self,
        sock: socket.socket,
        interface: Interface,
        config: ServerConfig,
        board: BoardLine,
        aspects: Sequence[WorkerAspectFactory],
    ) -> None:
        self.config = config
        self.board = board
        self.interruption = Interruption(board, lambda: self.replies.flush())
        self.replies = ReplyBuffer(sock, board, self.interruption.on_alarm)
        self.teller = Teller(self.replies, self.interruption, lambda: self.request is not None)
        self.retirement = Retirement(self)
        self.client = ""
        self.timeout: float | None = None
        self.left: float | None = None
        self.request: Request | None = None
        self.started = 0.0
        self.companions = Companions()
        self.is_waiting = False
        self.hearers: dict[type, Callable[[Any], float]] = dict.fromkeys(WORDS, self._refuse)
        self.hearers.update({Preamble: self._prepare, Done: self._end_checkout, Request: self._call})
        self.socket = sock
        self._has_failed = False  # so that calls of the same epoch are skipped
        self._make_aspects = aspects
        self.offer(interface)

    def offer(self, interface: Interface) -> None:
        """Serve this interface from now on."""
        self.hooks = Hooks(interface, self.board, self.interruption)
        self.has_checkout_done = interface.has_checkout_done
        self._methods = Methods(interface)

    def speak(self, dialect: Dialect) -> None:
        """Speak this language from now on."""
        self.dialect, self._conversation, self._encode_value = dialect, dialect.conversation, dialect.encode_value
        self.companions.take((*(make(self) for make in self._make_aspects), *dialect.aspects))
        if dialect.is_terse:
            self.board.want_no_last_words()

    def run(self, messages: list[Message]) -> None:
        """Hear these messages, and serve calls until the client hangs up; then run the hooks that are due."""
        try:
            with contextlib.suppress(Ended, Interrupted), failures.told(self):
                self._hear_all(messages)
            self.retirement.end()
        finally:
            with contextlib.suppress(OSError):  # the client may be gone; the hooks run all the same
                self.replies.flush()
            try:
                self.hooks.end()
            finally:
                self.companions.close()

    def _hear_all(self, messages: list[Message]) -> None:
        """Hear these messages, then what the client says, until it hangs up or a call was interrupted."""
        replies, hearers, interruption, retirement = self.replies, self.hearers, self.interruption, self.retirement
        decoder, recv_into, board = self.dialect.decoder, self.socket.recv_into, self.board
        message: Message | None
        while True:
            if messages:
                last: Message | None = messages[-1]
                if type(last) is Done and len(messages) > 1:
                    last = messages[-2]  # the end of a checkout is no reason to hold its last reply
                replies.more_follow = True
                for message in messages:
                    if message is last:
                        replies.more_follow = False
                    now = hearers[type(message)](message)
                    if interruption.error is not None:
                        return
                    if retirement.may_be_due:
                        retirement.look()
                board.end(now)
                message = last = None  # or their values would wait for the client, too
                messages.clear()
            if decoder.midway:
                interruption.began = board.begin_reading(monotonic())
            self.is_waiting = True
            count = recv_into(decoder.space)
            self.is_waiting = False
            if count > SMALL:
                interruption.began = board.begin_reading(monotonic())
            messages = decoder.received(count)
            interruption.began = 0.0
            if not count:
                break

    def _refuse(self, message: Message) -> NoReturn:
        """A client never says this to a worker that serves."""
        self._conversation.client_says(message)
        raise ProtocolError(f"the client said {type(message).__name__}")

    def _prepare(self, preamble: Preamble) -> float:
        self._conversation.client_says(preamble)
        self.left = preamble.left
        self.companions.heard(preamble)
        return monotonic()

    def _call(self, request: Request) -> float:
        """Run a call, and send or hold its reply.

        Returns:
            when the call ended, on the monotonic clock.
        """
        # A value leads back to idle, where its request was heard: the table need not be asked for either.
        if self._conversation.state != "idle" or (self._has_failed and self._conversation.must_skip(request)):
            return self._skip(request)
        replies, interruption, companions, encode = self.replies, self.interruption, self.companions, self._encode_value
        args, kwargs, error = request.args, request.kwargs, None
        try:
            method = self._methods[args[0]]
        except (IndexError, TypeError):
            method = self._methods.of(args)
        self.started = started = self.board.read_at or monotonic()
        if replies.is_holding:
            replies.before(method.usual, started)
        self.board.begin_call(started, method.label)
        self.request = request
        try:
            if (request.meta is not None and request.meta.concerns_aspects) or request.used or companions.of_every_call:
                companions.begin(request, method.name)
            interruption.began = started
            if companions:
                companions.enter()
            function, args = method.function, args[method.takes]
            frame = encode(function(*args, **kwargs) if kwargs else function(*args))
            interruption.began = 0.0
        except BaseException as raised:
            interruption.began, error = 0.0, raised
        self.request = self.left = None
        if self.teller.is_busy:
            self.teller.wait()
        ended = monotonic()
        took = ended - started
        if took > QUICK or method.usual > QUICK:
            method.usual = took if took > method.usual / 2 else method.usual / 2
        if error is None and interruption.error is None and not companions:
            replies.send(frame)
            request.args = SERVED
        else:
            self._conclude(request, interruption.error or error, frame if error is None else b"")
            error = None  # it knows this frame
        return ended

    def _conclude(self, request: Request, error: BaseException | None, frame: bytes | LargeFrame) -> None:
        """The end of a call that is out of the ordinary: an error counts, also if the application has swallowed it."""
        self.companions.leave(error)
        if error is None:
            self.replies.send(frame)
        else:
            self._raised(request, error)

    def _skip(self, request: Request) -> float:
        self.board.lent = True
        self._conversation.client_says(request)
        self.say(Skipped())
        return monotonic()

    def _raised(self, request: Request, error: BaseException) -> None:
        if self.dialect.is_terse and self.interruption.error is not None:
            return  # nobody waits for the reply: the connection ends
        kind = type(error)  # isinstance would ask the error itself, too
        if issubclass(kind, MemoryError) or not issubclass(kind, (Exception, Interrupted)):
            self.retirement.want(f"a call raised {kind.__name__}")
            self.retirement.ask()
        self._has_failed = True
        if kind is TypeError:
            method = self._methods.of(request.args)
            explain(error, method.function, request.args[method.takes], request.kwargs)
        self._conversation.client_says(request)
        self._conversation.failed(request)
        failures.tell(self, error)

    def say(self, message: Message) -> None:
        """Send a message, when it is this worker's turn; raises EncodeError."""
        frame = self.dialect.encode(message)
        self._conversation.worker_says(message)
        self.replies.send(frame)

    def _end_checkout(self, done: Done) -> float:
        replies, conversation = self.replies, self._conversation
        self.board.lent = False
        if replies.holds:
            replies.flush()
        if not self.has_checkout_done and replies.more_follow and conversation.state == "idle":
            return 0.0  # a request follows at once, so that nobody looks at the time
        conversation.done()
        if self.has_checkout_done:
            error = self.hooks.checkout_done()
            if error is not None:  # the calls have been answered; what is left may be unclean
                self.retirement.want(f"checkout_done raised {type(error).__name__}")
                self.retirement.ask()
            if not self.dialect.is_terse:
                self.say(Done())
        return monotonic()
