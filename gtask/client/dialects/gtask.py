"""The dialect of gtask's own servers: msgpack, greetings on both sides, last words, any number of requests at once."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from gtask.client.dialects.dialect import Dialect
from gtask.wire.frames import Encoder
from gtask.wire.lastwords import ReplyDecoder
from gtask.wire.messages import Greeting
from gtask.wire.shared.channel import open_channel
from gtask.wire.values import offers, pickles

if TYPE_CHECKING:
    from gtask.client.config import ClientConfig
    from gtask.wire.shared.channel import Channel
    from gtask.wire.values.agreement import Agreement

__all__ = ["gtask_dialect"]


def gtask_dialect(config: ClientConfig) -> Dialect:
    """The dialect of a client with these options."""
    consent = offers.consented(config.pickle)
    offered = offers.offered(consent)
    encoder = Encoder(config.limit_message, offers.hoped_for(consent))
    return Dialect(
        encode_request=encoder.encode_request,
        encode=encoder.encode,
        make_reader=partial(ReplyDecoder, config.limits),
        greeting=Greeting(name=config.name, timeout=config.timeout, offers=offered),
        open_channel=partial(open_channel, limit=config.limit_shared),
        agree=partial(_agree, offered),
        has_preambles=True,
        unpickle=pickles.load if config.pickle else None,
        has_last_words=True,
        max_extension=config.max_extension,
    )


def _agree(offered: frozenset[str], reader: ReplyDecoder, greeting: Greeting, channel: Channel | None) -> Agreement:
    agreed = offers.at_client(offered, greeting, channel)
    reader.agree(agreed)
    return agreed
