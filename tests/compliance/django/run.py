"""Runs Django's own tests with its sqlite3 backend and with gtask's, and compares them, outcome by outcome::

    python tests/compliance/django/run.py [APP ...]

Both are run as they are, where Django's threads are threads, and monkey-patched by gevent. The exit status is 0 if all
outcomes are the same and nothing failed, 1 if not, and 77 if the tests of Django cannot be had.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import django

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(ROOT))

from tests.compliance.django.sdist import CannotBeHad, tests_of_django  # noqa: E402
from tests.support.waiting import wait_until  # noqa: E402

APPS = [
    "basic", "queries", "transactions", "aggregation", "backends", "annotations", "bulk_create", "delete",
    "expressions", "get_or_create", "introspection", "lookup", "ordering", "raw_query", "select_related", "timezones",
    "update",
]  # fmt: skip
"""What is quick, and has to do with databases."""

TARGET = "gtask.integrations.django.sqlite3.server:interface"

DEADLINE = 1200
"""Seconds that a run of all tests may take."""

FINE = {"ok", "skipped", "expected failure"}

CANNOT_BE_HAD = 77

_ASYNCIO = (
    "asyncio has one running loop for each real thread, so when greenlets stand for threads, the one in which Django "
    "calls the database is taken for the one that runs the loop"
)
BY_NATURE = {
    "basic.tests.ModelInstanceCreationTests.test_asave_deprecation": _ASYNCIO,
    "basic.tests.ModelInstanceCreationTests.test_asave_positional_arguments": _ASYNCIO,
}
"""Tests that cannot pass when monkey-patched, with neither backend, and why."""

Outcomes = dict[str, list[str]]
"""Of each test, by its id."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare gtask's backend of Django with Django's own, by its tests.")
    parser.add_argument("apps", nargs="*", metavar="APP", help=f"of Django's tests (default: {' '.join(APPS)})")
    apps = parser.parse_args().apps or APPS
    try:
        tests = tests_of_django()
    except CannotBeHad as error:
        print(f"there is no {error}", file=sys.stderr)
        return CANNOT_BE_HAD
    print(
        f"Django {django.__version__}, Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}: "
        f"its tests of {', '.join(apps)}",
        flush=True,
    )
    is_fine = True
    with tempfile.TemporaryDirectory(prefix="django-") as name, running_server(Path(name)) as address:
        for is_patched in (False, True):
            begin = monotonic()
            plain = Run(tests, apps, Path(name) / f"sqlite3-{is_patched}", is_patched, None)
            ours = Run(tests, apps, Path(name) / f"gtask-{is_patched}", is_patched, address)
            with plain, ours:
                outcomes = plain.outcomes(), ours.outcomes()
            print(f"{'monkey-patched' if is_patched else 'as they are'}, in {monotonic() - begin:.1f} s:")
            complaints = compare(*outcomes, BY_NATURE if is_patched else {})
            if complaints:
                is_fine = False
                print(*complaints, plain.tail(), ours.tail(), sep="\n")
    print("all is the same" if is_fine else "NOT THE SAME, OR NOT RIGHT")
    return 0 if is_fine else 1


def compare(plain: Outcomes, ours: Outcomes, by_nature: dict[str, str]) -> list[str]:
    """Print the sums, and what cannot pass; returns what else is not as it should be."""
    for name, outcomes in (("sqlite3", plain), ("gtask", ours)):
        counter = Counter(each for several in outcomes.values() for each in several)
        print(f"  {name}: " + ", ".join(f"{number} {outcome}" for outcome, number in counter.most_common()))
    complaints = [] if ours else ["  there are no outcomes"]
    for test in sorted(plain.keys() | ours.keys()):
        expected, got = plain.get(test, ["missing"]), ours.get(test, ["missing"])
        if expected != got:
            complaints.append(f"  {test}: {', '.join(expected)} with sqlite3, and {', '.join(got)} with gtask")
        elif not FINE.issuperset(got):
            said = f"  {test}: {', '.join(got)} with both"
            if test in by_nature:
                print(f"{said}; by nature: {by_nature[test]}")
            else:
                complaints.append(said)
    return complaints


class Run:
    """A process that runs the tests, until the end of the ``with`` block at most.

    Args:
        tests: where they are.
        apps: of which.
        directory: a new one, for the databases and all else.
        is_patched: whether it is monkey-patched.
        server: the address of a gtask-server, or None for Django's own backend.
    """

    def __init__(self, tests: Path, apps: list[str], directory: Path, is_patched: bool, server: str | None) -> None:
        directory.mkdir()
        self._outcomes, self._log = directory / "outcomes", directory / "log"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT)]),
            "TMPDIR": str(directory),
            "COMPLIANCE_DIRECTORY": str(directory),
            "COMPLIANCE_OUTCOMES": str(self._outcomes),
        }
        if server is not None:
            environment["COMPLIANCE_SERVER"] = server
        patch = ["-m", "gevent.monkey"] if is_patched else []
        options = ["--settings", "compliance_settings", "--parallel", "1", "--noinput", "--verbosity", "1"]
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *patch, "runtests.py", *options, *apps],
                cwd=tests,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.wait()

    def outcomes(self) -> Outcomes:
        """Those of all tests, when they have run; empty if they have not."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(DEADLINE)
        if not self._outcomes.exists():
            return {}
        outcomes: Outcomes = json.loads(self._outcomes.read_text())
        return outcomes

    def tail(self) -> str:
        """The last lines of what the process said."""
        return f"--- {self._log.parent.name}: status {self._process.returncode}\n{self._log.read_text()[-8000:]}"


@contextlib.contextmanager
def running_server(directory: Path) -> Iterator[str]:
    """The real gtask-server, on a socket in this directory; gives its address."""
    command = [sys.executable, str(ROOT / "bin" / "gtask-server"), TARGET, "--listen", f"unix:{directory}/db.sock"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with open(directory / "server", "wb") as log:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_until(lambda: (directory / "db.sock").exists() or process.poll() is not None, "the server's start")
        yield f"unix:{directory}/db.sock"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
