"""A cursor: statements go to the worker, the first rows come with the reply, and further ones in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple, Protocol

from gtask.dbapi.driver import Driver
from gtask.wire.dbapi import plain_size, unmark

__all__ = ["Column", "Cursor"]

BATCH, MOST = 100, 3200
"""Rows to ask for: at first, and at most. Each time it is twice as many."""

MANY = 1000
"""Rows of parameters that travel together, or as many as have this much text:"""

ROOM = 256 * 1024

BLOCK = 100
"""Rows of parameters that are looked at together."""

PLAIN_ROWS = frozenset({list, tuple})

NOTICES = 50
"""Of the database, that are kept."""


class Column(NamedTuple):
    """What a description says of a column."""

    name: str
    type_code: Any
    display_size: Any
    internal_size: Any
    precision: Any
    scale: Any
    null_ok: Any


class Connection(Protocol):
    """The connection, as far as its cursors must know it."""

    driver: Driver
    notices: list[str]
    casters: dict[Any, Callable[[Any], Any]]

    def check_open(self) -> None: ...
    def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any: ...
    def number(self) -> int: ...
    def forget(self, number: int) -> None: ...
    def look(self, number: int | None, name: str) -> Any: ...


class Cursor:
    """As PEP 249 says, made by :meth:`gtask.dbapi.Connection.cursor`.

    Attributes:
        connection: whose cursor it is.
        arraysize: rows that ``fetchmany`` gives by default; 1.
        rowcount: as the driver's.
        lastrowid: as the driver's; None if it has none.
        rownumber: how many rows have been fetched.
        row_factory: what makes a row of the cursor and a tuple, as sqlite3's; None for tuples.
        options: the positional and the keyword arguments of the driver's cursor; None for none.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.arraysize = 1
        self.rowcount = -1
        self.lastrowid: Any = None
        self.rownumber = 0
        self.row_factory: Any = None
        self.options: list[Any] | None = None
        self._driver = connection.driver
        self._number = connection.number()
        self._description: list[list[Any]] | None = None
        self._columns: tuple[Column, ...] | None = None
        self._rows: deque[tuple[Any, ...]] = deque()
        self._maker: tuple[Any, Any] | None = None
        self._casts: list[tuple[int, Callable[[Any], Any]]] = []
        self._is_finished = True
        self._batch = BATCH
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Cursor {self._number} of {self.connection!r}>"

    def configure(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take the arguments of the connection's ``cursor``, which are for the driver's."""
        self.options = [list(args), kwargs]

    # --- statements ------------------------------------------------------------------------------------

    def execute(self, operation: str, parameters: Any = None) -> Cursor:
        """Execute a statement; blocks this greenlet.

        Args:
            operation: the statement, with the driver's placeholders.
            parameters: a sequence or a mapping, as the placeholders want it.

        Returns:
            this cursor.

        Raises:
            Exception: the driver's error. It is an ``OperationalError``, and the connection is lost, if the call takes
                longer than the client's time-out or its worker dies.
        """
        self._check_open()
        if parameters is None:
            values, is_nested = None, False
        else:
            values, is_nested = self._driver.parameters(parameters)
        self._reset()
        self._take(self.connection.call("execute", self._number, self.options, operation, is_nested, parameters=values))
        return self

    def executemany(self, operation: str, rows: Iterable[Any]) -> Cursor:
        """Execute a statement once for each row of parameters; as :meth:`execute`. They may come from a generator."""
        self._check_open()
        self._reset()
        total, chunk, more = None, _Chunk(), iter(rows)
        while block := list(islice(more, BLOCK)):
            if chunk.takes(block):
                block = []
            for row in block:
                chunk.add(*self._driver.parameters(row))
                if chunk.is_full:
                    total = self._send(operation, chunk, total)
                    chunk = _Chunk()
            if chunk.is_full:
                total = self._send(operation, chunk, total)
                chunk = _Chunk()
        if chunk.rows or total is None:
            self._send(operation, chunk, total)
        return self

    def executescript(self, script: str) -> Cursor:
        """Execute several statements, with a driver that has this method; as :meth:`execute`."""
        self._check_open()
        self._reset()
        self._take(self.connection.call("executescript", self._number, self.options, script))
        return self

    def callproc(self, name: str, parameters: Any = None) -> Any:
        """Call a procedure of the database; returns its parameters."""
        self._check_open()
        self._reset()
        values, is_nested = (None, False) if parameters is None else self._driver.parameters(parameters)
        given, *reply = self.connection.call("callproc", self._number, self.options, name, is_nested, parameters=values)
        self._take(reply)
        return unmark(given)

    def nextset(self) -> bool | None:
        """Go on to the next set of rows; None if there is none."""
        self._check_open()
        reply = self.connection.call("nextset", self._number)
        self._reset()
        if reply is None:
            return None
        self._take(reply)
        return True

    def setinputsizes(self, sizes: Any) -> None:
        """Does nothing, as PEP 249 allows."""

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        """Does nothing, as PEP 249 allows."""

    # --- rows ------------------------------------------------------------------------------------------

    @property
    def description(self) -> tuple[Column, ...] | None:
        """What the columns are; None if the statement gives no rows."""
        if self._columns is None and self._description is not None:
            self._columns = tuple(Column(*column) for column in self._description)
        return self._columns

    def fetchone(self) -> Any:
        """The next row, or None if there is none."""
        self._check_open()
        if not self._rows and not self._has_more(1):
            return None
        return self._give(1)[0]

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """The next ``size`` rows, by default ``arraysize``, or as many as are left."""
        self._check_open()
        size = self.arraysize if size is None else size
        while len(self._rows) < size and self._has_more(size - len(self._rows)):
            pass
        return self._give(min(size, len(self._rows)))

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        self._check_open()
        while self._has_more(MOST):
            pass
        return self._give(len(self._rows))

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        row = self.fetchone()
        if row is None:
            raise StopIteration
        return row

    def close(self) -> None:
        """End it; never blocks. What is closed cannot be used again."""
        if not self._is_closed:
            self._is_closed = True
            self._rows.clear()
            self._is_finished = True
            self.connection.forget(self._number)

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_is_closed", True):  # absent if its making was interrupted
            self.close()

    def __getattr__(self, name: str) -> Any:
        """What the driver's cursors have beyond PEP 249, as far as the server offers it."""
        if name.startswith("_"):
            raise AttributeError(name)
        local = self._driver.attribute(self, name)
        return local if local is not None else self.connection.look(self._number, name)

    # --- helpers ---------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._is_closed:
            raise self._driver.closed("cursor")
        self.connection.check_open()

    def _reset(self) -> None:
        self._rows.clear()
        self._description = self._columns = self._maker = None
        self._casts = []
        self._is_finished, self._batch = True, BATCH
        self.rownumber = 0

    def _take(self, reply: list[Any]) -> None:
        self._description, self.rowcount, self.lastrowid, rows, is_nested, self._is_finished, notices = reply
        if notices:
            kept = self.connection.notices
            kept.extend(notices)
            del kept[:-NOTICES]
        casters = self.connection.casters
        if casters and self._description is not None:
            codes = [column[1] for column in self._description]
            self._casts = [(index, casters[code]) for index, code in enumerate(codes) if code in casters]
        self._add(rows, is_nested)
        if self._description is not None and self.row_factory is not None:
            self._maker = self.row_factory, self._driver.model(self.row_factory, self.description)

    def _add(self, rows: list[Any], is_nested: bool) -> None:
        if is_nested:
            rows = unmark(rows)
        for index, cast in self._casts:
            for number, row in enumerate(rows):
                rows[number] = [*row[:index], cast(row[index]), *row[index + 1 :]]
        self._rows.extend(map(tuple, rows))

    def _has_more(self, wanted: int) -> bool:
        """Ask for more rows, at least a batch; whether any came, or may come yet."""
        if self._description is None:
            error = self._driver.no_rows()
            if error is not None:
                raise error
        if self._is_finished:
            return False
        rows, is_nested, self._is_finished, self.rowcount = self.connection.call(
            "fetch", self._number, self._enlarged(wanted)
        )
        self._add(rows, is_nested)
        return bool(rows)

    def _enlarged(self, wanted: int) -> int:
        """How many rows to ask for instead."""
        self._batch = min(2 * self._batch, MOST)
        return max(wanted, self._batch)

    def _give(self, size: int) -> list[Any]:
        take = self._rows.popleft
        self.rownumber += size
        if self._maker is None and size == len(self._rows):
            rows = list(self._rows)
            self._rows.clear()
            return rows
        if self._maker is None:
            return [take() for _ in range(size)]
        make, model = self._maker
        return [make(model or self, take()) for _ in range(size)]

    def _send(self, operation: str, chunk: _Chunk, total: int | None) -> int:
        self._take(
            self.connection.call("executemany", self._number, self.options, operation, chunk.is_nested, rows=chunk.rows)
        )
        if total is not None:
            self.rowcount = total + max(self.rowcount, 0)
        return self.rowcount


class _Chunk:
    """Rows of parameters that travel together."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.is_nested = False
        self._room = ROOM

    def takes(self, block: list[Any]) -> bool:
        """Add rows at once, if they are lists or tuples of plain values and there is room for all."""
        size = plain_size(block) if PLAIN_ROWS.issuperset(map(type, block)) else None
        if size is None or size > self._room:
            return False
        self.rows += block
        self._room -= size
        return True

    def add(self, values: Any, is_nested: bool) -> None:
        self.rows.append(values)
        self.is_nested = self.is_nested or is_nested
        parts = values.values() if isinstance(values, dict) else values
        self._room -= sum(len(part) for part in parts if isinstance(part, (str, bytes)))

    @property
    def is_full(self) -> bool:
        return len(self.rows) >= MANY or self._room <= 0
