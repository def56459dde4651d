"""A database backend of Django: SQLite, in workers of gtask, so that a query blocks one greenlet and not the program.

::

    DATABASES = {
        "default": {
            "ENGINE": "gtask.integrations.django.sqlite3",
            "NAME": BASE_DIR / "db.sqlite3",
            "HOST": "unix:/run/app/db.sock",
            "OPTIONS": {"client": {"max_workers": 50}},
        }
    }

HOST is the server's address, as :class:`gtask.Client` takes it; that server is ``gtask-server
gtask.integrations.django.sqlite3.server:interface``. With ``spawn:gtask.integrations.django.sqlite3.server:interface``
each process has a server of its own. Of the OPTIONS, "client" has those of the Client; all others are as for Django's
own sqlite3 backend, from which this one differs only thus:

* A connection is a checkout of one worker until Django closes it, at the end of a request unless CONN_MAX_AGE says
  otherwise. If it ends in any other way, what it has not committed is rolled back.
* Django has a connection for each thread. A program that has greenlets instead calls ``gevent.monkey.patch_all()``
  before it imports Django. Real threads that share a connection (``inc_thread_sharing()``) open it anew in turn.
* A relative NAME is meant from where Django runs. Databases in memory are refused: each worker has its own memory.
* Functions, aggregates, collations and converters beyond Django's own are registered by the server.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from itertools import chain, islice
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db.backends.sqlite3 import base

from gtask import dbapi
from gtask.integrations.django.sqlite3.creation import DatabaseCreation
from gtask.integrations.django.sqlite3.greenlets import this_thread, when_it_ends

__all__ = ["CursorWrapper", "DatabaseWrapper"]

SERVER = "gtask.integrations.django.sqlite3.server:interface"


class DatabaseWrapper(base.DatabaseWrapper):
    """What Django calls a connection; it opens one of gtask's when it is first used."""

    creation_class = DatabaseCreation

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._thread: object = None  # of the connection
        when_it_ends(self._abandoned)

    def get_connection_params(self) -> dict[str, Any]:
        """The arguments for sqlite3's ``connect`` in the worker.

        Raises:
            ImproperlyConfigured: NAME is missing, or it or an option makes no sense.
        """
        arguments: dict[str, Any] = super().get_connection_params()
        arguments.pop("client", None)
        name = os.fspath(arguments["database"])
        if self.creation.is_in_memory_db(name):
            raise self._improper("NAME", f"is {name!r}, but each worker of gtask has a memory of its own: name a file")
        if not name.startswith("file:"):
            name = os.path.abspath(name)
        return {**arguments, "database": name}

    def get_new_connection(self, conn_params: dict[str, Any]) -> dbapi.Connection:
        """Open a connection; blocks this greenlet until there is a worker for it.

        Raises:
            ImproperlyConfigured: HOST is missing, or it or an option of the Client makes no sense.
            sqlite3.Error: there is no worker, or the database cannot be opened.
        """
        address = self.settings_dict["HOST"]
        if not address:
            raise self._improper("HOST", "must be the address of a gtask-server, such as 'unix:/run/app/db.sock'")
        options = self.settings_dict["OPTIONS"].get("client", {})
        try:
            module = _module(self.alias, address, options)
        except (TypeError, ValueError) as error:
            raise self._improper("HOST or OPTIONS['client']", f"makes no sense: {error}") from error
        connection = module.connect(**conn_params)
        try:
            for command in ("PRAGMA foreign_keys = ON", "PRAGMA legacy_alter_table = OFF", *self.init_commands):
                if command.strip():
                    connection.execute(command)
        except BaseException:  # whatever it was, it knows this frame, and would hold the worker as long as it lives
            connection.close()
            raise
        self._thread = this_thread()
        return connection

    def close_if_health_check_failed(self) -> None:
        """Close a connection that cannot be used, also if that is because another thread has opened it."""
        if self.connection is not None and self._thread is not this_thread() and not self.in_atomic_block:
            self.close()
        super().close_if_health_check_failed()

    def _abandoned(self) -> None:
        """The greenlet for which this was made has ended. If it left the connection open, nobody else would close it,
        and it would keep its worker until garbage is collected."""
        if self.connection is not None and not self.allow_thread_sharing:
            self.connection.close()

    def create_cursor(self, name: str | None = None) -> CursorWrapper:
        """A cursor that takes statements as Django writes them."""
        cursor: CursorWrapper = self.connection.cursor(factory=CursorWrapper)
        return cursor

    def is_usable(self) -> bool:
        """Whether the connection still has its worker: asks it."""
        try:
            self.connection.execute("SELECT 1")
        except self.Database.Error:
            return False
        return True

    def get_database_version(self) -> tuple[int, ...]:
        """The worker's version of SQLite.

        Raises:
            ImproperlyConfigured: the worker does not know the functions that Django's queries use.
        """
        query = "SELECT sqlite_version(), django_time_extract('hour', NULL)"
        try:
            [version, _] = self.connection.execute(query).fetchone()
        except self.Database.OperationalError as error:
            if "no such function" not in str(error):
                raise
            raise self._improper("HOST", f"is a server that does not know Django: serve {SERVER} there") from error
        return tuple(map(int, version.split(".")))

    def _improper(self, setting: str, text: str) -> ImproperlyConfigured:
        return ImproperlyConfigured(f"settings.DATABASES[{self.alias!r}]: {setting} {text}")


class CursorWrapper(dbapi.Cursor):
    """A cursor for statements with ``%s`` and ``%(name)s``, as sqlite3's backend of Django has it."""

    convert_query = base.SQLiteCursorWrapper.convert_query

    def execute(self, operation: str, parameters: Any = None) -> CursorWrapper:
        """As :meth:`gtask.dbapi.Cursor.execute`; without parameters the statement is taken as it is."""
        if parameters is not None:
            operation = self.convert_query(operation, param_names=_names(parameters))
        super().execute(operation, parameters)
        return self

    def executemany(self, operation: str, rows: Iterable[Any]) -> CursorWrapper:
        """As :meth:`gtask.dbapi.Cursor.executemany`."""
        rows = iter(rows)
        first = list(islice(rows, 1))
        operation = self.convert_query(operation, param_names=_names(*first))
        super().executemany(operation, chain(first, rows))
        return self


def _names(parameters: Any = None) -> list[str] | None:
    return list(parameters) if isinstance(parameters, Mapping) else None


_modules: dict[str, tuple[Any, dbapi.DriverModule]] = {}


def _module(alias: str, address: str, options: dict[str, Any]) -> dbapi.DriverModule:
    """What stands for sqlite3. Each alias has workers of its own, which keep its database open."""
    known = _modules.get(alias)
    if known is None or known[0] != (address, options):
        known = _modules[alias] = (address, dict(options)), dbapi.module(address, like="sqlite3", **options)
    return known[1]
