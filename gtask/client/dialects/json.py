"""The dialect of AnyEvent::Task's servers in Perl: JSON text, no greeting, no last words, one request at a time.

Such a worker knows no queues. It runs all that lies in its socket, also behind a call that has raised. And it runs a
call without what it does not know of it, so keyword arguments and context variables are refused.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from gtask.client.dialects.dialect import Dialect
from gtask.errors import EncodeError
from gtask.wire.json.conversation import JsonConversation
from gtask.wire.json.text import Encoder, ReplyDecoder

if TYPE_CHECKING:
    from gtask.client.config import ClientConfig
    from gtask.client.dialects.dialect import EncodeRequest
    from gtask.wire.messages import RequestMeta

__all__ = ["json_dialect"]


def json_dialect(config: ClientConfig) -> Dialect:
    """The dialect of a client with these options."""
    encoder = Encoder(config.limit_message)
    return Dialect(
        encode_request=_positional(encoder.encode_request),
        encode=encoder.encode,
        make_reader=partial(ReplyDecoder, config.limits),
        make_conversation=JsonConversation,
        at_once=1,
    )


def _positional(encode: EncodeRequest) -> EncodeRequest:
    """The same for calls of which a server of AnyEvent::Task would drop nothing."""

    def encode_request(
        args: tuple[Any, ...], kwargs: dict[str, Any], epoch: int, meta: RequestMeta | None, name: str | None = None
    ) -> Any:
        if kwargs:
            raise EncodeError(
                f"cannot travel: argument {next(iter(kwargs))}. A server of AnyEvent::Task (codec='json') ignores "
                "keyword arguments: pass them by position, or as one dict"
            )
        if meta is not None and meta.context:
            raise EncodeError(
                f"cannot travel: the context variable {next(iter(meta.context))}. A server of AnyEvent::Task "
                "(codec='json') ignores context variables: pass the value as an argument"
            )
        return encode(args, kwargs, epoch, meta, name)

    return encode_request
