"""What a master says to its keeper arrives; whatever else comes on the pipe is nothing, and no error."""

from __future__ import annotations

import math
import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gtask.server.daemon.words import LONGEST, Changed, Ready, heard, line_of


@pytest.mark.parametrize(
    "word", [Ready(60.0, 10.0), Ready(0.5, math.inf), Changed("/srv/app/jobs.py"), Changed("/srv/hä/x y.py")]
)
def test_each_word_arrives(word):
    """In one line."""
    line = line_of(word)
    assert line.endswith(b"\n")
    assert heard(line[:-1]) == word


def test_paths_of_any_bytes():
    """They are shown with escapes, in one line, and are cut."""
    path = os.fsdecode(b"/srv/\xff\x1b[2J\n/" + b"x" * 5000)
    changed = heard(line_of(Changed(path))[:-1])
    assert changed.path.startswith("/srv/\\udcff\\x1b[2J?/x")
    assert changed.path.isprintable()
    assert len(changed.path) < LONGEST + 100


@example(b"ready nan 1")
@example(b"ready 1 -1")
@example(b"ready 0 0")
@example(b"ready 1")
@example(b"ready 1 2 3")
@example(b"ready x y")
@example(b"ready " + b"9" * 5000 + b" 1")
@example(b"ready 1_0 \xd9\xa1")
@example(b"readyreload")
@given(st.binary(max_size=50) | st.builds(lambda rest: b"ready " + rest, st.binary(max_size=20)))
def test_anything_may_come(line):
    """It is a word of the right form, or none."""
    word = heard(line)
    if isinstance(word, Ready):
        assert line.startswith(b"ready ")
        assert word.graceful_timeout > 0
        assert word.stop_timeout > 0
    else:
        assert (word is not None) == (line.partition(b" ")[0] == b"reload")
