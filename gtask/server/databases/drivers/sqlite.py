"""sqlite3: settings stay in a connection, and nearly all of them can be undone."""

from __future__ import annotations

import math
import os
import re
from types import ModuleType
from typing import Any, ClassVar

from gtask.server.databases.drivers.generic import Driver

__all__ = ["SQLite"]


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
    _factories: ClassVar[dict[str, type]] = {"str": str, "bytes": bytes, "bytearray": bytearray}
    """The values of ``text_factory`` that a client may set, by name."""

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

    def out(self, name: str, value: Any) -> Any:
        return getattr(value, "__name__", "") if name == "text_factory" else value

    def back(self, name: str, value: Any) -> Any:
        return self._factories[value] if name == "text_factory" else value

    def script(self, operation: str) -> None:
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


def _nothing() -> int:
    return 0


def _regexp(pattern: str, text: str | None) -> bool | None:
    """``text REGEXP pattern``: whether it is in there somewhere."""
    return None if text is None else re.search(pattern, text) is not None
