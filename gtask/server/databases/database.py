"""A database as a client of :mod:`gtask.dbapi` calls it: one connection of a driver, and its cursors.

The connection stays open between checkouts. The end of a checkout rolls its transaction back, and the next checkout
that connects with the same arguments gets the connection again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from gtask.server.databases.cursor import DriverCursor
from gtask.server.databases.drivers import Driver
from gtask.wire.dbapi import METHOD, NO_SUCH, SCALARS, TOLD, VALUE, mark, unmark

__all__ = ["Database", "Hook"]

FIRST_ROWS = 100
"""Rows that travel with the reply to ``execute``."""

Hook = Callable[[Any], object]


class Database:
    """The methods that a client calls; made by :func:`gtask.server.dbapi.wrap`.

    Each method first takes the numbers of the cursors that the client has dropped.
    """

    def __init__(
        self, driver: Driver, init: Hook | None, reset: Hook | None, connect_arguments: dict[str, Any]
    ) -> None:
        self.driver = driver
        self._init = init
        self._reset = reset
        self._fixed = connect_arguments
        self._connection: Any = None
        self._arguments: tuple[list[Any], dict[str, Any]] | None = None
        self._cursors: dict[int, DriverCursor] = {}
        self._before: dict[str, Any] = {}  # attributes of the connection, before a client set them

    @property
    def methods(self) -> dict[str, Callable[..., Any]]:
        """The methods that a client may call, by name."""
        return {name: _with_error_details(getattr(self, name), self.driver) for name in _METHODS}

    # --- the connection --------------------------------------------------------------------------------

    def connect(self, forget: list[int], args: list[Any], kwargs: dict[str, Any]) -> str:
        """Open a connection with these arguments and the server's, or take the one that is open.

        Returns:
            the name of the driver.
        """
        arguments = self._merge(args, kwargs)
        if self._connection is not None and (
            arguments != self._arguments or not self.driver.is_alive(self._connection)
        ):
            self.teardown()
        if self._connection is None:
            connection = self.driver.connect(*arguments[0], **arguments[1])
            try:
                self.driver.prepare(connection)
                self._run(self._init, connection)
            except BaseException:  # of the hook, or an interruption: the connection would stay open
                connection.close()
                raise
            self._connection, self._arguments = connection, arguments
        return self.driver.module.__name__

    @staticmethod
    def _run(hook: Hook | None, connection: Any) -> None:
        if hook is not None:
            hook(connection)
            connection.commit()

    def _merge(self, args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        names = self.driver.positional[: len(args)]
        for name in kwargs.keys() & set(names):
            raise TypeError(f"connect() got {name} twice, by its place and by its name")
        kwargs, args = {**dict(zip(names, args, strict=False)), **kwargs}, args[len(names) :]
        for name in kwargs.keys() & self._fixed.keys():
            if kwargs[name] not in (self._fixed[name], self.driver.unsaid.get(name, self._fixed[name])):
                raise self.driver.module.InterfaceError(
                    f"the server has set {name} of the connection, and no client can change it: leave {name} out"
                )
        return args, {**kwargs, **self._fixed}

    def commit(self, forget: list[int]) -> None:
        """As the connection's."""
        self._forget(forget)
        self._connection.commit()

    def rollback(self, forget: list[int]) -> None:
        """As the connection's."""
        self._forget(forget)
        self._connection.rollback()

    def checkout_done(self) -> None:
        """Roll back, and keep the connection for the next checkout if it can be made as new."""
        self._cursors.clear()
        connection = self._connection
        if connection is None:
            return
        is_fit = False
        try:
            if self.driver.reset(connection):
                if self.driver.forgets:
                    self._before.clear()
                    self._run(self._init, connection)
                while self._before:
                    setattr(connection, *self._before.popitem())
                self._run(self._reset, connection)
                is_fit = True
        finally:
            if not is_fit:
                self.teardown()

    def teardown(self) -> None:
        """Close the connection."""
        self._cursors.clear()
        self._before.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*self.driver.failures):  # it may be lost already
                connection.close()

    # --- statements ------------------------------------------------------------------------------------

    def execute(
        self, forget: list[int], number: int, options: Any, operation: str, is_nested: bool, parameters: Any
    ) -> list[Any]:
        """Execute a statement with a cursor, which is made with these options if it is new.

        Returns:
            ``[description, rowcount, lastrowid, rows, is_nested, is_finished, notices]``, with the first rows.
        """
        cursor = self._cursor(forget, number, options)
        self.driver.statement(self._connection, operation)
        if parameters is None:
            cursor.driver.execute(operation)
        else:
            cursor.driver.execute(operation, unmark(parameters) if is_nested else parameters)
        return self._reply(cursor)

    def executemany(
        self, forget: list[int], number: int, options: Any, operation: str, is_nested: bool, rows: list[Any]
    ) -> list[Any]:
        """Execute a statement once for each row of parameters; as :meth:`execute`."""
        cursor = self._cursor(forget, number, options)
        cursor.driver.executemany(operation, unmark(rows) if is_nested else rows)
        return self._reply(cursor)

    def executescript(self, forget: list[int], number: int, options: Any, script: str) -> list[Any]:
        """Execute several statements, with a driver that can; as :meth:`execute`."""
        cursor = self._cursor(forget, number, options)
        self.driver.script(script)
        cursor.driver.executescript(script)
        return self._reply(cursor)

    def callproc(
        self, forget: list[int], number: int, options: Any, name: str, is_nested: bool, parameters: Any
    ) -> list[Any]:
        """Call a procedure of the database.

        Returns:
            the procedure's parameters, then the items that :meth:`execute` returns.
        """
        cursor = self._cursor(forget, number, options)
        given = cursor.driver.callproc(name, *(() if parameters is None else (unmark(parameters),)))
        return [mark(list(given)) if given is not None else None, *self._reply(cursor)]

    def fetch(self, forget: list[int], number: int, most: int) -> list[Any]:
        """The next rows.

        Returns:
            ``[rows, is_nested, is_finished, rowcount]``; there may be fewer rows than wanted, and more to come.
        """
        self._forget(forget)
        cursor = self._cursors[number]
        return [*cursor.take(most), cursor.driver.rowcount]

    def nextset(self, forget: list[int], number: int) -> list[Any] | None:
        """Go on to the next set of rows; as :meth:`execute`, or None if there is none."""
        self._forget(forget)
        cursor = self._cursors[number]
        cursor.begin()
        return self._reply(cursor) if cursor.driver.nextset() else None

    def _cursor(self, forget: list[int], number: int, options: Any) -> DriverCursor:
        self._forget(forget)
        cursor = self._cursors.get(number)
        if cursor is None:
            args, kwargs = options or ((), {})
            made = self.driver.cursor(self._connection, args, kwargs)
            cursor = self._cursors[number] = DriverCursor(made, self.driver.fetches_many(made))
        cursor.begin()
        return cursor

    def _forget(self, numbers: list[int]) -> None:
        for number in numbers:
            cursor = self._cursors.pop(number, None)
            if cursor is not None:
                cursor.driver.close()

    def _reply(self, cursor: DriverCursor) -> list[Any]:
        driver = cursor.driver
        if cursor.many is not None:
            cursor.many(0)  # so that it has a description, and stays where it is
        description = driver.description
        rows: list[Any] = []
        is_nested, is_finished = False, True
        if description is not None:
            description = [[each if type(each) in SCALARS else str(each) for each in column] for column in description]
            rows, is_nested, is_finished = cursor.take(FIRST_ROWS if cursor.many is None else 0)
        lastrowid = getattr(driver, "lastrowid", None)
        notices = self.driver.notices(self._connection)
        return [description, driver.rowcount, lastrowid, rows, is_nested, is_finished, notices]

    # --- beyond PEP 249 --------------------------------------------------------------------------------

    def look(self, forget: list[int], number: int | None, name: str) -> list[Any]:
        """The value of an attribute of the connection, or of the cursor with this number."""
        self._forget(forget)
        owner, driver = self._owner(number), self.driver
        readable, methods = (
            (driver.readable, driver.callable) if number is None else (driver.cursor_readable, driver.cursor_callable)
        )
        if name in methods and hasattr(owner, name):
            return [METHOD, None]
        if name not in readable or not hasattr(owner, name):
            return [NO_SUCH, None]
        return [VALUE, mark(driver.out(name, getattr(owner, name)))]

    def invoke(self, forget: list[int], number: int | None, name: str, args: Any, kwargs: Any) -> Any:
        """Call a method of the connection, or of the cursor with this number."""
        self._forget(forget)
        allowed = self.driver.callable if number is None else self.driver.cursor_callable
        if name not in allowed:
            raise AttributeError(f"a client may not call {name} of the worker's {self.driver.module.__name__}")
        return mark(getattr(self._owner(number), name)(*unmark(args), **unmark(kwargs)))

    def cast_there(self, forget: list[int], type_codes: list[Any]) -> None:
        """Send values of these types as the database's text, until the checkout ends: the client makes them."""
        self._forget(forget)
        self.driver.leave_text(self._connection, type_codes)

    def assign(self, forget: list[int], name: str, value: Any) -> None:
        """Set an attribute of the connection, until the checkout ends."""
        self._forget(forget)
        if name not in self.driver.writable or not hasattr(self._connection, name):
            raise AttributeError(
                f"a client may not set {name} of the worker's {self.driver.module.__name__} connection"
            )
        before = getattr(self._connection, name)
        setattr(self._connection, name, self.driver.back(name, unmark(value)))
        self._before.setdefault(name, before)

    def _owner(self, number: int | None) -> Any:
        if number is None:
            return self._connection
        cursor = self._cursors.get(number)
        return self.driver.cursor(self._connection, (), {}) if cursor is None else cursor.driver


_METHODS = (
    "connect", "commit", "rollback", "execute", "executemany", "executescript", "callproc", "fetch", "nextset", "look",
    "invoke", "assign", "cast_there",
)  # fmt: skip


def _with_error_details(method: Callable[..., Any], driver: Driver) -> Callable[..., Any]:
    """The method, with errors that carry the attributes which their classes keep in C."""

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except driver.module.Error as error:
            details = driver.error_details(error)
            if details is not None:
                vars(error)[TOLD] = details
            raise

    return call
