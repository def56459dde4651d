"""The point of this test is to ensure that the fuzzer holds for a short time, and that it finds what is wrong."""

import subprocess
import sys
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import engines
from tests.fuzz.meter import GROWTH, Meter, read
from tests.fuzz.shapes import shape
from tests.fuzz.targets import OF_EXCEPTIONS

FUZZ = Path(__file__).resolve().parents[2] / "bin/fuzz"


def test_a_short_run_holds():
    """Each target has had inputs, and the verdict is the last line."""
    done = subprocess.run([sys.executable, str(FUZZ), "4"], capture_output=True, text=True, timeout=170, check=False)
    *_, verdict = lines = done.stdout.splitlines()
    assert verdict == "verdict: holds", done.stdout + done.stderr
    assert done.returncode == 0
    rows = [line.split() for line in lines[2:-1]]
    assert len(rows) == 7
    assert all(int(row[1].replace(",", "")) > 0 for row in rows)


def wrong(data):
    assert b"\xc1" not in data, "it is in there"


def large(data):
    wrong.kept = bytearray(b"x" * ((GROWTH + 1000) * 1024))


@pytest.mark.parametrize(("target", "error"), [(wrong, "it is in there"), (large, "the process grew by")])
def test_what_is_wrong_is_found(tmp_path, target, error):
    """It is written down, with the input."""
    meter = Meter(target, tmp_path)
    with pytest.raises(AssertionError, match=error):
        engines.by_hypothesis(meter, [b"abc", b"ab\xc1", b"d"], 60, tmp_path)
    ((path, told),) = read(tmp_path).crashes
    assert error in told
    assert Path(path).read_bytes() == b"ab\xc1"  # with the first input any process grows


def test_what_is_right_is_counted(tmp_path):
    """The inputs, and the slowest."""
    meter = Meter(len, tmp_path)
    engines.by_hypothesis(meter, [b"abc"], 0.1, tmp_path)
    meter.write()
    outcome = read(tmp_path)
    assert outcome == meter.outcome or list(outcome.slowest) == list(meter.outcome.slowest)
    assert outcome.inputs > 1
    assert outcome.crashes == []


@given(st.binary(max_size=300))
def test_a_shape_can_travel(data):
    """Whatever the bytes are, their value has an end and can be carried."""
    msgpack.packb(shape(data, OF_EXCEPTIONS), unicode_errors="surrogatepass")
