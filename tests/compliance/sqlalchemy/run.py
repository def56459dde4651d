"""Runs SQLAlchemy's dialect compliance suite by sqlite3 here and by gtask's workers, and compares each outcome.

``python tests/compliance/sqlalchemy/run.py [PYTEST-ARGUMENT...]``, such as ``-k LikeFunctionsTest``, from anywhere. The
exit status is 0 if nothing failed, and each test had the same outcome by both, in memory and in a file.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
DATABASES = {"in memory": ":memory:", "in a file": "test.db"}
DRIVERS = ("pysqlite", "gtask")
PATIENCE = 1200  # seconds for one run, on a slow or loaded machine


def main(arguments):
    """Make the runs, two at a time, and print what they say; gives the exit status."""
    if sys.version_info < (3, 11):
        print("SQLAlchemy 2.1 needs Python 3.11, so there is nothing to compare here")
        return 0
    shared_memory = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=shared_memory if shared_memory.is_dir() else None) as place,
        ThreadPoolExecutor(2) as pool,
    ):
        pairs = {}
        for number, (where, database) in enumerate(DATABASES.items()):
            pairs[where] = [
                pool.submit(run, driver, database, Path(place, f"{driver}{number}"), arguments) for driver in DRIVERS
            ]
        return max([compare(where, *(future.result() for future in pair)) for where, pair in pairs.items()])


def run(driver, database, directory, arguments):
    """Run the suite in a new directory, by a server that runs there, too.

    Returns:
        the outcome of each test, and all that was printed.
    """
    directory.mkdir()
    query = ""
    server = None
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with open(directory / "log", "w") as log:
        if driver == "gtask":
            address = f"unix:{directory}/a.sock"
            query = f"?address={address}"
            command = [sys.executable, str(ROOT / "bin" / "gtask-server"), "gtask.server.dbapi:sqlite3"]
            server = subprocess.Popen([*command, "--listen", address], cwd=directory, env=environment, stderr=log)
        try:
            command = [sys.executable, "-m", "pytest", "-q", "-c", str(HERE / "setup.cfg"), "--rootdir", str(HERE)]
            command += ["--junitxml", "outcomes.xml", "--dburi", f"sqlite+{driver}:///{database}{query}"]
            command += [str(HERE / "test_suite.py"), *arguments]
            subprocess.run(
                command, cwd=directory, env=environment, stdout=log, stderr=subprocess.STDOUT, timeout=PATIENCE
            )
        except subprocess.TimeoutExpired:
            log.write(f"it has not ended within {PATIENCE} s\n")
        finally:
            if server is not None:
                server.terminate()
                server.wait()
    return outcomes(directory / "outcomes.xml", driver), (directory / "log").read_text()


def outcomes(path, driver):
    """What pytest has written down: {name of the test: "passed", "skipped", "failure" or "error"}."""
    if not path.exists():
        return {}
    found = {}
    for case in ElementTree.parse(path).iter("testcase"):
        kinds = [child.tag for child in case if child.tag in ("skipped", "failure", "error")]
        name = f"{case.get('classname')}::{case.get('name')}".replace(f"sqlite+{driver}", "sqlite")
        while name in found:
            name += "'"
        found[name] = "+".join(kinds) or "passed"
    return found


def compare(where, plain, workers):
    """Print how two runs compare; gives 0 if they are equal and nothing failed, and 1 if not."""
    (expected, plain_log), (found, workers_log) = plain, workers
    names = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
    for name in names:
        print(f"{where}, {name}: {expected.get(name, 'not run')} by sqlite3, {found.get(name, 'not run')} by gtask")
    is_good = bool(expected) and not names and set(expected.values()) <= {"passed", "skipped"}
    if not is_good:
        print(f"== sqlite3, {where}", plain_log, f"== gtask, {where}", workers_log, sep="\n")
    counted = [
        ", ".join(f"{count} {kind}" for kind, count in Counter(each.values()).most_common())
        for each in (expected, found)
    ]
    same = "on both" if counted[0] == counted[1] else f"by sqlite3, {counted[1] or 'nothing'} by gtask"
    print(f"SQLAlchemy's suite, {where}: {counted[0] or 'nothing'} {same}{'' if is_good else ', which is not good'}")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
