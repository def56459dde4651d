"""The languages that a client can speak to a worker, by the names that the option ``codec`` has for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gtask.client.dialects.gtask import gtask_dialect
from gtask.client.dialects.json import json_dialect

if TYPE_CHECKING:
    from gtask.client.config import ClientConfig
    from gtask.client.dialects.dialect import Dialect

__all__ = ["DIALECTS", "dialect_of"]

DIALECTS: dict[str, Callable[[ClientConfig], Dialect]] = {"msgpack": gtask_dialect, "json": json_dialect}
"""What makes the dialect of a client, by its codec. To add a dialect is to add an entry."""


def dialect_of(config: ClientConfig) -> Dialect:
    """The dialect of a client with these options.

    Raises:
        ValueError: there is none of that name.
    """
    make = DIALECTS.get(config.codec)
    if make is None:
        raise ValueError(f"codec={config.codec!r}: write {' or '.join(map(repr, DIALECTS))}")
    return make(config)
