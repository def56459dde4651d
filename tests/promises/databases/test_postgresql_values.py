"""The point of this test is to ensure that psycopg2 in workers takes and gives the values, rows and errors that it
takes and gives in one's own process, and says clearly what it cannot.

What a program sees of a real PostgreSQL server is asked of both.
"""

from __future__ import annotations

import collections
import contextlib
import datetime
import enum
import ipaddress
import traceback
import uuid
from decimal import Decimal

import gevent
import psycopg2
import psycopg2.errors
import psycopg2.extensions
import psycopg2.extras
import pytest
from psycopg2 import sql

import gtask
from gtask import dbapi
from tests.support.postgresql import private_cluster
from tests.support.waiting import turn_hub

SERVER = """
    import psycopg2
    import psycopg2.extras
    from gtask.server.dbapi import wrap

    DSN = {dsn!r}
    interface = wrap(psycopg2, dsn=DSN)

    def init(connection):
        connection.cursor_factory = psycopg2.extras.RealDictCursor  # which is the client's business
        psycopg2.extras.register_uuid(conn_or_curs=connection)
        RANGE = psycopg2.extensions.new_type((3904,), "INT4RANGE", lambda value, cursor: value)
        psycopg2.extensions.register_type(RANGE, connection)
        psycopg2.extensions.register_type(psycopg2.extensions.new_type((790,), "MONEY", read_money), connection)

    def read_money(value, cursor):
        return int(value)

    initialised = wrap(psycopg2, dsn=DSN, init=init)
    of_dicts = wrap(psycopg2, dsn=DSN, cursor_factory=psycopg2.extras.RealDictCursor)
"""


@pytest.fixture(scope="module")
def cluster():
    with private_cluster() as cluster:
        yield cluster


@pytest.fixture
def start(cluster, shared, connect):
    """``start(attribute="interface", **options)`` serves psycopg2, and gives the module that stands for it."""

    def make(attribute="interface", **options):
        server = shared(SERVER.format(dsn=cluster.dsn), attribute=attribute)
        return dbapi.module(connect(server, **{"max_workers": 2, "refork_after_error": False, **options}), "psycopg2")

    return make


@pytest.fixture
def plain(cluster):
    """A connection of psycopg2 itself."""
    with contextlib.closing(psycopg2.connect(cluster.dsn)) as connection:
        yield connection


@pytest.fixture
def database(start):
    """A connection by a worker."""
    with contextlib.closing(start().connect()) as connection:
        yield connection


@pytest.fixture(params=["plain", "workers"])
def either(request):
    """A connection: of psycopg2 itself, or by a worker."""
    return request.getfixturevalue({"plain": "plain", "workers": "database"}[request.param])


def shown(value):
    """What can be compared: with the types, and not-a-number equal to itself."""
    if isinstance(value, (list, tuple)):
        return type(value), [shown(each) for each in value]
    if isinstance(value, memoryview):
        return memoryview, bytes(value)
    return type(value), value.isoformat() if isinstance(value, datetime.time) else repr(value)


def outcome(connection, statement, parameters=None):
    """What a statement gives, or how it fails."""
    try:
        cursor = connection.cursor()
        cursor.execute(statement, parameters)
        rows = cursor.fetchall()
    except Exception as error:
        kinds = [kind for kind in type(error).__mro__ if not kind.__module__.startswith("gtask")]
        return kinds[0].__module__, kinds[0].__name__, str(error)
    else:
        assert [type(row) for row in rows] == [tuple] * len(rows)
        return shown(rows), [tuple(column) for column in cursor.description], cursor.rowcount
    finally:
        connection.rollback()


# --- values ------------------------------------------------------------------------------------------------

EXPRESSIONS = [
    "NULL", "true", "1", "9223372036854775807", "-9223372036854775808", "2 ^ 70::numeric", "1.50::numeric",
    "'NaN'::numeric", "1e400::numeric", "0.1::float4", "0.1::float8", "'NaN'::float8", "'-Infinity'::float8",
    "'ä€😀\\\n'''", "''", "repeat('x', 100000)", "'a'::char(3)", "'name'::name", "'x'::bytea", "'\\x00ff'::bytea",
    "''::bytea",
    "date '2026-02-28'", "'infinity'::date", "'infinity'::timestamp", "'-infinity'::timestamptz",
    "'0044-03-15 BC'::date",
    "time '10:11:12.5'", "timetz '10:11:12+02'", "timestamp '2026-02-28 23:59:59.123456'",
    "timestamptz '2026-02-28 12:00+05:30'", "interval '1 day 2 hours'", "interval '-1 month 0.000001 s'",
    "'{\"a\": [1, 2.5, null, \"ä\"]}'::json", "'[{\"b\": true}]'::jsonb", "'3'::json",
    "'12345678-1234-5678-1234-567812345678'::uuid", "ARRAY[1, 2, NULL]", "ARRAY[ARRAY[1, 2], ARRAY[3, 4]]",
    "ARRAY['a', 'b,\"c']", "ARRAY['x'::bytea]", "ARRAY[1.5::numeric]", "ARRAY[date '2026-02-28']", "'{}'::int[]",
    "ROW(1, 'a')", "point(1, 2)", "'10.0.0.1'::inet", "B'101'", "12.34::money", "'<a/>'::xml", "1, 2 AS \"two words\"",
]  # fmt: skip


def test_what_comes(plain, database):
    """Each kind of column is what psycopg2 makes of it, of the same type, and described as it does."""
    for expression in EXPRESSIONS:
        assert outcome(database, f"SELECT {expression}") == outcome(plain, f"SELECT {expression}"), expression


class Colour(enum.Enum):
    RED = "red"


class Text(str):
    __slots__ = ()


Pair = collections.namedtuple("Pair", "one other")

PARAMETERS = [
    None, True, 5, 2**63 - 1, 2**63, -(2**200), 1.5, float("nan"), float("inf"), Decimal("1.10"), Decimal("NaN"),
    "ä€😀", "it's \\ %s\n", "", "x" * 100_000, Text("safe"), b"\x00\xff'\\", bytearray(b"array"), memoryview(b"view"),
    b"y" * 2_000_000, datetime.date(2026, 2, 28), datetime.datetime(2026, 2, 28, 1, 2, 3, 4),
    datetime.datetime(2026, 2, 28, tzinfo=datetime.timezone(datetime.timedelta(hours=-3.5))),
    datetime.time(1, 2, 3), datetime.time(1, 2, tzinfo=datetime.timezone.utc), datetime.timedelta(-1, 2, 3),
    [1, 2], [[1], [2]], ["a'", None], [b"x"], [], [Decimal("1.5")], Pair(1, "b"),
    psycopg2.Binary(b"binary"), psycopg2.Date(2026, 2, 28), psycopg2.Timestamp(2026, 2, 28, 1, 2, 3),
    psycopg2.Time(1, 2, 3), psycopg2.extensions.AsIs("1 + 1"), psycopg2.extensions.QuotedString("it's"),
    psycopg2.extras.Json({"a": ["it's \\ \n ä", None]}), [psycopg2.extras.Json([1])],
    uuid.UUID(int=1), {"a": 1}, {1, 2}, "nul\0", "\ud800",
]  # fmt: skip
"""Those at the end are refused, as psycopg2 refuses them."""


def test_what_goes(plain, database):
    """Each kind of parameter arrives as psycopg2 itself would bring it."""
    for value in PARAMETERS:
        assert outcome(database, "SELECT %s", (value,)) == outcome(plain, "SELECT %s", (value,)), value


def test_how_parameters_are_given(either):
    """By position, by name, as a row for IN; and a statement without any is taken as it is."""
    cursor = either.cursor()
    for statement, parameters in [
        ("SELECT 1 WHERE 1 IN %s", ((1, 2),)),
        ("SELECT %(one)s", {"one": 1}),
        ("SELECT 1 WHERE 1 = ANY(%s)", ([1, 2],)),
        ("SELECT length('%')", None),
        ("SELECT length('%%')", ()),
        ("SELECT 1 WHERE (1, 'b') = %s", (Pair(1, "b"),)),
        (b"SELECT 1", None),
    ]:
        cursor.execute(statement, parameters)
        assert cursor.fetchall() == [(1,)], statement
    with pytest.raises(psycopg2.ProgrammingError, match=r"can't adapt type 'Colour'|cannot travel"):
        cursor.execute("SELECT %s", (Colour.RED,))


def test_adapters(either):
    """Those that a program registers."""
    kept = psycopg2.extensions.adapters, psycopg2.extensions.string_types
    before = [dict(each) for each in kept]
    try:
        psycopg2.extensions.register_adapter(Colour, lambda colour: psycopg2.extensions.AsIs(f"'{colour.value}'"))
        psycopg2.extensions.register_adapter(dict, psycopg2.extras.Json)
        psycopg2.extras.register_uuid()
        cursor = either.cursor()
        values = (Colour.RED, {"a": "it's"}, uuid.UUID(int=5), [uuid.UUID(int=6)])
        cursor.execute("SELECT %s, %s::json, %s::text, %s::text", values)
        assert cursor.fetchall() == [("red", {"a": "it's"}, str(uuid.UUID(int=5)), f"{{{uuid.UUID(int=6)}}}")]
    finally:
        for each, was in zip(kept, before, strict=True):
            each.clear()
            each.update(was)


def test_what_cannot_cross(database):
    """It is an error of the driver's, which says what to do; and the connection goes on."""
    cursor = database.cursor()
    with pytest.raises(psycopg2.NotSupportedError, match=r"NumericRange.*cast the column.*init hook"):
        cursor.execute("SELECT int4range(1, 5)")
    with pytest.raises(psycopg2.NotSupportedError, match=r"a NumericRange.*%s::int4range"):
        cursor.execute("SELECT %s", (psycopg2.extras.NumericRange(1, 5),))
    with pytest.raises(psycopg2.ProgrammingError, match=r"cannot travel.*IPv4Address"):
        cursor.execute("SELECT %s", (ipaddress.ip_address("10.0.0.1"),))
    cursor.execute("SELECT int4range(1, 5)::text")
    assert cursor.fetchall() == [("[1,5)",)]


def test_the_init_hook_registers_types(start):
    """UUIDs, and ranges as text."""
    with contextlib.closing(start("initialised").connect()) as connection:
        one = uuid.UUID(int=1)
        cursor = connection.cursor()
        cursor.execute("SELECT %s::uuid, int4range(1, 5), %s::uuid[]", (one, [one]))
        assert cursor.fetchall() == [(one, "[1,5)", [one])]
        with pytest.raises(ValueError, match="invalid literal") as caught:
            cursor.execute("SELECT 5::money")
        assert "return int(value)" in "".join(traceback.format_exception(caught.value))  # a line of the worker's


# --- errors ------------------------------------------------------------------------------------------------

MISTAKES = [
    "SELEC", "SELECT * FROM nowhere", "SELECT 1 / 0", "", "SELECT 'x'::int", "INSERT INTO t VALUES (1)",
    "INSERT INTO t VALUES (NULL)", "SELECT 1; SELECT nothing", "SELECT %s", "ROLLBACK TO SAVEPOINT no",
    "CREATE TABLE t (n int)", "SELECT pg_terminate_backend(1)", "LOCK t",
]  # fmt: skip


def test_errors(plain, database):
    """They are of the driver's own classes, and say what it says."""
    with plain.cursor() as cursor:
        cursor.execute("CREATE TABLE t (n int PRIMARY KEY CHECK (n < 5)); INSERT INTO t VALUES (1)")
    plain.commit()
    try:
        for statement in MISTAKES:
            assert outcome(database, statement) == outcome(plain, statement), statement
        with pytest.raises(psycopg2.errors.UniqueViolation) as caught:
            database.cursor().execute("INSERT INTO t VALUES (1)")
        database.rollback()
    finally:
        with plain.cursor() as cursor:
            cursor.execute("DROP TABLE t")
        plain.commit()
    error = caught.value
    assert isinstance(error, psycopg2.IntegrityError)
    assert isinstance(error, database.IntegrityError)
    assert isinstance(error, gtask.RemoteError)
    assert error.pgcode == "23505"
    assert error.pgerror.startswith("ERROR:  duplicate key value violates unique constraint")
    assert (error.diag.constraint_name, error.diag.table_name, error.diag.column_name) == ("t_pkey", "t", None)
    assert error.diag.message_detail == "Key (n)=(1) already exists."
    assert error.cursor is None
    shown = "".join(traceback.format_exception(error))
    assert "psycopg2.errors.UniqueViolation: duplicate key" in shown
    assert "raised this in worker" in shown


def test_no_worker_in_time(connect, tmp_path):
    """That is an OperationalError, and gtask's own error is its cause, for no class can be of both."""
    module = dbapi.module(connect(f"unix:{tmp_path}/nobody.sock", timeout=0.1), "psycopg2")
    with pytest.raises(psycopg2.OperationalError) as caught:
        module.connect()
    assert isinstance(caught.value, gtask.FatalError)
    assert type(caught.value.__cause__) is gtask.AcquireTimeout


def test_too_many_in_line(start):
    """That is an OperationalError and gtask's own error in one."""
    module = start(max_workers=1, max_waiting=1)
    with contextlib.closing(module.connect()):
        waiting = gevent.spawn(module.connect)
        turn_hub()
        with pytest.raises(psycopg2.OperationalError) as caught:
            module.connect()
        assert isinstance(caught.value, gtask.Overloaded)
    waiting.get().close()


# --- rows --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 5000])
def test_rows(either, size):
    """However many there are, and however they are fetched."""
    rows = [(n, f"n{n}") for n in range(size)]
    cursor = either.cursor()
    statement = f"SELECT n, 'n' || n FROM generate_series(0, {size - 1}) AS n"
    cursor.execute(statement)
    assert (cursor.rowcount, cursor.fetchall(), cursor.fetchone(), cursor.fetchmany(5)) == (size, rows, None, [])
    cursor.execute(statement)
    assert list(cursor) == rows
    cursor.execute(statement)
    assert [cursor.fetchone(), *cursor.fetchmany(150), *cursor.fetchall()] == (rows or [None])
    cursor.execute("CREATE TEMPORARY TABLE x (n int)")
    with pytest.raises(psycopg2.ProgrammingError, match="no results to fetch"):
        cursor.fetchone()
    cursor.close()
    assert cursor.closed
    with pytest.raises(psycopg2.InterfaceError, match="cursor already closed"):
        cursor.fetchone()


def test_rows_of_other_kinds(either):
    """DictCursor, RealDictCursor and NamedTupleCursor, whose rows are psycopg2's own."""
    statement = 'SELECT 1 AS one, 2 AS "two words", 3 AS "3" FROM generate_series(1, 300)'
    for factory in (psycopg2.extras.DictCursor, psycopg2.extras.RealDictCursor, psycopg2.extras.NamedTupleCursor):
        for name in (None, "named"):
            with either.cursor(name, cursor_factory=factory) as cursor:
                cursor.execute(statement)
                rows = [cursor.fetchone(), *cursor.fetchmany(2), *cursor.fetchall()]
            assert len(rows) == 300
            if factory is psycopg2.extras.NamedTupleCursor:
                assert rows[0]._fields == ("one", "two_words", "f3")
                assert {tuple(row) for row in rows} == {(1, 2, 3)}
            else:
                assert type(rows[0]) is getattr(psycopg2.extras, factory.__name__.replace("Cursor", "Row"))
                assert [row["two words"] for row in rows] == [2] * 300
                assert dict(rows[0]) == {"one": 1, "two words": 2, "3": 3}
                assert list(rows[0]) == ([1, 2, 3] if factory is psycopg2.extras.DictCursor else list(dict(rows[0])))


def test_kinds_of_rows_for_a_whole_connection(start):
    """``cursor_factory`` of connect; others than the three are refused, and so are those that the server would make."""
    module = start()
    with contextlib.closing(module.connect(cursor_factory=psycopg2.extras.RealDictCursor)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT 1 AS one")
        assert cursor.fetchall() == [{"one": 1}]
        with pytest.raises(psycopg2.NotSupportedError, match="LoggingCursor"):
            connection.cursor(cursor_factory=psycopg2.extras.LoggingCursor)
    for arguments in (
        {"connection_factory": psycopg2.extras.LoggingConnection},
        {"cursor_factory": psycopg2.extras.LoggingCursor},
    ):
        with pytest.raises(psycopg2.NotSupportedError, match=next(iter(arguments))):
            module.connect(**arguments)
    with pytest.raises(psycopg2.NotSupportedError, match="rows as tuples"):
        start("of_dicts").connect()


def test_named_cursors(either):
    """They are the database's, which fetches no row before it is asked for: so that it knows which one is meant."""
    with either.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE t AS SELECT n, '' AS text FROM generate_series(0, 4999) AS n")
    either.commit()
    with either.cursor("named") as cursor:
        assert cursor.name == "named"
        cursor.execute("SELECT n FROM t ORDER BY n FOR UPDATE")
        for mark in ("first", "second"):
            cursor.fetchone()
            with either.cursor() as other:
                other.execute("UPDATE t SET text = %s WHERE CURRENT OF named", (mark,))
        assert cursor.description[0].name == "n"
        assert cursor.fetchmany(3) == [(2,), (3,), (4,)]
        cursor.itersize = 10
        assert [next(cursor) for _ in range(5)] == [(n,) for n in range(5, 10)]
        with either.cursor() as other:
            other.execute("FETCH 1 FROM named")
            assert other.fetchall() == [(15,)]  # for it has given ten
    with either.cursor("again") as cursor:
        cursor.execute("SELECT n, text FROM t ORDER BY n")
        assert cursor.fetchone() == (0, "first")
        assert cursor.fetchone() == (1, "second")
        assert [n for n, _ in cursor] == list(range(2, 5000))
        assert (cursor.fetchone(), cursor.fetchall()) == (None, [])
    either.commit()
    with either.cursor("held", withhold=True, scrollable=True) as cursor:
        cursor.execute("SELECT n, repeat('x', 100000) FROM t WHERE n < 10 ORDER BY n")  # more than travels at once
        either.commit()
        assert [(n, len(text)) for n, text in cursor.fetchall()] == [(n, 100_000) for n in range(10)]
    with pytest.raises(psycopg2.ProgrammingError), either.cursor("wrong") as cursor:
        cursor.execute("CREATE TABLE no (n int)")
    either.rollback()


# --- beyond PEP 249 ----------------------------------------------------------------------------------------


def test_helpers_of_extras(either):
    """execute_values and execute_batch, by mogrify."""
    cursor = either.cursor()
    assert cursor.mogrify("SELECT %s, %s", (1, "ä'")) == "SELECT 1, 'ä'''".encode()
    cursor.execute("CREATE TEMPORARY TABLE t (n int, text text)")
    psycopg2.extras.execute_values(cursor, "INSERT INTO t VALUES %s", [(n, f"it's {n}") for n in range(150)])
    psycopg2.extras.execute_batch(cursor, "UPDATE t SET text = %s WHERE n = %s", [("new", n) for n in range(20)])
    rows = psycopg2.extras.execute_values(cursor, "INSERT INTO t VALUES %s RETURNING n", [(1000, "x")], fetch=True)
    assert rows == [(1000,)]
    cursor.execute("SELECT count(*), sum(n), count(*) FILTER (WHERE text = 'new') FROM t")
    assert cursor.fetchall() == [(151, 12175, 20)]
    cursor.executemany("DELETE FROM t WHERE n = %s", [(1,), (2,)])
    assert cursor.statusmessage == "DELETE 1"
    assert cursor.query == b"DELETE FROM t WHERE n = 2"


def test_composed_statements(either):
    """Those of psycopg2.sql."""
    statement = sql.SQL("SELECT {}, {}, {} AS {} FROM {}").format(
        sql.Literal("it's \\ ä"),
        sql.Placeholder(),
        sql.Literal([1, 2]),
        sql.Identifier('we"ird'),
        sql.Identifier("pg_catalog", "pg_am"),
    )
    cursor = either.cursor()
    cursor.execute(statement + sql.SQL(" LIMIT 1"), (5,))
    assert cursor.fetchall() == [("it's \\ ä", 5, [1, 2])]
    assert cursor.description[2].name == 'we"ird'
    assert cursor.mogrify(sql.SQL("SELECT {}").format(sql.Placeholder("a")), {"a": 1}) == b"SELECT 1"
    cursor.executemany(sql.SQL("SELECT {}").format(sql.Placeholder()), [(1,), (2,)])


def test_sessions(either):
    """Levels of isolation, autocommit, notices, the encoding."""
    assert (either.isolation_level, either.readonly, either.deferrable, either.autocommit) == (None, None, None, False)
    either.set_session(isolation_level="SERIALIZABLE", readonly=True)
    assert (either.isolation_level, either.readonly) == (psycopg2.extensions.ISOLATION_LEVEL_SERIALIZABLE, True)
    cursor = either.cursor()
    cursor.execute("SHOW transaction_isolation")
    assert cursor.fetchall() == [("serializable",)]
    assert either.get_transaction_status() == psycopg2.extensions.TRANSACTION_STATUS_INTRANS
    with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
        cursor.execute("CREATE TABLE no (n int)")
    either.rollback()
    either.set_isolation_level(psycopg2.extensions.ISOLATION_LEVEL_READ_COMMITTED)
    either.readonly = None
    either.autocommit = True
    cursor.execute("DO $$ BEGIN RAISE NOTICE 'something'; END $$")
    assert either.notices == ["NOTICE:  something\n"]
    either.autocommit = False
    either.set_client_encoding("LATIN1")
    assert either.encoding == "LATIN1"
    cursor.execute("SELECT 'ä'")
    assert cursor.fetchall() == [("ä",)]
    assert either.server_version > 90000
    assert "host" in either.get_dsn_parameters()


def test_two_phase_commit(either):
    """By an Xid or a gid."""
    cursor = either.cursor()
    either.autocommit = True
    cursor.execute("DROP TABLE IF EXISTS two; CREATE TABLE two (n int)")
    either.autocommit = False
    for xid, end in ((either.xid(7, "gtrid", "bqual"), "tpc_commit"), ("gid", "tpc_rollback")):
        either.tpc_begin(xid)
        cursor.execute("INSERT INTO two VALUES (1)")
        either.tpc_prepare()
        getattr(either, end)()
    either.tpc_begin("later")
    cursor.execute("INSERT INTO two VALUES (2)")
    either.tpc_prepare()
    either.reset()
    cursor.execute("SELECT gid FROM pg_prepared_xacts")
    [(gid,)] = cursor.fetchall()
    either.rollback()
    either.tpc_commit(gid)
    cursor.execute("SELECT n FROM two ORDER BY n")
    assert cursor.fetchall() == [(1,), (2,)]


def test_what_the_worker_keeps(database):
    """COPY, large objects and the like are refused, with what to do instead."""
    cursor = database.cursor()
    for method, reason in [
        (cursor.copy_from, "execute_values"),
        (cursor.copy_to, "named cursor"),
        (cursor.copy_expert, "COPY"),
        (cursor.scroll, "MOVE"),
        (cursor.cast, "in the worker"),
        (database.lobject, "lo_get"),
        (database.cancel, "time-out"),
        (database.poll, "block their greenlet only"),
        (database.fileno, "block their greenlet only"),
        (database.tpc_recover, "pg_prepared_xacts"),
    ]:
        with pytest.raises(psycopg2.NotSupportedError, match=rf"{method.__name__}\(\) cannot be called.*{reason}"):
            method()
    for name in ("notifies", "no_such_thing"):
        assert not hasattr(database, name)
