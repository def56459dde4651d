"""A plugin of pytest: how long each test file took, into the file that GTASK_TEST_SECONDS names."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from time import monotonic

import pytest

from tests import parts

_seconds: dict[str, float] = defaultdict(float)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    """Add what the test and its fixtures take to the seconds of its file."""
    began = monotonic()
    yield
    _seconds[item.nodeid.partition("::")[0]] += monotonic() - began


def pytest_sessionfinish():
    """Write it down."""
    if path := os.environ.get("GTASK_TEST_SECONDS"):
        parts.write(_seconds, Path(path))
