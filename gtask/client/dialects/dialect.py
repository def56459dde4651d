"""A dialect: the language that a client and a worker speak, as one value that their connection follows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from gtask.wire.conversation import Conversation
from gtask.wire.values.agreement import PLAIN, Agreement

if TYPE_CHECKING:
    from gtask.wire.messages import Greeting, LastWords, Message, RequestMeta
    from gtask.wire.shared.channel import Channel
    from gtask.wire.values.agreement import ConditionalFrame

__all__ = ["Dialect", "EncodeRequest", "Reader"]

EncodeRequest = Callable[
    [tuple[Any, ...], dict[str, Any], int, "RequestMeta | None", "str | None"], "bytes | ConditionalFrame"
]
"""Makes the frame of a call from its arguments, its epoch, its ``meta`` and the name of its method, which comes before
the arguments if there is one; raises EncodeError."""


class Reader(Protocol):
    """Reads what a worker sends: the ReplyDecoder of :mod:`gtask.wire.lastwords` or of :mod:`gtask.wire.json.text`.

    Attributes:
        space: where the next bytes are to be put.
    """

    space: memoryview

    @property
    def midway(self) -> bool:
        """Whether part of a message has come."""

    def plain_value(self, count: int, /) -> Any:
        """The value, if the next bytes are a whole reply with nothing but a value; else NOT_PLAIN, and
        :meth:`received` is to be called. Raises ProtocolError."""

    def received(self, count: int, /) -> list[Message]:
        """The messages that became whole with the next bytes; raises ProtocolError."""

    def ended(self) -> LastWords | None:
        """After the end of the stream: the last words, if there are any."""


def _nothing(reader: Any, greeting: Greeting, channel: Channel | None) -> Agreement:
    return PLAIN


def _no_channel(sock: Any) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a client speaks to a worker.

    Attributes:
        encode_request: makes the frame of a call.
        encode: makes the frame of any other message; raises EncodeError.
        make_reader: makes what reads one connection.
        make_conversation: makes the state of one connection, which has the table of the language.
        greeting: what the client says first, answered by the worker's greeting; None where nobody greets.
        open_channel: makes a channel for shared memory beside a connected socket, if there can be one.
        agree: notes what both sides have agreed upon, from the reader of the connection, the worker's greeting, and
            this side's end of the channel, if one was opened.
        at_once: how many requests may be under way at a time. The others wait in the client, and are dropped there when
            one before them raises.
        has_preambles: whether a worker can be told what it must know before a call.
        unpickle: loads an attribute of an exception that has come pickled; None without consent.
        has_last_words: whether something may still be heard of a worker after the client has half-closed.
        max_extension: seconds by which a worker may extend a call, all its extensions together.
    """

    encode_request: EncodeRequest
    encode: Callable[[Message], bytes]
    make_reader: Callable[[], Reader]
    make_conversation: Callable[[], Conversation] = Conversation
    greeting: Greeting | None = None
    open_channel: Callable[[Any], Channel | None] = _no_channel
    agree: Callable[[Any, Greeting, Channel | None], Agreement] = _nothing
    at_once: float = math.inf
    has_preambles: bool = False
    unpickle: Callable[[bytes], Any] | None = None
    has_last_words: bool = False
    max_extension: float = 0.0
