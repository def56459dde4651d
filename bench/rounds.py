"""The rounds of a contest: all contestants take turns, a moment each.

A machine's speed changes by a factor of two from one minute to the next. So a contestant's times are compared only with
those of the same rounds.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Sequence

from bench.contestants import PING_PONG, Contestant, Elsewhere
from bench.operations import IN_FLIGHT, Run

__all__ = ["contest", "needed", "on_one_core"]


def needed(names: Collection[str], contestants: Sequence[Contestant]) -> list[Contestant]:
    """The contestants of these names, and those with which their limits compare them."""
    wanted = {*names, *(limit.than for one in contestants if one.name in names for limit in one.limits)}
    return [one for one in contestants if one.name in wanted]


def contest(contestants: Sequence[Contestant], there: Elsewhere, rounds: int) -> dict[str, list[float]]:
    """Let all contestants, and the ping-pong, do their work in each round.

    Returns:
        seconds that the work took once, in each round, by the contestants' names.
    """
    with contextlib.ExitStack() as stack:
        running = dict.fromkeys([*contestants, PING_PONG])
        runs = {one.name: stack.enter_context(one.begin(there)) for one in running}
        counts = {one.name: how_often(runs[one.name], one.moment) for one in running}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                times[name].append(seconds_each(run, counts[name]))
    return times


def how_often(run: Run, moment: float) -> int:
    """How often the work can be done in a moment, in hundreds; warms it up, too."""
    seconds = seconds_each(run, 5 * IN_FLIGHT)
    return max(1, round(moment / seconds / IN_FLIGHT)) * IN_FLIGHT


def seconds_each(run: Run, times: int) -> float:
    start = time.perf_counter()
    run(times)
    return (time.perf_counter() - start) / times


def on_one_core() -> None:
    """Bind this process, and all processes that it forks, to one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
