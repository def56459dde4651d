"""The point of this test is to ensure that SQLAlchemy works with PostgreSQL by workers, with the dialect that it has.

``create_engine("postgresql+psycopg2://", module=gtask.dbapi.module(...))`` is all that a program has to write.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import logging
import os
import signal
import uuid
from decimal import Decimal
from pathlib import Path

import gevent
import pytest

import gtask
from gtask import dbapi
from gtask.testing import wait_until
from tests.support.postgresql import private_cluster

sqlalchemy = pytest.importorskip("sqlalchemy", "2.1", reason="SQLAlchemy 2.1 needs Python 3.11")
psycopg2 = pytest.importorskip("psycopg2")
pool, postgresql, workers = (
    pytest.importorskip(name)
    for name in ("sqlalchemy.pool", "sqlalchemy.dialects.postgresql", "gtask.integrations.sqlalchemy")
)

SERVER = """
    import os
    import psycopg2
    from gtask.server.dbapi import wrap

    def introduce(connection):
        connection.cursor().execute(f"SET worker.pid = '{{os.getpid()}}'")

    interface = wrap(psycopg2, init=introduce, dsn={dsn!r})
"""

account = sqlalchemy.Table(
    "account",
    sqlalchemy.MetaData(),
    sqlalchemy.Column("name", sqlalchemy.String, primary_key=True),
    sqlalchemy.Column("cents", sqlalchemy.Integer, sqlalchemy.CheckConstraint("cents >= 0", name="solvency")),
)


@pytest.fixture(scope="module")
def cluster():
    """A PostgreSQL server for these tests."""
    with private_cluster() as cluster:
        yield cluster


@pytest.fixture
def module(cluster, shared, connect):
    """What stands for psycopg2, with at most eight workers."""
    server = shared(SERVER.format(dsn=cluster.dsn), attribute="interface")
    return dbapi.module(connect(server, max_workers=8, refork_after_error=False, timeout=60), like="psycopg2")


@pytest.fixture
def create_engine(module):
    """SQLAlchemy's, for that; the engines end with the test."""
    engines = []

    def create(url="postgresql+psycopg2://", **options):
        engines.append(sqlalchemy.create_engine(url, module=module, **options))
        return engines[-1]

    yield create
    for engine in engines:
        engine.dispose()
    engines.clear()
    gc.collect()


@pytest.fixture
def engine(create_engine):
    """An engine as a program that gevent has patched has it, and an account with a hundred cents."""
    engine = create_engine()
    account.metadata.drop_all(engine)
    account.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(account.insert().values(name="ann", cents=100))
    return engine


def cents(engine):
    """What Ann has."""
    with engine.connect() as connection:
        return connection.scalar(sqlalchemy.select(account.c.cents))


def test_transactions(engine):
    """What is committed stays, and what an exception leaves is undone."""
    with engine.begin() as connection:
        connection.execute(account.update().values(cents=50))

    def fail():
        with engine.begin() as connection:
            connection.execute(account.update().values(cents=5))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert cents(engine) == 50


def test_errors(engine):
    """They are SQLAlchemy's, of psycopg2's very class, with what psycopg2 tells of them."""
    with engine.connect() as connection:
        with pytest.raises(sqlalchemy.exc.IntegrityError, match="solvency") as caught:
            connection.execute(account.update().values(cents=-1))
        assert isinstance(caught.value.orig, psycopg2.errors.CheckViolation)
        assert caught.value.orig.diag.constraint_name == "solvency"
        assert not caught.value.connection_invalidated
        connection.rollback()
        assert connection.scalar(sqlalchemy.select(account.c.cents)) == 100


def test_isolation_levels(create_engine, engine):
    """They can be chosen, and are not those of the next user."""
    serializable = create_engine(isolation_level="SERIALIZABLE", poolclass=workers.WorkerPool)
    with serializable.connect() as connection:
        assert connection.scalar(sqlalchemy.text("SHOW transaction_isolation")) == "serializable"
    automatic = engine.execution_options(isolation_level="AUTOCOMMIT")
    with automatic.connect() as connection:
        connection.execute(account.update().values(cents=1))
    assert cents(engine) == 1
    with engine.connect() as connection:
        assert connection.scalar(sqlalchemy.text("SHOW transaction_isolation")) == "read committed"


VALUES = {
    "uuid": (sqlalchemy.Uuid(), uuid.UUID(int=5)),
    "uuids": (postgresql.ARRAY(sqlalchemy.Uuid()), [uuid.UUID(int=5), None]),
    "json": (postgresql.JSONB(), {"a": [1, None, {"b": "ü"}]}),
    "array": (postgresql.ARRAY(sqlalchemy.Integer), [[1, 2], [3, None]]),
    "numeric": (sqlalchemy.Numeric(10, 2), Decimal("1.50")),
    "moment": (
        sqlalchemy.DateTime(timezone=True),
        datetime.datetime(2030, 1, 2, 3, 4, 5, 6, tzinfo=datetime.timezone.utc),
    ),
    "span": (sqlalchemy.Interval(), datetime.timedelta(days=1, microseconds=2)),
    "binary": (sqlalchemy.LargeBinary(), b"\0\xff"),
    "text": (sqlalchemy.String(), "a'b\\ü%s"),
}


@pytest.mark.parametrize("name", VALUES)
def test_values(engine, name):
    """They go to the database and come back as by psycopg2 itself."""
    kind, value = VALUES[name]
    with engine.connect() as connection:
        statement = sqlalchemy.select(sqlalchemy.cast(sqlalchemy.bindparam("value", value, kind), kind))
        got = connection.scalar(statement)
        assert (got, type(got)) == (value, type(value))


def test_what_is_registered_with_a_connection_runs_here(create_engine):
    """A deserializer of JSON is the program's own function, for this engine's connections only."""
    texts = []
    engine = create_engine(json_deserializer=lambda text: texts.append(text) or {"made": "here"})
    query = sqlalchemy.select(sqlalchemy.cast(sqlalchemy.literal('{"a": 1}'), sqlalchemy.JSON), 5)
    with engine.connect() as connection:
        assert connection.execute(query).all() == [({"made": "here"}, 5)]
    assert texts == ['{"a": 1}']
    engine.dispose()
    with create_engine().connect() as connection:
        assert connection.execute(query).all() == [({"a": 1}, 5)]


def test_other_connections_of_psycopg2_are_left_alone(engine, cluster):
    """What SQLAlchemy registers with a connection by a worker concerns no other connection of this process."""
    with engine.connect() as connection:
        assert connection.scalar(sqlalchemy.text("SELECT gen_random_uuid()")).version == 4
    with contextlib.closing(psycopg2.connect(cluster.dsn)) as plain, plain.cursor() as cursor:
        cursor.execute("SELECT gen_random_uuid()")
        assert type(cursor.fetchone()[0]) is str
        psycopg2.extras.register_uuid(conn_or_curs=plain)
        cursor.execute("SELECT gen_random_uuid()")
        assert type(cursor.fetchone()[0]) is uuid.UUID


def test_many_rows_with_a_cursor_of_the_database(engine):
    """A stream of rows, of which not all are read."""
    with engine.connect() as connection:
        rows = connection.execution_options(yield_per=100).execute(
            sqlalchemy.text("SELECT n FROM generate_series(1, 100000) AS n")
        )
        assert [next(rows)[0] for _ in range(250)] == list(range(1, 251))
        rows.close()
        assert connection.scalar(sqlalchemy.text("SELECT 1")) == 1


def test_notices_are_logged_once(engine, caplog):
    """What the database says beside results, as SQLAlchemy logs it."""
    with caplog.at_level(logging.INFO, "sqlalchemy.dialects.postgresql"), engine.connect() as connection:
        connection.execute(sqlalchemy.text("DO $$ BEGIN RAISE NOTICE 'mind the gap'; END $$"))
        connection.execute(sqlalchemy.text("SELECT 1"))
    assert caplog.text.count("mind the gap") == 1


def test_a_pool_replaces_connections_whose_workers_died(create_engine, engine):
    """With pre_ping before anybody sees it; without, after one error, which says that the connection is gone."""
    for pings in (True, False):
        pooled = create_engine(pool_size=1, pool_pre_ping=pings)
        with pooled.connect() as connection:
            pid = int(connection.exec_driver_sql("SHOW worker.pid").scalar())
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), 30, "the worker's end")
        if not pings:
            with pytest.raises(sqlalchemy.exc.OperationalError) as caught, pooled.connect() as connection:
                connection.exec_driver_sql("SELECT 1")
            assert caught.value.connection_invalidated
            assert isinstance(caught.value.orig, gtask.FatalError)
            assert isinstance(caught.value.orig, psycopg2.OperationalError)
        assert cents(pooled) == 100


def test_a_pool_survives_the_database(cluster, create_engine, engine):
    """The database was restarted: the connections are replaced, here and in the workers."""
    pooled = create_engine(pool_pre_ping=True)
    assert cents(pooled) == 100
    cluster.restart()
    assert cents(pooled) == 100
    engine.dispose()


def test_two_hundred_greenlets_share_the_workers(create_engine, engine):
    """In a program that gevent has not patched, with the pool that is made for it, and from the first use on."""
    shared = create_engine(poolclass=workers.WorkerPool)
    engine.dispose()

    def earn():
        with shared.begin() as connection:
            connection.execute(account.update().values(cents=account.c.cents + 1))

    gevent.joinall([gevent.spawn(earn) for _ in range(200)], raise_error=True)
    assert cents(shared) == 300
