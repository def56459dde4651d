"""Programs of other projects that some tests need, and what becomes of a test where this machine lacks one."""

from __future__ import annotations

import importlib
import os
import shutil
import sys

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


def needed_package(name):
    """Import a package of another project; where it is not installed this test is skipped, or fails."""
    if name == "sqlalchemy" and sys.version_info < (3, 11):
        pytest.skip("SQLAlchemy 2.1 needs Python 3.11")
    try:
        return importlib.import_module(name)
    except ImportError:
        fail_or_skip(f"{name}: pip install {name}")


def needs_program(name, package):
    """Skip this test, or let it fail, if a program is not installed.

    Args:
        name: of the program.
        package: what has it.
    """
    if shutil.which(name) is None:
        fail_or_skip(f"{name} (apt-get install {package})")
