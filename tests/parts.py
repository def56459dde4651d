"""Which test file belongs to which part, so that the parts take the same time: pure, but for the file of seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

__all__ = ["DEFAULT", "SECONDS", "distribute", "read", "write"]

SECONDS = Path(__file__).with_name("seconds.txt")
"""What each test file took when that was measured last, by ``bin/test --measure``: lines of seconds and a path."""

DEFAULT = 5.0
"""Seconds of a file that was not measured yet."""


def distribute(files: Iterable[str], seconds: Mapping[str, float], count: int) -> list[list[str]]:
    """Share files among parts: the longest first, each to the part that has the least to do so far.

    Args:
        files: the paths.
        seconds: path to what the file takes; without it a file takes :data:`DEFAULT`.
        count: how many parts.

    Returns:
        the parts; some are empty if there are fewer files.
    """
    parts: list[list[str]] = [[] for _ in range(count)]
    loads = [0.0] * count
    for path in sorted(files, key=lambda path: (-seconds.get(path, DEFAULT), path)):
        least = loads.index(min(loads))
        parts[least].append(path)
        loads[least] += seconds.get(path, DEFAULT)
    return [sorted(part) for part in parts]


def read(path: Path = SECONDS) -> dict[str, float]:
    """The measured seconds: path to seconds; none if there is no such file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {name: float(number) for number, name in (line.split() for line in lines)}


def write(seconds: Mapping[str, float], path: Path = SECONDS) -> None:
    """Write the measured seconds down."""
    lines = [f"{number:.1f} {name}\n" for name, number in sorted(seconds.items())]
    path.write_text("".join(lines), encoding="utf-8")
