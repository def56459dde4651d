"""A worker: greets, runs setup, then reads a call, runs it and replies, until its client hangs up.

:func:`serve` never returns: whatever happens, the process ends in it. Nothing here is asynchronous but SIGALRM, by
which the master interrupts a call, and only here does the application's code run.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import socket
from collections.abc import Callable
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any, NoReturn

from gtask import logdefer
from gtask import running_call as current
from gtask.aspects import context as contextbridge
from gtask.aspects import tracing
from gtask.aspects.worker import Reporter
from gtask.errors import EncodeError, Interrupted, ProtocolError
from gtask.server import process
from gtask.server.config import ServerConfig
from gtask.server.scoreboard import CALL, HOOKS, SETUP, BoardLine
from gtask.server.worker.interface import Interface
from gtask.server.worker.json import JsonPeer, first_byte
from gtask.server.worker.replies import ReplyBuffer
from gtask.wire.conversation import Conversation
from gtask.wire.exceptions import failure
from gtask.wire.frames import Decoder, Encoder
from gtask.wire.json import text as jsontext
from gtask.wire.json.conversation import SETUP_EXCEPTION
from gtask.wire.messages import Done, Failure, Greeting, Message, Preamble, Request, RequestMeta, Retire, Skipped, Value
from gtask.wire.values import offers
from gtask.wire.values.pickles import unseal

__all__ = ["serve"]

log = logging.getLogger("gtask.server")

FLUSH = 1.0
"""Seconds that a worker's end may wait until its spans have left it."""

SHORT = 200
"""Characters of an error's text that fit into any message."""


def serve(
    sock: socket.socket, interface: Interface, config: ServerConfig, slot: BoardLine, about: Interface
) -> NoReturn:
    """Serve one connection in this freshly forked process, then end the process.

    Args:
        sock: the connection, blocking.
        interface: what to call; its setup has not run.
        config: the server's options.
        slot: this worker's line of the scoreboard.
        about: what to call instead if the client asks about the server.
    """
    status = 1
    try:
        faulthandler.enable(slot.stacks)
        worker = _Worker(sock, interface, config, slot, about)
        for number, handler in worker.handlers.items():
            signal.signal(number, handler)
        os.register_at_fork(after_in_child=worker.on_fork)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # what the master has sent meanwhile was held back
        current.provide(worker.current_call)
        logdefer.watch(worker.story.deferred)
        if worker.greet():
            worker.run()
        status = 0
    except ProtocolError as error:
        log.warning("worker %d closes its connection: %s", os.getpid(), error)
        status = 0
    except (ConnectionError, TimeoutError) as error:
        # The client is gone; that is how a connection ends when a client gives up its call.
        log.debug("worker %d lost its client: %s", os.getpid(), error)
        status = 0
    except Interrupted as error:
        log.warning("worker %d was interrupted in its hooks", os.getpid(), exc_info=error)
    except BaseException:  # whatever the hooks raise: the log has it, and the process ends
        log.exception("worker %d failed", os.getpid())
    finally:
        with contextlib.suppress(BaseException):
            process.flush()
        os._exit(status)


class _Worker:
    def __init__(
        self, sock: socket.socket, interface: Interface, config: ServerConfig, slot: BoardLine, about: Interface
    ) -> None:
        self.handlers = {signal.SIGALRM: self.on_alarm, signal.SIGTERM: self.on_term}
        if config.log_file:
            self.handlers[signal.SIGUSR1] = self.on_usr1
        self._socket = sock
        self._interface = interface
        self._about = about
        self._counts = 1  # how much a call adds to the number of calls
        self._config = config
        self._slot = slot
        self._exchange = Conversation()
        self._encoder = Encoder(config.limit_message)
        self._encode = self._encoder.encode
        self._decoder: Decoder | jsontext.Decoder = Decoder(config.limit_message)
        self._json: JsonPeer | None = None  # who the client is, if it speaks JSON
        self._replies = ReplyBuffer(sock, slot, self.on_alarm)
        self.story = Reporter(
            self._replies, self._encode, f"{config.name} worker", lambda: self.on_alarm(signal.SIGALRM, None)
        )
        self._client = ""
        self._timeout: float | None = None  # of its calls
        self._left: float | None = None  # of the next call, if it has waited for this worker
        self._call: Request | None = None
        self._started = 0.0
        self._extension = (0.0, 0.0)  # when the call began that has asked for more time, and until when
        self._variables = contextbridge.Finder()
        self._asks = ""  # why it wants to be retired
        self._has_asked = False
        self._waits = False  # for the client's next word
        self._early: list[Message] = []
        # What SIGALRM may interrupt: the time at which it began, or 0 for nothing.
        self._interruptible = 0.0
        self._interruption: Interrupted | None = None

    def on_alarm(self, number: int, frame: object) -> None:
        """The handler of SIGALRM: raise at the line that runs, if the master meant what runs now."""
        began = self._interruptible
        if not began:
            return
        if self.story.on_alarm():
            return
        if self._slot.is_aimed_at(began):
            self._interruptible = 0.0
            self._interruption = Interrupted("the caller has given up, or the call took longer than the server allows")
            raise self._interruption

    def on_term(self, number: int, frame: object) -> None:
        """The handler of SIGTERM: ask to be retired, as soon as no reply is half written."""
        self._asks = self._asks or "the server drains"
        if self._waits and self._exchange.state == "idle":
            self._ask()

    def on_usr1(self, number: int, frame: object) -> None:
        """The handler of SIGUSR1: open the log file anew; if that cannot be, its master says so."""
        with contextlib.suppress(OSError):
            process.reopen(self._config.log_file)

    def on_fork(self) -> None:
        """In a process that the application has forked: signals mean there what they mean anywhere."""
        for number, handler in self.handlers.items():
            if signal.getsignal(number) == handler:  # not if the application has its own
                signal.signal(number, signal.SIG_DFL)

    def greet(self) -> bool:
        """Hear the client's greeting, run setup, answer; False if there is nobody to serve, or no way to.

        A JSON peer does not greet: its first byte tells what it is, and setup runs before its first call.
        """
        # A peer that says nothing, or little by little, must not keep a worker.
        deadline = monotonic() + self._config.greeting_timeout
        if first_byte(self._socket, deadline) == jsontext.OPENING:
            self._json = peer = JsonPeer(self._socket, self._interface, self._config.limit_message)
            self._exchange, self._encode, self._decoder = peer.exchange, peer.encode, peer.decoder
            self._interface = peer.before_setup
            self._slot.want_no_last_words()
            self.story.is_terse = True
        self._early = self._receive(deadline)
        if not self._early or self._json is not None:
            return bool(self._early)
        hello = self._early.pop(0)
        self._exchange.client_says(hello)
        if isinstance(hello, Greeting):
            self._client, self._timeout = hello.name, hello.timeout
            self._agree(hello)
            if hello.about:
                self._interface, self._counts = self._about, 0
        hi = Greeting(
            name=self._config.name,
            pid=os.getpid(),
            done=self._interface.has_checkout_done,
            offers=self._offers(),
        )
        try:
            self._run(SETUP, self._interface.setup)
        except BaseException as error:  # whatever it is, the client is told
            hi.text, hi.exc = failure.text(error), failure.describe(_without_our_frames(error))
        self._slot.end(monotonic())
        try:
            self._say(hi)
        except EncodeError:  # over a small limit_message
            hi.text, hi.exc = hi.text[:SHORT], None
            self._say(hi)
        if self._asks and not hi.text:
            self._ask()
        return not hi.text

    def _offers(self) -> frozenset[str]:
        return offers.offered(offers.consented(self._config.pickle))

    def _agree(self, hello: Greeting) -> None:
        """What may travel from here on is what both sides have said."""
        agreed = offers.at_worker(self._offers(), hello)
        self._encoder.agree(agreed)
        assert isinstance(self._decoder, Decoder)  # a JSON peer does not greet
        self._decoder.agree(agreed)

    def run(self) -> None:
        """Serve calls until the client hangs up, or the master does; then run the hooks that are due."""
        try:
            messages = self._early
            hear = self._hear if self._json is None else partial(self._hear_json, self._json)
            while True:
                last = len(messages) - 1
                for index, message in enumerate(messages):
                    self._replies.more_follow = index < last
                    hear(message)
                    if self._interruption is not None:
                        return
                self._slot.end(monotonic())
                messages = self._receive()
                if not messages:
                    if self._asks:  # its master has let nothing more come
                        self._ask()
                    return
        finally:
            with contextlib.suppress(OSError):  # the client may be gone; the hooks run all the same
                self._replies.flush()
            try:
                if self._slot.lent:
                    self._run(HOOKS, self._interface.checkout_done)
            finally:
                try:
                    self._run(HOOKS, self._interface.teardown)
                finally:
                    tracing.flush(FLUSH)

    def _run(self, phase: int, function: Callable[[], object]) -> None:
        now = monotonic()
        self._slot.begin(now, phase)
        self._interruptible = now
        try:
            function()
        finally:
            self._interruptible = 0.0

    def _hear(self, message: Message) -> None:
        self._exchange.client_says(message)
        if type(message) is Request:
            self._slot.lent = True
            if self._exchange.must_skip(message):
                self._say(Skipped())
            else:
                self._execute(message)
            if self._asks or self._config.max_memory is not None:
                self._look_for_reasons()
        elif type(message) is Preamble:
            if message.levels is not None:
                self.story.capture.want(message.levels)
            self._left = message.left
        elif type(message) is Done:
            self._slot.lent = False
            self._end_checkout()
            if self._asks:
                self._ask()

    def _hear_json(self, peer: JsonPeer, message: Message) -> None:
        """What a JSON peer says. As long as setup has not succeeded, each call tries it, and may be told the error."""
        if type(message) is Request and self._interface is peer.before_setup:
            try:
                self._run(SETUP, peer.interface.setup)
            except BaseException as error:  # whatever it is, the client is told
                if self._interruption is None:
                    self._exchange.client_says(message)
                    self._say_error(SETUP_EXCEPTION + failure.text(error), error)
                return
            if self._interruption is not None:  # and setup has swallowed it
                return
            self._interface = peer.interface
        self._hear(message)

    def _execute(self, do: Request) -> None:
        args = do.args
        method = args[0] if args and type(args[0]) is str else "()"
        started = monotonic()
        self._slot.calls += self._counts
        self._replies.before(method, started)
        self._slot.begin(started, CALL, method)
        error: BaseException | None = None
        extras = do.meta
        tokens = span = None
        if extras is not None:
            tokens = self._variables.set(extras.context) if extras.context and not do.used else None
            if extras.headers:
                known = "()" if self._interface.is_function else method
                span = tracing.serve_call(known, extras.headers, self._config.name)
        self._call, self._started = do, started
        story = self.story
        if (extras is not None and extras.ld) or story.is_terse:
            story.defer()
        story.capture.is_open = True
        try:
            self._interruptible = started
            if do.used:
                _unseal(do)
                tokens = self._variables.set(do.meta.context) if do.meta is not None else None
            frame = self._encode(ok := Value(self._interface.call(args, do.kwargs)))
            self._interruptible = 0.0
        except BaseException as raised:
            self._interruptible = 0.0
            error = raised
        with story.lock:
            story.capture.is_open = False
        ld = story.end() if story.has_told else None
        self._call = self._left = None
        self._replies.after(method, started)
        error = self._interruption or error  # also if the application has swallowed it
        if tokens is not None:
            contextbridge.reset(tokens)
        if span is not None:
            span.end(error)
        if ld is not None:
            ld = jsontext.writable(ld)
            if error is None:
                with contextlib.suppress(EncodeError):  # too large together: then without it
                    frame = self._encode(Value(ok.value, ld))
        if error is None:
            self._exchange.worker_says(ok)
            self._replies.send(frame)
        else:
            self._raised(do, error, ld)
            error = None  # it knows this frame

    def current_call(self) -> current.CurrentCall | None:
        """What :func:`gtask.current_call` gives: the call that runs."""
        do = self._call
        if do is None:
            return None
        extras = do.meta or _NO_EXTRAS
        timeout = extras.timeout if extras.has_timeout else self._timeout
        if self._left is not None:
            timeout = self._left
        deadline = None if timeout is None else max(self._started + timeout, self._until())
        method = do.args[0] if do.args and type(do.args[0]) is str else "()"
        return current.CurrentCall(method, self._client, deadline, extras.headers, extras.context, self._extend)

    def _until(self) -> float:
        """How long this call may take at least, as it has asked for; 0 if it has not."""
        began, until = self._extension
        return until if began == self._started else 0.0

    def _extend(self, seconds: float) -> None:
        if self._call is not None:
            until = max(self._until(), monotonic() + seconds)
            self._extension = self._started, until
            self._slot.extend(self._started, until)
            self.story.extend(seconds)

    def _raised(self, do: Request, error: BaseException, ld: dict[str, Any] | None) -> None:
        if self._json is not None and self._interruption is not None:
            return  # nobody waits for the reply: the connection ends
        kind = type(error)  # isinstance would ask the error itself, too
        if issubclass(kind, MemoryError) or not issubclass(kind, (Exception, Interrupted)):
            self._asks = self._asks or f"a call raised {kind.__name__}"
            self._ask()
        self._exchange.failed(do)
        self._say_error(failure.text(error), error, ld)

    def _say_error(self, text: str, error: BaseException, ld: dict[str, Any] | None = None) -> None:
        try:
            self._say(Failure(text, failure.describe(_without_our_frames(error)), ld))
        except EncodeError:  # over a small limit_message
            self._say(Failure(text[:SHORT]))

    def _look_for_reasons(self) -> None:
        """After a call: is it too large, or has it been told to ask?"""
        limit = self._config.max_memory
        if limit is not None and not self._asks and process.resident_memory() > limit:
            self._asks = f"more than {limit // (1 << 20)} MiB of memory"
        if self._asks:
            self._ask()

    def _ask(self) -> None:
        if self._json is not None:
            if not self._slot.lent and not self._replies.more_follow:
                self._json.hang_up()
        elif not self._has_asked:
            self._has_asked = True
            self._say(Retire(self._asks[:SHORT]))

    def _end_checkout(self) -> None:
        if self._replies.holds:
            self._replies.flush()
        if not self._interface.has_checkout_done:
            return
        try:
            self._run(HOOKS, self._interface.checkout_done)
        except BaseException as error:  # the calls of the checkout have been answered; what is left may be unclean
            log.exception("checkout_done failed in worker %d; it asks to be retired", os.getpid())
            self._asks = self._asks or f"checkout_done raised {type(error).__name__}"
            self._ask()
        if self._json is None:
            self._say(Done())

    def _say(self, message: Message) -> None:
        frame = self._encode(message)
        self._exchange.worker_says(message)
        self._replies.send(frame)

    def _receive(self, deadline: float | None = None) -> list[Message]:
        """The next messages, at least one; none when the client has hung up, or at the deadline if there is one."""
        decoder = self._decoder
        while True:
            if deadline is not None:
                self._socket.settimeout(max(1e-3, deadline - monotonic()))
            self._waits = True
            count = self._socket.recv_into(decoder.space)
            self._waits = False
            if not count:
                return []
            messages = decoder.received(count)
            if messages or (deadline is not None and monotonic() > deadline):
                if deadline is not None:
                    self._socket.settimeout(None)
                return messages


_NO_EXTRAS = RequestMeta()


def _unseal(do: Request) -> None:
    """Load what has come pickled in a call. It is part of the call: it is interrupted with it, and may raise."""
    unseal(do.args, lambda index: f"argument {index}")
    unseal(do.kwargs, lambda name: f"argument {name}")
    if do.meta is not None:
        unseal(do.meta.context, lambda name: f"the context variable {name}")


def _without_our_frames(error: BaseException) -> BaseException:
    """The error with a traceback that begins and ends in the application."""
    # By way of BaseException: the error's own attributes may be code of the application.
    first: TracebackType | None = vars(BaseException)["__traceback__"].__get__(error)
    while first is not None and str(first.tb_frame.f_globals.get("__name__")).startswith("gtask.server."):
        first = first.tb_next
    last = first
    while last is not None and last.tb_next is not None:
        if last.tb_next.tb_frame.f_code is _Worker.on_alarm.__code__:
            last.tb_next = None
        else:
            last = last.tb_next
    return BaseException.with_traceback(error, first)
