"""The command ``bin/bench``: what is to be measured, by which means, and how it is printed."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Collection, Mapping

import gtask
from bench import bulk
from bench.contestants import CONTESTS, elsewhere
from bench.down import processor_shares
from bench.instructions import Unavailable, count_instructions
from bench.memory import bytes_in_line, resident_daemon
from bench.operations import OPERATIONS
from bench.page import latencies, page_server
from bench.report import Line, counts_as_lines, figure, over_limits, table, times_as_lines
from bench.rounds import contest, needed, on_one_core
from gtask.address import Address

__all__ = ["main"]

ROUNDS = 31
MOST_ROUNDS_OF_PAGE = 4
"""Rounds of the web page last some seconds each."""

CHECKED = (3, 11)
"""The first version of Python whose instructions the limits are for."""

IN_LINE_LIMIT = 2048
SHARE_LIMIT = 0.01
RISE_LIMIT = 10.0

MOST_ROUNDS_OF_LARGE = 9
"""Rounds of large values last a second each."""
LARGE_LIMIT = 1.2
LARGE_LIMITS = {"shared, argument": 0.4, "shared, result": 0.4, "array made to be shared": 0.1}
ITEM_LIMIT = 0.625
CHUNKS_LIMIT = 1.2

Figures = Callable[[Address, int], list[Line]]
"""Measures figures, given the address of a server and the number of rounds."""


def memory(address: Address, _: int) -> list[Line]:
    return [figure("memory", "gtask: memory of a caller in line", "bytes", bytes_in_line(address), IN_LINE_LIMIT)]


def daemon(_: Address, __: int) -> list[Line]:
    return [figure(name, f"gtask-server: resident {name}", "bytes", size) for name, size in resident_daemon().items()]


def down(_: Address, __: int) -> list[Line]:
    return [
        figure(f"down, {what}", f"server down, {what}", "of a processor", share, SHARE_LIMIT)
        for what, share in processor_shares().items()
    ]


def page(_: Address, rounds: int) -> list[Line]:
    with page_server() as address:
        found = latencies(address, min(rounds, MOST_ROUNDS_OF_PAGE))
    return [
        figure("page, quiet", "page that calls nothing: p99, quiet", "ms", found.quiet),
        figure("page, loaded", "page that calls nothing: p99, loaded", "ms", found.loaded),
        figure("page", "page that calls nothing: rise", "ms", found.loaded - found.quiet, RISE_LIMIT),
    ]


def large(_: Address, rounds: int) -> list[Line]:
    return [
        figure(f"large, {way}", f"60 MiB: {way}", "x Pipe", ratio, LARGE_LIMITS.get(way, LARGE_LIMIT))
        for way, ratio in bulk.large(min(rounds, MOST_ROUNDS_OF_LARGE)).items()
    ]


def many(_: Address, rounds: int) -> list[Line]:
    ratios = bulk.many(min(rounds, MOST_ROUNDS_OF_LARGE))
    return [
        figure("many, item", "map_unordered: an item", "x call", ratios["item"], ITEM_LIMIT),
        figure(
            "many, chunks", "map_unordered: chunks of 100", "x ProcessPoolExecutor.map", ratios["chunks"], CHUNKS_LIMIT
        ),
    ]


FIGURES: Mapping[str, Figures] = {
    "memory": memory, "keeper": daemon, "down": down, "page": page, "large": large, "many": many,
}  # fmt: skip
"""What is measured after the contests, by the names for ``--only``."""


def measure(only: Collection[str], rounds: int) -> list[Line]:
    """Measure the contestants and the figures of these names."""
    lines = []
    with elsewhere() as there:
        for contestants in CONTESTS:
            running = needed(only, contestants)
            if running:
                lines += times_as_lines(running, contest(running, there, rounds))
        for name, figures in FIGURES.items():
            if name in only:
                lines += figures(there.methods, rounds)
    return lines


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bin/bench",
        description="How long a call takes, beside the alternatives. All take turns; docs/performance.rst has more.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="default: %(default)s")
    parser.add_argument("--only", action="append", metavar="NAME", help="measure this; may be given several times")
    parser.add_argument("--one-core", action="store_true", help="all on one core, which so never goes to sleep")
    parser.add_argument("--instructions", action="store_true", help="count instructions by valgrind, instead of time")
    parser.add_argument(
        "--check",
        action="store_true",
        help="count the instructions of the operations that have a limit; status 1 if one is over it",
    )
    options = parser.parse_args()
    if options.check or options.instructions:
        names = [one.name for one in OPERATIONS if one.most is not None or not options.check]
    else:
        names = [one.name for contestants in CONTESTS for one in contestants] + list(FIGURES)
    options.only = options.only or names
    if not set(options.only) <= set(names):
        parser.error(f"--only: the names are {', '.join(names)}")
    return options


def main() -> int:
    options = parse()
    if options.one_core:
        on_one_core()
    about = {"gtask": gtask.__version__, "python": platform.python_version()}
    if options.check or options.instructions:
        try:
            counted = [one for one in OPERATIONS if one.name in options.only]
            lines = counts_as_lines(counted, count_instructions(counted))
        except Unavailable as error:
            print(f"bin/bench: {error}", file=sys.stderr)
            return 2
    else:
        about["rounds"] = options.rounds
        lines = measure(options.only, options.rounds)
    print(json.dumps({**about, "results": lines}, indent=2) if options.json else table(lines))
    return checked(over_limits(lines)) if options.check else 0


def checked(over: list[str]) -> int:
    """Say which operations are over their limits; returns the exit status."""
    if over and sys.version_info < CHECKED:
        print("bin/bench: no limit is checked: before Python 3.11 each function call costs more", file=sys.stderr)
        return 0
    for name in over:
        print(f"bin/bench: {name} takes more instructions than its limit allows", file=sys.stderr)
    return 1 if over else 0
