"""sqlite3 as the client must know it: its adapters and its rows, which are at home in the program."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from gtask.dbapi.driver import Driver
from gtask.wire.dbapi import SCALARS

__all__ = ["SQLite"]


class SQLite(Driver):
    """sqlite3. Adapters that are registered here serve, and rows may be ``sqlite3.Row``."""

    _factories = (str, bytes, bytearray)
    _unadapted = SCALARS | {bytearray}

    def closed(self, what: str) -> Exception:
        return self.error(
            "ProgrammingError", f"Cannot operate on a closed {'database' if what == 'connection' else what}."
        )

    def parameter(self, value: Any) -> Any:
        assert self.module is not None
        if type(value) not in self._unadapted:
            value = self.module.adapt(value, self.module.PrepareProtocol, value)
        return super().parameter(value)

    def no_rows(self) -> Exception | None:
        return None

    def model(self, factory: Any, description: Sequence[Any] | None) -> Any:
        """A ``sqlite3.Row`` takes the names of its columns from a cursor of sqlite3 itself, and no other."""
        assert self.module is not None
        if not (isinstance(factory, type) and issubclass(factory, self.module.Row) and description):
            return None
        names = ", ".join('NULL AS "{}"'.format(column[0].replace('"', '""')) for column in description)
        with contextlib.closing(self.module.connect(":memory:")) as connection:
            return connection.execute(f"SELECT {names}")

    def out(self, name: str, value: Any) -> Any:
        if name != "text_factory":
            return super().out(name, value)
        if value not in self._factories:
            raise self.error(
                "NotSupportedError",
                f"text_factory={value!r} would have to run in the worker: str, bytes and bytearray can be set here, "
                "others in the server's init hook",
            )
        return value.__name__

    def back(self, name: str, value: Any) -> Any:
        if name == "text_factory":
            return {each.__name__: each for each in self._factories}.get(value, value)
        return value

    def names(self) -> dict[str, Any]:
        def register_converter(name: str, converter: Any, /) -> None:
            raise self.error(
                "NotSupportedError",
                f"the converter of {name!r} would have to run in the worker: register it in the server's init hook",
            )

        return {"register_converter": register_converter}
