"""The worker's side of :mod:`gtask.dbapi`: serves a blocking database driver, whose connection a checkout holds."""

from __future__ import annotations

import json
import os
import pkgutil
import sqlite3 as sqlite3_module
from types import ModuleType
from typing import Any

from gtask.server.databases.database import Database, Hook
from gtask.server.databases.drivers import driver_of
from gtask.server.worker.interface import Interface

__all__ = ["sqlite3", "wrap"]


def wrap(
    module: ModuleType, /, *, init: Hook | str | None = None, reset: Hook | None = None, **connect_arguments: Any
) -> Interface:
    """Serve a database driver to :mod:`gtask.dbapi`.

    Args:
        module: the driver, a module as PEP 249 describes it: ``sqlite3``, ``psycopg2``, ``pymysql``...
        init: called in the worker with each new connection of the driver; here its functions, aggregates, collations
            and converters are registered. It may be a name, ``"module:function"``. With psycopg2 it is called again
            when a checkout has ended, for the session then forgets its settings.
        reset: called in the worker with the connection when a checkout has ended and was rolled back, before the
            connection is lent again. If it raises, the connection is closed instead. Statements of the hooks are
            committed.
        connect_arguments: for the driver's ``connect``. A client may add others, and cannot change these.

    Returns:
        the interface, for a server.

    Raises:
        TypeError: the module is no driver, or a hook cannot be called.
        ImportError, AttributeError, ValueError: ``init`` names nothing.
    """
    if not callable(getattr(module, "connect", None)) or not isinstance(getattr(module, "Error", None), type):
        raise TypeError(f"{module!r} is no database driver: it has no connect() or no Error (PEP 249)")
    prepare: Any = pkgutil.resolve_name(init) if isinstance(init, str) else init
    for name, hook in (("init", prepare), ("reset", reset)):
        if hook is not None and not callable(hook):
            raise TypeError(f"{name}={hook!r} cannot be called: write a function that takes the connection")
    database = Database(driver_of(module), prepare, reset, connect_arguments)
    return Interface(
        database.methods, name=module.__name__, checkout_done=database.checkout_done, teardown=database.teardown
    )


def _from_environment() -> Interface:
    text = os.environ.get("GTASK_DBAPI", "{}")
    try:
        arguments = json.loads(text)
    except ValueError:
        arguments = None
    if type(arguments) is not dict:
        raise ValueError(
            f"GTASK_DBAPI={text!r}: write the arguments of sqlite3.connect() as a JSON object, such as "
            '{"database": "/var/lib/app.db"}'
        )
    return wrap(sqlite3_module, init=os.environ.get("GTASK_DBAPI_INIT") or None, **arguments)


sqlite3 = _from_environment()
"""For ``gtask-server gtask.server.dbapi:sqlite3``. The environment's ``GTASK_DBAPI`` has the arguments of
``sqlite3.connect``, a JSON object, and ``GTASK_DBAPI_INIT`` the name of the init hook, ``module:function``."""
