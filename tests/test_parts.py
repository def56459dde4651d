"""The parts of bin/test take about the same time, and each test file is in one of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import parts, run

NAMES = st.integers(0, 40).map("tests/test_{}.py".format)


@given(st.dictionaries(NAMES, st.floats(0, 100)), st.sets(NAMES), st.integers(1, 6))
def test_each_file_is_in_one_part(seconds, new, count):
    """Whether it was measured or not; and no part takes longer than another by more than its last file."""
    files = set(seconds) | new
    shared = parts.distribute(files, seconds, count)
    assert len(shared) == count
    assert sorted(path for part in shared for path in part) == sorted(files)
    loads = [sum(seconds.get(path, parts.DEFAULT) for path in part) for part in shared]
    longest = max((seconds.get(path, parts.DEFAULT) for path in files), default=0)
    assert max(loads) - min(loads) <= longest + 1e-9


def test_seconds_are_read_as_they_were_written(tmp_path):
    """By the tenth; where there is no file nothing is known."""
    assert parts.read(tmp_path / "seconds.txt") == {}
    parts.write({"tests/b.py": 2.04, "tests/a.py": 10.0}, tmp_path / "seconds.txt")
    assert (tmp_path / "seconds.txt").read_text() == "10.0 tests/a.py\n2.0 tests/b.py\n"
    assert parts.read(tmp_path / "seconds.txt") == {"tests/a.py": 10.0, "tests/b.py": 2.0}


def test_no_test_file_is_forgotten():
    """Each belongs to the usual parts or to a long one, but for the suite of SQLAlchemy, which one of them runs."""
    files = {str(path.relative_to(run.ROOT)) for path in (run.ROOT / "tests").rglob("test_*.py")}
    long = {part.arguments[0] for some in run.LONG.values() for part in some}
    assert run.usual_files() == sorted(files - long - {"tests/compliance/sqlalchemy/test_suite.py"})
    assert long <= files


def test_kill_safety_is_cut_into_parts():
    """What one part leaves out another runs: no way to be struck is forgotten, nor one that is new."""
    otherwise, *chosen = [part.arguments[2] for part in run.LONG["kill-safety"]]
    assert otherwise == " and ".join(f"not ({some})" for some in chosen)


@pytest.mark.parametrize("usual", [True, False])
@pytest.mark.parametrize("names", [[], ["coverage"], run.NAMES])
def test_no_test_is_run_twice(usual, names):
    """Nor is one left out: what coverage measures leaves the usual parts for parts that are measured."""
    found = run.parts_of(usual, names)
    whole = [part for part in found if part.measured or "-k" not in part.arguments]
    files = [path for part in whole for path in files_of(part)]
    covered = {path for path in run.usual_files() if run.is_covered(path)}
    long = {part.arguments[0] for name in names if name in run.LONG for part in run.LONG[name]} - {run.KILL_SAFETY}
    expected = long | (covered if "coverage" in names else set()) | (set(run.usual_files()) if usual else set())
    assert sorted(files) == sorted(expected)
    assert {path for part in found if part.measured for path in files_of(part)} == (
        covered if "coverage" in names else set()
    )
    assert len({part.name for part in found}) == len(found)


def test_what_is_not_measured_is_run():
    """Tests that execute the same lines thousands of times are left out of the measured parts, and run in another."""
    found = run.parts_of(False, ["coverage"])
    assert {part.arguments[-1] for part in found if part.measured} == {f"not ({run.REPEATING})"}
    (other,) = (part for part in found if not part.measured)
    assert other.arguments[-1] == run.REPEATING
    assert {"tests/client/test_pool.py", "tests/client/test_ledger.py"} < set(files_of(other))
    assert set(files_of(other)) < {path for part in found if part.measured for path in files_of(part)}


def files_of(part):
    """The files whose tests a part runs, all or some."""
    arguments = part.arguments
    return arguments[: arguments.index("-k")] if "-k" in arguments else arguments


def test_more_processors_than_files(monkeypatch):
    """No part is without files: its pytest would run all tests."""
    monkeypatch.setattr(run, "AT_ONCE", 1000)
    assert all(files_of(part) for part in run.parts_of(True, run.NAMES))


def test_what_coverage_is_measured_by_is_there():
    """Each folder and file of the list has tests."""
    assert [name for name in run.COVERED if not any(path.startswith(name) for path in run.usual_files())] == []


@pytest.mark.parametrize("line", ["3 failed, 20 passed in 4.56s", "20 passed in 62.00s (0:01:02)"])
def test_the_summary_is_found(line):
    """It is the last line of pytest's output, or of what there is of it."""
    assert run.summary(f"...\n{line}\n") == line
    assert run.summary("") == "it said nothing"


def test_patient_parts_come_one_at_a_time():
    """As long as there are others; then all lanes are theirs."""
    patient, other = run.Part("a", [], patient=True), run.Part("b", [])
    assert run.following([other, patient], ()) is patient
    assert run.following([patient, other], {"running"}) is other
    assert run.following([patient], {"running"}) is patient
    assert run.following([other], ()) is other


@pytest.mark.parametrize(
    ("failed", "passes"),
    [(["good"], True), (["good", "bad"], False), ([], False), (["good"] * (run.FEW + 1), False)],
    ids=["passes alone", "fails alone", "no test has failed", "too many"],
)
def test_what_failed_beside_others_runs_once_more(tmp_path, failed, passes):
    """Few tests do, and their part has passed if they all pass then; a part that failed otherwise stays as it is."""
    file = tmp_path / "test_again.py"
    file.write_text("def test_good(): pass\ndef test_bad(): assert 0\n")
    (tmp_path / "part 1.failed").write_text("".join(f"{file}::test_{name}\n" for name in failed))
    again = run.run_again({"part 1": (1, "1 failed"), "mypy": (1, "an error"), "part 2": (0, "passed")}, tmp_path)
    assert [(name, code) for name, (code, _) in again.items()] == ([("part 1", 0)] if passes else [])


def test_failures_are_written_down(tmp_path):
    """Of tests and of their fixtures, each once."""
    file = tmp_path / "test_some.py"
    file.write_text(
        "import pytest\n"
        "@pytest.fixture\ndef broken():\n    yield\n    assert 0\n"
        "def test_good(): pass\ndef test_bad(broken): assert 0\ndef test_late(broken): pass\n"
    )
    part = run.Part("some", [str(file)])
    run.run_all([part], tmp_path)
    names = [name.rpartition("::")[2] for name in run.failed_in(tmp_path / "some.failed")]
    assert names == ["test_bad", "test_late"]
