"""The random decisions of a caller. Pure: the same seed gives the same turns, whatever becomes of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["CANCEL", "KILL", "TIMEOUT", "Step", "Turn", "turns"]

HANGS = 0.005
KILLED = 0.02
CANCELLED = 0.01
"""Of the last two, about half come too late to strike."""

DROPPED = 0.05
RAISING = 0.02
QUEUED = 0.3
LARGE = 0.01

HANG_METHODS = ("hang_asleep",) * 16 + ("hang_in_python",) * 3 + ("hang_in_c",)
"""Few loops, for each keeps a processor busy until it is ended."""

KILL, TIMEOUT, CANCEL = "kill", "timeout", "cancel"


@dataclass(frozen=True, slots=True)
class Step:
    """One call.

    Attributes:
        method: of the application.
        size: bytes of its argument, and of its value.
        seconds: how long it takes.
    """

    method: str
    size: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Turn:
    """One checkout and what is done with it.

    Attributes:
        steps: its calls.
        queued: whether they are submitted all at once; else one is made after the other.
        dropped: whether its last reference is dropped instead of its being released.
        fate: KILL or TIMEOUT of its greenlet, CANCEL of the checkout, or "".
        in_line: whether the fate's time runs from the beginning; else from the first answer.
        moment: when the fate comes, from 0 to 1.
        pause: how long its caller rests afterwards, with a mean of 1.
    """

    steps: tuple[Step, ...]
    queued: bool
    dropped: bool
    fate: str
    in_line: bool
    moment: float
    pause: float

    @property
    def hangs(self) -> bool:
        return self.steps[0].method in HANG_METHODS


def turns(seed: int, caller: int) -> Iterator[Turn]:
    """What this caller does, without end."""
    decide = random.Random(f"{seed}/{caller}")
    while True:
        steps = [_step(decide) for _ in range(decide.choice((1, 1, 2, 2, 3, 5)))]
        if decide.random() < HANGS:
            steps.insert(0, Step(decide.choice(HANG_METHODS), 10, 0))
        fate = _fate(decide.random(), decide.choice((KILL, TIMEOUT)))
        yield Turn(
            steps=tuple(steps),
            queued=decide.random() < QUEUED,
            dropped=decide.random() < DROPPED and fate != CANCEL,
            fate=fate,
            in_line=decide.random() < 0.5,
            moment=decide.random(),
            pause=decide.expovariate(1),
        )


def _step(decide: random.Random) -> Step:
    method = "fail" if decide.random() < RAISING else "work"
    size = decide.randrange(100_000, 500_000) if decide.random() < LARGE else decide.randrange(10, 200)
    return Step(method, size, decide.expovariate(1 / 0.004) if decide.random() < 0.5 else 0)


def _fate(chance: float, interruption: str) -> str:
    if chance < KILLED:
        return interruption
    return CANCEL if chance < KILLED + CANCELLED else ""
