"""A cursor of the driver, in the worker: how many of its rows travel together, and an error that waits behind them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NoReturn

from gtask.wire.dbapi import SCALARS, mark, plain_size

__all__ = ["DriverCursor"]

MOST_ROWS = 10_000
"""Rows in one reply at most."""

ROOM = 256 * 1024
"""Characters and bytes after which no further row is put into one reply."""

BLOCK = 100
"""Rows that are fetched together."""


class DriverCursor:
    """A cursor of the driver, and an error that waits behind rows which are on their way to the client.

    Args:
        driver: the driver's cursor.
        many: fetches exactly the given number of rows, where that matters; see
            :meth:`gtask.server.databases.drivers.Driver.fetches_many`.
    """

    def __init__(self, driver: Any, many: Callable[[int], list[Any]] | None) -> None:
        self.driver = driver
        self.many = many
        self.error: Exception | None = None
        self._fetched: deque[Any] = deque()  # ahead of the reply in which there is room for them
        self._is_iterator = many is None and _gives_itself(driver)

    def take(self, most: int) -> tuple[list[Sequence[Any]], bool, bool]:
        """The next rows, whether there is more than plain values in them, and whether they are the last."""
        if self.error is not None and not self._fetched:
            self.raise_error()
        rows: list[Sequence[Any]] = []
        most = min(most, MOST_ROWS)
        is_nested, room, fetch = False, ROOM, self.driver.fetchone
        if self.many is not None:
            if len(self._fetched) < most:
                self._fetched.extend(self.many(most - len(self._fetched)))
            fetch = self._next_fetched
        elif self._is_iterator:
            room = self._take_blocks(rows, most, room)
            fetch = self._next_of_block
        while len(rows) < most and room > 0:
            try:
                row = fetch()
            except Exception as raised:  # the rows before the error come first
                if not rows:
                    raise
                self.error = raised
                break
            if row is None:
                return rows, is_nested, True
            if SCALARS.issuperset(map(type, row)):
                for value in row:
                    if type(value) is str or type(value) is bytes:
                        room -= len(value)
            else:
                row = [_plain(value) for value in row]
                has_parts = any(type(value) is list or type(value) is dict for value in row)
                is_nested = is_nested or has_parts
                room -= len(repr(row)) if has_parts else sum(len(value) for value in row if type(value) in (str, bytes))
            rows.append(row)
        return rows, is_nested, False

    def begin(self) -> None:
        """A statement begins: nothing is left of the one before."""
        self.error = None
        self._fetched.clear()

    def raise_error(self) -> NoReturn:
        """Raise the error that waits, once."""
        error, self.error = self.error, None
        assert error is not None
        try:
            raise error
        finally:
            del error  # which knows this frame

    def _take_blocks(self, rows: list[Sequence[Any]], most: int, room: int) -> int:
        """Take rows of plain values, a block at a time, while there is room for blocks; gives the room that is left."""
        while not self._fetched and len(rows) + BLOCK <= most and self.error is None:
            block = self._block()
            size = plain_size(block)
            if size is None or size > room:
                self._fetched.extend(block)
                break
            rows += block
            room -= size
            if len(block) < BLOCK:
                break
        return room

    def _block(self) -> list[Any]:
        """The next rows; fewer than a block at the end, or before an error, which is kept."""
        block: list[Any] = []
        try:
            block.extend(islice(self.driver, BLOCK))
        except Exception as raised:  # the rows before the error come first
            self.error = raised
        return block

    def _next_of_block(self) -> Any:
        if self._fetched:
            return self._fetched.popleft()
        if self.error is not None:
            self.raise_error()
        return self.driver.fetchone()

    def _next_fetched(self) -> Any:
        return self._fetched.popleft() if self._fetched else None


def _gives_itself(cursor: Any) -> bool:
    """Whether a cursor is an iterator of its rows, as nearly all are."""
    try:
        return iter(cursor) is cursor
    except Exception:  # whatever the driver says
        return False


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, bytearray) else mark(value)
