"""Plain values that are made of any bytes: maps and lists of words that a reader knows, so that it reads on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

__all__ = ["Shaper", "shape"]

DEEPEST = 12
NUMBERS = [0, 1, -1, 255, 2**31, 2**63 - 1, -(2**63), 2**64 - 1, 0.0, -1.5, 1e308, math.inf, -math.inf, math.nan]


def shape(data: bytes, words: Sequence[str]) -> Any:
    """The value that these bytes stand for; words are the keys and the texts that are worth a try."""
    return Shaper(data, words).value()


class Shaper:
    """Takes byte after byte for a decision. Where there are no more each decision is 0."""

    def __init__(self, data: bytes, words: Sequence[str]) -> None:
        self._data, self._words = iter(data), words

    def byte(self) -> int:
        return next(self._data, 0)

    def text(self) -> str:
        """A word, or text of any characters."""
        choice = self.byte()
        if choice < 224:
            return self._words[choice % len(self._words)]
        return "".join(chr(self.byte() * (1, 257, 4353)[choice % 3]) for _ in range(self.byte() % 24))

    def value(self, depth: int = 0) -> Any:
        """A value that msgpack can carry."""
        choice = self.byte()
        if depth < DEEPEST and choice < 160:
            count = choice % 8
            if choice < 96:
                return {self.text(): self.value(depth + 1) for _ in range(count)}
            return [self.value(depth + 1) for _ in range(count)]
        if choice < 208:
            return self.text()
        if choice < 224:
            return NUMBERS[choice % len(NUMBERS)]
        if choice < 240:
            return bytes(self.byte() for _ in range(choice - 224))
        return (None, True, False, self.text() * self.byte())[choice % 4]
