"""Programs of other projects that some tests need, and what becomes of a test where this machine lacks one."""

from __future__ import annotations

import os
import shutil

import pytest

REQUIRED = "GTASK_TESTS_REQUIRE_ALL"


def fail_or_skip(lacking):
    """End this test: it is skipped, or it fails if the environment says that nothing may be lacking.

    Args:
        lacking: what this machine lacks, and how to get it.
    """
    if os.environ.get(REQUIRED):
        pytest.fail(f"this test needs {lacking}")
    pytest.skip(f"there is no {lacking}")


def needs_program(name, package):
    """Skip this test, or let it fail, if a program is not installed.

    Args:
        name: of the program.
        package: what has it.
    """
    if shutil.which(name) is None:
        fail_or_skip(f"{name} (apt-get install {package})")
