"""The point of this test is to ensure that the server of sqlite3 that is ready is told all by its environment: what to
open, and what to register with each connection.
"""

from __future__ import annotations

import contextlib
import decimal
import json
import sqlite3

import pytest

from gtask import dbapi

HOOKS = """
    import decimal, sqlite3

    class Longest:
        def __init__(self):
            self.longest = ""

        def step(self, text):
            self.longest = max(self.longest, text, key=len)

        def finalize(self):
            return self.longest

    def register(connection):
        connection.create_function("double", 1, lambda number: 2 * number)
        connection.create_aggregate("longest", 1, Longest)
        connection.create_collation("backwards", lambda one, other: (one < other) - (one > other))
        sqlite3.register_converter("money", lambda text: decimal.Decimal(text.decode()))
        sqlite3.register_adapter(decimal.Decimal, str)
"""


def test_the_ready_server(operator, connect):
    """Its database and its hook come with ``--env``; no client needs to name them."""
    operator.write("hooks.py", HOOKS)
    arguments = {"database": "shop.db", "detect_types": sqlite3.PARSE_DECLTYPES}
    operator.start(
        *("--env", f"GTASK_DBAPI={json.dumps(arguments)}", "--env", "GTASK_DBAPI_INIT=hooks:register"),
        target="gtask.server.dbapi:sqlite3",
    )
    client = connect(operator.address, max_workers=1)
    with contextlib.closing(dbapi.connect(client)) as database, database:
        database.execute("CREATE TABLE item (name TEXT COLLATE backwards, price MONEY)")
        rows = [("pen", decimal.Decimal("1.10")), ("rubber", decimal.Decimal("0.55")), ("ink", None)]
        database.executemany("INSERT INTO item VALUES (?, ?)", rows)
    for _ in range(2):  # the second time with the connection that is there
        with contextlib.closing(dbapi.connect(client)) as database:
            found = database.execute("SELECT name, price FROM item ORDER BY name").fetchall()
            assert found == sorted(rows, reverse=True)
            assert repr(found[0][1]) == "Decimal('0.55')"
            assert database.execute("SELECT double(4), longest(name) FROM item").fetchone() == (8, "rubber")
    assert (operator.directory / "shop.db").exists()
    with pytest.raises(sqlite3.InterfaceError, match="the server has set database"):
        dbapi.connect(client, ":memory:")


def test_a_hook_that_is_not_there(operator):
    """The server says so, and does not start."""
    done = operator.run(
        *("gtask.server.dbapi:sqlite3", "--listen", operator.address, "--env", "GTASK_DBAPI_INIT=hooks:register")
    )
    assert done.returncode != 0
    assert "No module named 'hooks'" in done.stderr
