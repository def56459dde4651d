"""All targets, each for its share of the time, and a table of what became of them: what ``bin/fuzz`` does."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.fuzz import engines, meter
from tests.fuzz.meter import Outcome
from tests.fuzz.one import LIVE
from tests.fuzz.targets import TARGETS

NAMES = [*TARGETS, LIVE]

AT_ONCE = min(len(NAMES), os.cpu_count() or 1)
"""Targets that run side by side."""

LIMIT = 120.0
"""Seconds over its share after which a target is ended."""


def main() -> int:
    """Do what the command line says; gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="bin/fuzz",
        description="Give hostile bytes to all that reads bytes of a peer. Inputs are made by atheris if that is "
        "installed (pip install gtask[fuzz]), or else by hypothesis.",
    )
    parser.add_argument("seconds", nargs="?", type=float, default=60.0, help="for all together (default: %(default)g)")
    parser.add_argument("--target", choices=NAMES, action="append", help="not all, but this one; may be repeated")
    parser.add_argument("--input", metavar="FILE", help="only this input, such as a run has left for a crash")
    options = parser.parse_args()
    names = options.target or NAMES
    if options.input and len(names) != 1:
        parser.error("--input needs one --target")
    directory = Path(tempfile.mkdtemp(prefix="gtask-fuzz-"))
    share = options.seconds * min(AT_ONCE, len(names)) / len(names)
    print(
        f"{len(names)} targets, {share:.1f} s each, by {'atheris' if engines.has_atheris() else 'hypothesis'}",
        flush=True,
    )
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = dict(zip(names, pool.map(partial(fuzz, share, directory, options.input), names), strict=True))
    print(table(outcomes))
    crashes = [(name, *crash) for name, outcome in outcomes.items() for crash in outcome.crashes]
    for name, path, error in crashes:
        print(f"\n{name} went wrong; again: bin/fuzz --target {name} --input {path}\n{error}")
    if not crashes:
        shutil.rmtree(directory)
    print(f"verdict: {'broken' if crashes else 'holds'}")
    return int(bool(crashes))


def fuzz(seconds: float, directory: Path, given: str | None, name: str) -> Outcome:
    """Fuzz one target in a process; gives what became of it."""
    own = directory / name
    own.mkdir()
    command = [sys.executable, "-m", "tests.fuzz.one", name, str(seconds), str(own), *([given] if given else [])]
    with (own / "said").open("wb") as said:
        try:
            status = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, timeout=seconds + LIMIT, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            status = -1
    outcome = meter.read(own)
    if status and not outcome.crashes:
        files = [str(path) for path in own.glob("*-*")]  # as libFuzzer names what has ended the process
        outcome.crashes.append((files[0] if files else "", f"status {status}\n{(own / 'said').read_text()[-4000:]}"))
    return outcome


def table(outcomes: dict[str, Outcome]) -> str:
    """The outcomes, a line for each target."""
    lines = [f"{'target':<14} {'inputs':>9} {'crashes':>7} {'slowest':>19} {'largest growth':>21}"]
    for name, outcome in outcomes.items():
        (seconds, size), (grown, of) = outcome.slowest, outcome.growth
        lines.append(
            f"{name:<14} {outcome.inputs:>9,} {len(outcome.crashes):>7} "
            f"{f'{seconds * 1000:.1f} ms of {size:,} B':>19} {f'{grown:,} KiB of {of:,} B':>21}"
        )
    return "\n".join(lines)
