"""The language of a peer, as a worker holds it, and how the worker recognises the language by its first byte."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from gtask.aspects.aspect import WorkerAspect
    from gtask.server.config import ServerConfig
    from gtask.server.worker.worker import Worker
    from gtask.wire.messages import Greeting, Message, Request
    from gtask.wire.pieces import LargeFrame

__all__ = ["Dialect", "DialectFactory", "first_byte", "recognise"]


class Decoder(Protocol):
    """Bytes to messages."""

    @property
    def space(self) -> memoryview:
        """Where the next bytes are to be put."""

    @property
    def midway(self) -> bool:
        """Whether part of a message has come and its rest has not."""

    def received(self, count: int) -> list[Message]:
        """The messages that became whole with the next ``count`` bytes in ``space``.

        Raises:
            ProtocolError: the bytes are no message.
        """


class Conversation(Protocol):
    """Whose turn it is; see :class:`gtask.wire.conversation.Conversation`."""

    state: str

    def client_says(self, message: Message) -> None: ...

    def worker_says(self, message: Message) -> None: ...

    def done(self) -> None: ...

    def must_skip(self, do: Request) -> bool: ...

    def failed(self, do: Request) -> None: ...


class Dialect(Protocol):
    """The language of one connection.

    Attributes:
        opening: the first byte by which the language is recognised; b"" for any.
        greets: whether the client greets, and the worker answers once setup has run. Else setup runs before the first
            call, and again before each until it succeeds.
        is_terse: whether the client hears nothing but the replies to its calls: no messages before them, no answer to
            the end of a checkout, no reply of a call that was interrupted, and no last words of the master.
        setup_failed: how the text of an error begins that setup has raised, if nobody greets.
        aspects: the aspects of its own.
        pickle: makes a pickle of a part of an exception; None where pickles are not agreed upon.
        decoder: reads the client's messages.
        conversation: its table.
    """

    opening: bytes
    greets: bool
    is_terse: bool
    setup_failed: str
    aspects: Sequence[WorkerAspect]
    pickle: Callable[[Any], bytes] | None

    @property
    def decoder(self) -> Decoder: ...

    @property
    def conversation(self) -> Conversation: ...

    def encode(self, message: Message) -> bytes:
        """The bytes of a message; raises EncodeError."""

    def encode_value(self, value: Any) -> bytes | LargeFrame:
        """The bytes of the reply with this value; raises EncodeError."""

    def begin_reading(self) -> int:
        """Read the first bytes of the connection into the decoder's space, and what may come with them; gives how many
        bytes have come."""

    def agree(self, hello: Greeting, reply: Greeting) -> None:
        """The client has greeted: say in the reply what may travel, and keep to it from now on."""

    def retire(self, worker: Worker, reason: str) -> None:
        """Have the client let go of the worker. Called after each call and checkout, as long as there is a reason."""

    def end(self, worker: Worker, reason: str) -> None:
        """The worker ends, for its master has let nothing more come; the client has not hung up.

        Args:
            reason: why, in words; or "".
        """


class DialectFactory(Protocol):
    """A class of dialects."""

    opening: bytes

    def __call__(self, sock: socket.socket, config: ServerConfig) -> Dialect: ...


def recognise(
    sock: socket.socket, deadline: float, config: ServerConfig, dialects: Sequence[DialectFactory]
) -> Dialect:
    """The language of this client: the first of ``dialects`` whose ``opening`` it has sent; the last opens with b""."""
    first = first_byte(sock, deadline)
    return next(dialect for dialect in dialects if dialect.opening in (b"", first))(sock, config)


def first_byte(sock: socket.socket, deadline: float) -> bytes:
    """The first byte that the client has sent, which is left to be read.

    Args:
        sock: the connection, blocking.
        deadline: when, on the monotonic clock, the byte must have come.

    Returns:
        The byte; b"" if the client has hung up, or was silent. A silent client can send nothing more, so that a request
        that it is just about to send goes to another worker.
    """
    sock.settimeout(max(1e-3, deadline - monotonic()))
    try:
        return sock.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        with contextlib.suppress(OSError):  # it has hung up in this moment
            sock.shutdown(socket.SHUT_RD)
        return sock.recv(1, socket.MSG_PEEK)
