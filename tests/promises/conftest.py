"""What promises share: a module whose functions are served, an operator who runs gtask-server, and web servers."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import textwrap

import pytest

from gtask import testing
from tests.support import web
from tests.support.daemon import Operator
from tests.support.process import ROOT

_numbers = itertools.count(1)


@pytest.fixture
def allow(tmp_path, monkeypatch, nothing_is_left_behind):
    """``allow(source, *others)`` writes a module with this source, imports it here, and serves its functions, and those
    of the other modules, by gtask.server.functions; gives the server and the module.

    The module finds its test's directory as ``DIR`` (a str), to leave marks in.
    """
    monkeypatch.syspath_prepend(str(tmp_path))
    with contextlib.ExitStack() as servers:

        def start(source, *others):
            name = f"jobs_{next(_numbers)}"
            (tmp_path / f"{name}.py").write_text(f"DIR = {str(tmp_path)!r}\n" + textwrap.dedent(source))
            module = importlib.import_module(name)
            allowed = [f"--allow={each}" for each in (name, *others)]
            return servers.enter_context(testing.running_server("gtask.server.functions", None, *allowed)), module

        yield start


@pytest.fixture
def operator(tmp_path, monkeypatch, nothing_is_left_behind):
    """An :class:`Operator` in the test's directory; what is started ends with the test."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("GTASK_SERVER_ARGS", raising=False)
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    with contextlib.closing(Operator(tmp_path)) as operator:
        yield operator


@pytest.fixture
def site(tmp_path, nothing_is_left_behind):
    """A gtask-server of ``tests/apps/jobs.py``, and web servers before it; see :class:`tests.support.web.Site`."""
    with web.site(tmp_path) as site:
        yield site
