"""The point of this test is to ensure that a client's executor keeps what Python's own tests of executors promise.

They are those of this Python's ``test.test_concurrent_futures``: submit, map, shutdown, ``concurrent.futures.wait`` and
``as_completed``. tests/compliance/executor.py runs them, and lists those that it leaves out, each with the reason.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.compliance import executor
from tests.support.process import ROOT

PROGRAM = [sys.executable, "-m", "tests.compliance.executor"]


def test_in_patched_programs_and_in_others(unmeasured):
    """All pass in both. They run side by side, so none of them holds up the hub."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    programs = [
        subprocess.Popen([*PROGRAM, *how], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        for how in ([], ["patched"])
    ]
    outcomes = [(program, *program.communicate(timeout=120)) for program in programs]
    for program, told, complaints in outcomes:
        if program.returncode == executor.MISSING:
            pytest.skip("this Python comes without its own tests")
        assert program.returncode == 0, complaints
        passed = re.findall(r"^(\w+)\.\w+: ok$", told, re.MULTILINE)
        assert len(passed) == len(told.splitlines()), told
        assert len(passed) > 20
        assert set(passed) == set(executor.MIXINS)
