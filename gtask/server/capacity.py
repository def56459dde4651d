"""How many workers a machine can bear, where the operator has not said how many there may be."""

from __future__ import annotations

import contextlib
import math
import os
import resource
from collections.abc import Mapping

__all__ = ["bounds", "most_workers"]

PER_WORKER = 2 * 1024 * 1024
"""Bytes of memory that an idle worker takes beside what it shares."""

DESCRIPTORS = 3
"""Descriptors that the master holds for a worker, with one to spare."""

SPARE = 64
"""Descriptors that the master needs for itself."""

LEAST = 16
"""Workers that there may be on the smallest machine."""


def most_workers(limits: Mapping[str, float]) -> tuple[int, str]:
    """How many workers there may be. Pure.

    Args:
        limits: ``descriptors`` and ``processes`` that the master may have, and bytes of ``memory`` of the machine or of
            the container; infinite for no limit.

    Returns:
        the number, and why it is no larger, for the log.
    """
    bounds = {
        f"the master may have {limits['descriptors']:.0f} descriptors (ulimit -n)": (limits["descriptors"] - SPARE)
        / DESCRIPTORS,
        f"there may be {limits['processes']:.0f} processes (ulimit -u, pids.max)": limits["processes"] * 0.75,
        f"there are {limits['memory'] / 2**20:.0f} MiB of memory": limits["memory"] * 0.75 / PER_WORKER,
    }
    why = min(bounds, key=lambda name: bounds[name])
    if bounds[why] == math.inf:
        return 100_000, "nothing else bounds them"
    return max(LEAST, int(bounds[why])), why


def bounds() -> dict[str, float]:
    """The limits of this process, as :func:`most_workers` takes them. What the system does not tell is infinite."""
    processes = math.inf if os.geteuid() == 0 else _soft(resource.RLIMIT_NPROC)  # root is not bound by it
    memory = math.inf
    with contextlib.suppress(OSError), open("/proc/meminfo") as file:
        memory = next((float(line.split()[1]) * 1024 for line in file if line.startswith("MemTotal:")), math.inf)
    return {
        "descriptors": _soft(resource.RLIMIT_NOFILE),
        "processes": min(processes, _of_cgroup("pids.max")),
        "memory": min(memory, _of_cgroup("memory.max")),
    }


def _soft(which: int) -> float:
    limit = resource.getrlimit(which)[0]
    return math.inf if limit == resource.RLIM_INFINITY else float(limit)


def _of_cgroup(name: str) -> float:
    """A limit of the control group of this process; infinite if there is none, or no such group."""
    try:
        with open("/proc/self/cgroup") as file:
            group = next((line.strip()[3:] for line in file if line.startswith("0::")), "")
        with open(f"/sys/fs/cgroup{group}/{name}") as file:
            return float(file.read())  # "max" is no number
    except (OSError, ValueError):
        return math.inf
