"""The words of the ledger: the slot of a worker, its states, and the actions that the ledger returns. Pure."""

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
        drain_generation: how often the pool had been drained when the slot was made.
        checkouts: how often the worker has been lent.
        most_checkouts: how often the worker may be lent.
        ends_at: the time at which the worker's lifetime is over.
        since: the time at which the worker was lent, or released.
        waited: seconds that the holder had waited in line.
        leak_reported: whether the present checkout has been reported as leaked.
        retire_reason: why the worker asked to be retired, or "".
        holder: the lease that has the worker, while the slot is busy.
        worker: the pool's connection; the ledger does not look at it.
    """

    drain_generation: int
    state: str = CONNECTING
    checkouts: int = 0
    most_checkouts: float = math.inf
    ends_at: float = math.inf
    since: float = 0.0
    waited: float = 0.0
    leak_reported: bool = False
    retire_reason: str = ""
    holder: Any = None
    worker: Any = None


@dataclass(slots=True, frozen=True)
class Pressure:
    """How crowded the line is.

    Attributes:
        waiting: how many stand in it.
        longest: seconds that the first of them has waited.
    """

    waiting: int
    longest: float


@dataclass(slots=True, frozen=True)
class Connect:
    """Open a connection for this slot, then report ``connected`` or ``failed``."""

    slot: PoolSlot


@dataclass(slots=True)  # frozen, it would take three times as long to make, at each hand-over
class Give(Generic[W]):
    """Offer this slot's worker to the waiter; report ``refused`` if the waiter does not take it."""

    slot: PoolSlot
    waiter: W


@dataclass(slots=True, frozen=True)
class Close:
    """Close the connection of this slot, which the ledger has forgotten."""

    slot: PoolSlot


@dataclass(slots=True, frozen=True)
class Fail(Generic[W]):
    """Tell this waiter, which has left the line, that it gets no worker.

    Attributes:
        why: the client is ``closed``, ``setup failed``, the line is ``full``, or the waiter was ``shed``.
    """

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
