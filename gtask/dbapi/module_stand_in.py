"""A module that stands for a driver: what takes a driver's module takes this one."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from gtask.client.client import Client
from gtask.dbapi.connection import Connection
from gtask.dbapi.cursor import Cursor
from gtask.dbapi.driver import Driver

__all__ = ["DriverModule"]


class DriverModule(ModuleType):
    """A driver, whose connections are those of workers; made by :func:`gtask.dbapi.module`.

    What is not described here is the driver's own.

    Attributes:
        threadsafety: 1, threads and greenlets may share the module but not connections.
    """

    threadsafety = 1

    def __init__(self, driver: Driver, client: Callable[[], Client]) -> None:
        super().__init__(driver.name, f"{driver.name}, in workers of gtask.")
        self._driver = driver
        self._client = client
        vars(self).update(driver.names(), Connection=Connection, Cursor=Cursor)

    def __repr__(self) -> str:
        return f"<module {self._driver.name!r} in workers of gtask>"

    def connect(self, *args: Any, **arguments: Any) -> Connection:
        """Open a connection, as the driver's ``connect``; see :func:`gtask.dbapi.connect`."""
        return Connection(self._client(), self._driver, args, arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver.module, name)
