"""The programs in Perl that speak JSON with gtask, and whether this machine can run them."""

from __future__ import annotations

import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

from tests.support import needs

PROGRAMS = Path(__file__).parents[1] / "apps" / "perl"
MODULES = ("AnyEvent", "JSON::XS")
ADVICE = "Debian and Ubuntu: apt-get install libanyevent-perl libjson-xs-perl"


@lru_cache
def missing():
    """What this machine lacks, in words; "" if nothing."""
    perl = shutil.which("perl")
    if perl is None:
        return f"perl. {ADVICE}"
    for module in MODULES:
        if subprocess.run([perl, f"-M{module}", "-e1"], capture_output=True).returncode:
            return f"Perl's {module}. {ADVICE}"
    return ""


def command(program):
    """The command that runs one of the programs.

    Without Perl or its modules the test is skipped, or fails if the environment says that they are required.
    """
    lacking = missing()
    if lacking:
        needs.fail_or_skip(lacking)
    return ["perl", str(PROGRAMS / program)]
