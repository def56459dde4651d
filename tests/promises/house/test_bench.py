"""The point of these tests is to ensure that bin/bench measures what it is asked for, and reports it as documented.

Figures are not looked at: they depend on the machine.
"""

import json
import os
import re
import subprocess
import sys

import pytest

from bench import report
from bench.contestants import CONTESTS, Contestant, Limit
from bench.instructions import Count
from bench.operations import OPERATIONS
from tests.support.process import ROOT

DOCUMENT = (ROOT / "docs" / "performance.rst").read_text()
KEYS = {
    "contestant": {"name", "title", "us", "least_us", "ratio", "least_ratio", "limits"},
    "operation": {"name", "title", "caller", "worker", "instructions", "ratio", "limits"},
    "figure": {"name", "title", "value", "unit", "limits"},
    "limit": {"than", "value", "limit", "ok"},
}


def bench(*arguments, **environment):
    """Run bin/bench; gives its status, output and errors."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, ROOT / "bin" / "bench", *arguments],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=150,
    )
    return done.returncode, done.stdout, done.stderr


def counted(**instructions):
    """Lines of counts: caller and worker of each operation, with the prototype at 100."""
    counts = {"prototype": Count(60, 40), **{name: Count(*count) for name, count in instructions.items()}}
    return report.counts_as_lines([one for one in OPERATIONS if one.name in counts], counts)


def test_json_has_the_documented_keys():
    status, output, errors = bench("--json", "--rounds", "1", "--only", "function", "--only", "memory")
    assert status == 0, errors
    found = json.loads(output)
    assert set(found) == {"gtask", "python", "rounds", "results"}
    lines = {line["name"]: line for line in found["results"]}
    assert set(lines) == {"call", "function", "memory"}  # call, because function is compared with it
    assert set(lines["function"]) == KEYS["contestant"]
    assert set(lines["memory"]) == KEYS["figure"]
    [limit] = lines["function"]["limits"]
    assert set(limit) == KEYS["limit"]
    assert limit["than"] == "call"
    assert 0 < lines["function"]["least_us"] <= lines["function"]["us"]
    assert set(counted(call=(1, 1))[0]) == KEYS["operation"]


def test_the_page_has_all_keys_and_names():
    """The tables of docs/performance.rst list each key of the JSON, and each name for --only."""
    documented = set(re.findall(r"``([a-z_-]+)``", DOCUMENT))
    assert set().union(*KEYS.values()) <= documented
    names = {one.name for contestants in CONTESTS for one in contestants} | {one.name for one in OPERATIONS}
    assert names <= documented


def test_unknown_names_are_refused():
    status, _, errors = bench("--only", "everything")
    assert status == 2
    assert "--only: the names are blocking, ping-pong, prototype, call" in errors


def test_without_valgrind_a_check_is_refused():
    status, output, errors = bench("--check", PATH="/nowhere")
    assert (status, output) == (2, "")
    assert errors == "bin/bench: valgrind is not installed (Debian and Ubuntu: apt install valgrind)\n"


@pytest.mark.parametrize(("caller", "worker", "over"), [(100, 70, []), (101, 70, ["call"])])
def test_a_check_fails_over_the_limit(caller, worker, over):
    """A call may take 1.7 times the prototype's instructions; one without a limit may take any number."""
    assert report.over_limits(counted(call=(caller, worker), remote=(900, 900))) == over


def test_limits_compare_the_least_times():
    """The ratio to another contestant is one of the least times of both; without another one, it is microseconds."""
    line = [Contestant("new", "New", None, (Limit(1.1, "old"), Limit(3.0))), Contestant("ping-pong", "Raw", None)]
    times = {"new": [2e-6, 4e-6], "old": [1e-6, 9e-6], "ping-pong": [1e-6, 1e-6]}
    new, _ = report.times_as_lines(line, times)
    assert [limit["value"] for limit in new["limits"]] == pytest.approx([2.0, 2.0])
    assert [limit["ok"] for limit in new["limits"]] == [False, True]
    assert (new["us"], new["least_us"], new["ratio"]) == pytest.approx((3.0, 2.0, 3.0))


def test_a_table_says_which_limit_is_over():
    lines = [*counted(call=(150, 50)), report.figure("memory", "memory in line", "bytes", 3000, 2048)]
    assert report.table(lines).splitlines() == [
        "instructions                               caller   worker     both    ratio",
        "bare prototype                                 60       40      100     1.00",
        "call on a held checkout                       150       50      200     2.00   2 of 1.7 x prototype OVER",
        "",
        "other figures",
        "memory in line                                       3,000 bytes               3,000 of 2,048 OVER",
    ]
