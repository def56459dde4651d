"""The point of this test is to ensure that sqlite3 in workers, by gtask.dbapi, is what sqlite3 is in one's own process.

What a program sees of a database is asked of both, of ``sqlite3`` itself and of the module that stands for it.
"""

from __future__ import annotations

import contextlib
import datetime
import decimal
import sqlite3
import sys

import pytest

from gtask import dbapi

SERVER = """
    import sqlite3
    from gtask.server.dbapi import wrap

    def register(connection):
        connection.create_function("fail_after", 2, lambda number, last: number if number < last else 1 / 0)

    interface = wrap(sqlite3, init=register)
"""


class Plain:
    """sqlite3 itself, with the functions that the server's init hook registers."""

    def __getattr__(self, name):
        return getattr(sqlite3, name)

    @staticmethod
    def connect(*args, **kwargs):
        connection = sqlite3.connect(*args, **kwargs)
        connection.create_function("fail_after", 2, lambda number, last: number if number < last else 1 / 0)
        return connection


@pytest.fixture(params=["plain", "workers"])
def module(request, shared, connect):
    """sqlite3, or the one in workers."""
    if request.param == "plain":
        return Plain()
    return dbapi.module(connect(shared(SERVER, attribute="interface"), refork_after_error=False))


@pytest.fixture
def database(module, tmp_path):
    """A connection to a new database, in a file."""
    connection = module.connect(str(tmp_path / "test.db"))
    yield connection
    connection.close()


@pytest.fixture
def numbers(database):
    """The connection, and in its database the table ``numbers`` with 250 rows."""
    database.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY, name TEXT)")
    database.executemany("INSERT INTO numbers VALUES (?, ?)", ((n, f"n{n}") for n in range(250)))
    database.commit()
    return database


def outcome(function):
    """What it gives, or how it fails."""
    try:
        value = function()
    except Exception as error:
        kinds = {kind.__module__: kind.__name__ for kind in reversed(type(error).__mro__)}
        return kinds.get("sqlite3", kinds["builtins"]), str(error)
    return type(value), repr(value)


# --- statements and rows -----------------------------------------------------------------------------------


def test_rows_are_tuples(numbers):
    """However they are fetched, and however many there are."""
    cursor = numbers.cursor()
    assert cursor.execute("SELECT n, name FROM numbers ORDER BY n") is cursor
    assert cursor.fetchone() == (0, "n0")
    assert cursor.fetchmany() == [(1, "n1")]
    assert cursor.fetchmany(120) == [(n, f"n{n}") for n in range(2, 122)]
    assert next(cursor) == (122, "n122")
    assert cursor.fetchall() == [(n, f"n{n}") for n in range(123, 250)]
    assert (cursor.fetchone(), cursor.fetchmany(3), cursor.fetchall(), list(cursor)) == (None, [], [], [])
    assert list(numbers.execute("SELECT n FROM numbers")) == [(n,) for n in range(250)]
    assert type(numbers.execute("SELECT 1").fetchone()) is tuple


def test_what_a_cursor_says_of_its_statement(numbers):
    """Columns, counts and the last row's id."""
    cursor = numbers.cursor()
    assert (cursor.description, cursor.rowcount, cursor.lastrowid, cursor.arraysize) == (None, -1, None, 1)
    cursor.execute("INSERT INTO numbers VALUES (300, 'x')")
    assert (cursor.description, cursor.rowcount, cursor.lastrowid) == (None, 1, 300)
    cursor.execute("SELECT n AS number, 'x' FROM numbers")
    assert cursor.description == tuple((name, *[None] * 6) for name in ("number", "'x'"))
    assert cursor.rowcount == -1
    cursor.executemany("UPDATE numbers SET name = ? WHERE n = ?", [("a", 1), ("b", 2), ("c", 1000)])
    assert cursor.rowcount == 2
    cursor.execute("DELETE FROM numbers WHERE n < 100")
    assert cursor.rowcount == 100
    assert cursor.connection is numbers
    cursor.executemany("INSERT INTO numbers VALUES (?, ?)", ())
    assert numbers.execute("SELECT count(*) FROM numbers").fetchone() == (151,)


def test_many_rows_of_parameters(database):
    """They may come from a generator, and be more than travel together."""
    database.execute("CREATE TABLE t (n, text)")
    cursor = database.executemany("INSERT INTO t VALUES (:n, :text)", ({"n": n, "text": "x" * n} for n in range(2500)))
    assert cursor.rowcount == 2500
    assert database.execute("SELECT count(*), sum(length(text)), max(n) FROM t").fetchone() == (2500, 3123750, 2499)


def test_an_error_amid_the_rows(numbers):
    """The rows before it come first."""
    cursor = numbers.execute("SELECT fail_after(n, 50) FROM numbers ORDER BY n")
    assert [cursor.fetchone() for _ in range(49)] == [(n,) for n in range(49)]  # sqlite3 looks one row ahead
    with pytest.raises(sqlite3.OperationalError, match="user-defined function raised exception"):
        cursor.fetchone()


def test_scripts(database):
    """Several statements at once."""
    database.executescript("CREATE TABLE a (x); CREATE TABLE b (x); INSERT INTO b VALUES (5);")
    assert database.execute("SELECT x FROM b").fetchall() == [(5,)]


def test_several_cursors(numbers):
    """Each goes through its own rows, and one that is dropped or closed does not disturb the others."""
    first = numbers.execute("SELECT n FROM numbers ORDER BY n")
    second = numbers.execute("SELECT n FROM numbers ORDER BY n DESC")
    assert [first.fetchone(), second.fetchone(), first.fetchone()] == [(0,), (249,), (1,)]
    del second
    with contextlib.closing(numbers.cursor()) as third:
        third.execute("SELECT 5")
    assert first.fetchall() == [(n,) for n in range(2, 250)]
    with pytest.raises(sqlite3.ProgrammingError, match="Cannot operate on a closed cursor"):
        third.execute("SELECT 1")
    numbers.execute("DROP TABLE numbers")  # which an open cursor would not allow


# --- values ------------------------------------------------------------------------------------------------


class Point:
    """It says itself how it is stored."""

    def __conform__(self, protocol):
        return "1;2" if protocol is sqlite3.PrepareProtocol else None


class Text(str):
    """As Django's SafeString."""

    __slots__ = ()


VALUES = [
    None, 0, -1, 2**63 - 1, -(2**63), 2**63, 2**200, True, 1.5, float("inf"), float("nan"), -0.0, 1e308, "", "ä€😀",
    "a\0b", "\ud800", Text("safe"), b"", b"\x00\xff", bytearray(b"array"), memoryview(b"view"), "x" * 100_000,
    b"y" * 100_000, decimal.Decimal("1.10"), Point(), object(), (1, 2), [1], {1}, 1j, datetime.timedelta(1),
    lambda: 1,
]  # fmt: skip


def test_values(database):
    """Each comes back as from sqlite3 itself, or is refused as there."""
    with contextlib.closing(sqlite3.connect(":memory:")) as plain:
        for value in VALUES:
            want = outcome(lambda: plain.execute("SELECT ?, typeof(?)", (value, value)).fetchone())  # noqa: B023
            got = outcome(lambda: database.execute("SELECT ?, typeof(?)", (value, value)).fetchone())  # noqa: B023
            if want[0] in ("ProgrammingError", "InterfaceError"):
                assert got[0] in ("ProgrammingError", "InterfaceError"), value
            else:
                assert got == want


PARAMETERS = [
    (), (1,), (1, 2), [1, 2], {"a": 1, "b": 2}, {"a": 1}, "ab", b"ab", 5, {1, 2}, map(int, "12"), range(2),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Binding")
def test_parameters(database):
    """What may be given for a statement's parameters is what sqlite3 takes, and the errors are of the same class."""
    with contextlib.closing(sqlite3.connect(":memory:")) as plain:
        for statement in ("SELECT ?, ?", "SELECT :a, :b", "SELECT 1"):
            for parameters in PARAMETERS:
                want = outcome(lambda: plain.execute(statement, parameters).fetchone())  # noqa: B023
                got = outcome(lambda: database.execute(statement, parameters).fetchone())  # noqa: B023
                if want[0] in ("ProgrammingError", "ValueError", "TypeError"):
                    assert got[0] in ("ProgrammingError", "ValueError", "TypeError"), (statement, parameters)
                else:
                    assert got == want, (statement, parameters)


@pytest.mark.filterwarnings("ignore:The default date")
def test_dates_and_adapters(database):
    """sqlite3's default adapters, and those that the program registers."""
    moment = datetime.datetime(2026, 2, 28, 23, 59, 59, 123456)
    row = database.execute("SELECT ?, ?", (moment, moment.date())).fetchone()
    assert row == ("2026-02-28 23:59:59.123456", "2026-02-28")
    sqlite3.register_adapter(complex, repr)
    try:
        assert database.execute("SELECT ?", (2j,)).fetchone() == ("2j",)
    finally:
        del sqlite3.adapters[complex, sqlite3.PrepareProtocol]


# --- errors ------------------------------------------------------------------------------------------------

MISTAKES = [
    "SELEC", "SELECT 1; SELECT 2", "SELECT * FROM nowhere", "INSERT INTO numbers VALUES (1, 'again')",
    "SELECT abs(-9223372036854775808)",
    "SELECT ?", "COMMIT", "", "-- nothing", "SELECT 'ä",
]  # fmt: skip


def test_errors(numbers):
    """They are of the driver's own class, and say what it says."""
    with contextlib.closing(sqlite3.connect(":memory:")) as plain:
        plain.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY, name TEXT)")
        plain.execute("INSERT INTO numbers VALUES (1, 'n')")
        plain.commit()
        for statement in MISTAKES:
            plain.rollback()
            numbers.rollback()
            want = outcome(lambda: plain.execute(statement).fetchone())  # noqa: B023
            assert outcome(lambda: numbers.execute(statement).fetchone()) == want, statement  # noqa: B023


@pytest.mark.skipif(sys.version_info < (3, 11), reason="sqlite3 says it since 3.11")
def test_error_codes(numbers):
    """What the driver keeps in its errors comes with them."""
    with pytest.raises(sqlite3.IntegrityError) as caught:
        numbers.execute("INSERT INTO numbers VALUES (1, 'again')")
    assert caught.value.sqlite_errorname == "SQLITE_CONSTRAINT_PRIMARYKEY"
    assert caught.value.sqlite_errorcode == 1555


def test_after_an_error(numbers):
    """The connection goes on, in the transaction in which it was."""
    numbers.execute("INSERT INTO numbers VALUES (1000, 'kept')")
    with pytest.raises(numbers.IntegrityError):
        numbers.execute("INSERT INTO numbers VALUES (1000, 'again')")
    assert numbers.in_transaction
    numbers.commit()
    assert not numbers.in_transaction
    assert numbers.execute("SELECT name FROM numbers WHERE n = 1000").fetchone() == ("kept",)


def test_what_is_closed(database):
    """A closed connection, and its cursors, say so; closing again does nothing."""
    cursor = database.execute("SELECT 1")
    database.close()
    database.close()
    for use in (
        database.cursor,
        database.commit,
        database.rollback,
        cursor.fetchone,
        lambda: cursor.execute("SELECT 1"),
    ):
        with pytest.raises(sqlite3.ProgrammingError, match=r"Cannot operate on a closed database\."):
            use()


# --- the connection ----------------------------------------------------------------------------------------


def test_a_with_block_is_a_transaction(numbers):
    """It commits at its end, or rolls back."""
    with numbers:
        numbers.execute("DELETE FROM numbers WHERE n = 1")
    numbers.rollback()
    with contextlib.suppress(ZeroDivisionError), numbers:
        numbers.execute("DELETE FROM numbers WHERE n = 2")
        1 / 0  # noqa: B018
    assert numbers.execute("SELECT count(*) FROM numbers WHERE n IN (1, 2)").fetchone() == (1,)


def test_attributes(numbers):
    """What sqlite3's connections say and can be told."""
    assert (numbers.isolation_level, numbers.text_factory) == ("", str)
    before = numbers.total_changes
    numbers.isolation_level = None
    numbers.execute("DELETE FROM numbers WHERE n < 10")
    assert not numbers.in_transaction
    assert (numbers.total_changes - before, numbers.isolation_level) == (10, None)
    numbers.text_factory = bytes
    assert numbers.execute("SELECT 'ä'").fetchone() == ("ä".encode(),)
    assert not hasattr(numbers, "no_such_attribute")


def test_row_factories(numbers):
    """sqlite3.Row, and functions."""
    numbers.row_factory = sqlite3.Row
    [row] = numbers.execute("SELECT n AS number, name FROM numbers WHERE n = 7").fetchall()
    assert (row["number"], row["NAME"], row.keys(), tuple(row)) == (7, "n7", ["number", "name"], (7, "n7"))
    numbers.row_factory = lambda cursor, row: dict(zip([column[0] for column in cursor.description], row, strict=True))
    assert numbers.execute("SELECT n FROM numbers WHERE n = 7").fetchone() == {"n": 7}
    cursor = numbers.cursor()
    cursor.row_factory = None
    assert cursor.execute("SELECT n FROM numbers WHERE n = 7").fetchone() == (7,)


def test_memory(module):
    """A database in memory is its connection's own."""
    with contextlib.closing(module.connect(":memory:")) as first:
        first.execute("CREATE TABLE t (x)")
        with contextlib.closing(module.connect(":memory:")) as second:
            second.execute("CREATE TABLE t (x)")
    with contextlib.closing(module.connect(":memory:")) as third:
        third.execute("CREATE TABLE t (x)")


@pytest.mark.filterwarnings("ignore:The default date")
def test_arguments(module, tmp_path):
    """Those of sqlite3.connect."""
    path = f"file:{tmp_path}/test.db?mode=rwc"
    with contextlib.closing(
        module.connect(path, timeout=1.0, detect_types=sqlite3.PARSE_COLNAMES, isolation_level=None, uri=True)
    ) as database:
        assert database.isolation_level is None
        [date] = database.execute("SELECT '2026-02-28' AS 'day [date]'").fetchone()
        assert date == datetime.date(2026, 2, 28)
    with pytest.raises(sqlite3.OperationalError, match="unable to open database file"):
        module.connect(str(tmp_path / "nowhere" / "test.db"))
    with pytest.raises(TypeError):
        module.connect(no_such_argument=1)
