"""Instructions that an operation takes in user space, counted by valgrind: no other process disturbs this figure.

The work is done 200 times in one process and 1,200 times in another; the difference of their counts is divided by
1,000. So neither start nor end has a part in the figure. Caller and worker are counted apart, because valgrind writes
one file for each process.

Valgrind runs this module as a program (:func:`main`). The program imports everything, then forks a process for each
count, so the slow start under valgrind happens once.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import gtask
import gtask.client.pool.pool
import gtask.client.pool.workers
from bench.operations import METHODS, OPERATIONS, Operation
from bench.prototype import prototype, prototype_worker

__all__ = ["PROTOTYPE", "Count", "Unavailable", "count_instructions"]

FEW, MANY = 200, 1200
PATIENCE = 1800
"""Seconds for all of them, of which one takes about three."""

PROTOTYPE = "prototype"
"""The name of the bare prototype, with which all operations are compared."""


SLOWDOWN = 100
"""How much longer everything takes under valgrind, on a machine that has other work as well: so are the times by which
gtask tells what is worth a write."""


class Unavailable(Exception):
    """Instructions cannot be counted here; the message says why."""


@dataclass(frozen=True)
class Count:
    """The instructions of one operation, in its two processes."""

    caller: float
    worker: float

    @property
    def total(self) -> float:
        return self.caller + self.worker


def count_instructions(operations: Iterable[Operation]) -> dict[str, Count]:
    """Count the bare prototype and these operations.

    Returns:
        the counts, by name.

    Raises:
        Unavailable: there is no valgrind, or its run failed.
    """
    if shutil.which("valgrind") is None:
        raise Unavailable("valgrind is not installed (Debian and Ubuntu: apt install valgrind)")
    names = [PROTOTYPE, *(operation.name for operation in operations)]
    with tempfile.TemporaryDirectory(prefix="gtask-bench.") as directory:
        run_under_valgrind(Path(directory), [sys.executable, "-m", "bench.instructions", directory, *names])
        return {name: difference(Path(directory), name) for name in names}


def run_under_valgrind(directory: Path, program: list[str]) -> None:
    """Run a program whose processes each leave a file in the directory, named by the process id."""
    options = [
        *("--tool=cachegrind", "--cache-sim=no", "--trace-children=yes", "--quiet"),
        *("--fair-sched=yes", "--vgdb=no"),  # or valgrind has pipes, which a forked server would close
        *(f"--cachegrind-out-file={directory}/%p", f"--log-file={directory}/%p.log"),
    ]
    done = subprocess.run(
        [*without_randomisation(), "valgrind", *options, *program],
        env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    if done.returncode:
        raise Unavailable(f"valgrind ended with {done.returncode}: {done.stderr[-2000:]}")


def without_randomisation() -> list[str]:
    """The command before a program that is to have the same addresses each time; empty where that is not permitted."""
    command = ["setarch", os.uname().machine, "-R"]
    with contextlib.suppress(OSError):
        if not subprocess.run([*command, "true"], capture_output=True).returncode:
            return command
    return []


def difference(directory: Path, name: str) -> Count:
    """What the longer run of this operation took beyond the shorter one, per operation."""
    few, many = (json.loads((directory / f"{name}-{times}").read_text()) for times in (FEW, MANY))
    caller, worker = (
        (total(directory / str(many[role])) - total(directory / str(few[role]))) / (MANY - FEW)
        for role in ("caller", "worker")
    )
    return Count(caller, worker)


def total(file: Path) -> int:
    """The instructions of a process, by cachegrind's file, which a process writes as the last thing it does."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if file.exists():
            last = file.read_text().rstrip().rpartition("\n")[2]
            if last.startswith("summary:"):
                return int(last.split()[1])
        time.sleep(0.05)
    raise Unavailable(f"valgrind has written no {file.name}")


# ----- What runs under valgrind -----------------------------------------------------------------------


def main(directory: str, *names: str) -> None:
    """Do each operation few times and many times, each in a forked process, and write down which processes did it."""
    operations = {operation.name: operation for operation in OPERATIONS}
    gtask.client.pool.pool.LONG *= SLOWDOWN
    gtask.client.pool.workers.TELL_EVERY *= SLOWDOWN
    gc.collect()
    gc.freeze()  # so a full collection costs each of them the same
    for name in names:
        for times in (FEW, MANY):
            pid = os.fork()
            if not pid:
                in_child(operations.get(name), times, Path(directory, f"{name}-{times}"))
            if os.waitpid(pid, 0)[1]:
                sys.exit(f"{name} failed")


def in_child(operation: Operation | None, times: int, file: Path) -> NoReturn:
    """Do the operation, or the prototype's if there is none; the file gets the ids of the two processes."""
    status = 1
    try:
        worker = prototype_processes(times) if operation is None else gtask_processes(operation, times)
        file.write_text(json.dumps({"caller": os.getpid(), "worker": worker}))
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def prototype_processes(times: int) -> int:
    """Do the work with the prototype; returns the worker's process id."""
    with prototype_worker(METHODS) as (sock, pid), prototype(sock) as run:
        run(times)
    return pid


def gtask_processes(operation: Operation, times: int) -> int:
    """Do the work with gtask; returns the worker's process id."""
    with gtask.fork_server(operation.interface) as server, operation.begin(server.address) as run:
        run(times)
        (worker,) = children(server.pid)
    return worker


def children(pid: int) -> Iterator[int]:
    return map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


if __name__ == "__main__":
    main(*sys.argv[1:])
