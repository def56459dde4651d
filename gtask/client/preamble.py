"""What a worker must know before a call: changed standing orders, and the rest of the call's time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gtask.errors import EncodeError
from gtask.wire.messages import Preamble

if TYPE_CHECKING:
    from gtask.aspects.aspect import StandingOrders
    from gtask.client.dialects.dialect import Dialect
    from gtask.wire.conversation import Conversation

__all__ = ["NO_ORDERS", "Preambles", "preamble_of"]


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


class Preambles:
    """The preambles of one connection.

    Args:
        orders: the standing orders for the client's workers.
        dialect: the language of the connection.
        conversation: notes each preamble.

    Attributes:
        hold: true while the orders that the worker knows are those that hold.
    """

    __slots__ = ("_conversation", "_dialect", "_orders", "_told", "hold")

    def __init__(self, orders: StandingOrders, dialect: Dialect, conversation: Conversation) -> None:
        self.hold: Any = None
        self._orders: StandingOrders = orders if dialect.has_preambles else NO_ORDERS
        self._dialect = dialect
        self._conversation = conversation
        self._told: Any = None

    def next(self, left: float) -> bytes:
        """The frame of what the worker must know before the next call; none if there is nothing.

        Args:
            left: as for :func:`preamble_of`.
        """
        orders, told = self._orders.current(), self._told
        self.hold, self._told = self._orders.holds, orders
        preamble = preamble_of(orders if orders is not told else None, left)
        if preamble is None or not self._dialect.has_preambles:
            return b""
        self._conversation.client_says(preamble)
        try:
            return self._dialect.encode(preamble)
        except EncodeError:  # over a small limit_message: fewer words, and perhaps more records than are wanted
            preamble.levels = {"": min((preamble.levels or {}).values(), default=0)}
            return self._dialect.encode(preamble)
