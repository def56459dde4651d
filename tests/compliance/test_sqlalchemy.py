"""SQLAlchemy's compliance suite for dialects comes out by gtask's workers as it does by sqlite3 itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("sqlalchemy") / "run.py"


@pytest.mark.timeout(3600)
@pytest.mark.skipif(sys.version_info < (3, 11), reason="SQLAlchemy 2.1 needs Python 3.11")
def test_all_outcomes_are_the_same(unmeasured):
    """Each test of it, in memory and in a file; and none fails."""
    done = subprocess.run([sys.executable, RUN], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(" on both\n") == 2
