"""psycopg2 as the client must know it: its wrappers of values, its composed statements, its kinds of cursors."""

from __future__ import annotations

import re
import sys
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import ModuleType, SimpleNamespace
from typing import Any

from gtask.dbapi.cursor import Connection, Cursor
from gtask.dbapi.driver import Driver
from gtask.dbapi.psycopg2types import Info, accept_ours
from gtask.wire.dbapi import SCALARS, Verbatim, mark

__all__ = ["Psycopg2", "Psycopg2Cursor"]

_COPY = (
    "COPY would read or write a file in the worker. Write rows with psycopg2.extras.execute_values(), read many with a "
    "named cursor, or serve a function of your own that copies by a connection of its own"
)
_REFUSED = {
    "copy_from": _COPY,
    "copy_to": _COPY,
    "copy_expert": _COPY,
    "lobject": "large objects stay in the worker; call lo_get() and lo_put() in SQL",
    "scroll": "the rows are fetched ahead: take fetchall() and an index, or MOVE a named cursor in SQL",
    "cast": "types are cast in the worker",
    "cancel": "no call of this connection runs while you call another; a time-out or greenlet.kill() cancels one",
    "poll": "a connection by a worker has no descriptor to wait for; its calls block their greenlet only",
    "fileno": "a connection by a worker has no descriptor to wait for; its calls block their greenlet only",
    "tpc_recover": "execute SELECT gid FROM pg_prepared_xacts; tpc_commit() and tpc_rollback() take such a gid",
}
"""Methods of the driver that cannot be had of a worker, and what to do instead."""


class Psycopg2Cursor(Cursor):
    """As psycopg2's. A named one is one of the database's, and fetches no row before it is asked for.

    Attributes:
        name: of the cursor in the database; None if it is not there.
        itersize: rows that a named cursor fetches together in a loop; 2000.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        driver: Any = connection.driver
        self._psycopg2: Psycopg2 = driver
        self.name: str | None = None
        self.itersize = 2000

    def configure(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = {**dict(zip(("name", "cursor_factory", "scrollable", "withhold"), args, strict=False)), **kwargs}
        self.row_factory = self._psycopg2.rows(given.pop("cursor_factory", None)) or self.row_factory
        self.name = given.get("name")
        options = {key: value for key, value in given.items() if value is not None}
        self.options = [[], options] if options else None

    @property
    def closed(self) -> bool:
        """Whether it is closed, or its connection is."""
        connection: Any = self.connection
        return self._is_closed or bool(connection.closed)

    def execute(self, operation: Any, parameters: Any = None) -> Cursor:
        """As :meth:`gtask.dbapi.Cursor.execute`; the statement may be composed by ``psycopg2.sql``."""
        return super().execute(self._psycopg2.text(operation, self), parameters)

    def executemany(self, operation: Any, rows: Any) -> Cursor:
        """As :meth:`gtask.dbapi.Cursor.executemany`; the statement may be composed by ``psycopg2.sql``."""
        return super().executemany(self._psycopg2.text(operation, self), rows)

    def mogrify(self, operation: Any, parameters: Any = None) -> bytes:
        """The statement with its parameters, as it would go to the database; blocks this greenlet."""
        self._check_open()
        given = [self._psycopg2.text(operation, self)]
        if parameters is not None:
            values, _ = self._psycopg2.parameters(parameters)
            given.append(values)
        made: bytes = self.connection.call("invoke", self._number, "mogrify", given, {})
        return made

    def __next__(self) -> Any:
        if self.name is not None and not self._rows:
            self._check_open()
            self._has_more(self.itersize)
        return super().__next__()

    def _enlarged(self, wanted: int) -> int:
        return super()._enlarged(wanted) if self.name is None else wanted


class Psycopg2(Driver):
    """psycopg2. What its adapters make of values here is what the database gets, as far as they need no connection."""

    cursor_class = Psycopg2Cursor
    shortcuts = frozenset()

    def __init__(self, name: str, module: ModuleType | None) -> None:
        super().__init__(name, module)
        assert module is not None
        accept_ours(module, Psycopg2Cursor)

    def arguments(self, given: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        if "connection_factory" in given:
            raise self.error("NotSupportedError", "connection_factory: give cursor_factory to connect() or cursor()")
        others = {key: value for key, value in given.items() if key != "cursor_factory"}
        return others, self.rows(given.get("cursor_factory"))

    def attribute(self, owner: Any, name: str) -> Any:
        assert self.module is not None
        if name == "info" and not isinstance(owner, Cursor):
            return Info(owner)
        if name == "xid":
            return self.module.extensions.Xid
        reason = _REFUSED.get(name)
        if reason is None:
            return None

        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise self.error("NotSupportedError", f"{name}() cannot be called by way of a worker: {reason}")

        refuse.__name__ = refuse.__qualname__ = name
        return refuse

    def names(self) -> dict[str, Any]:
        return {}

    # --- statements and parameters ---------------------------------------------------------------------

    def parameter(self, value: Any) -> Any:
        return mark(self._plain(value))

    def _plain(self, value: Any) -> Any:
        """What travels in place of a value: what its adapter has wrapped, or what that makes of it."""
        kind = type(value)
        if kind in SCALARS:
            return value
        assert self.module is not None
        extensions = self.module.extensions
        if isinstance(value, extensions.Xid):
            return str(value)
        try:
            adapted = extensions.adapt(value)
        except self.exceptions["ProgrammingError"]:
            return value  # the worker may know it
        if isinstance(adapted, extensions.SQL_IN):
            return tuple(self._plain(each) for each in value)
        if isinstance(value, list) and type(adapted).__module__ == "psycopg2._psycopg":
            return [self._plain(each) for each in value]
        if isinstance(adapted, extensions.AsIs):
            return Verbatim(adapted)
        json = vars(sys.modules["psycopg2._json"])["Json"]
        if isinstance(adapted, json):
            return adapted.dumps(adapted.adapted)
        if type(adapted).__module__ == extensions.__name__ and hasattr(adapted, "adapted"):
            inner = adapted.adapted
            return bytes(inner) if isinstance(inner, (memoryview, bytearray)) else inner
        if hasattr(adapted, "prepare"):
            raise self.error(
                "NotSupportedError",
                f"a {kind.__name__} cannot be written without a connection of psycopg2, which is in the worker: give "
                "its text and a cast, such as %s::int4range",
            )
        return Verbatim(adapted.getquoted().decode())

    def text(self, statement: Any, cursor: Psycopg2Cursor) -> Any:
        """The text of a statement that psycopg2.sql has composed; any other as it is."""
        sql = sys.modules.get("psycopg2.sql")
        if sql is None or not isinstance(statement, vars(sql)["Composable"]):
            return statement
        if isinstance(statement, vars(sql)["Composed"]):
            return "".join(self.text(part, cursor) for part in statement.seq)
        if isinstance(statement, vars(sql)["Identifier"]):
            return ".".join('"{}"'.format(name.replace('"', '""')) for name in statement.strings)
        if isinstance(statement, vars(sql)["Literal"]):
            return cursor.mogrify("%s", (statement.wrapped,)).decode(self._encoding(cursor))
        return statement.as_string(None)

    def _encoding(self, cursor: Psycopg2Cursor) -> str:
        assert self.module is not None
        encoding: str = self.module.extensions.encodings[cursor.connection.look(None, "encoding")]
        return encoding

    # --- rows ------------------------------------------------------------------------------------------

    def rows(self, cursor_factory: Any) -> Any:
        """The ``row_factory`` that makes rows as this class of cursors does; None for tuples."""
        assert self.module is not None
        if cursor_factory is None or cursor_factory is self.module.extensions.cursor:
            return None
        extras = sys.modules.get("psycopg2.extras")
        factories = _row_factories(extras) if extras is not None else {}
        if cursor_factory not in factories:
            raise self.error(
                "NotSupportedError",
                f"cursor_factory={cursor_factory!r} would have to run in the worker: psycopg2.extras.DictCursor, "
                "RealDictCursor and NamedTupleCursor can be had here, or any row_factory",
            )
        return factories[cursor_factory]

    def model(self, factory: Any, description: Sequence[Any] | None) -> Any:
        return factory.model(description) if isinstance(factory, _Rows) and description is not None else None


class _Rows:
    """A ``row_factory`` that makes a row of the tuple and what ``model`` has made of the description.

    Args:
        model: called once for all rows of a statement.
        make: called with that and the tuple.
    """

    def __init__(self, model: Callable[[Any], Any], make: Callable[[Any, tuple[Any, ...]], Any]) -> None:
        self.model = model
        self._make = make

    def __call__(self, model: Any, row: tuple[Any, ...]) -> Any:
        return self._make(model, row)


@lru_cache
def _row_factories(extras: ModuleType) -> dict[Any, _Rows]:
    def dict_model(description: Any) -> Any:
        index = OrderedDict((column.name, number) for number, column in enumerate(description))
        return SimpleNamespace(index=index, description=description)

    def dict_row(model: Any, row: tuple[Any, ...]) -> Any:
        made = extras.DictRow(model)
        made[:] = row
        return made

    def real_dict_row(model: Any, row: tuple[Any, ...]) -> Any:
        return extras.RealDictRow(zip(model.index, row, strict=False))

    return {
        extras.DictCursor: _Rows(dict_model, dict_row),
        extras.RealDictCursor: _Rows(dict_model, real_dict_row),
        extras.NamedTupleCursor: _Rows(_record, lambda kind, row: kind._make(row)),
    }


def _record(description: Any) -> Any:
    make: Any = namedtuple
    return make("Record", [_field(column.name) for column in description])


def _field(name: str) -> str:
    """The field of a named tuple for a column: as psycopg2 names it."""
    cleaned = re.sub(r"(?=[\x00-\x7f])\W", "_", name)
    return f"f{cleaned}" if re.match("[_0-9]", cleaned) else cleaned
