"""The point of this test is to ensure that a connection of gtask.dbapi is one checkout: its transaction is its own,
what it leaves open is rolled back however it ends, and the driver's connection is used again.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sqlite3

import gevent
import pytest

import gtask
from gtask import dbapi
from tests.support.waiting import text_once_written, wait_until

SERVER = """
    import os, sqlite3, sys, time
    from gtask.server.dbapi import wrap

    def hang(path):
        with open(path, "w") as file:
            file.write(str(os.getpid()))
        time.sleep(3600)

    def register(connection):
        with open(f"{DIR}/opened", "a") as file:
            file.write(".")
        connection.create_function("pid", 0, os.getpid)
        connection.create_function("hang", 1, hang)

    interface = wrap(sqlite3, init=register)
    fixed = wrap(sqlite3, init=register, database=f"{DIR}/fixed.db", isolation_level=None)

    def refuse(connection):
        raise RuntimeError("not again")

    picky = wrap(sqlite3, init=register, reset=refuse)
"""

ENDLESS = "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT count(*) FROM r"


@pytest.fixture
def server(shared):
    return shared(SERVER, attribute="interface")


@pytest.fixture
def client(server, connect):
    return connect(server, max_workers=1, refork_after_error=False)


@pytest.fixture
def database(tmp_path):
    """A database with one table, ``entries``."""
    path = str(tmp_path / "test.db")
    with contextlib.closing(sqlite3.connect(path)) as plain:
        plain.execute("CREATE TABLE entries (text)")
    return path


def opened(tmp_path):
    """How many connections of the driver have been opened."""
    return (tmp_path / "opened").stat().st_size


def entries(database):
    """What has been committed; nobody is writing."""
    with contextlib.closing(sqlite3.connect(database, timeout=0)) as plain:
        plain.execute("BEGIN IMMEDIATE")
        return [text for (text,) in plain.execute("SELECT text FROM entries")]


def insert(client, database, **arguments):
    """A connection that has inserted an entry and not committed."""
    connection = dbapi.connect(client, database, **arguments)
    connection.execute("INSERT INTO entries VALUES ('open')")
    return connection


# --- how it ends -------------------------------------------------------------------------------------------


def test_close_rolls_back(client, database, tmp_path):
    """And the next one finds the worker, and its connection, as new."""
    insert(client, database).close()
    with contextlib.closing(dbapi.connect(client, database)) as connection:
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == (0,)
    assert (entries(database), opened(tmp_path)) == ([], 1)


def test_a_lost_reference_rolls_back(client, database, tmp_path):
    """Of the connection and all its cursors."""
    insert(client, database)
    with contextlib.closing(dbapi.connect(client, database)):
        assert entries(database) == []
    cursor = insert(client, database).execute("SELECT 1")
    assert cursor.connection.in_transaction
    del cursor
    with contextlib.closing(dbapi.connect(client, database)):
        assert (entries(database), opened(tmp_path)) == ([], 1)


@pytest.mark.parametrize("how", ["kill", "Timeout"])
def test_an_interrupted_greenlet_rolls_back(client, database, tmp_path, how):
    """Whatever it was doing; its connection is lost."""
    marker = tmp_path / "hangs"
    found = []

    def work():
        connection = insert(client, database)
        try:
            with gevent.Timeout(0.2 if how == "Timeout" else None):
                connection.execute("SELECT hang(?)", (str(marker),))
        finally:
            with pytest.raises(sqlite3.OperationalError) as caught:
                connection.execute("SELECT 1")
            found.append(caught.value)

    greenlet = gevent.spawn(work)
    if how == "kill":
        text_once_written(marker)
        greenlet.kill()
    with contextlib.suppress(gevent.Timeout):
        greenlet.get()
    assert isinstance(found[0], gtask.Cancelled)
    with contextlib.closing(dbapi.connect(client, database)) as connection:
        connection.execute("INSERT INTO entries VALUES ('next')")
        connection.commit()
    assert entries(database) == ["next"]


def test_a_time_out_rolls_back(server, connect, database):
    """The error is the driver's, and gtask's, and shows the statement; SQLite itself has stopped."""
    client = connect(server, min_workers=1, max_workers=1, timeout=1)
    client.open(wait=True)
    connection = insert(client, database)
    with pytest.raises(sqlite3.OperationalError, match="took longer than") as caught:
        connection.execute(ENDLESS).fetchone()
    assert isinstance(caught.value, gtask.CallTimeout)
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(sqlite3.OperationalError):
        connection.commit()
    connection.close()
    wait_until(lambda: client.stats().idle == 1, "another worker")
    assert entries(database) == []


def test_a_worker_that_dies_rolls_back(client, database, tmp_path):
    """The error says so; the program may connect again."""
    marker = tmp_path / "hangs"
    connection = insert(client, database)
    statement = gevent.spawn(connection.execute, "SELECT hang(?)", (str(marker),))
    os.kill(int(text_once_written(marker)), signal.SIGKILL)
    with pytest.raises(sqlite3.OperationalError, match="SIGKILL") as caught:
        statement.get()
    assert isinstance(caught.value, gtask.WorkerDied)
    with pytest.raises(sqlite3.OperationalError), connection:  # which does not hide it by what it does at its end
        connection.execute("SELECT 1")
    connection.close()
    dbapi.connect(client, database).close()
    assert entries(database) == []


def test_the_client_is_gone(server, client, database):
    """Closed while a connection is held: it is cut off."""
    connection = insert(client, database)
    client.close(timeout=0.01)
    with pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute("SELECT 1")
    assert isinstance(caught.value, gtask.ClientClosed)


# --- whose it is -------------------------------------------------------------------------------------------


def test_transactions_are_exclusive(server, connect, database):
    """Twenty greenlets over four workers count, and none counts what another one has not committed."""
    client = connect(server, max_workers=4, timeout=30)
    with contextlib.closing(dbapi.connect(client, database)) as connection:
        connection.execute("INSERT INTO entries VALUES (0)")
        connection.commit()

    def count():
        for _ in range(5):
            with contextlib.closing(dbapi.connect(client, database, timeout=30, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                [number] = connection.execute("SELECT text FROM entries").fetchone()
                connection.execute("UPDATE entries SET text = ?", (number + 1,))
                connection.execute("COMMIT")

    greenlets = [gevent.spawn(count) for _ in range(20)]
    for greenlet in gevent.joinall(greenlets):
        greenlet.get()
    assert entries(database) == [100]


def test_no_worker_in_time(server, connect, database):
    """All are held: the error is the driver's, and says so."""
    client = connect(server, min_workers=1, max_workers=1, timeout=1)
    client.open(wait=True)
    with contextlib.closing(dbapi.connect(client, database)):
        with pytest.raises(sqlite3.OperationalError, match=r"1 of 1 workers busy") as caught:
            dbapi.connect(client, database, like="sqlite3")
        assert isinstance(caught.value, gtask.AcquireTimeout)
        with pytest.raises(dbapi.OperationalError):  # which driver it would be nobody knows yet
            dbapi.connect(client, database)


# --- used again --------------------------------------------------------------------------------------------


def test_connections_are_used_again(server, connect, database, tmp_path):
    """One of the driver's for each worker, however many checkouts there are, errors among them."""
    client = connect(server, max_workers=2, refork_after_error=False)

    def use(number):
        with contextlib.closing(dbapi.connect(client, database)) as connection:
            connection.execute("SELECT count(*) FROM entries")
            with pytest.raises(sqlite3.OperationalError):
                connection.execute("SELECT * FROM nowhere")

    for greenlet in gevent.joinall([gevent.spawn(use, number) for number in range(50)]):
        greenlet.get()
    assert 1 <= opened(tmp_path) <= 2


STATES = {
    "an attribute": "",
    "a pragma": "PRAGMA foreign_keys = ON",
    "a temporary table": "CREATE TEMP TABLE entries (text)",
    "another database": "ATTACH ':memory:' AS other",
    "a pragma that nobody knows": "PRAGMA hard_heap_limit(1000000000)",
}


@pytest.mark.parametrize("state", STATES)
def test_what_was_set_does_not_reach_the_next(client, database, tmp_path, state):
    """It is set back, or another connection is opened."""
    with contextlib.closing(dbapi.connect(client, database)) as connection:
        if state == "an attribute":
            connection.isolation_level = None
            connection.text_factory = bytes
        connection.execute(STATES[state])
    with contextlib.closing(dbapi.connect(client, database)) as connection:
        assert (connection.isolation_level, connection.text_factory) == ("", str)
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (0,)
        assert [row[1] for row in connection.execute("PRAGMA database_list") if row[1] != "temp"] == ["main"]
        assert connection.execute("SELECT count(*) FROM sqlite_temp_master").fetchone() == (0,)
    assert opened(tmp_path) == (1 if state in ("an attribute", "a pragma") else 2)


def test_what_was_set_of_the_database_stays(client, database, tmp_path):
    """Pragmas of the file are not of the connection."""
    with contextlib.closing(dbapi.connect(client, database)) as connection:
        connection.execute("PRAGMA user_version = 7")
        connection.execute("PRAGMA journal_mode = WAL")
    with contextlib.closing(dbapi.connect(client, database)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (7,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_other_arguments_are_another_connection(client, database, tmp_path):
    """A worker has one at a time."""
    for arguments in ({}, {"isolation_level": None}, {}):
        with contextlib.closing(dbapi.connect(client, database, **arguments)) as connection:
            assert connection.isolation_level == arguments.get("isolation_level", "")
    assert opened(tmp_path) == 3


def test_a_reset_hook_that_refuses(serve, connect, database, tmp_path):
    """What the server's own hook does not find fit is closed, and the next one gets a new one."""
    client = connect(serve(SERVER, attribute="picky"), max_workers=1)
    for _ in range(2):
        insert(client, database).close()
    assert dbapi.connect(client, database).execute("SELECT 1").fetchone() == (1,)
    assert (entries(database), opened(tmp_path)) == ([], 3)


# --- what the server has set -------------------------------------------------------------------------------


def test_what_the_server_has_set(serve, connect, tmp_path):
    """A client may say the same, and nothing else."""
    client = connect(serve(SERVER, attribute="fixed"))
    with contextlib.closing(dbapi.connect(client)) as connection:
        assert connection.execute("PRAGMA database_list").fetchone()[2] == str(tmp_path / "fixed.db")
        assert connection.isolation_level is None
    dbapi.connect(client, str(tmp_path / "fixed.db")).close()
    for other in ((":memory:",), ()):
        arguments = {} if other else {"isolation_level": ""}
        with pytest.raises(sqlite3.InterfaceError, match="no client can change it: leave"):
            dbapi.connect(client, *other, **arguments)


def test_a_connection_that_fails(client, tmp_path):
    """It holds no worker, also while its error is kept."""
    with pytest.raises(sqlite3.OperationalError) as caught:
        dbapi.connect(client, str(tmp_path / "nowhere" / "test.db"))
    with contextlib.closing(dbapi.connect(client, ":memory:")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert "unable to open" in str(caught.value)


def test_what_a_client_may_not_do(client, database):
    """Only what the server offers of the driver's connection can be called or set."""
    with contextlib.closing(dbapi.connect(client, database)) as connection:
        for name in ("enable_load_extension", "set_authorizer", "__class__", "create_function", "close"):
            with pytest.raises(AttributeError):
                connection.call("invoke", None, name, [True], {})
        with pytest.raises(AttributeError, match="init hook"):
            connection.create_function("f", 0, int)
        with pytest.raises(AttributeError, match="may not set no_such"):
            connection.no_such = 5
        with pytest.raises(sqlite3.NotSupportedError, match="init hook"):
            connection.text_factory = lambda data: data
        assert connection.execute("SELECT 1").fetchone() == (1,)


# --- the ways in -------------------------------------------------------------------------------------------


def test_an_address_instead_of_a_client(server, database, monkeypatch):
    """All connections to an address share a client, which costs no worker for an error."""
    shared = {}
    monkeypatch.setattr(dbapi.clients, "_shared", shared)
    with contextlib.closing(dbapi.connect(server.address, database, like="sqlite3")) as connection:
        [pid] = connection.execute("SELECT pid()").fetchone()
        with pytest.raises(sqlite3.OperationalError):
            connection.execute("SELEC")
    for _ in range(3):
        with contextlib.closing(dbapi.connect(server.address, database)) as connection:
            assert connection.driver.name == "sqlite3"
            pids = {pid} | {connection.execute("SELECT pid()").fetchone()[0]}
    assert len(pids) <= 2
    assert list(shared) == [server.address]
    with pytest.raises(ValueError, match="address"):
        dbapi.connect("nonsense")
    shared.clear()
    gc.collect()


def test_the_module(server, database):
    """It has what the driver's has; its client is its own, with the options that were given."""
    module = dbapi.module(server.address, like="sqlite3", min_workers=0, timeout=20)
    assert (module.paramstyle, module.apilevel, module.threadsafety) == ("qmark", "2.0", 1)
    assert module.sqlite_version_info == sqlite3.sqlite_version_info
    assert module.IntegrityError is sqlite3.IntegrityError
    assert (module.Binary, module.Row) == (sqlite3.Binary, sqlite3.Row)
    assert "workers" in repr(module)
    with contextlib.closing(module.connect(database)) as connection:
        assert isinstance(connection, module.Connection)
        assert isinstance(connection.cursor(), module.Cursor)
    with pytest.raises(sqlite3.NotSupportedError, match="init hook"):
        module.register_converter("x", int)
    with pytest.raises(TypeError, match="timeout"):
        dbapi.module(gtask.Client(server.address), timeout=5)
    with pytest.raises(TypeError, match="no_such_option"):
        dbapi.module(server.address, no_such_option=5)
    with pytest.raises(TypeError, match="no database driver"):
        dbapi.module(server.address, like="json")
    with pytest.raises(ImportError):
        dbapi.module(server.address, like="no_such_driver")


def test_rows_travel_with_their_statement(client, database):
    """The first hundred cost no call of their own, and further ones come in batches."""
    with contextlib.closing(dbapi.connect(client, database)) as connection:
        connection.executemany("INSERT INTO entries VALUES (?)", ((n,) for n in range(1000)))
        before = client.stats().calls
        assert len(connection.execute("SELECT * FROM entries LIMIT 99").fetchall()) == 99
        assert client.stats().calls - before == 1
        assert len(list(connection.execute("SELECT * FROM entries"))) == 1000
        assert client.stats().calls - before <= 6


def test_large_rows(serve, connect, database):
    """No reply grows beyond what a message may have, as long as one row fits."""
    options = "--limit-message", "1000000", "--limit-shared", "0"
    client = connect(serve(SERVER, *options, attribute="interface"), limit_message=1_000_000)
    with contextlib.closing(dbapi.connect(client, database)) as connection:
        connection.executemany("INSERT INTO entries VALUES (?)", ((b"x" * 90_000,) for _ in range(50)))
        assert [len(text) for (text,) in connection.execute("SELECT text FROM entries")] == [90_000] * 50
        with pytest.raises(sqlite3.NotSupportedError, match="too large") as caught:
            connection.execute("SELECT zeroblob(2000000)")
        assert isinstance(caught.value, gtask.EncodeError)
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == (50,)
