"""Which files the watch looks at, and what it calls a change."""

from __future__ import annotations

import itertools
import json
import os
import sys

import msgpack
import pytest

from gtask.server.daemon.watch import Watch

_stamps = itertools.count(1_000_000_000)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The file of a module that is loaded."""
    path = tmp_path / "watched_module.py"
    path.write_text("x = 1\n")
    loaded = type(sys)("watched_module")
    loaded.__file__ = str(path)
    monkeypatch.setitem(sys.modules, "watched_module", loaded)
    return path


def change(path):
    """Change a file; its time differs, however coarse the file system's clock is."""
    stamp = next(_stamps)
    path.write_text(f"x = {stamp}\n")
    os.utime(path, (stamp, stamp))


def test_a_change_is_seen_once(module):
    """It is told by the next look, and by that alone."""
    watch = Watch()
    assert watch.changed() == []
    change(module)
    assert watch.changed() == [str(module)]
    assert watch.changed() == []
    change(module)
    assert watch.changed() == [str(module)]


def test_a_file_that_is_being_replaced(module):
    """Editors remove a file and write another: both are changes, and neither is an error."""
    watch = Watch()
    module.unlink()
    assert watch.changed() == [str(module)]
    assert watch.changed() == []
    module.write_text("x = 3\n")
    assert watch.changed() == [str(module)]


def test_a_module_that_is_loaded_later(module, tmp_path, monkeypatch):
    """It is watched from the first look that sees it; being new is no change."""
    watch = Watch()
    other = tmp_path / "later.py"
    other.write_text("")
    loaded = type(sys)("later")
    loaded.__file__ = str(other)
    monkeypatch.setitem(sys.modules, "later", loaded)
    assert watch.changed() == []
    change(other)
    assert watch.changed() == [str(other)]


def test_modules_without_a_file(module, monkeypatch):
    """Built-in ones, namespaces, and what people put into sys.modules do no harm."""
    monkeypatch.setitem(sys.modules, "no_file", None)
    monkeypatch.setitem(sys.modules, "odd_file", type("Odd", (), {"__file__": 3}))
    assert Watch().changed() == []


def test_installed_packages_are_not_watched():
    """Python's own modules and those of its packages do not change while one develops; this very file may."""
    seen = Watch()._stamps
    assert json.__file__ not in seen
    assert msgpack.__file__ not in seen
    assert __file__ in seen


def test_what_lies_beside_the_installation_is_watched(module, monkeypatch):
    """A system's Python has the prefix /usr, and an application may well live in /usr/src."""
    monkeypatch.setattr(sys, "prefix", str(module.parent))
    monkeypatch.setattr(sys, "base_prefix", str(module.parent))
    assert str(module) in Watch()._stamps


def test_a_file_that_was_only_touched(module):
    """Its contents are what they were."""
    watch = Watch()
    os.utime(module, (5, 5))
    assert watch.changed() == []
    change(module)
    assert watch.changed() == [str(module)]
