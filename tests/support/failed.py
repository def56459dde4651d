"""A plugin of pytest: which tests have failed, into the file that GTASK_TEST_FAILED names, a line each."""

from __future__ import annotations

import os
from pathlib import Path

_failed: dict[str, None] = {}


def pytest_runtest_logreport(report):
    """Note a test that has failed, or one of its fixtures."""
    if report.failed:
        _failed[report.nodeid] = None


def pytest_sessionfinish():
    """Write them down."""
    if path := os.environ.get("GTASK_TEST_FAILED"):
        Path(path).write_text("".join(f"{name}\n" for name in _failed), encoding="utf-8")
