"""The point of this test is to ensure that what psycopg2's functions register with a connection by a worker makes the
values of that connection, and of no other.

``register_uuid()`` and its kin take psycopg2's own connections, and, once gtask.dbapi stands for it, those by workers.
"""

from __future__ import annotations

import contextlib
import datetime
import sqlite3
import uuid

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest

from gtask import dbapi
from tests.support.postgresql import private_cluster

SERVER = """
    import psycopg2
    from gtask.server.dbapi import wrap

    interface = wrap(psycopg2, dsn={dsn!r})
"""
HERE = uuid.UUID(int=7)


@pytest.fixture(scope="module")
def cluster():
    """A PostgreSQL server for these tests."""
    with private_cluster() as cluster:
        yield cluster


@pytest.fixture
def module(cluster, shared, connect):
    """What stands for psycopg2, with one worker."""
    client = connect(shared(SERVER.format(dsn=cluster.dsn), attribute="interface"), max_workers=1)
    return dbapi.module(client, "psycopg2")


@pytest.fixture(params=["plain", "worker"])
def database(request, cluster, module):
    """A connection, of psycopg2 itself and by a worker."""
    connection = psycopg2.connect(cluster.dsn) if request.param == "plain" else module.connect("")
    with contextlib.closing(connection):
        yield connection


def value(connection, expression):
    """What the database makes of it."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT 1, {expression}, 'x'")
        [(one, made, x)] = cursor.fetchall()
    assert (one, x) == (1, "x")
    return made


def test_uuids_and_arrays_of_them(database):
    """They are values of Python, nothing is nothing, and the columns beside them are as they were."""
    psycopg2.extras.register_uuid(conn_or_curs=database)
    assert value(database, f"'{HERE}'::uuid") == HERE
    assert value(database, f"ARRAY['{HERE}'::uuid, NULL]") == [HERE, None]
    assert value(database, "NULL::uuid") is None
    with database.cursor() as cursor:
        cursor.execute("SELECT %s::uuid FROM generate_series(1, 5000)", (HERE,))  # in several batches
        assert cursor.fetchmany(2) == [(HERE,)] * 2
        assert set(cursor) == {(HERE,)}


def test_json_by_ones_own_function(database):
    """It is called with the text; its exceptions come as they are."""
    psycopg2.extras.register_default_jsonb(database, loads=lambda text: [text])
    assert value(database, """'{"a": 1}'::jsonb""") == ['{"a": 1}']
    psycopg2.extras.register_default_json(database, loads=lambda text: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        value(database, "'{}'::json")
    assert value(database, "'a'::text") == "a"


def test_composite_types(database):
    """Their parts are made by what psycopg2 has for them."""
    with database.cursor() as cursor:
        cursor.execute("CREATE TYPE pair AS (number integer, moment timestamptz)")
    psycopg2.extras.register_composite("pair", database)
    made = value(database, "(5, '2030-01-02 03:04:05+00')::pair")
    assert made == (5, datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc))
    assert value(database, "ARRAY[(5, NULL)::pair]") == [(5, None)]


def test_ranges(database):
    """As a type of one's own, and as Python's range of it."""
    with database.cursor() as cursor:
        cursor.execute("CREATE TYPE span AS RANGE (subtype = float8)")
    psycopg2.extras.register_range("span", "Span", database)
    made = value(database, "'[1.5,2.5)'::span")
    assert (made.lower, made.upper, type(made).__name__) == (1.5, 2.5, "Span")


def test_dictionaries(database):
    """If the database has the extension hstore."""
    with database.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'hstore'")
        if not cursor.fetchall():
            pytest.skip("this PostgreSQL has no hstore")
        cursor.execute("CREATE EXTENSION hstore")
    try:
        psycopg2.extras.register_hstore(database)
        assert value(database, "'a=>1, b=>NULL'::hstore") == {"a": "1", "b": None}
    finally:
        psycopg2.extensions.adapters.pop((dict, psycopg2.extensions.ISQLQuote), None)


def test_the_next_connection_knows_nothing_of_it(module):
    """Though it has the same worker, and the same connection of psycopg2 there."""
    with contextlib.closing(module.connect()) as connection:
        backend = connection.info.backend_pid
        psycopg2.extras.register_uuid(conn_or_curs=connection)
    with contextlib.closing(module.connect()) as connection:
        assert connection.info.backend_pid == backend
        assert value(connection, f"'{HERE}'::uuid") == str(HERE)


def test_with_a_cursor_it_is_refused(module):
    """Nothing is registered then, and no other connection is concerned."""
    with contextlib.closing(module.connect()) as connection, connection.cursor() as cursor:
        with pytest.raises(psycopg2.NotSupportedError, match="register a type with the connection"):
            psycopg2.extras.register_uuid(conn_or_curs=cursor)
        with pytest.raises(TypeError):
            psycopg2.extensions.register_type(psycopg2.extensions.UNICODE, "nonsense")
        assert value(connection, f"'{HERE}'::uuid") == str(HERE)


def test_other_drivers_make_their_values_in_the_worker(serve, connect):
    """sqlite3's connections refuse, and say what to do."""
    server = serve("from gtask.server.dbapi import sqlite3", attribute="sqlite3")
    with contextlib.closing(dbapi.connect(connect(server), ":memory:")) as connection:
        with pytest.raises(sqlite3.NotSupportedError, match="init hook"):
            connection.cast_here(str, ["x"])
        assert connection.casters == {}


def test_what_a_connection_tells_of_itself(database, cluster):
    """``info``, as far as a worker tells it."""
    info = database.info
    assert info.server_version >= 90000
    assert info.backend_pid == value(database, "pg_backend_pid()")
    assert info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_INTRANS
    assert info.dsn_parameters["host"] == cluster.directory
    assert not hasattr(database, "execute")


def test_notices(database):
    """The last fifty are kept, until the program removes them."""
    with database.cursor() as cursor:
        cursor.execute("DO $$ BEGIN FOR n IN 1..60 LOOP RAISE NOTICE 'no. %', n; END LOOP; END $$")
        assert [notice.split()[-1] for notice in database.notices] == [str(n) for n in range(11, 61)]
        database.notices.clear()
        cursor.execute("SELECT 1")
        assert database.notices == []
