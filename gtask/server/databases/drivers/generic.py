"""Any database driver that keeps to PEP 249."""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, ClassVar

__all__ = ["Driver"]


class Driver:
    """Any driver that keeps to PEP 249.

    Args:
        module: the driver's.

    Attributes:
        positional: the names of the positional arguments of ``connect``, as far as they are known.
        unsaid: arguments of ``connect``, each with the value that means the same as leaving it out.
        forgets: whether ``reset`` undoes all changes of the connection, the init hook's too, so that the hook must run
            again.
        readable: attributes of a connection that a client may read.
        writable: attributes of a connection that a client may set, until the checkout ends.
        callable: methods of a connection that a client may call, beside those of PEP 249.
        cursor_readable, cursor_callable: the same for cursors.
    """

    positional: tuple[str, ...] = ()
    unsaid: ClassVar[dict[str, Any]] = {}
    forgets = False
    readable: frozenset[str] = frozenset()
    writable: frozenset[str] = frozenset({"autocommit"})
    callable: frozenset[str] = frozenset()
    cursor_readable: frozenset[str] = frozenset()
    cursor_callable: frozenset[str] = frozenset()

    def __init__(self, module: ModuleType) -> None:
        self.module = module

    def connect(self, *args: Any, **kwargs: Any) -> Any:
        """Open a connection of the driver's."""
        return self.module.connect(*args, **kwargs)

    def prepare(self, connection: Any) -> None:
        """Make a new connection interruptible, as far as the driver lets it."""

    def statement(self, connection: Any, operation: str) -> None:
        """Take note of a statement that is about to be executed, as far as it changes the connection itself."""

    def script(self, operation: str) -> None:
        """Take note of several statements, for a driver that has ``executescript``."""

    def out(self, name: str, value: Any) -> Any:
        """An attribute of the connection, as it travels to a client."""
        return value

    def back(self, name: str, value: Any) -> Any:
        """An attribute of the connection that a client sets, as it came."""
        return value

    def is_alive(self, connection: Any) -> bool:
        """Whether a connection that has lain idle is worth using.

        An idle connection with something to read was closed by its server, or has got a message that is not for its
        next user. Where that cannot be seen, the connection must answer a query.
        """
        if not hasattr(connection, "fileno"):
            return self._answers(connection)
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN | select.POLLRDHUP)
        return not poll.poll(0)

    def reset(self, connection: Any) -> bool:
        """Roll back, and undo the settings of the connection.

        Returns:
            whether the connection is as a new one, and may be lent again.
        """
        try:
            connection.rollback()
        except self.failures:
            return False
        return True

    def _answers(self, connection: Any) -> bool:
        try:
            cursor = connection.cursor()
            cursor.execute("SELECT 1")
            cursor.fetchall()
            cursor.close()
        except self.failures:
            return False
        return self.reset(connection)

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """The errors of a lost connection."""
        return self.module.Error, OSError

    def cursor(self, connection: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """A cursor of the driver's, whose rows are sequences."""
        return connection.cursor(*args, **kwargs)

    def fetches_many(self, cursor: Any) -> Callable[[int], list[Any]] | None:
        """A function that fetches the given number of rows with this cursor, if no more may be fetched than the client
        wants; None if rows may be fetched ahead, one by one."""
        return None

    def notices(self, connection: Any) -> list[str]:
        """The database's messages since the last call."""
        return []

    def leave_text(self, connection: Any, type_codes: list[Any]) -> None:
        """Make no values of columns of these types, until the connection is reset."""
        raise self.module.NotSupportedError(
            f"{self.module.__name__} makes values in the worker: register what makes them in the server's init hook"
        )

    def error_details(self, error: BaseException) -> dict[str, Any] | None:
        """The details with which the client can make an error like this one: see :data:`gtask.wire.dbapi.TOLD`. None if
        the class is enough."""
        return None
