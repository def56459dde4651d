"""What the worker adds to a new connection of a driver."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from gtask.server.databases.drivers import driver_of


@pytest.fixture
def connection():
    """A connection of sqlite3."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        yield connection


def value(connection, expression):
    """What SQLite makes of it."""
    [[found]] = connection.execute(f"SELECT {expression}")
    return found


def test_regexp(connection):
    """``text REGEXP pattern`` searches, and nothing is neither found nor missing."""
    driver_of(sqlite3).prepare(connection)
    assert value(connection, "'abc' REGEXP 'b.'") == 1
    assert value(connection, "'abc' REGEXP '^b'") == 0
    assert value(connection, "NULL REGEXP 'b'") is None


def test_floor_where_sqlite_has_none(connection):
    """Only there: SQLite's own is left alone."""
    lacks = True

    def allow(action, name, function, *_):
        nonlocal lacks
        if action == sqlite3.SQLITE_FUNCTION and function == "floor" and lacks:
            lacks = False
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    connection.set_authorizer(allow)
    driver_of(sqlite3).prepare(connection)
    assert not lacks
    assert type(value(connection, "floor(-2.5)")) is int
    assert value(connection, "floor(-2.5)") == -3
