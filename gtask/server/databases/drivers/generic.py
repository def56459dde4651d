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
        positional: the names of the positional arguments of its ``connect``, as far as they are known.
        unsaid: arguments of its ``connect`` with the values by which a client says nothing.
        forgets: whether ``reset`` undoes all that was done to the connection, also by the init hook, so that this must
            run again.
        readable: attributes of its connections that a client may read.
        writable: those that it may set, until the connection is given back.
        callable: methods of its connections that a client may call, beside those of PEP 249.
        cursor_readable, cursor_callable: the same of its cursors.
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
        """See to it that a new connection does not hang where it could be interrupted."""

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

        An idle connection on which there is something to read has been closed by its server, or was told something that
        is not for the next one who uses it. Where that cannot be seen it is asked something.
        """
        if not hasattr(connection, "fileno"):
            return self._answers(connection)
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN | select.POLLRDHUP)
        return not poll.poll(0)

    def reset(self, connection: Any) -> bool:
        """Undo what has not been committed, and what the connection has been told of how to work.

        Returns:
            whether it is as a new one, and may be lent again.
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
        """What its connections raise when they are lost."""
        return self.module.Error, OSError

    def cursor(self, connection: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """A cursor of the driver's, whose rows are sequences."""
        return connection.cursor(*args, **kwargs)

    def fetches_many(self, cursor: Any) -> Callable[[int], list[Any]] | None:
        """What fetches that many rows with this cursor, if no more must be fetched than the client asks for; None if
        rows may be fetched one by one, and before they are asked for."""
        return None

    def notices(self, connection: Any) -> list[str]:
        """What the database has said beside results, and was not asked for yet."""
        return []

    def leave_text(self, connection: Any, type_codes: list[Any]) -> None:
        """Make no values of columns of these types, until the connection is reset."""
        raise self.module.NotSupportedError(
            f"{self.module.__name__} makes values in the worker: register what makes them in the server's init hook"
        )

    def told(self, error: BaseException) -> dict[str, Any] | None:
        """What the client must be told of an error, so that it can make one like it: see :data:`gtask.wire.dbapi.TOLD`.
        None if it can make one of this class by itself."""
        return None
