"""What can be served to gtask.dbapi, and what a driver's connection is made to be before it is lent again."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from gtask.server import dbapi
from gtask.server.databases.database import Database
from gtask.server.databases.drivers import Driver, SQLite, driver_of


def init(connection):
    """A hook to be named."""


def test_what_is_no_driver():
    """It is refused where it is wrapped, with what is missing."""
    with pytest.raises(TypeError, match="no database driver"):
        dbapi.wrap(json)
    with pytest.raises(TypeError, match="init=5 cannot be called"):
        dbapi.wrap(sqlite3, init=5)
    with pytest.raises(TypeError, match="reset='x' cannot be called"):
        dbapi.wrap(sqlite3, reset="x")
    with pytest.raises(ImportError):
        dbapi.wrap(sqlite3, init="no_such_module:f")


def test_hooks_by_name():
    """As they come from the environment."""
    interface = dbapi.wrap(sqlite3, init=f"{__name__}:init")
    assert interface.name == "sqlite3"
    assert {"execute", "commit", "fetch"} <= set(interface.methods)
    assert interface.hooks == ["checkout_done", "teardown"]


@pytest.mark.parametrize("text", ["nonsense", "[]", "5"])
def test_an_environment_that_makes_no_sense(text):
    """It is said what to write."""
    done = subprocess.run(
        [sys.executable, "-c", "import gtask.server.dbapi"],
        env={**os.environ, "GTASK_DBAPI": text},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "as a JSON object, such as" in done.stderr


class Idle:
    """A connection that has a socket."""

    def __init__(self, sock):
        self.sock = sock
        self.fileno = sock.fileno
        self.rolled_back = 0

    def rollback(self):
        self.rolled_back += 1


def test_idle_connections():
    """One on which its server has said something, or hung up, is not used again."""
    driver = Driver(sqlite3)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = Idle(ours)
        assert driver.is_alive(connection)
        theirs.send(b"goodbye")
        assert not driver.is_alive(connection)
        ours.recv(100)
        theirs.close()
        assert not driver.is_alive(connection)
        assert driver.reset(connection)
    assert connection.rolled_back == 1


def test_idle_connections_without_a_descriptor():
    """They are asked something: one that does not answer is not used again."""
    driver = Driver(sqlite3)
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (n)")
        connection.execute("INSERT INTO t VALUES (1)")
        assert driver.is_alive(connection)
        assert not connection.in_transaction
    assert not driver.is_alive(connection)


class Lost:
    """A connection whose database is gone."""

    def rollback(self):
        raise BrokenPipeError

    def close(self):
        raise sqlite3.OperationalError("lost")


def test_lost_connections(monkeypatch):
    """They are no failure of the worker's, which opens another one."""
    connections = [Lost(), Idle(socket.socket())]
    monkeypatch.setattr(Driver, "connect", lambda driver: connections[0])
    driver = Driver(sqlite3)
    database = Database(driver, None, None, {})
    database.connect([], [], {})
    del connections[0]
    database.checkout_done()
    with closing(connections[0].sock):
        database.connect([], [], {})
        database.checkout_done()
        assert connections[0].rolled_back == 1


def test_known_drivers():
    """Others are served as PEP 249 says."""
    assert type(driver_of(sqlite3)) is SQLite
    assert type(driver_of(json)) is Driver


PRAGMAS = {
    "PRAGMA foreign_keys = ON": True,
    "  pragma main.cache_size=-100": True,
    "PRAGMA table_info(t)": True,
    "PRAGMA foreign_keys": True,
    "PRAGMA user_version = 5": True,
    "PRAGMA journal_mode = MEMORY": False,
    "PRAGMA no_such_pragma(1)": False,
    "CREATE TEMP TABLE temporary (x)": False,
    "CREATE TABLE lasting (x)": True,
    "ATTACH ':memory:' AS other": False,
    "INSERT INTO t VALUES (1)": True,
}


@pytest.mark.parametrize("statement", PRAGMAS)
def test_fit_to_be_lent_again(tmp_path, statement):
    """Or not, if it was told what cannot be taken back."""
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute("CREATE TABLE t (x)")
        driver = SQLite(sqlite3)
        driver.prepare(connection)
        before = (
            connection.execute("PRAGMA foreign_keys").fetchall(),
            connection.execute("PRAGMA cache_size").fetchall(),
        )
        driver.statement(connection, statement)
        connection.execute(statement)
        assert driver.reset(connection) == PRAGMAS[statement]
        if PRAGMAS[statement]:
            after = (
                connection.execute("PRAGMA foreign_keys").fetchall(),
                connection.execute("PRAGMA cache_size").fetchall(),
            )
            assert after == before
            assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
    with closing(sqlite3.connect(":memory:")) as connection:
        driver.prepare(connection)
        assert not driver.reset(connection)


def test_scripts(tmp_path):
    """What pragmas one has is not looked at: with any, the connection is not lent again."""
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        driver = SQLite(sqlite3)
        driver.prepare(connection)
        driver.script("CREATE TABLE t (x)")
        assert driver.reset(connection)
        driver.script("SELECT 1; PRAGMA foreign_keys = ON")
        assert not driver.reset(connection)
