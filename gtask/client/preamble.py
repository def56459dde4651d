"""What a worker must know before a call: changed standing orders, and the rest of the call's time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gtask.errors import EncodeError
from gtask.wire.messages import Preamble

if TYPE_CHECKING:
    from gtask.aspects.aspect import StandingOrders
    from gtask.client.dialects.dialect import Dialect

__all__ = ["Preambles"]


class Preambles:
    """Those of one connection.

    Args:
        dialect: writes them.
        orders: the client's standing orders; None for none.

    Attributes:
        orders: the same.
        told: the orders that this worker has been told.
    """

    __slots__ = ("_dialect", "orders", "told")

    def __init__(self, dialect: Dialect, orders: StandingOrders | None) -> None:
        self._dialect = dialect
        self.orders = orders
        self.told: Any = None

    def make(self, left: float) -> Preamble | None:
        """The preamble of the next call; None for none.

        Args:
            left: seconds that are left of the call's time; 0 or less, or infinite, for all of it.
        """
        preamble = Preamble()
        orders = None if self.orders is None else self.orders.current()
        if orders is not self.told:
            self.told = preamble.levels = orders
        if 0 < left < math.inf:
            preamble.left = left
        return None if preamble.levels is None and preamble.left is None else preamble

    def encode(self, preamble: Preamble) -> bytes:
        """The frame of a preamble."""
        try:
            return self._dialect.encode(preamble)
        except EncodeError:  # over a small limit_message: fewer words, and perhaps more records than are wanted
            preamble.levels = {"": min((preamble.levels or {}).values(), default=0)}
            return self._dialect.encode(preamble)
