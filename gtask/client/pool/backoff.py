"""When to try again. Pure: the randomness is passed in.

Exponential with full jitter over the upper half, so that many clients of one server that went away do not
come back in step (the "decorrelated" idea of AWS's architecture blog).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Backoff"]


@dataclass(slots=True)
class Backoff:
    """The pause before each next attempt.

    Args:
        first: seconds before the second attempt.
        longest: seconds that a pause never exceeds.
        failures: attempts that failed since the last success.
    """

    first: float = 0.02
    longest: float = 0.5
    failures: int = 0

    def failed(self, chance: float) -> float:
        """Note a failure.

        Args:
            chance: a random number from 0 to 1.

        Returns:
            seconds to wait before the next attempt.
        """
        pause = min(self.longest, self.first * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return pause * (0.5 + chance / 2)

    def succeeded(self) -> None:
        """Start over."""
        self.failures = 0
