"""Of many equal events few are logged, and the others are counted."""

from __future__ import annotations

from gtask.server.seldom import BURST, REPEAT, Seldom


def test_the_first_and_then_a_count():
    """A burst is told one by one; what follows is a number in the next minute's first line."""
    seldom = Seldom()
    assert [seldom.more(100.0) for _ in range(BURST + 5)] == [""] * BURST + [None] * 5
    assert seldom.more(100.0 + REPEAT - 1) is None
    assert seldom.more(100.0 + REPEAT) == " (6 more were not logged)"
    assert seldom.more(100.0 + REPEAT) == ""
