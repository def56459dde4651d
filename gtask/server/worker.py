"""A worker: greets, runs setup, then reads a call, runs it and replies, until its client hangs up.

:func:`serve` never returns: whatever happens, the process ends in it. Nothing here is asynchronous, and only here
does the application's code run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from time import monotonic
from typing import NoReturn

from gtask.errors import EncodeError, ProtocolError
from gtask.server import process
from gtask.server.config import ServerConfig
from gtask.server.interface import Interface
from gtask.wire import failure
from gtask.wire.codec import Decoder, Encoder
from gtask.wire.exchange import Exchange
from gtask.wire.messages import Bye, Do, Done, Er, Hi, Message, Ok, Sk

__all__ = ["serve"]

log = logging.getLogger("gtask.server")

SHORT = 200
"""Characters of an error's text that fit into any message."""

QUICK, HOLD = 50e-6, 200e-6
"""Seconds. The reply of a call waits for the next one's, if that lies in the buffer already and its method has always
been quick, and for so long at the most: sending each of many replies by itself would cost more than the calls."""


def serve(sock: socket.socket, interface: Interface, config: ServerConfig) -> NoReturn:
    """Serve one connection in this freshly forked process, then end the process.

    Args:
        sock: the connection, blocking.
        interface: what to call; its setup has not run.
        config: the server's options.
    """
    status = 1
    try:
        worker = _Worker(sock, interface, config)
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
    except BaseException:
        log.exception("worker %d failed", os.getpid())
    finally:
        with contextlib.suppress(BaseException):
            process.flush()
        os._exit(status)


class _Worker:
    def __init__(self, sock: socket.socket, interface: Interface, config: ServerConfig) -> None:
        self._socket = sock
        self._interface = interface
        self._config = config
        self._exchange = Exchange()
        self._encode = Encoder(config.limit_message).encode
        self._decoder = Decoder(config.limit_message)
        self._in_checkout = False
        self._early: list[Message] = []
        self._held: list[bytes] = []
        self._hold_until = 0.0
        self._usual: dict[str, float] = {}

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
            self._interface.setup()
        except BaseException as error:  # whatever it is, the client is told
            hi.text, hi.exc = failure.text(error), failure.describe(_without_our_frames(error))
        try:
            self._say(hi)
        except EncodeError:  # over a small limit_message
            hi.text, hi.exc = hi.text[:SHORT], None
            self._say(hi)
        self._flush()
        return not hi.text

    def run(self) -> None:
        """Serve calls until the client hangs up, then run the hooks that are due."""
        try:
            messages = self._early
            while True:
                for message in messages:
                    self._hear(message)
                self._flush()
                messages = self._receive()
                if not messages:
                    return
        finally:
            try:
                if self._in_checkout:
                    self._interface.checkout_done()
            finally:
                self._interface.teardown()

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
        method = args[0] if args and type(args[0]) is str else ""
        started = monotonic()
        if self._held and (started > self._hold_until or self._usual.get(method, 1.0) > QUICK):
            self._flush()
        try:
            frame = self._encode(ok := Ok(self._interface.call(args, do.kwargs)))
        except Exception as error:
            self._raised(do, error)
        except BaseException as error:  # SystemExit and its like leave the application in an unknown state
            self._say(Bye(f"{type(error).__name__} in a call"))
            self._raised(do, error)
        else:
            self._exchange.worker_says(ok)
            if not self._held:
                self._hold_until = started + HOLD
            self._held.append(frame)
        took = monotonic() - started
        usual = self._usual.get(method)
        if usual is None:
            if len(self._usual) < 1000:  # a callable may get anything as its first argument
                self._usual[method] = took
        elif took > usual or usual > QUICK:
            self._usual[method] = max(took, 0.9 * usual)

    def _raised(self, do: Do, error: BaseException) -> None:
        self._exchange.failed(do)
        text = failure.text(error)
        try:
            self._say(Er(text, failure.describe(_without_our_frames(error))))
        except EncodeError:  # over a small limit_message
            self._say(Er(text[:SHORT]))

    def _end_checkout(self) -> None:
        if not self._interface.has_checkout_done:
            return
        try:
            self._interface.checkout_done()
        except BaseException as error:  # the calls of the checkout have been answered; what is left may be unclean
            log.exception("checkout_done failed in worker %d; it asks to be retired", os.getpid())
            self._say(Bye(f"checkout_done raised {failure.text(error)}"))
        self._say(Done())

    def _say(self, message: Message) -> None:
        frame = self._encode(message)
        self._exchange.worker_says(message)
        self._held.append(frame)

    def _flush(self) -> None:
        if self._held:
            data = self._held[0] if len(self._held) == 1 else b"".join(self._held)
            self._held.clear()
            self._socket.sendall(data)

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
    """The error with a traceback that begins in the application."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_globals.get("__name__", "").startswith("gtask.server."):
        traceback = traceback.tb_next
    return error.with_traceback(traceback)
