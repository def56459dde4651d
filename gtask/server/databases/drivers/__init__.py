"""The worker's knowledge of database drivers beyond PEP 249: how to make a connection fit to be lent again, how to keep
it from hanging, and which of its attributes a client may see.

Each known driver has a subclass of :class:`Driver`. For other drivers :class:`Driver` itself serves.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from gtask.server.databases.drivers.generic import Driver
from gtask.server.databases.drivers.postgresql import Psycopg2
from gtask.server.databases.drivers.sqlite import SQLite

__all__ = ["Driver", "Psycopg2", "SQLite", "driver_of"]

_KNOWN: dict[str, Callable[[ModuleType], Driver]] = {
    "sqlite3": SQLite,
    "psycopg2": Psycopg2,
}


def driver_of(module: ModuleType) -> Driver:
    """The knowledge of the driver in this module."""
    return _KNOWN.get(module.__name__, Driver)(module)
