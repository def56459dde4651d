"""The point of this test is to ensure that a worker which keeps its connection to a database of SQLite never serves a
file that is not there any more under that name.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3

import pytest

from gtask import dbapi

SERVER = """
    import os, sqlite3
    from gtask.server.dbapi import wrap

    interface = wrap(sqlite3, init=lambda connection: connection.create_function("pid", 0, os.getpid))
"""


@pytest.fixture
def client(serve, connect):
    """All connections are of one worker."""
    return connect(serve(SERVER, attribute="interface"), max_workers=1, refork_after_error=False)


def names_in(client, path):
    """The tables that a new connection sees, and the worker that it has."""
    with contextlib.closing(dbapi.connect(client, path)) as connection:
        rows = connection.execute("SELECT name FROM sqlite_master").fetchall()
        [pid] = connection.execute("SELECT pid()").fetchone()
        return [name for [name] in rows], pid


def make(path, table):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE {table} (x)")


def test_a_file_that_was_removed(client, tmp_path):
    """The next connection makes a new one, as sqlite3 does."""
    path = str(tmp_path / "a.db")
    make(path, "old")
    first, pid = names_in(client, path)
    os.remove(path)
    assert (first, names_in(client, path)) == (["old"], ([], pid))
    assert os.path.exists(path)


def test_a_file_that_was_replaced(client, tmp_path):
    """The next connection is to the new one."""
    path = str(tmp_path / "a.db")
    make(path, "old")
    first, pid = names_in(client, path)
    make(tmp_path / "b.db", "new")
    os.rename(tmp_path / "b.db", path)
    assert (first, names_in(client, path)) == (["old"], (["new"], pid))
