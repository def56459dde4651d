"""A peer's text is shown with escapes for all that is no letter, sign or blank of some script."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from gtask.printable import NAME, printable, printable_lines

CONTROLS = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs")]
"""Control characters, those that turn the direction of writing and the like, and half characters."""


@pytest.mark.parametrize("text", ["", "hash", "hä日本語 ✓", "a b", 'O\'Neill \\ "x"', "[/red] %s {}"])
def test_what_can_be_printed_stays(text):
    """In any script."""
    assert printable(text) == printable_lines(text, 100) == text


def test_each_control_character_is_escaped():
    """As in a Python string, so that it can be read what was there."""
    for character in [*CONTROLS, "\u2028", "\u2029", "\u00a0"]:
        shown = printable(f"a{character}b")
        assert shown.isprintable()
        assert eval(f"'{shown}'") == f"a{character}b"


def test_lines():
    """Their ends and tabs stay, and nothing else that moves a cursor."""
    assert printable_lines("one\n\ttwo\r\x1b[2J\n\n", 100) == "one\n\ttwo\\r\\x1b[2J\n\n"


def test_lengths():
    """A text is cut before it is looked at."""
    assert printable("x" * 1_000_000) == "x" * NAME
    assert printable("\x1b" * 10, 3) == "\\x1b" * 3
    assert printable_lines("x\n" * 1_000_000, 5) == "x\nx\nx"
