"""How many members of a set, or keys of a map, may have one hash. Pure.

Each of them is compared with all others of its hash. A peer can choose numbers that have one hash, for the hash of a
number is no secret: ten thousand of them take seconds, a million weeks. Text and bytes have hashes that nobody knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gtask.wire.limits import DEFAULTS

__all__ = ["MOST_COLLISIONS", "check_hashes", "checked_map"]

MOST_COLLISIONS = DEFAULTS.collisions


def check_hashes(items: Sequence[Any]) -> None:
    """Refuse members or keys too many of which have the hash of another one; raises ValueError."""
    if len(items) > MOST_COLLISIONS:
        collisions = len(items) - len({hash(item) for item in items})
        if collisions > MOST_COLLISIONS:
            raise ValueError(
                f"{collisions} of {len(items)} members or keys have the hash of another; the limit is {MOST_COLLISIONS}"
            )


def checked_map(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    """The map of these pairs; raises ValueError as :func:`check_hashes`."""
    check_hashes([key for key, _ in pairs])
    return dict(pairs)
