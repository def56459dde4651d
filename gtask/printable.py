"""A peer's text as it may be shown: on a terminal, in a line of a log, in an error. Pure.

What moves a cursor, colours a screen, forges a line or turns the direction of writing becomes an escape, as in a Python
string. What letters there are, in whatever script, stays.
"""

from __future__ import annotations

import re

__all__ = ["NAME", "TEXT", "printable", "printable_lines"]

NAME = 200
"""Characters of a name, or of a reason, that are shown."""

TEXT = 100_000
"""Characters of a text of several lines that are shown."""


def printable(text: str, most: int = NAME) -> str:
    """One line: the text with escapes for all that cannot be printed.

    Args:
        text: of a peer.
        most: characters of it that are kept.
    """
    text = text[:most]
    return text if text.isprintable() else "".join(map(_shown, text))


def printable_lines(text: str, most: int = TEXT) -> str:
    """The same for a text of several lines, whose ends and tabs stay."""
    return re.sub(r"[^\n\t]+", lambda line: printable(line[0], most), text[:most])


def _shown(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
