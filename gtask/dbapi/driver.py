"""A database driver as the client must know it: its classes of errors, and how values go to it and come from it."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

from gtask import errors
from gtask.dbapi import errors as pep249
from gtask.wire.dbapi import SCALARS, mark

__all__ = ["Driver"]


_CAST = "; cast the column in the statement, such as to text, or have the server's init hook register what converts it"


class Driver:
    """Any driver.

    Args:
        name: of its module.
        module: that, or None if this process has not imported it: then errors are of the classes of ``gtask.dbapi``.

    Attributes:
        cursor_class: what cursors are; None for :class:`gtask.dbapi.Cursor`.
        shortcuts: methods of cursors that connections have, too, and which make a cursor.
    """

    cursor_class: Any = None
    shortcuts: frozenset[str] = frozenset({"execute", "executemany", "executescript"})

    def __init__(self, name: str, module: ModuleType | None) -> None:
        self.name = name
        self.module = module
        home = vars(module if module is not None else pep249)
        self.exceptions: dict[str, type[Exception]] = {
            each: home[each] for each in pep249.NAMES if isinstance(home.get(each), type)
        }

    def __repr__(self) -> str:
        return f"<driver {self.name}>"

    def error(self, name: str, text: str) -> Exception:
        """An exception of the driver's, such as ``InterfaceError``."""
        return self.exceptions.get(name, self.exceptions["Error"])(text)

    def closed(self, what: str) -> Exception:
        """What is raised when something is used that is closed: "connection" or "cursor"."""
        return self.error("InterfaceError", f"{what} already closed")

    def translated(self, error: errors.Error) -> Exception:
        """What is raised for an error of gtask's."""
        if isinstance(error, errors.RemoteError) and not isinstance(error, errors.SetupError):
            if isinstance(error, errors.EncodeError):
                advice = _CAST if "cannot travel" in str(error) else ""  # else it is too large
                return pep249.combined(error, self.exceptions["NotSupportedError"], advice)
            return pep249.of_driver(error, self.name, self.exceptions["Error"]) or error
        if isinstance(error, errors.EncodeError):
            return pep249.combined(error, self.exceptions["ProgrammingError"])
        return pep249.combined(error, self.exceptions["OperationalError"])

    # --- connections -----------------------------------------------------------------------------------

    def arguments(self, given: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        """The arguments of ``connect`` as they travel, and the ``row_factory`` that they have asked for."""
        return given, None

    def attribute(self, owner: Any, name: str) -> Any:
        """What a connection or a cursor has under this name without asking the worker; None for nothing."""
        return None

    # --- values ----------------------------------------------------------------------------------------

    def parameters(self, given: Any) -> tuple[Any, bool]:
        """The parameters of a statement as they travel, and whether there is more than plain values in them.

        Raises:
            Exception: they are neither a sequence nor a mapping; the driver's ``ProgrammingError``.
        """
        if isinstance(given, Mapping):
            values: Any = dict(given)
            kinds: Iterable[type] = map(type, values.values())
        elif isinstance(given, Sequence) or (hasattr(given, "__len__") and hasattr(given, "__getitem__")):
            values = [given[index] for index in range(len(given))] if not isinstance(given, (list, tuple)) else given
            kinds = map(type, values)
        else:
            raise self.error("ProgrammingError", f"parameters are of unsupported type {type(given).__name__}")
        if SCALARS.issuperset(kinds):
            return values, False
        if isinstance(values, dict):
            return {key: self.parameter(value) for key, value in values.items()}, True
        return [self.parameter(value) for value in values], True

    def parameter(self, value: Any) -> Any:
        """One parameter that is no plain value, as it travels."""
        return bytes(value) if isinstance(value, (memoryview, bytearray)) else mark(value)

    def no_rows(self) -> Exception | None:
        """What is raised when rows are fetched and the statement had none to give; None for nothing."""
        return self.error("ProgrammingError", "no results to fetch")

    def model(self, factory: Any, description: Sequence[Any] | None) -> Any:
        """The cursor that a ``row_factory`` is to be given; None for the one that has the row."""
        return None

    def out(self, name: str, value: Any) -> Any:
        """An attribute of the connection, which is set here, as it travels."""
        return mark(value)

    def back(self, name: str, value: Any) -> Any:
        """An attribute of the connection as it came."""
        return value

    def names(self) -> dict[str, Any]:
        """What a module that stands for the driver has otherwise than the driver: its own wrappers of values need not
        travel, for the driver in the worker takes the values themselves."""
        return {
            "Binary": bytes,
            "Date": datetime.date,
            "Time": datetime.time,
            "Timestamp": datetime.datetime,
            "DateFromTicks": datetime.date.fromtimestamp,
            "TimeFromTicks": lambda ticks: datetime.datetime.fromtimestamp(ticks).timetz(),
            "TimestampFromTicks": datetime.datetime.fromtimestamp,
        }
