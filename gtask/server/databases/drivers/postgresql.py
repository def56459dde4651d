"""psycopg2: a driver in C that waits for the database where no signal handler of Python runs."""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, ClassVar

from gtask.server.databases.drivers.generic import Driver
from gtask.wire.dbapi import Verbatim

__all__ = ["Psycopg2"]


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
        """psycopg2 rolls back, has the database DISCARD ALL, and sets its own settings again: nothing is left
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

    def error_details(self, error: BaseException) -> dict[str, Any] | None:
        kinds = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__]
        diag: Any = getattr(error, "diag", None)
        parts = {name: getattr(diag, name) for name in dir(diag) if not name.startswith("_")}
        attributes = {name: getattr(error, name, None) for name in ("pgcode", "pgerror")}
        return {
            "classes": [name for name in kinds if name.startswith("psycopg2.")],
            "attributes": {**attributes, "cursor": None, "diag": parts},
        }
