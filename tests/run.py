"""The linters and the tests in parts that run side by side, for most tests wait for processes: what ``bin/test`` does.

The parts are made by the seconds that each test file took when that was measured last. At the end come pytest's last
lines, one for each part; the status is 0 only if all has passed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from tests import parts

ROOT = Path(__file__).resolve().parents[1]

SCRIPTS = sorted(f"bin/{path.name}" for path in (ROOT / "bin").iterdir() if "python" in path.read_text().split("\n")[0])
"""Programs in Python whose names do not say so."""

LONG = {
    "kill-safety": ["tests/promises/calls/test_kill_safety.py"],
    "compliance": ["tests/compliance/test_django.py", "tests/compliance/test_sqlalchemy.py"],
}
"""Parts of their own, which take minutes, and are not run unless they are asked for."""

AT_ONCE = max(3, (os.cpu_count() or 1) + 1)
"""How many parts run side by side."""

HELP = """\
bin/test                 the linters and the tests, but for the long parts
bin/test all             those too
bin/test kill-safety     calls that are interrupted at every line and at every switch
bin/test compliance      the suites of Django and SQLAlchemy by gtask's backends
bin/test lint            the linters
bin/test --measure       the tests; afterwards tests/seconds.txt says how long each file took
bin/test ARGUMENT...     the linters, and pytest with these arguments: bin/test tests/wire -k frame
"""


@dataclass
class Part:
    """A pytest that runs beside others.

    Attributes:
        name: what it is called in the output.
        files: the test files.
        measured: whether coverage measures it.
    """

    name: str
    files: list[str]
    measured: bool = True


def main(arguments: list[str]) -> int:
    """Do what the command line says; gives the exit status."""
    if arguments in (["--help"], ["-h"]):
        print(HELP, end="")
        return 0
    os.chdir(ROOT)
    names = set(arguments)
    if names - {"all", "lint", "--measure", *LONG}:
        return max(lint(), check("pytest", *arguments))
    status = 0 if names & {"--measure", *LONG} else lint()
    usual = not names or bool(names & {"all", "--measure"})
    long = [name for name in LONG if name in names or "all" in names]
    if usual or long:
        status = max(status, test(usual, long, "--measure" in names))
    left = [name for name in LONG if name not in long] if usual else []
    if left:
        print(f"== not run: {' and '.join(left)} (bin/test {left[0]}; bin/test all runs everything)")
    return status


def lint() -> int:
    """Run the linters; 0 if they have nothing to say."""
    return max(check("ruff", "check", ".", *SCRIPTS), check("ruff", "format", "--check", ".", *SCRIPTS), check("mypy"))


def check(*command: str) -> int:
    """Run a Python program here; 0 if it succeeds, else 1."""
    print("==", *command, flush=True)
    return int(subprocess.run([sys.executable, "-m", *command]).returncode != 0)


def usual_files() -> list[str]:
    """The test files that are in no long part, sorted."""
    long = {path for paths in LONG.values() for path in paths}
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")}
    return sorted(path for path in files - long if not path.startswith("tests/compliance/sqlalchemy/"))


def test(usual: bool, long: list[str], measure: bool) -> int:
    """Run parts of the tests side by side; gives the status.

    Args:
        usual: whether the usual tests are run, with coverage.
        long: the names of the long parts to be run.
        measure: whether the seconds of each file are to be written down.
    """
    # The tests start thousands of processes. Where Python may write no bytecode, each would compile gtask anew.
    subprocess.run([sys.executable, "-m", "compileall", "-q", "gtask"], check=True)
    waiting = [Part(Path(path).stem, [path], measured=False) for name in long for path in LONG[name]]
    if usual:
        shared = parts.distribute(usual_files(), parts.read(), AT_ONCE)
        waiting = [Part(f"part {n}", files) for n, files in enumerate(shared, 1)] + waiting
    for path in ROOT.glob(".coverage*"):
        path.unlink()
    with tempfile.TemporaryDirectory(prefix="gtask-test-") as directory:
        ended = run_all(waiting, Path(directory))
        if measure:
            parts.write(parts.read() | gathered(Path(directory)))
    status = int(any(code for code, _ in ended.values()))
    if usual:
        status = max(status, check("coverage", "combine", "--quiet"), check("coverage", "report"))
    for name, (code, line) in ended.items():
        print(f"== {name}: {line}" + (f" (status {code})" if code else ""))
    return status


def run_all(waiting: list[Part], directory: Path) -> dict[str, tuple[int, str]]:
    """Run parts, AT_ONCE at a time, and show the output of each that fails; gives their statuses and last lines."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    ended: dict[str, tuple[int, str]] = {}
    waiting, begun = list(waiting), monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                part = waiting.pop(0)
                running[part.name] = start(part, directory / part.name)
            for name, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[name]
                said = (directory / name).read_text(errors="replace")
                ended[name] = process.returncode, summary(said)
                print(f"== {name}, after {monotonic() - begun:.0f} s: {summary(said)}", flush=True)
                if process.returncode:
                    print(said, flush=True)
            sleep(0.1)
    finally:
        for process in running.values():
            process.send_signal(signal.SIGINT)
            process.wait()
    return ended


def start(part: Part, log: Path) -> subprocess.Popen[bytes]:
    """Start the pytest of a part, which writes its output, its coverage and its seconds into files of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.support.seconds"]
    if part.measured:
        command += ["--cov", "--cov-report=", "--cov-fail-under=0"]
    environment = {
        **os.environ,
        "COVERAGE_FILE": str(ROOT / f".coverage.{part.name.replace(' ', '-')}"),
        "GTASK_TEST_SECONDS": f"{log}.seconds",
    }
    with log.open("wb") as output:
        return subprocess.Popen(
            [*command, *part.files], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )


def gathered(directory: Path) -> dict[str, float]:
    """The seconds of all files that were run."""
    return {name: number for path in directory.glob("*.seconds") for name, number in parts.read(path).items()}


def summary(said: str) -> str:
    """The last line of pytest's output."""
    lines = said.split("\n")
    return next((line.strip("= ") for line in reversed(lines) if line.strip()), "it said nothing")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
