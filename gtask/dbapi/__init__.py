"""PEP 249, Python's interface of databases, by workers: a blocking driver that blocks only the greenlet which calls it.

::

    import sqlite3
    from gtask import dbapi

    connection = dbapi.connect("unix:/run/db.sock", like="sqlite3")
    with connection:
        connection.execute("UPDATE account SET balance = balance - ? WHERE name = ?", (5, "ann"))

The server is ``gtask-server gtask.server.dbapi:sqlite3``, or what :func:`gtask.server.dbapi.wrap` makes of a driver.
A connection is one checkout: transactions are exclusive, and what was not committed when it ends, however that comes
about, is rolled back.
"""

from __future__ import annotations

from typing import Any

from gtask.client.client import Client
from gtask.dbapi import shared_clients as clients
from gtask.dbapi.connection import Connection
from gtask.dbapi.cursor import Cursor
from gtask.dbapi.drivers_known import named
from gtask.dbapi.errors import (
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    Warning,
)
from gtask.dbapi.module_stand_in import DriverModule

__all__ = [
    "Connection",
    "Cursor",
    "DataError",
    "DatabaseError",
    "DriverModule",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
    "Warning",
    "apilevel",
    "connect",
    "module",
    "threadsafety",
]

apilevel = "2.0"
threadsafety = 1
"""Threads, and greenlets, may share the module, but not connections."""


def connect(address: str | Client, /, *args: Any, like: str | None = None, **arguments: Any) -> Connection:
    """Open a connection to a database, by a worker of a server; blocks this greenlet until it is there.

    Args:
        address: of the server; connections to one address share a pool of workers, one for each thread. Or a
            :class:`gtask.Client`, whose options you choose; it should have ``refork_after_error=False``, or else each
            error of the database costs a worker.
        like: the name of the driver, such as ``"sqlite3"``, which is imported here for its classes of errors. By
            default its own classes are raised if this process has imported it, and else those of this module.
        args, arguments: for the driver's ``connect`` in the worker, beside those that the server has set.

    Returns:
        the connection. Drop it or close it, and what was not committed is rolled back.

    Raises:
        ImportError, TypeError: ``like`` is no driver.
        Exception: the driver's error, among them ``OperationalError`` if no worker can be had in time, and
            ``InterfaceError`` if the server has set an argument otherwise.
    """
    client = address if isinstance(address, Client) else clients.shared(address)
    return Connection(client, named(like) if like is not None else None, args, arguments)


def module(address: str | Client, like: str = "sqlite3", **options: Any) -> DriverModule:
    """A module that stands for a driver, whose connections are those of workers: for programs that take such a module.

    Args:
        address: of the server, or a Client, as for :func:`connect`.
        like: the name of the driver, which is imported here: the module has its ``paramstyle``, its types and its
            classes of errors, and whatever else it has.
        options: of the Client, such as ``max_workers=50``, if ``address`` is not one.

    Raises:
        ImportError, TypeError: ``like`` is no driver, or there are options for a Client that is made already.
    """
    if isinstance(address, Client) and options:
        raise TypeError(f"{', '.join(options)}: give these options to the Client that you have made")
    known = named(like)
    if isinstance(address, Client):
        return DriverModule(known, lambda: address)
    options = {"refork_after_error": False, **options}
    Client(address, **options)  # so that what makes no sense is refused here
    return DriverModule(known, clients.PerThread(lambda: Client(address, **options)))
