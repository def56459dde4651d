"""The language of gtask's own clients, as a worker speaks it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gtask.wire.conversation import Conversation
from gtask.wire.frames import Decoder, Encoder
from gtask.wire.messages import Greeting, Retire
from gtask.wire.shared.channel import adopted
from gtask.wire.values import offers

if TYPE_CHECKING:
    from gtask.aspects.aspect import WorkerAspect
    from gtask.server.config import ServerConfig
    from gtask.server.worker.worker import Worker
    from gtask.wire.shared.channel import Channel

__all__ = ["GtaskDialect"]

SHORT = 200
"""Characters of a reason that fit into any message."""


class GtaskDialect:
    """A client of gtask: it greets, may have many calls under way, and hears all that a worker says.

    Args:
        sock: the connection.
        config: the server's options.
    """

    opening = b""
    greets = True
    is_terse = False
    setup_failed = ""
    aspects: Sequence[WorkerAspect] = ()
    pickle: Callable[[Any], bytes] | None = None

    def __init__(self, sock: socket.socket, config: ServerConfig) -> None:
        self._socket = sock
        self._consents = config.pickle
        self._limit_shared = config.limit_shared
        self._channel: Channel | None = None
        # Two, for other threads may tell something while the value of the call is being encoded.
        self._encoders = Encoder(config.limit_message), Encoder(config.limit_message)
        self.encode, self.encode_value = self._encoders[0].encode_reply, self._encoders[1].encode_value
        self.decoder = Decoder(config.limits)
        self.conversation = Conversation()
        self._has_asked = False

    def begin_reading(self) -> int:
        """The worker's end of a channel for shared memory may come with the first bytes of a unix socket."""
        if self._socket.family != socket.AF_UNIX:
            return self._socket.recv_into(self.decoder.space)
        count, self._channel = adopted(self._socket, self.decoder.space, self._limit_shared)
        return count

    def agree(self, hello: Greeting, reply: Greeting) -> None:
        """From now on what both greetings offer may travel."""
        reply.offers = offers.offered(offers.consented(self._consents, self._channel))
        agreed = offers.at_worker(reply.offers, hello, self._channel)
        for encoder in self._encoders:
            encoder.agree(agreed)
        self.decoder.agree(agreed)
        fallback = agreed.fallback
        self.pickle = None if fallback is None else lambda value: bytes(fallback.make(value).data)

    def retire(self, worker: Worker, reason: str) -> None:
        """Ask the client once to retire the worker."""
        if not self._has_asked:
            self._has_asked = True
            worker.say(Retire(reason[:SHORT]))

    def end(self, worker: Worker, reason: str) -> None:
        """Let the client know that nothing was begun of what it may have sent since."""
        with contextlib.suppress(OSError):  # the client is gone
            worker.say(Retire(reason[:SHORT], end=True))
