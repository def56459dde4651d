"""The point of this test is to ensure that the soak holds: whatever is killed, hangs or is given up, the rest is right.

A short one, with few callers, in a process of its own; ``bin/soak`` without arguments is the real one.
"""

import subprocess
import sys
from pathlib import Path

SOAK = Path(__file__).resolve().parents[2] / "bin/soak"


def test_a_short_soak_holds():
    """It comes to its end by itself, with status 0 and its verdict as the last line."""
    soak = subprocess.run(
        [sys.executable, str(SOAK), "5", "--greenlets", "500"], capture_output=True, text=True, timeout=170, check=False
    )
    assert soak.stdout.splitlines()[-1:] == ["verdict: holds"], soak.stdout + soak.stderr
    assert soak.returncode == 0
