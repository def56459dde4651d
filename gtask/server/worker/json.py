"""The language of clients that speak JSON, such as one of AnyEvent::Task, as a worker speaks it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gtask import logdefer
from gtask.aspects.aspect import WorkerAspect
from gtask.errors import EncodeError
from gtask.wire.json.conversation import SETUP_EXCEPTION, JsonConversation
from gtask.wire.json.text import OPENING, Decoder, Encoder, writable
from gtask.wire.messages import Failure, Greeting, Message, Request, Value

if TYPE_CHECKING:
    from gtask.server.config import ServerConfig
    from gtask.server.worker.worker import Worker

__all__ = ["JsonDialect"]


class JsonDialect:
    """A client that speaks JSON: it does not greet, and hears nothing but the replies to its calls.

    Args:
        sock: the connection.
        config: the server's options.
    """

    opening = OPENING
    greets = False
    is_terse = True
    setup_failed = SETUP_EXCEPTION
    pickle: Callable[[Any], bytes] | None = None

    def __init__(self, sock: socket.socket, config: ServerConfig) -> None:
        self._socket = sock
        self._encode = Encoder(config.limit_message).encode
        self.decoder = Decoder(config.limits)
        self.conversation = JsonConversation()
        self._log = _DeferredLog()
        self.aspects: Sequence[WorkerAspect] = (self._log,)

    def encode(self, message: Message) -> bytes:
        """The text of a message; an error has the deferred log with it, if there is room. Raises EncodeError."""
        if type(message) is Failure:
            message.ld = self._log.part()
            try:
                return self._encode(message)
            except EncodeError:  # too large together
                message.ld = None
        return self._encode(message)

    def encode_value(self, value: Any) -> bytes:
        """The text of a value, with the deferred log unless both together are too large. Raises EncodeError."""
        text = self._encode(Value(value))
        part = self._log.part()
        if part is not None:
            with contextlib.suppress(EncodeError):
                text = self._encode(Value(value, part))
        return text

    def begin_reading(self) -> int:
        """Nothing comes with the first bytes."""
        return self._socket.recv_into(self.decoder.space)

    def agree(self, hello: Greeting, reply: Greeting) -> None:
        """Nobody greets."""
        raise AssertionError

    def retire(self, worker: Worker, reason: str) -> None:
        """Between checkouts: hang up. The client cannot be asked to let go."""
        if not worker.board.lent and not worker.replies.more_follow:
            self.hang_up()

    def end(self, worker: Worker, reason: str) -> None:
        """There is no word for it."""

    def hang_up(self) -> None:
        """Let nothing more come, unless something has come already, with which the next checkout begins.

        On a unix socket nothing is lost: the client hears of it when it sends.
        """
        if self.decoder.midway:
            return
        try:
            self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            with contextlib.suppress(OSError):  # it has hung up in this moment
                self._socket.shutdown(socket.SHUT_RD)
        except OSError:
            pass  # it is gone


class _DeferredLog(WorkerAspect):
    """The deferred log of each call, which goes with the reply, for nothing can go before it."""

    every_call = True

    def __init__(self) -> None:
        self._part: dict[str, Any] | None = None

    def begin(self, request: Request, method: str) -> _DeferredLog:
        self._part = None
        logdefer.begin_call()
        return self

    def enter(self) -> None:
        """Nothing to be loaded."""

    def leave(self, error: BaseException | None) -> None:
        self.part()
        logdefer.end_call()

    def part(self) -> dict[str, Any] | None:
        """What the call has written, as JSON can carry it; None for nothing. The same until the next call begins."""
        if self._part is None:
            part = logdefer.take()
            self._part = None if part is None else writable(part)
        return self._part
