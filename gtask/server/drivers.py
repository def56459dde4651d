"""What the worker knows of database drivers beyond PEP 249: how to make a connection fit to be lent again, how to keep
it from hanging, and which of its attributes a client may see.

Each driver has a :class:`Driver`; for one that is not here :class:`Driver` itself serves.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import select
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, ClassVar

from gtask.wire.dbapi import Verbatim

__all__ = ["Driver", "driver_of"]


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


class SQLite(Driver):
    """sqlite3, with REGEXP. A connection that has a second database, or one in memory, is not lent again."""

    positional = (
        "database", "timeout", "detect_types", "isolation_level", "check_same_thread", "factory", "cached_statements",
        "uri",
    )  # fmt: skip
    readable = frozenset({"in_transaction", "total_changes", "isolation_level", "autocommit", "text_factory"})
    writable = frozenset({"isolation_level", "autocommit", "text_factory"})
    callable = frozenset({"getlimit", "setlimit", "getconfig", "setconfig", "interrupt"})

    steps = 10_000
    """Of SQLite's machine between two looks for an interruption: some 0.1 ms."""

    _pragma = re.compile(r"\s*PRAGMA\s+(?:\w+\s*\.\s*)?(\w+)\s*([=(]?)", re.IGNORECASE)
    _looking = frozenset(
        {
            "foreign_key_check", "foreign_key_list", "index_info", "index_list", "index_xinfo", "integrity_check",
            "quick_check", "table_info", "table_list", "table_xinfo",
        }
    )  # fmt: skip
    """Pragmas that take an argument and change nothing."""
    _of_connection = frozenset(
        {
            "automatic_index", "busy_timeout", "cache_size", "defer_foreign_keys", "foreign_keys",
            "ignore_check_constraints", "legacy_alter_table", "query_only", "read_uncommitted", "recursive_triggers",
            "reverse_unordered_selects", "synchronous", "temp_store", "trusted_schema",
        }
    )  # fmt: skip
    """Pragmas that set something of the connection, which can be read and set back."""
    _of_file = frozenset({"application_id", "auto_vacuum", "encoding", "page_size", "user_version"})
    """Pragmas that set something of the database, which stays."""

    def __init__(self, module: ModuleType) -> None:
        super().__init__(module)
        self._settings: dict[str, Any] = {}  # of this connection: what pragmas said before they were changed
        self._is_settled = True  # nothing was done to it that cannot be undone
        self._file: tuple[str, os.stat_result] | None = None

    def connect(self, *args: Any, **kwargs: Any) -> Any:
        if "database" not in kwargs:
            raise TypeError(
                "no database is named: either the client names its file, or the server does, by "
                "wrap(sqlite3, database=...) or by GTASK_DBAPI"
            )
        return super().connect(*args, **kwargs)

    def prepare(self, connection: Any) -> None:
        self._settings, self._is_settled = {}, True
        self._file = None
        path = connection.execute("PRAGMA database_list").fetchone()[2]
        if path:
            self._file = path, os.stat(path)
        # Python runs its signal handlers in this function: else an interruption would wait for the statement's end.
        connection.set_progress_handler(_nothing, self.steps)
        # What programs commonly add to SQLite by themselves, which they cannot do here.
        connection.create_function("regexp", 2, _regexp, deterministic=True)
        try:
            connection.execute("SELECT floor(0)")
        except self.module.Error:  # SQLite was built without its mathematical functions
            connection.create_function("floor", 1, math.floor, deterministic=True)

    def is_alive(self, connection: Any) -> bool:
        """Whether the database is still the file of that name: one that was removed or replaced would go on unseen."""
        if self._file is None:
            return True
        path, opened = self._file
        try:
            return os.path.samestat(opened, os.stat(path))
        except OSError:
            return False

    def statement(self, connection: Any, operation: str) -> None:
        found = self._pragma.match(operation)
        if found is None:
            return
        name, sign = found[1].lower(), found[2]
        if sign == "=" and name in self._of_connection:
            if name not in self._settings:
                self._settings[name] = connection.execute(f"PRAGMA {name}").fetchone()[0]
        elif sign and name not in self._looking | self._of_file:
            self._is_settled = False

    def script(self, operation: str) -> None:
        """Take note of a script: what it sets is not known."""
        if "pragma" in operation.lower():
            self._is_settled = False

    def reset(self, connection: Any) -> bool:
        if connection.in_transaction:
            connection.rollback()
        factory, connection.text_factory = connection.text_factory, str
        try:
            return self._is_settled and self._is_one_file(connection) and self._restore(connection)
        finally:
            connection.text_factory = factory

    @staticmethod
    def _is_one_file(connection: Any) -> bool:
        databases = connection.execute("PRAGMA database_list").fetchall()
        others = {name for _, name, _ in databases} - {"main", "temp"}
        if others or not databases[0][2]:
            return False
        if len(databases) == 1:
            return True
        [count] = connection.execute("SELECT count(*) FROM sqlite_temp_master").fetchone()
        return not count

    def _restore(self, connection: Any) -> bool:
        for name, value in self._settings.items():
            connection.execute(f"PRAGMA {name} = {value}")
            if connection.execute(f"PRAGMA {name}").fetchone()[0] != value:
                return False
        self._settings.clear()
        return True


class Psycopg2(Driver):
    """psycopg2, for PostgreSQL. A statement that is interrupted is cancelled in the database, too.

    For that the worker, not libpq, waits for the database: psycopg2 has a wait callback in this process. With one it
    does not know COPY nor large objects; an init hook that needs them sets ``psycopg2.extensions.set_wait_callback``
    to None meanwhile, and can then not be interrupted.
    """

    positional = ("dsn", "connection_factory", "cursor_factory")
    unsaid: ClassVar = {"dsn": ""}
    forgets = True
    readable = frozenset(
        {
            "autocommit", "closed", "deferrable", "dsn", "encoding", "isolation_level", "protocol_version",
            "readonly", "server_version", "status",
        }
    )  # fmt: skip
    writable = frozenset({"autocommit", "deferrable", "isolation_level", "readonly"})
    callable = frozenset(
        {
            "get_backend_pid", "get_dsn_parameters", "get_parameter_status", "get_transaction_status", "reset",
            "set_client_encoding", "set_isolation_level", "set_session", "tpc_begin", "tpc_commit", "tpc_prepare",
            "tpc_rollback",
        }
    )  # fmt: skip
    cursor_readable = frozenset({"query", "statusmessage"})
    cursor_callable = frozenset({"mogrify"})

    def __init__(self, module: ModuleType) -> None:
        super().__init__(module)
        module.extensions.register_adapter(Verbatim, module.extensions.AsIs)

    def connect(self, *args: Any, **kwargs: Any) -> Any:
        for name in ("cursor_factory", "connection_factory"):
            if kwargs.get(name) is not None:
                raise self.module.NotSupportedError(
                    f"{name} is for the client's connect() and cursor(): the worker sends rows as tuples"
                )
        self.module.extensions.set_wait_callback(self._wait)
        return self.module.connect(*args, **kwargs)

    def _wait(self, connection: Any) -> None:
        extensions = self.module.extensions
        try:
            while (state := connection.poll()) != extensions.POLL_OK:
                poll = select.poll()
                poll.register(connection.fileno(), select.POLLIN if state == extensions.POLL_READ else select.POLLOUT)
                poll.poll()
        except self.module.Error:
            raise
        except BaseException:  # an interruption; psycopg2 closes the connection then
            with contextlib.suppress(self.module.Error):  # there may be nothing to cancel yet
                connection.cancel()
            raise

    def is_alive(self, connection: Any) -> bool:
        return not connection.closed and super().is_alive(connection)

    def reset(self, connection: Any) -> bool:
        """psycopg2 rolls back, has the database DISCARD ALL, and sets what it needs of the session: nothing is left
        of temporary tables, prepared statements, LISTEN, the locks of the session, or levels of isolation."""
        if connection.closed:
            return False
        try:
            connection.reset()
        except self.failures:  # it is lost, or the client has begun a transaction in autocommit
            return False
        connection.notices, connection.notifies = [], []
        connection.string_types.clear()  # what leave_text and the init hook, which runs again, have registered
        return True

    def cursor(self, connection: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        return connection.cursor(*args, **{**kwargs, "cursor_factory": self.module.extensions.cursor})

    def notices(self, connection: Any) -> list[str]:
        said = connection.notices[:]
        connection.notices.clear()
        return list(said)

    def leave_text(self, connection: Any, type_codes: list[Any]) -> None:
        extensions = self.module.extensions
        kind = extensions.new_type(tuple(type_codes), "TEXT", lambda text, cursor: text)
        extensions.register_type(kind, connection)

    def fetches_many(self, cursor: Any) -> Callable[[int], list[Any]] | None:
        """A named cursor is one of the database's: it matters which row it is at, and each fetch is a way there."""
        many: Callable[[int], list[Any]] | None = None if cursor.name is None else cursor.fetchmany
        return many

    def told(self, error: BaseException) -> dict[str, Any] | None:
        kinds = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__]
        diag: Any = getattr(error, "diag", None)
        parts = {name: getattr(diag, name) for name in dir(diag) if not name.startswith("_")}
        attributes = {name: getattr(error, name, None) for name in ("pgcode", "pgerror")}
        return {
            "classes": [name for name in kinds if name.startswith("psycopg2.")],
            "attributes": {**attributes, "cursor": None, "diag": parts},
        }


def _nothing() -> int:
    return 0


def _regexp(pattern: str, text: str | None) -> bool | None:
    """``text REGEXP pattern``: whether it is in there somewhere."""
    return None if text is None else re.search(pattern, text) is not None


_KNOWN: dict[str, Callable[[ModuleType], Driver]] = {
    "sqlite3": SQLite,
    "psycopg2": Psycopg2,
}


def driver_of(module: ModuleType) -> Driver:
    """The driver that this module is."""
    return _KNOWN.get(module.__name__, Driver)(module)
