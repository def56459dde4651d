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
from time import monotonic
from typing import NoReturn

from gtask.errors import EncodeError, Interrupted, ProtocolError
from gtask.server import process
from gtask.server.config import ServerConfig
from gtask.server.interface import Interface
from gtask.server.scoreboard import CALL, HOOKS, SETUP, Slot
from gtask.wire import failure
from gtask.wire.codec import Decoder, Encoder
from gtask.wire.exchange import Exchange
from gtask.wire.messages import Bye, Do, Done, Er, Hi, Message, Ok, Sk

__all__ = ["serve"]

log = logging.getLogger("gtask.server")

QUICK, HOLD = 50e-6, 200e-6
"""Seconds. The reply of a call waits for the next one's, if that lies in the buffer already and its method has always
been quick, and for so long at the most: sending each of many replies by itself would cost more than the calls. It waits
in the slot, where the master finds it should the next call hang or end the worker."""

METHODS = 1000
"""How many methods a worker remembers the usual time of: a callable may get anything as its first argument."""


def serve(sock: socket.socket, interface: Interface, config: ServerConfig, slot: Slot) -> NoReturn:
    """Serve one connection in this freshly forked process, then end the process.

    Args:
        sock: the connection, blocking.
        interface: what to call; its setup has not run.
        config: the server's options.
        slot: this worker's line of the scoreboard.
    """
    status = 1
    try:
        faulthandler.enable(slot.stacks)
        worker = _Worker(sock, interface, config, slot)
        signal.signal(signal.SIGALRM, worker.on_alarm)
        if worker.greet():
            worker.run()
        status = 0
    except ProtocolError as error:
        log.warning("worker %d closes its connection: %s", os.getpid(), error)
        status = 0
    except OSError as error:
        # The client is gone; that is how a connection ends when a client gives up its call.
        log.debug("worker %d lost its client: %s", os.getpid(), error)
        status = 0
    except Interrupted as error:
        log.warning("worker %d was interrupted in its hooks", os.getpid(), exc_info=error)
    except BaseException:
        log.exception("worker %d failed", os.getpid())
    finally:
        with contextlib.suppress(BaseException):
            process.flush()
        os._exit(status)


class _Worker:
    def __init__(self, sock: socket.socket, interface: Interface, config: ServerConfig, slot: Slot) -> None:
        self._socket = sock
        self._interface = interface
        self._config = config
        self._slot = slot
        self._exchange = Exchange()
        self._encode = Encoder(config.limit_message).encode
        self._decoder = Decoder(config.limit_message)
        self._in_checkout = False
        self._early: list[Message] = []
        # What SIGALRM may interrupt: the time at which it began, or 0 for nothing.
        self._interruptible = 0.0
        self._interruption: Interrupted | None = None
        # Until when the replies that the slot holds may wait to be sent together; 0 if it holds none.
        self._hold_until = 0.0
        self._usual: dict[str, float] = {}

    def on_alarm(self, number: int, frame: object) -> None:
        """The handler of SIGALRM: raise at the line that runs, if the master meant what runs now."""
        began = self._interruptible
        if began and self._slot.is_aimed_at(began):
            self._interruptible = 0.0
            self._interruption = Interrupted("the caller has given up, or the call took longer than the server allows")
            raise self._interruption

    def greet(self) -> bool:
        """Hear the client's greeting, run setup, answer; False if there is nobody to serve, or no way to."""
        self._socket.settimeout(self._config.greeting_timeout)  # a peer that says nothing must not keep a worker
        self._early = self._receive()
        if not self._early:
            return False
        self._exchange.client_says(self._early.pop(0))
        self._socket.settimeout(None)
        hi = Hi(name=self._config.name, pid=os.getpid(), done=self._interface.has_checkout_done)
        try:
            self._run(SETUP, self._interface.setup)
        except BaseException as error:  # whatever it is, the client is told
            hi.text, hi.exc = failure.text(error), failure.describe(_without_our_frames(error))
        self._slot.end(monotonic())
        self._say(hi)
        self._flush()
        return not hi.text

    def run(self) -> None:
        """Serve calls until the client hangs up, or the master does; then run the hooks that are due."""
        try:
            messages = self._early
            while True:
                for message in messages:
                    self._hear(message)
                    if self._interruption is not None:
                        return
                self._flush()
                self._slot.end(monotonic())
                messages = self._receive()
                if not messages:
                    return
        finally:
            with contextlib.suppress(OSError):  # the client may be gone; the hooks run all the same
                self._flush()
            try:
                if self._in_checkout:
                    self._run(HOOKS, self._interface.checkout_done)
            finally:
                self._run(HOOKS, self._interface.teardown)

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
        if type(message) is Do:
            self._in_checkout = True
            if self._exchange.must_skip(message):
                self._say(Sk())
            else:
                self._execute(message)
        elif type(message) is Done:
            self._in_checkout = False
            self._end_checkout()

    def _execute(self, do: Do) -> None:
        args = do.args
        method = args[0] if args and type(args[0]) is str else "()"
        started = monotonic()
        if self._hold_until and (started > self._hold_until or self._usual.get(method, 1.0) > QUICK):
            self._flush()
        self._slot.begin(started, CALL, method)
        try:
            self._interruptible = started
            frame = self._encode(ok := Ok(self._interface.call(args, do.kwargs)))
            self._interruptible = 0.0
        except Exception as error:
            self._interruptible = 0.0
            self._raised(do, error)
        except BaseException as error:  # SystemExit and its like leave the application in an unknown state
            self._interruptible = 0.0
            self._say(Bye(f"{type(error).__name__} in a call"))
            self._raised(do, error)
        else:
            if self._interruption is not None:  # which the application has swallowed
                self._raised(do, self._interruption)
                return
            self._exchange.worker_says(ok)
            self._hold(frame, started)
        self._note_time(method, monotonic() - started)

    def _note_time(self, method: str, took: float) -> None:
        usual = self._usual.get(method)
        if usual is None:
            if len(self._usual) < METHODS:
                self._usual[method] = took
        elif took > usual or usual > QUICK:
            self._usual[method] = max(took, 0.9 * usual)

    def _raised(self, do: Do, error: BaseException) -> None:
        error = self._interruption or error
        self._exchange.failed(do)
        text = failure.text(error)
        try:
            self._say(Er(text, failure.describe(_without_our_frames(error))))
        except EncodeError:
            self._say(Er(text))

    def _end_checkout(self) -> None:
        if not self._interface.has_checkout_done:
            return
        self._flush()
        try:
            self._run(HOOKS, self._interface.checkout_done)
        except BaseException as error:  # the calls of the checkout have been answered; what is left may be unclean
            log.exception("checkout_done failed in worker %d; it asks to be retired", os.getpid())
            self._say(Bye(f"checkout_done raised {failure.text(error)}"))
        self._say(Done())

    def _say(self, message: Message) -> None:
        frame = self._encode(message)
        self._exchange.worker_says(message)
        self._hold(frame, monotonic())

    def _hold(self, frame: bytes, now: float) -> None:
        if not self._hold_until:
            self._hold_until = now + HOLD
        if not self._slot.hold(frame):
            self._flush()
            if not self._slot.hold(frame):
                self._socket.sendall(frame)

    def _flush(self) -> None:
        if self._hold_until:
            self._hold_until = 0.0
            self._socket.sendall(self._slot.take_held())

    def _receive(self) -> list[Message]:
        """The next messages, at least one; none when the client has hung up."""
        decoder = self._decoder
        while True:
            count = self._socket.recv_into(decoder.space)
            if not count:
                return []
            messages = decoder.received(count)
            if messages:
                return messages


def _without_our_frames(error: BaseException) -> BaseException:
    """The error with a traceback that begins and ends in the application."""
    first = error.__traceback__
    while first is not None and first.tb_frame.f_globals.get("__name__", "").startswith("gtask.server."):
        first = first.tb_next
    last = first
    while last is not None and last.tb_next is not None:
        if last.tb_next.tb_frame.f_code is _Worker.on_alarm.__code__:
            last.tb_next = None
        else:
            last = last.tb_next
    return error.with_traceback(first)
