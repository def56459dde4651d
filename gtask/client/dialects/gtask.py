"""The dialect of gtask's own servers: msgpack, greetings on both sides, last words, any number of requests at once."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from gtask.client.dialects.dialect import Dialect
from gtask.wire.frames import Encoder
from gtask.wire.lastwords import ReplyDecoder
from gtask.wire.messages import Greeting
from gtask.wire.values import agreement, arrays

if TYPE_CHECKING:
    from gtask.client.config import ClientConfig

__all__ = ["gtask_dialect"]


def gtask_dialect(config: ClientConfig) -> Dialect:
    """The dialect of a client with these options."""
    encoder = Encoder(config.limit_message, agreement.hoped_for(config.pickle))
    numpy = arrays.is_installed()
    return Dialect(
        encode_request=encoder.encode_request,
        encode=encoder.encode,
        make_reader=partial(ReplyDecoder, config.limit_message),
        greeting=Greeting(name=config.name, timeout=config.timeout, pickle=config.pickle, numpy=numpy),
        agree=partial(_agree, config.pickle, numpy),
        has_last_words=True,
    )


def _agree(pickle: bool, numpy: bool, reader: ReplyDecoder, greeting: Greeting) -> agreement.Agreement:
    agreed = agreement.at_client(pickle, numpy, greeting)
    reader.agree(agreed)
    return agreed
