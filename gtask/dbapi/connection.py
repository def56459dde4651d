"""A connection to a database: one checkout, and the driver's connection that its worker holds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from gtask import errors
from gtask.client.client import Client
from gtask.dbapi import drivers_known as known
from gtask.dbapi.cursor import Cursor
from gtask.dbapi.driver import Driver
from gtask.wire.dbapi import NO_SUCH, VALUE, mark, unmark

__all__ = ["Connection"]


class Connection:
    """As PEP 249 says, made by :func:`gtask.dbapi.connect`.

    What else the driver's connections have, such as ``isolation_level`` or ``autocommit``, is there as far as the
    server offers it. So are ``execute``, ``executemany`` and ``executescript``, which are those of a new cursor, where
    the driver's connections may have them. In a ``with`` block it commits at the end, or rolls back if an exception has
    come; it stays open.

    Attributes:
        driver: the driver, as it is known here.
        row_factory: for new cursors: what makes a row of the cursor and a tuple, as sqlite3's; None for tuples.
        notices: what the database has said beside results; the last 50, for you to read and remove.
        casters: {type code: what makes a value of the database's text, or of None}; see :meth:`cast_here`.
    """

    _own = frozenset({"driver", "row_factory", "notices", "casters"})

    def __init__(self, client: Client, driver: Driver | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.driver = driver if driver is not None else known.known("")
        kwargs, self.row_factory = self.driver.arguments(kwargs)
        self.notices: list[str] = []
        self.casters: dict[Any, Callable[[Any], Any]] = {}
        self._forgotten: list[int] = []
        self._last_number = 0
        self._is_lost = False
        self._checkout: Any
        try:
            self._checkout = client.checkout()
        except errors.Error as error:
            raise self.driver.translated(error) from error.__cause__
        try:
            places = [_plain(value) for value in args]
            name = self.call("connect", places, {key: _plain(value) for key, value in kwargs.items()})
        except BaseException:  # whatever it was, it knows this frame, and would hold the worker as long as it lives
            self.close()
            raise
        if driver is None:
            self.driver = known.known(name)

    def __repr__(self) -> str:
        return f"<Connection by {self.driver.name}: {'closed' if self._checkout is None else self._checkout!r}>"

    # --- PEP 249 ---------------------------------------------------------------------------------------

    def cursor(self, *args: Any, factory: Callable[[Connection], Cursor] | None = None, **kwargs: Any) -> Cursor:
        """A cursor; never blocks.

        Args:
            factory: makes it of this connection: a subclass of :class:`Cursor`, as sqlite3's takes one of its own; by
                default the class for this driver.
            args, kwargs: for the driver's ``cursor``, as far as they can travel.

        Raises:
            TypeError: the factory made something else.
        """
        self.check_open()
        make: Any = factory or self.driver.cursor_class or Cursor
        cursor = make(self)
        if not isinstance(cursor, Cursor):
            raise TypeError(f"factory={factory!r} must make a gtask.dbapi.Cursor, and not {cursor!r}")
        if self.row_factory is not None:
            cursor.row_factory = self.row_factory
        if args or kwargs:
            cursor.configure(args, kwargs)
        return cursor

    def commit(self) -> None:
        """Commit what has been done; blocks this greenlet."""
        self.call("commit")

    def rollback(self) -> None:
        """Undo what has not been committed; blocks this greenlet."""
        self.call("rollback")

    def close(self) -> None:
        """Give the worker back; never blocks. What has not been committed is rolled back there."""
        checkout, self._checkout = self._checkout, None
        if checkout is not None:
            checkout.release()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        if self._checkout is None or self._is_lost:
            return
        if kind is None:
            self.commit()
        else:
            self.rollback()

    def cast_here(self, caster: Callable[[Any], Any], type_codes: Iterable[Any]) -> None:
        """Have the values of columns made in this process from now on, of what the database has sent.

        Args:
            caster: makes a value of the database's text, or of None; called for each value.
            type_codes: of the columns, as descriptions have them.

        Raises:
            Exception: the driver's ``NotSupportedError``, if it cannot leave the text as it is.
        """
        codes = list(type_codes)
        self.call("cast_there", codes)
        self.casters.update(dict.fromkeys(codes, caster))

    # --- what the driver's connections have beyond PEP 249 ---------------------------------------------

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self.driver.shortcuts:
            return getattr(self.cursor(), name)
        if name in self.driver.exceptions:
            return self.driver.exceptions[name]
        if name == "closed" and (self._checkout is None or self._is_lost):
            return 1
        local = self.driver.attribute(self, name)
        return local if local is not None else self.look(None, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or name in self._own:
            object.__setattr__(self, name, value)
        else:
            self.call("assign", name, self.driver.out(name, value))

    # --- for its cursors -------------------------------------------------------------------------------

    def check_open(self) -> None:
        """Raise the driver's error if it is closed."""
        if self._checkout is None:
            raise self.driver.closed("connection")

    def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the worker's :class:`gtask.server.databases.database.Database`, with the driver's errors."""
        self.check_open()
        forgotten, self._forgotten = self._forgotten, []
        checkout = self._checkout
        try:
            return checkout.call(method, forgotten, *args, **kwargs)
        except errors.Error as error:
            self._is_lost = self._is_lost or error.sticky
            translated = self.driver.translated(error)
            if translated is error:
                raise
        except BaseException as interruption:
            self._is_lost = True
            checkout.cancel(f"{method} was interrupted by {type(interruption).__name__}")  # also if it was just done
            raise
        try:
            raise translated
        finally:
            del translated  # which knows this frame

    def number(self) -> int:
        """A number for a new cursor."""
        self._last_number += 1
        return self._last_number

    def forget(self, number: int) -> None:
        """A cursor is not used any more: the worker is told with the next call. For finalisers, too."""
        self._forgotten.append(number)

    def look(self, number: int | None, name: str) -> Any:
        """An attribute of the worker's connection, or of its cursor with this number."""
        kind, value = self.call("look", number, name)
        if kind == VALUE:
            return self.driver.back(name, unmark(value))
        if kind == NO_SUCH:
            what = "connection" if number is None else "cursor"
            raise AttributeError(
                f"a {what} of {self.driver.name} in a worker offers no {name!r} to clients; what must run beside the "
                "driver, such as its functions and converters, is registered in the server's init hook"
            )

        def method(*args: Any, **kwargs: Any) -> Any:
            given = [self.driver.parameter(each) for each in args]
            return unmark(self.call("invoke", number, name, given, mark(kwargs)))

        method.__name__ = method.__qualname__ = name
        return method


def _plain(argument: Any) -> Any:
    """An argument of ``connect`` as it travels: a path as text."""
    return os.fspath(argument) if isinstance(argument, os.PathLike) else mark(argument)
