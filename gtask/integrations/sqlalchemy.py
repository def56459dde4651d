"""SQLAlchemy over SQLite in workers: ``create_engine("sqlite+gtask:////var/lib/app.db?address=unix:/run/db.sock")``.

Other databases need no dialect of their own: theirs takes a module that stands for the driver, as in
``create_engine("postgresql+psycopg2://", module=gtask.dbapi.module("unix:/run/db.sock", like="psycopg2"))``, best with
``poolclass=WorkerPool``.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from gevent.lock import RLock
from sqlalchemy import exc, pool
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine.url import URL

from gtask import dbapi, errors
from gtask.client.client import Client
from gtask.dbapi.drivers_known import named

__all__ = ["MemoryPool", "SQLiteDialect", "WorkerPool"]

ADDRESS = "address"
"""What names the server, in a URL's query or in ``connect_args``."""

OPTION = "gtask_"
"""How the names of a client's options begin there, for ``timeout`` alone is SQLite's, for locks."""


class WorkerPool(pool.NullPool):
    """The pool of an engine whose connections are those of workers: it keeps none, for there is a pool of workers.

    It takes a worker for a transaction, and gives it back after that. A ``QueuePool`` would hold a worker for each of
    its connections. And it waits by locks that block a greenlet only in a program which gevent has patched; any other
    they stop for good as soon as greenlets wait for one another. This pool is for both.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # The first connection prepares the engine, by statements. Others that come meanwhile wait for this lock.
        events: Any = self.dispatch.connect
        events.for_modify(self.dispatch)._exec_once_mutex = RLock()


class MemoryPool(pool.SingletonThreadPool):
    """The pool of an engine whose database is in memory: one connection for each thread, which its greenlets share."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._lock = RLock()

    def connect(self) -> Any:
        """As that of any pool. It is there at once, but for the first time, when other greenlets wait for it, too."""
        with self._lock:
            return super().connect()


class SQLiteDialect(SQLiteDialect_pysqlite):
    """As ``sqlite+pysqlite``, and the URL names a server of ``gtask.server.dbapi:sqlite3``, too.

    ``sqlite+gtask:///file?address=unix:/run/db.sock``: the file is looked for from this process's directory, as with
    pysqlite; without a file it is the server that chooses the database. The query takes the options of
    :class:`gtask.Client`, with ``gtask_`` before their names, such as ``gtask_timeout=5`` and ``gtask_max_workers=50``,
    beside pysqlite's own. ``connect_args`` takes all of these, and there ``address`` may be a Client. Or leave
    ``address`` out and give the engine a ``module=gtask.dbapi.module(...)``.

    Engines of one address share a pool of workers, unless they have options. That pool is the only one: the engine's
    own is a :class:`WorkerPool`. A database in memory has one connection for each thread, as with pysqlite, and so
    greenlets share its transactions: it is for tests.

    The worker knows REGEXP. The server's init hook registers further functions, aggregates and collations.
    """

    driver = "gtask"
    supports_statement_cache = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._modules: dict[Any, dbapi.DriverModule] = {}

    @classmethod
    def import_dbapi(cls) -> Any:
        """What stands for sqlite3 in an engine that is given no ``module``: the address comes when it connects."""
        return dbapi.DriverModule(named("sqlite3"), _no_address)

    @classmethod
    def get_pool_class(cls, url: URL) -> type[pool.Pool]:
        """That for a file or for a database in memory; without either it is the server that chooses, and a file."""
        if not url.database or cls._is_url_file_db(url):
            return WorkerPool
        chosen: type[pool.Pool] = super().get_pool_class(url)
        return MemoryPool if chosen is pool.SingletonThreadPool else chosen

    def create_connect_args(self, url: URL) -> Any:
        """The arguments of :meth:`connect` that are in a URL."""
        ours = [name for name in url.query if name == ADDRESS or name.startswith(OPTION)]
        args, arguments = super().create_connect_args(url.difference_update_query(ours))
        arguments.pop("check_same_thread")  # a worker has one thread
        for name in ours:
            text = url.query[name]
            if not isinstance(text, str):
                raise exc.ArgumentError(f"{name} is there {len(text)} times in {url}: write it once")
            arguments[name] = text if name == ADDRESS else _value(text)
        return (args if url.database else []), arguments

    def connect(self, *args: Any, address: str | Client | None = None, **arguments: Any) -> Any:
        """Open a connection, with ``sqlite3.connect``'s arguments and a client's options, by a worker."""
        if address is None:
            return super().connect(*args, **arguments)
        options = {name: arguments.pop(name) for name in list(arguments) if name.startswith(OPTION)}
        if not options:
            return dbapi.connect(address, *args, like="sqlite3", **arguments)
        key = address, *sorted(options.items())
        if key not in self._modules:
            plain = {name.removeprefix(OPTION): value for name, value in options.items()}
            self._modules.setdefault(key, dbapi.module(address, like="sqlite3", **plain))
        return self._modules[key].connect(*args, **arguments)

    def on_connect(self) -> Any:
        """Does nothing: pysqlite registers functions with each connection, and the worker has them already."""
        return lambda connection: None

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        """Whether the connection has lost its worker, or is closed."""
        return isinstance(e, errors.FatalError) or super().is_disconnect(e, connection, cursor)


def _no_address() -> NoReturn:
    raise exc.ArgumentError(
        "no server is named: write sqlite+gtask:///file?address=unix:/path/to/the.sock, give the engine "
        'connect_args={"address": ...}, or module=gtask.dbapi.module(...)'
    )


def _value(text: str) -> Any:
    """What an option's text means: a number, ``true``, ``false`` or ``null``, as in JSON, or itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
