"""What a worker must know before a call: changed standing orders, and the rest of the call's time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gtask.errors import EncodeError
from gtask.wire.messages import Preamble

if TYPE_CHECKING:
    from gtask.client.dialects.dialect import Dialect

__all__ = ["NO_ORDERS", "encode_preamble", "preamble_of"]


class _NoOrders:
    """The orders of a client that has none: they hold for ever."""

    holds = True
    told = None

    def current(self) -> None:
        return None


NO_ORDERS = _NoOrders()


def preamble_of(orders: Any, left: float) -> Preamble | None:
    """The preamble of the next call; None for none.

    Args:
        orders: the standing orders, if they have changed; else None.
        left: seconds that are left of the call's time; 0 or less, or infinite, for all of it.
    """
    if not 0 < left < math.inf:
        return None if orders is None else Preamble(orders)
    return Preamble(orders, left)


def encode_preamble(dialect: Dialect, preamble: Preamble) -> bytes:
    """The frame of a preamble."""
    try:
        return dialect.encode(preamble)
    except EncodeError:  # over a small limit_message: fewer words, and perhaps more records than are wanted
        preamble.levels = {"": min((preamble.levels or {}).values(), default=0)}
        return dialect.encode(preamble)
