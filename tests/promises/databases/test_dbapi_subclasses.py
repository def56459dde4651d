"""The point of this test is to ensure that a program may derive from what gtask.dbapi and sqlite3 deal with: cursors of
its own, values of its own classes, and paths.
"""

from __future__ import annotations

import sqlite3

import pytest

from gtask import dbapi

SERVER = """
    import sqlite3
    from gtask.server.dbapi import wrap

    interface = wrap(sqlite3)
"""


@pytest.fixture
def connection(shared, connect, tmp_path):
    """It is opened by a path, which is no text."""
    client = connect(shared(SERVER, attribute="interface"), refork_after_error=False)
    connection = dbapi.connect(client, tmp_path / "test.db", like="sqlite3")
    yield connection
    connection.close()


def test_a_path_names_the_database(connection, tmp_path):
    """As with sqlite3."""
    connection.execute("CREATE TABLE t (x)")
    assert (tmp_path / "test.db").exists()


class Shouting(dbapi.Cursor):
    """Each statement ends with an exclamation."""

    def execute(self, operation, parameters=None):
        return super().execute(f"{operation} || '!'", parameters)


def test_a_cursor_of_another_class(connection):
    """``cursor(factory=...)`` makes it; what it does not do otherwise is as usual, the row_factory too."""
    assert connection.cursor(factory=Shouting).execute("SELECT ?", ("hey",)).fetchone() == ("hey!",)
    connection.row_factory = lambda cursor, row: (type(cursor), *row)
    assert connection.cursor(factory=Shouting).execute("SELECT 'a'").fetchall() == [(Shouting, "a!")]
    assert connection.execute("SELECT 'a'").fetchall() == [(dbapi.Cursor, "a")]


def test_a_cursor_of_the_driver_is_refused(connection):
    """It would need a connection of the driver's."""
    with pytest.raises(TypeError, match=r"must make a gtask\.dbapi\.Cursor"):
        connection.cursor(factory=lambda connection: object())


class Text(str):
    __slots__ = ()


class Number(int):
    pass


def test_adapters_serve_subclasses(connection, monkeypatch):
    """A str that is more than a str is adapted, if there is an adapter, and else is text; the same for numbers."""
    query, values = "SELECT ?, typeof(?), ?, typeof(?)", (Text("a"), Text("a"), Number(7), Number(7))
    assert connection.execute(query, values).fetchone() == ("a", "text", 7, "integer")
    monkeypatch.setitem(sqlite3.adapters, (Text, sqlite3.PrepareProtocol), lambda text: f"<{text}>")
    monkeypatch.setitem(sqlite3.adapters, (Number, sqlite3.PrepareProtocol), float)
    assert connection.execute(query, values).fetchone() == ("<a>", "text", 7.0, "real")
