"""A worker: greets, runs setup, then reads a call, runs it and replies, until its client hangs up.

:func:`serve` never returns: whatever happens, the process ends in it. Nothing here is asynchronous, and only here
does the application's code run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
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
        self._say(hi)
        return not hi.text

    def run(self) -> None:
        """Serve calls until the client hangs up, then run the hooks that are due."""
        try:
            messages = self._early
            while True:
                for message in messages:
                    self._hear(message)
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
        try:
            frame = self._encode(ok := Ok(self._interface.call(list(do.args), do.kwargs)))
        except Exception as error:
            self._raised(do, error)
        except BaseException as error:  # SystemExit and its like leave the application in an unknown state
            self._say(Bye(f"{type(error).__name__} in a call"))
            self._raised(do, error)
        else:
            self._exchange.worker_says(ok)
            self._socket.sendall(frame)

    def _raised(self, do: Do, error: BaseException) -> None:
        self._exchange.failed(do)
        text = failure.text(error)
        try:
            self._say(Er(text, failure.describe(_without_our_frames(error))))
        except EncodeError:
            self._say(Er(text))

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
        self._socket.sendall(frame)

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
