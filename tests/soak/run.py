"""The soak from its arguments to its verdict."""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import gevent

import gtask
from gtask import testing
from tests.soak import application
from tests.soak.check import check
from tests.soak.daemon import Daemon, running_daemon
from tests.soak.faults import INJECTORS
from tests.soak.footprint import Footprint, differences, memory
from tests.soak.load import Load
from tests.soak.progress import Progress
from tests.soak.record import Record

WORKERS = 20

PATIENCE = 8.0
"""Seconds that the line gets to empty at the end, before who still waits in it is cancelled."""

GROWTH, SOME_MEMORY = 1.2, 10 * 2**20
"""At the end the client may have so many times the memory of half-time, or so many bytes more, for as many callers."""

LIMIT = 120.0
"""Seconds over the soak's after which the program is ended, wherever it may hang."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="bin/soak", description="Call workers while they are killed and hang.")
    parser.add_argument("seconds", nargs="?", type=float, default=60.0, help="default: %(default)g")
    parser.add_argument("--greenlets", type=int, default=10_000, metavar="N", help="callers (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="repeats the random decisions of the soak that printed it")
    options = parser.parse_args()
    seed = random.randrange(10**9) if options.seed is None else options.seed
    has_hook = random.Random(seed).random() < 0.5
    print(
        f"seed {seed}: {options.greenlets} greenlets, {WORKERS} workers {'with' if has_hook else 'without'} "
        f"checkout_done, {options.seconds:g} s",
        flush=True,
    )
    logs = Path(tempfile.mkdtemp(prefix="soak-"))
    faulthandler.dump_traceback_later(options.seconds + LIMIT, exit=True)
    violations = soak(logs, options.seconds, options.greenlets, seed, has_hook)
    faulthandler.cancel_dump_traceback_later()
    begin = monotonic()
    workers = {path.name: _lines(path) for path in sorted(logs.glob("worker-*"))}
    violations += check(workers, _lines(logs / "client"), has_hook)
    print(f"checked the logs of {len(workers)} workers in {monotonic() - begin:.1f} s")
    return _say_verdict(violations, logs)


def soak(logs: Path, seconds: float, greenlets: int, seed: int, has_hook: bool) -> list[str]:
    """Run it, with logs in this directory; returns what is not as it was before."""
    violations: list[str] = []
    os.environ[application.DIRECTORY] = str(logs)
    target = f"{application.__name__}:{'with_hook' if has_hook else 'plain'}"
    gevent.get_hub()  # its own descriptors are not the soak's
    at_first = testing.Leftovers()
    # The server logs each worker's death as a warning, and here they die by the thousand. The workers step back behind
    # the client, whose hub stands still as long as it gets no processor.
    with running_daemon(target, "--log-level", "error", "--nice", "5") as server, (logs / "client").open("w") as file:
        record = Record(file)
        with gtask.Client(server.address, name="soak", max_workers=WORKERS) as client:
            before = Footprint.of_all_workers(client, WORKERS, server, "before")
            violations += under_load(client, server, record, seconds, greenlets, seed)
            violations += differences(
                lambda number: before.changes(Footprint.of_all_workers(client, WORKERS, server, f"after{number}"))
            )
        record.end()
    return violations + differences(lambda _: [f"{left} is left behind" for left in at_first.since()])


def under_load(
    client: gtask.Client, server: Daemon, record: Record, seconds: float, greenlets: int, seed: int
) -> list[str]:
    """Run the callers and, beside them, what befalls the server; returns what is wrong about the memory."""
    progress = Progress(record)
    injectors = [gevent.spawn(inject, server, record, seed) for inject in INJECTORS]
    load = Load(client, record, seed, greenlets)
    gevent.sleep(seconds / 2)
    at_half_time, had_begun = memory(), load.begun
    gevent.sleep(seconds / 2)
    at_the_end = memory()
    progress.end()  # first: waking ten thousand greenlets to end them takes the hub a while
    gevent.killall(injectors)
    load.stop(PATIENCE)
    progress.stop()
    print(progress.summary())
    print(
        f"memory of the client: {at_half_time / 2**20:.0f} MiB at half-time, when {had_begun} callers had begun, "
        f"{at_the_end / 2**20:.0f} at the end of {load.begun}"
    )
    failed = [f"an injector failed: {injector.exception!r}" for injector in injectors if injector.exception]
    failed += [f"a caller failed: {error!r}" for error in load.failures()]
    if at_the_end / load.begun > max(GROWTH * at_half_time, at_half_time + SOME_MEMORY) / max(1, had_begun):
        failed.append(f"memory is not flat: it grew from {at_half_time} to {at_the_end} bytes in the second half")
    return failed


def _lines(path: Path) -> Iterator[str]:
    with path.open() as file:
        yield from file


def _say_verdict(violations: list[str], logs: Path) -> int:
    if not violations:
        shutil.rmtree(logs)
        print("verdict: holds")
        return 0
    print(*violations[:20], sep="\n")
    print(f"the logs are in {logs}")
    print(f"verdict: BROKEN: {len(violations)} violations; the first: {violations[0]}")
    return 1
