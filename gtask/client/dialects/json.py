"""The dialect of AnyEvent::Task's servers in Perl: JSON text, no greeting, no last words, one request at a time.

Such a worker knows no queues. It runs all that lies in its socket, also behind a call that has raised.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from gtask.client.dialects.dialect import Dialect
from gtask.wire.json.conversation import JsonConversation
from gtask.wire.json.text import Encoder, ReplyDecoder

if TYPE_CHECKING:
    from gtask.client.config import ClientConfig

__all__ = ["json_dialect"]


def json_dialect(config: ClientConfig) -> Dialect:
    """The dialect of a client with these options."""
    encoder = Encoder(config.limit_message)
    return Dialect(
        encode_request=encoder.encode_request,
        encode=encoder.encode,
        make_reader=partial(ReplyDecoder, config.limit_message),
        make_conversation=JsonConversation,
        at_once=1,
    )
