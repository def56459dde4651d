"""Django's own tests come out with gtask's database backend as they do with Django's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.compliance.django.run import CANNOT_BE_HAD
from tests.support.needs import fail_or_skip

RUN = Path(__file__).with_name("django") / "run.py"


@pytest.mark.timeout(3600)
def test_all_outcomes_are_the_same(unmeasured, tmp_path):
    """Each test of what they say of databases, where threads are threads, and monkey-patched."""
    with open(tmp_path / "output", "w+") as output:
        status = subprocess.run(
            [sys.executable, str(RUN)], stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=3500
        ).returncode
        output.seek(0)
        said = output.read()
    if status == CANNOT_BE_HAD:
        fail_or_skip(said.partition("there is no ")[2])
    assert status == 0, said
