"""The words of the ledger: a slot for each worker, its states, and the actions that the ledger returns. Pure."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

__all__ = [
    "BUSY",
    "CLOSED",
    "CONNECTING",
    "FULL",
    "GONE",
    "IDLE",
    "SETTLING",
    "SETUP_FAILED",
    "SHED",
    "Action",
    "Close",
    "Connect",
    "Fail",
    "Give",
    "Leaked",
    "PoolSlot",
    "Pressure",
    "Unreachable",
    "W",
]

W = TypeVar("W", bound=Hashable)

CONNECTING, IDLE, BUSY, SETTLING, GONE = "connecting", "idle", "busy", "settling", "gone"
CLOSED, SETUP_FAILED, FULL, SHED = "closed", "setup failed", "full", "shed"


@dataclass(slots=True, eq=False)
class PoolSlot:
    """Room for one worker.

    Attributes:
        state: ``connecting``, ``idle``, ``busy``, ``settling`` (checkout_done runs) or ``gone``.
        era: how often the pool had been drained when it was made.
        checkouts: how often it has been lent, and ``most_checkouts``, how often it may be.
        ends_at: when its lifetime is over.
        since: when it was lent, or released.
        waited: seconds that its holder had waited for it.
        told: whether it has been reported as leaked in this checkout.
        asked: why its worker asked to be retired, or "".
        holder: who has it, while it is busy.
        worker: the pool's; the ledger does not look at it.
    """

    era: int
    state: str = CONNECTING
    checkouts: int = 0
    most_checkouts: float = math.inf
    ends_at: float = math.inf
    since: float = 0.0
    waited: float = 0.0
    told: bool = False
    asked: str = ""
    holder: Any = None
    worker: Any = None


@dataclass(slots=True, frozen=True)
class Pressure:
    """How crowded the line is: how many wait, and how long the first of them has waited, in seconds."""

    waiting: int
    longest: float


@dataclass(slots=True, frozen=True)
class Connect:
    """Open a connection for this slot, then report ``connected`` or ``failed``."""

    slot: PoolSlot


@dataclass(slots=True)  # not frozen, which would make its making three times as long, for each checkout
class Give(Generic[W]):
    """Offer this slot's worker to the waiter; report ``refused`` if it does not take it."""

    slot: PoolSlot
    waiter: W


@dataclass(slots=True, frozen=True)
class Close:
    """Close the connection of this slot, which the ledger has forgotten."""

    slot: PoolSlot


@dataclass(slots=True, frozen=True)
class Fail(Generic[W]):
    """Tell this waiter, who is out of the line now, that it gets no worker: the client is ``closed``, ``setup failed``,
    the line is ``full``, or it was ``shed``."""

    waiter: W
    why: str
    pressure: Pressure


@dataclass(slots=True, frozen=True)
class Leaked:
    """Report that this slot's worker has been lent for longer than leak_after."""

    slot: PoolSlot


@dataclass(slots=True, frozen=True)
class Unreachable:
    """Report that no worker could be had for reconnect_timeout."""


Action = Connect | Give[Any] | Close | Fail[Any] | Leaked | Unreachable
