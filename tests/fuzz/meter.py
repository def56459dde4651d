"""How many inputs a target has had, which was the slowest, and which made the process grow most."""

from __future__ import annotations

import json
import resource
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter

__all__ = ["LONGEST", "Meter", "Outcome"]

LONGEST = 64 * 1024
"""Bytes of an input."""

SLOW = 10.0
"""Seconds that an input may take, also on a loaded machine with each branch watched."""

GROWTH = 128 * 1024
"""KiB by which the process may grow with one input."""

EVERY = 500
"""Inputs after which the outcome is written anew."""


@dataclass
class Outcome:
    """What became of a target.

    Attributes:
        inputs: their number.
        slowest: the seconds and the bytes of the slowest input.
        growth: the KiB by which the process grew at most with one input, and the bytes of that input.
        crashes: for each input that went wrong its file, and the error.
    """

    inputs: int = 0
    slowest: tuple[float, int] = (0.0, 0)
    growth: tuple[int, int] = (0, 0)
    crashes: list[tuple[str, str]] = field(default_factory=list)


class Meter:
    """Runs a target, and keeps the outcome in a file: the process may end at any moment.

    Args:
        target: takes an input, and raises if that goes wrong.
        directory: of the file, and of inputs that went wrong.
    """

    def __init__(self, target: Callable[[bytes], None], directory: Path) -> None:
        self._target, self._directory = target, directory
        self._peak = _peak()
        self.outcome = Outcome()

    def __call__(self, data: bytes) -> None:
        """Run the target with this input; what it raises is noted, and raised again."""
        outcome, began = self.outcome, perf_counter()
        try:
            self._target(data)
            took, grown = perf_counter() - began, _peak() - self._peak
            self._peak += grown
            assert took < SLOW, f"it took {took:.1f} s"
            assert outcome.inputs == 0 or grown < GROWTH, f"the process grew by {grown} KiB"
        except Exception:
            if outcome.crashes:
                raise  # hypothesis tries it again
            path = self._directory / f"crash-{len(outcome.crashes)}"
            path.write_bytes(data)
            outcome.crashes.append((str(path), traceback.format_exc()))
            self.write()
            raise
        outcome.inputs += 1
        is_news = False
        if took > outcome.slowest[0]:
            outcome.slowest, is_news = (took, len(data)), True
        if outcome.inputs > 1 and grown > outcome.growth[0]:
            outcome.growth, is_news = (grown, len(data)), True
        if is_news or outcome.inputs % EVERY == 0:
            self.write()

    def write(self) -> None:
        """Write the outcome down."""
        (self._directory / "outcome.new").write_text(json.dumps(asdict(self.outcome)))
        (self._directory / "outcome.new").rename(self._directory / "outcome")


def read(directory: Path) -> Outcome:
    """The outcome that a meter has written down; an empty one if it has written none."""
    path = directory / "outcome"
    return Outcome(**json.loads(path.read_text())) if path.exists() else Outcome()


def _peak() -> int:
    """The most KiB that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
