"""The linters and the tests in parts that run side by side: what ``bin/test`` does.

The parts are made by the seconds that each test file took when that was measured last. At the end come pytest's last
lines, one for each part; the status is 0 only if all has passed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from tests import parts

ROOT = Path(__file__).resolve().parents[1]

SCRIPTS = sorted(f"bin/{path.name}" for path in (ROOT / "bin").iterdir() if "python" in path.read_text().split("\n")[0])
"""Programs in Python whose names do not say so."""

KILL_SAFETY = "tests/promises/calls/test_kill_safety.py"

PLUGINS = ["no:cacheprovider", "timeout", "hypothesispytest", "tests.support.seconds", "tests.support.failed"]
"""Plugins of pytest, by name: to look for them would make its start three times as long."""

PYTEST = ["pytest", "-q", "--disable-plugin-autoload", *(word for name in PLUGINS for word in ("-p", name))]


@dataclass
class Part:
    """A pytest or a linter that runs beside others.

    Attributes:
        name: what it is called in the output.
        arguments: of the program, above all the test files.
        measured: whether coverage measures it, and the processes that its tests start.
        patient: whether it computes all the time and waits for nothing, so that the others may come first.
        program: the module that is run, with its first arguments.
    """

    name: str
    arguments: list[str]
    measured: bool = False
    patient: bool = False
    program: list[str] = field(default_factory=lambda: PYTEST)


LINTERS = [
    Part("mypy", [], patient=True, program=["mypy"]),
    Part("ruff check", [".", *SCRIPTS], patient=True, program=["ruff", "check"]),
    Part("ruff format", [".", *SCRIPTS], patient=True, program=["ruff", "format", "--check"]),
]

STRUCK = {
    "by Ctrl-C": "KeyboardInterrupt] and (call- or large- or queue- or waiting-)",
    "by GreenletExit": "GreenletExit]",
    "by Timeout": "Timeout]",
}
"""How calls are interrupted, and which tests do it. What none of them does is a part of its own."""

REST = " and ".join(f"not ({some})" for some in STRUCK.values())

LONG = {
    "kill-safety": [
        Part("struck otherwise", [KILL_SAFETY, "-k", REST], patient=True),
        *(Part(f"struck {how}", [KILL_SAFETY, "-k", some], patient=True) for how, some in STRUCK.items()),
    ],
    "compliance": [
        Part("Django", ["tests/compliance/test_django.py"], patient=True),
        Part("SQLAlchemy", ["tests/compliance/test_sqlalchemy.py"], patient=True),
    ],
}
"""What takes minutes, by name: each is run only if it is asked for."""

COVERED = [
    "tests/aspects/test_caller.py",
    "tests/aspects/test_reporter.py",
    "tests/client",
    "tests/faults/test_keeper_lifecycle.py",
    "tests/faults/test_resources.py",
    "tests/promises/calls/test_context_variables.py",
    "tests/promises/calls/test_current_call.py",
    "tests/promises/calls/test_executor.py",
    "tests/promises/calls/test_functions_of_an_ordinary_server.py",
    "tests/promises/calls/test_submit.py",
    "tests/promises/calls/test_task.py",
    "tests/promises/daemon/test_completion.py",
    "tests/promises/daemon/test_failed_starts.py",
    "tests/promises/daemon/test_files_of_other_users.py",
    "tests/promises/daemon/test_log_reopen.py",
    "tests/promises/daemon/test_process_options.py",
    "tests/promises/databases/test_dbapi.py",
    "tests/promises/databases/test_dbapi_transactions.py",
    "tests/promises/databases/test_django_database.py",
    "tests/promises/databases/test_postgresql_types.py",
    "tests/promises/databases/test_postgresql_values.py",
    "tests/promises/databases/test_sqlalchemy.py",
    "tests/promises/documents/test_howto_asyncio.py",
    "tests/promises/errors/test_a_worker_that_ends_in_order.py",
    "tests/promises/errors/test_exceptions_cross.py",
    "tests/promises/errors/test_exceptions_that_misbehave.py",
    "tests/promises/errors/test_what_a_newcomer_gets_wrong.py",
    "tests/promises/logs/test_request_log.py",
    "tests/promises/logs/test_trace_context.py",
    "tests/promises/logs/test_worker_logs.py",
    "tests/promises/pool/test_crossed_checkouts.py",
    "tests/promises/pool/test_pool_history.py",
    "tests/promises/pool/test_prometheus_collector.py",
    "tests/promises/pool/test_stats.py",
    "tests/promises/server/test_a_message_on_its_way.py",
    "tests/promises/server/test_forbidden_memory_files.py",
    "tests/promises/server/test_json_client.py",
    "tests/promises/server/test_json_server.py",
    "tests/promises/server/test_limits_of_a_server.py",
    "tests/promises/server/test_metrics_server.py",
    "tests/promises/server/test_peers_take_no_workers.py",
    "tests/promises/server/test_spawn_options.py",
    "tests/promises/server/test_spawn_server.py",
    "tests/promises/server/test_tool_call.py",
    "tests/promises/server/test_tool_itself.py",
    "tests/promises/server/test_tool_top.py",
    "tests/promises/server/test_what_peers_are_let.py",
    "tests/promises/values/test_large_values.py",
    "tests/promises/values/test_pickle_by_consent.py",
    "tests/promises/values/test_shared_arrays.py",
    "tests/promises/values/test_shared_memory.py",
    "tests/promises/web/test_bottle_plugin.py",
    "tests/promises/web/test_disconnect_cancels.py",
    "tests/promises/web/test_django_settings.py",
    "tests/promises/web/test_flask_extension.py",
    "tests/server",
    "tests/test_address.py",
    "tests/test_function_names.py",
    "tests/test_logdefer.py",
    "tests/tool",
    "tests/wire/test_arrays.py",
    "tests/wire/test_conversation.py",
    "tests/wire/test_failure.py",
    "tests/wire/test_json_conversation.py",
    "tests/wire/test_json_text.py",
    "tests/wire/test_kinds.py",
    "tests/wire/test_limits.py",
    "tests/wire/test_messages.py",
    "tests/wire/test_pickles.py",
]
"""Folders and files whose tests execute nearly all of gtask: with the name "coverage" they are run to measure it.

To be measured makes the start of a process two to three times as long, and the tests start thousands. So coverage is
measured by few of them, and only if it is asked for. What is not here executes little that these do not, or takes long
for it."""

REPEATING = "hypothesis or long_histories or megabyte_of_empty_containers"
"""The tests that execute the same lines thousands of times: coverage learns nothing from them, and triples their time.
They run unmeasured."""

MEASURED = {
    "COVERAGE_PROCESS_START": str(ROOT / "setup.cfg"),
    "COVERAGE_FILE": str(ROOT / ".coverage"),
    "GTASK_MEASURED": str(ROOT / "gtask"),
}
"""The environment in which each Python process, wherever it is started, is measured by coverage from its beginning."""

KNOWN = "run --source=gtask -m compileall -q gtask"
"""A command of coverage that makes known which modules there are. Each measured process could look for them at its end,
but that would take half of the time of its end."""

NAMES = ["coverage", *LONG]
"""What is run only if it is asked for."""

AT_ONCE = (os.cpu_count() or 1) + 2
"""How many parts run side by side."""

PATIENT_AT_ONCE = 1
"""How many patient parts run beside others: what computes all the time disturbs the tests that wait for something."""

PATIENCE = 5
"""The nice value of patient parts."""

FEW = 3
"""How many tests may fail beside others and pass alone, with --again."""

HELP = """\
bin/test                 the linters and the tests, but for what follows
bin/test coverage        at least 95 % of gtask is executed, by tests that are chosen for that
bin/test kill-safety     calls that are interrupted at every line and at every switch
bin/test compliance      the suites of Django and SQLAlchemy by gtask's backends
bin/test all             everything; at each line only one of the three exceptions strikes, the next at the next line
bin/test lint            the linters
bin/test --measure       the tests; afterwards tests/seconds.txt says how long each file took
bin/test --again NAME    with a name from above: if no more than 3 tests fail beside others they run once more, alone.
                         Those that pass then are named, for they are to be mended, but do not count
bin/test ARGUMENT...     the linters, and pytest with these arguments: bin/test tests/wire -k frame
"""


def main(arguments: list[str]) -> int:
    """Do what the command line says; gives the exit status."""
    if arguments in (["--help"], ["-h"]):
        print(HELP, end="")
        return 0
    os.chdir(ROOT)
    names = set(arguments)
    if "all" in names:
        os.environ["GTASK_STRIKES_TAKE_TURNS"] = "1"
    if names - {"all", "lint", "--measure", "--again", *NAMES}:
        return max(lint(), check("pytest", *arguments))
    if names == {"lint"}:
        return lint()
    usual = not names - {"--again"} or bool(names & {"all", "--measure"})
    long = [name for name in NAMES if name in names or "all" in names]
    linters = LINTERS if not names - {"--again"} or names & {"all", "lint"} else []
    status = test([*linters, *parts_of(usual, long)], "--measure" in names, "--again" in names)
    left = [name for name in NAMES if name not in long] if usual else []
    if left:
        print(f"== not run: {', '.join(left)} (bin/test {left[0]}, for one; bin/test all runs everything)")
    return status


def lint() -> int:
    """Run the linters; 0 if they have nothing to say."""
    return max(check(*part.program, *part.arguments) for part in LINTERS)


def check(*command: str) -> int:
    """Run a Python program here; 0 if it succeeds, else 1."""
    print("==", *command, flush=True)
    return int(subprocess.run([sys.executable, "-m", *command]).returncode != 0)


def usual_files() -> list[str]:
    """The test files that are in no long part, sorted."""
    long = {argument for some in LONG.values() for part in some for argument in part.arguments}
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")}
    return sorted(path for path in files - long if not path.startswith("tests/compliance/sqlalchemy/"))


def is_covered(path: str) -> bool:
    """Whether a test file is one of those that coverage is measured by."""
    return any(path == name or path.startswith(f"{name}/") for name in COVERED)


def repeats(path: str) -> bool:
    """Whether a test file may have tests that execute the same lines thousands of times."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return any(word in text for word in REPEATING.split(" or "))


def parts_of(usual: bool, names: list[str]) -> list[Part]:
    """What is to be run, in the order in which it is to begin: the longest parts first.

    Args:
        usual: whether the usual tests are run.
        names: those of NAMES that are run. No test is run twice.
    """
    found = [part for name in names if name in LONG for part in LONG[name]]
    seconds, files = parts.read(), usual_files()
    if "coverage" in names:
        covered = [path for path in files if is_covered(path)]
        files = [path for path in files if path not in covered]
        shared = parts.distribute(covered, seconds, AT_ONCE)
        found += [
            Part(f"covered {number}", [*some, "-k", f"not ({REPEATING})"], measured=True)
            for number, some in enumerate(shared, 1)
            if some
        ]
        found.append(Part("repeating", [*filter(repeats, covered), "-k", REPEATING]))
    if usual:
        shared = parts.distribute(files, seconds, 2 * AT_ONCE)
        found += [Part(f"part {number}", some) for number, some in enumerate(shared, 1) if some]
    return found


def test(some: list[Part], measure: bool, again: bool) -> int:
    """Run parts side by side; gives the status.

    Args:
        some: the parts, in the order in which they are to begin.
        measure: whether the seconds of each file are to be written down.
        again: whether the few tests that fail run once more.
    """
    # The tests start thousands of processes. Where Python may write no bytecode, each would compile gtask anew.
    subprocess.run([sys.executable, "-m", "compileall", "-q", "gtask"], check=True)
    for path in ROOT.glob(".coverage*"):
        path.unlink()
    with tempfile.TemporaryDirectory(prefix="gtask-test-") as directory:
        ended = run_all(some, Path(directory))
        if again:
            ended |= run_again(ended, Path(directory))
        if measure:
            parts.write(parts.read() | gathered(Path(directory)))
    status = int(any(code for code, _ in ended.values()))
    if any(part.measured for part in some):
        # The first makes known the files that no process has imported.
        status = max(status, *(check("coverage", *command.split()) for command in (KNOWN, "combine --quiet", "report")))
    for name, (code, line) in ended.items():
        print(f"== {name}: {line}" + (f" (status {code})" if code else ""))
    return status


def run_all(waiting: list[Part], directory: Path) -> dict[str, tuple[int, str]]:
    """Run parts, AT_ONCE at a time, and show the output of each that fails; gives their statuses and last lines."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    ended: dict[str, tuple[int, str]] = {}
    waiting, begun = list(waiting), monotonic()
    patient = {part.name for part in waiting if part.patient}
    try:
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                part = following(waiting, patient & running.keys())
                waiting.remove(part)
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
            if running:
                os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    finally:
        for process in running.values():
            process.send_signal(signal.SIGINT)
            process.wait()
    return ended


def run_again(ended: Mapping[str, tuple[int, str]], directory: Path) -> dict[str, tuple[int, str]]:
    """Run the tests that have failed once more, alone, if they are few.

    Returns:
        the parts in which they have failed, with the status 0, if all pass now.
    """
    failed = {name: failed_in(directory / f"{name}.failed") for name, (code, _) in ended.items() if code == 1}
    tests = [test for some in failed.values() for test in some]
    if not 0 < len(tests) <= FEW:
        return {}
    ((code, line),) = run_all([Part("once more, alone", tests)], directory).values()
    print("== failed beside others:", *tests, sep="\n   ")
    return {} if code else {name: (0, f"{ended[name][1]}; alone: {line}") for name, some in failed.items() if some}


def failed_in(path: Path) -> list[str]:
    """The tests that a part has written down as failed."""
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def following(waiting: Sequence[Part], patient: Collection[str]) -> Part:
    """The part that is to begin next: the first of its kind.

    Args:
        waiting: the parts that have not begun.
        patient: the patient parts that run.
    """
    kind = len(patient) < PATIENT_AT_ONCE
    return next((part for part in waiting if part.patient == kind), waiting[0])


def start(part: Part, log: Path) -> subprocess.Popen[bytes]:
    """Start the program of a part, which writes its output and its seconds into files of its own."""
    command = [sys.executable, "-m", *part.program, *part.arguments]
    written = {"GTASK_TEST_SECONDS": f"{log}.seconds", "GTASK_TEST_FAILED": f"{log}.failed"}
    environment = {**os.environ, **written, **(MEASURED if part.measured else {})}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    if part.patient:
        os.setpriority(os.PRIO_PROCESS, process.pid, PATIENCE)
    return process


def gathered(directory: Path) -> dict[str, float]:
    """The seconds of all files that were run."""
    return {name: number for path in directory.glob("*.seconds") for name, number in parts.read(path).items()}


def summary(said: str) -> str:
    """The last line of pytest's output."""
    lines = said.split("\n")
    return next((line.strip("= ") for line in reversed(lines) if line.strip()), "it said nothing")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
