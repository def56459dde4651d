"""A worker: greets, runs setup, then reads a call, runs it and replies, until its client hangs up.

Nothing here is asynchronous but SIGALRM, by which the master interrupts a call. The application's code runs only here.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

from gtask.errors import EncodeError, Interrupted, ProtocolError
from gtask.server import process
from gtask.server.scoreboard import HOOKS, SETUP
from gtask.server.worker import setups
from gtask.server.worker.dialect import recognise
from gtask.server.worker.interruption import Interruption, without_our_frames
from gtask.server.worker.methods import Methods
from gtask.server.worker.misfits import explain
from gtask.server.worker.replies import QUICK, ReplyBuffer, Teller
from gtask.wire.exceptions import failure
from gtask.wire.messages import WORDS, Done, Failure, Greeting, Message, Preamble, Request, Skipped

if TYPE_CHECKING:
    import socket

    from gtask.aspects.aspect import WorkerAspect, WorkerAspectFactory, WorkerCompanion
    from gtask.server.config import ServerConfig
    from gtask.server.scoreboard import BoardLine
    from gtask.server.worker.dialect import Conversation, Dialect, DialectFactory
    from gtask.server.worker.interface import Interface

__all__ = ["Worker"]

log = logging.getLogger("gtask.server")

SHORT = 200
"""Characters of an error's text that fit into any message."""


class Worker:
    """One worker. Aspects read what it is doing.

    Args:
        sock, interface, config, board, aspects: as of :func:`gtask.server.worker.serve.serve`.

    Attributes:
        dialect: the client's language, once its first byte has come.
        client: the name of the client, or "".
        timeout: seconds that its calls may take unless they say otherwise; None for no limit.
        left: seconds that the next call, or the one that runs, has left after its wait for this worker; else None.
        request: the call that runs; None between calls.
        started: when it began, on the monotonic clock.
        companions: what comes along with it; a companion that is added while the call runs is left at its end, too.
        replies: where frames are written.
        teller: where messages before the reply are written, by any thread.
        interruption: what SIGALRM may interrupt.
    """

    dialect: Dialect
    _conversation: Conversation
    _encode_value: Callable[[Any], bytes]

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
        self.client = ""
        self.timeout: float | None = None
        self.left: float | None = None
        self.request: Request | None = None
        self.started = 0.0
        self.companions: list[WorkerCompanion] = []
        self._socket = sock
        self._interface = interface
        self._is_set_up = False
        self._has_checkout_done = interface.has_checkout_done
        self._methods = Methods(interface)
        self._retire_reason = ""
        self._must_look = config.max_memory is not None  # for a reason to retire, after each call
        self._has_failed = False  # so that calls of the same epoch are skipped
        self._waits = False  # for the client's next message
        self._early: list[Message] = []
        self._hearers: dict[type, Callable[[Any], float]] = dict.fromkeys(WORDS, self._refuse)
        self._hearers.update({Preamble: self._prepare, Done: self._end_checkout, Request: self._call})
        self._take(tuple(make(self) for make in aspects))

    def _take(self, aspects: tuple[WorkerAspect, ...]) -> None:
        self._aspects = aspects
        self._aspects_of_every_call = tuple(aspect for aspect in aspects if aspect.every_call)

    # --- greeting --------------------------------------------------------------------------------------

    def greet(self, dialects: Sequence[DialectFactory], status_interface: Interface) -> bool:
        """Hear the client's first message; answer a greeting once setup has run.

        Returns:
            False if there is nobody to serve, or setup has failed.
        """
        # A peer that says nothing, or little by little, must not keep a worker.
        deadline = monotonic() + self.config.greeting_timeout
        self.dialect = dialect = recognise(self._socket, deadline, self.config, dialects)
        self._conversation, self._encode_value = dialect.conversation, dialect.encode_value
        self._take((*self._aspects, *self.dialect.aspects))
        if self.dialect.is_terse:
            self.board.want_no_last_words()
        self._early = self._receive(deadline)
        if not self._early:
            return False
        if not self.dialect.greets:
            self._hearers[Request] = self._first_call
            return True
        hello = self._early.pop(0)
        self._conversation.client_says(hello)
        assert isinstance(hello, Greeting)  # the client's turn to say nothing else
        return self._answer(hello, status_interface)

    def _receive(self, deadline: float) -> list[Message]:
        """The client's first messages; none when it has hung up, or at the deadline."""
        decoder = self.dialect.decoder
        while True:
            self._socket.settimeout(max(1e-3, deadline - monotonic()))
            count = self._socket.recv_into(decoder.space)
            if not count:
                return []
            messages: list[Message] = decoder.received(count)
            if messages or monotonic() > deadline:
                self._socket.settimeout(None)
                return messages

    def _answer(self, hello: Greeting, status_interface: Interface) -> bool:
        self.client, self.timeout = hello.name, hello.timeout
        self.board.name_client(hello.name)
        if hello.about:
            self._interface, self._methods, self.board.call_weight = status_interface, Methods(status_interface), 0.0
            self._has_checkout_done = status_interface.has_checkout_done
        reply = Greeting(name=self.config.name, pid=os.getpid(), done=self._has_checkout_done)
        self.dialect.agree(hello, reply)
        error = self._set_up()
        if error is not None:
            reply.text, reply.exc = failure.text(error), self._described(error)
        self.board.end(monotonic())
        try:
            self.say(reply)
        except EncodeError:  # over a small limit_message
            reply.text, reply.exc = reply.text[:SHORT], None
            self.say(reply)
        if self._retire_reason and not reply.text:
            self._retire()
        return not reply.text

    def _set_up(self) -> BaseException | None:
        try:
            self._run(SETUP, self._interface.setup)
        except BaseException as error:  # whatever it is, the client is told
            setups.complain(self.board, error)
            return error
        self._is_set_up = True
        return None

    def _first_call(self, request: Request) -> float:
        """Where nobody greets, each call tries setup until it succeeds, and may be told the error."""
        error = self._set_up()
        if self.interruption.error is not None:
            return monotonic()
        if error is not None:
            self._conversation.client_says(request)
            self._fail(f"{self.dialect.setup_failed}{failure.text(error)}", error)
            return monotonic()
        self._hearers[Request] = self._call
        return self._call(request)

    # --- serving ---------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve calls until the client hangs up, or the master does; then run the hooks that are due."""
        try:
            self._hear_all(self._early)
        finally:
            with contextlib.suppress(OSError):  # the client may be gone; the hooks run all the same
                self.replies.flush()
            try:
                if self.board.lent and self._is_set_up:
                    self._run(HOOKS, self._interface.checkout_done)
            finally:
                try:
                    if self._is_set_up:
                        self._run(HOOKS, self._interface.teardown)
                finally:
                    for aspect in self._aspects:
                        aspect.close()

    def _hear_all(self, messages: list[Message]) -> None:
        """Hear these messages, then what the client says, until it hangs up or a call was interrupted."""
        replies, hearers, interruption = self.replies, self._hearers, self.interruption
        decoder, recv_into = self.dialect.decoder, self._socket.recv_into
        message: Message | None
        while True:
            if messages:
                last: Message | None = messages[-1]
                for message in messages:
                    replies.more_follow = message is not last
                    now = hearers[type(message)](message)
                    if interruption.error is not None:
                        return
                    if self._must_look:
                        self._look_for_reasons()
                self.board.end(now)
                message = last = None  # or their values would wait for the client, too
                messages.clear()
            self._waits = True
            count = recv_into(decoder.space)
            self._waits = False
            if not count:
                break
            messages = decoder.received(count)
        if self.board.is_shut:
            self.dialect.end(self, self._retire_reason)

    def _refuse(self, message: Message) -> NoReturn:
        """A client never says this to a worker that serves."""
        self._conversation.client_says(message)
        raise ProtocolError(f"the client said {type(message).__name__}")

    def _prepare(self, preamble: Preamble) -> float:
        self._conversation.client_says(preamble)
        self.left = preamble.left
        for aspect in self._aspects:
            aspect.heard(preamble)
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
        self.started = started = monotonic()
        if replies.is_holding:
            replies.before(method.usual, started)
        self.board.begin_call(started, method.label)
        self.request = request
        try:
            if request.meta is not None or request.used or self._aspects_of_every_call:
                self._begin(request, method.name)
            interruption.began = started
            if companions:
                self._enter()
            function, args = method.function, args[method.takes :]
            frame = encode(function(*args, **kwargs) if kwargs else function(*args))
            interruption.began = 0.0
        except BaseException as raised:
            interruption.began = 0.0
            error = raised
        self.request = self.left = None
        if self.teller.is_busy:
            self.teller.wait()
        ended = monotonic()
        if ended - started > QUICK or method.usual > QUICK:
            method.usual = max(ended - started, method.usual / 2)
        if error is None and interruption.error is None and not companions:
            replies.send(frame)
        else:
            self._conclude(request, interruption.error or error, frame if error is None else b"")
            error = None  # it knows this frame
        return ended

    def _conclude(self, request: Request, error: BaseException | None, frame: bytes) -> None:
        """The end of a call that is out of the ordinary: an error counts, also if the application has swallowed it."""
        while self.companions:
            self.companions.pop().leave(error)
        if error is None:
            self.replies.send(frame)
        else:
            self._raised(request, error)

    def _skip(self, request: Request) -> float:
        self.board.lent = True
        self._conversation.client_says(request)
        self.say(Skipped())
        return monotonic()

    def _begin(self, request: Request, name: str) -> None:
        is_plain = not request.used and (request.meta is None or not request.meta.concerns_aspects)
        for aspect in self._aspects_of_every_call if is_plain else self._aspects:
            companion = aspect.begin(request, name)
            if companion is not None:
                self.companions.append(companion)

    def _enter(self) -> None:
        for companion in self.companions:
            companion.enter()

    def _raised(self, request: Request, error: BaseException) -> None:
        if self.dialect.is_terse and self.interruption.error is not None:
            return  # nobody waits for the reply: the connection ends
        kind = type(error)  # isinstance would ask the error itself, too
        if issubclass(kind, MemoryError) or not issubclass(kind, (Exception, Interrupted)):
            self._want_to_retire(f"a call raised {kind.__name__}")
            self._retire()
        self._has_failed = True
        if kind is TypeError:
            method = self._methods.of(request.args)
            explain(error, method.function, request.args[method.takes :], request.kwargs)
        self._conversation.client_says(request)
        self._conversation.failed(request)
        self._fail(failure.text(error), error)

    def _fail(self, text: str, error: BaseException) -> None:
        try:
            self.say(Failure(text, self._described(error)))
        except EncodeError:  # over a small limit_message
            self.say(Failure(text[:SHORT]))

    def _described(self, error: BaseException) -> dict[str, Any]:
        return failure.describe(without_our_frames(error), pickle=self.dialect.pickle)

    def say(self, message: Message) -> None:
        """Send a message, when it is this worker's turn; raises EncodeError."""
        frame = self.dialect.encode(message)
        self._conversation.worker_says(message)
        self.replies.send(frame)

    # --- hooks and the end -----------------------------------------------------------------------------

    def _end_checkout(self, done: Done) -> float:
        replies, conversation = self.replies, self._conversation
        self.board.lent = False
        if replies.holds:
            replies.flush()
        if not self._has_checkout_done and replies.more_follow and conversation.state == "idle":
            return 0.0  # a request follows at once, so that nobody looks at the time
        conversation.done()
        if self._is_set_up and self._has_checkout_done:
            try:
                self._run(HOOKS, self._interface.checkout_done)
            except BaseException as error:  # the calls have been answered; what is left may be unclean
                log.exception("checkout_done failed in worker %d; it asks to be retired", os.getpid())
                self._want_to_retire(f"checkout_done raised {type(error).__name__}")
                self._retire()
            if not self.dialect.is_terse:
                self.say(Done())
        return monotonic()

    def _run(self, phase: int, function: Callable[[], object]) -> None:
        now = monotonic()
        self.board.begin(now, phase)
        self.interruption.began = now
        try:
            function()
        finally:
            self.interruption.began = 0.0

    def on_term(self, number: int, frame: object) -> None:
        """The handler of SIGTERM: ask to be retired, as soon as no reply is half written."""
        self._want_to_retire("others wait for a worker" if self.board.is_wanted_back else "the server drains")
        if self._waits and self._conversation.state == "idle":
            self._retire()

    def _want_to_retire(self, reason: str) -> None:
        self._retire_reason = self._retire_reason or reason
        self._must_look = True

    def _retire(self) -> None:
        self.dialect.retire(self, self._retire_reason)

    def _look_for_reasons(self) -> None:
        """After a message was heard: is the worker too large, or has it been told to retire?"""
        limit = self.config.max_memory
        if limit is not None and not self._retire_reason and process.resident_memory() > limit:
            self._want_to_retire(f"more than {limit // (1 << 20)} MiB of memory")
        if self._retire_reason:
            self._retire()
