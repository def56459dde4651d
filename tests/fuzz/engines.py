"""What makes inputs: atheris, which sees the branches that an input takes, or else hypothesis."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.meter import LONGEST

__all__ = ["Engine", "by_atheris", "by_hypothesis", "has_atheris"]

Engine = Callable[[Callable[[bytes], None], Sequence[bytes], float, Path], None]
"""Runs a target with inputs, beginning with the given ones, for some seconds; it may keep files in a directory."""

BATCH = 200
"""Inputs between looks at the clock."""

SETTINGS = settings(
    max_examples=BATCH,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)

EDITS = st.lists(
    st.tuples(st.integers(0, LONGEST), st.integers(0, 40), st.binary(max_size=12), st.integers(1, 200)), max_size=6
)
"""Changes of an input: where, how many bytes go, what comes in their place, and how often."""


def has_atheris() -> bool:
    """Whether atheris is installed."""
    return importlib.util.find_spec("atheris") is not None


def by_hypothesis(target: Callable[[bytes], None], seeds: Sequence[bytes], seconds: float, directory: Path) -> None:
    """Inputs of any bytes, and the given ones changed here and there."""
    for seed in seeds:
        target(seed)
    until = monotonic() + seconds

    @SETTINGS
    @given(st.binary(max_size=2000) | st.builds(changed, st.sampled_from(seeds), EDITS))
    def run(data: bytes) -> None:
        target(data)

    while monotonic() < until:
        run()


def changed(data: bytes, edits: Sequence[tuple[int, int, bytes, int]]) -> bytes:
    """An input with these changes."""
    for place, gone, more, times in edits:
        at = place % (len(data) + 1)
        data = data[:at] + more * times + data[at + gone :]
    return data[:LONGEST]


def by_atheris(target: Callable[[bytes], None], seeds: Sequence[bytes], seconds: float, directory: Path) -> None:
    """Inputs that take new branches. The process ends with it."""
    import atheris

    corpus = directory / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)
    limits = [f"-max_total_time={max(1, round(seconds))}", f"-max_len={LONGEST}", "-timeout=60", "-rss_limit_mb=4096"]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={directory}/", str(corpus)], target)
    atheris.Fuzz()
