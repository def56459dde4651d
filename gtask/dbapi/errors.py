"""The errors of a database as its user catches them: each is of the driver's own class, and of gtask's, too.

What goes wrong between here and the worker is an ``OperationalError``. What the driver raised there is raised here of
the same class, also where that is written in C and does not let others make it.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from types import ModuleType, SimpleNamespace
from typing import Any

from gtask import errors
from gtask.wire.dbapi import TOLD
from gtask.wire.exceptions.failure import origin

__all__ = [
    "NAMES",
    "DataError",
    "DatabaseError",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
    "Warning",
    "combined",
    "of_driver",
]


class Warning(Exception):
    """As PEP 249 says. These classes are for a driver that this process has not imported."""


class Error(Exception):
    """As PEP 249 says."""


class InterfaceError(Error):
    """As PEP 249 says."""


class DatabaseError(Error):
    """As PEP 249 says."""


class DataError(DatabaseError):
    """As PEP 249 says."""


class OperationalError(DatabaseError):
    """As PEP 249 says."""


class IntegrityError(DatabaseError):
    """As PEP 249 says."""


class InternalError(DatabaseError):
    """As PEP 249 says."""


class ProgrammingError(DatabaseError):
    """As PEP 249 says."""


class NotSupportedError(DatabaseError):
    """As PEP 249 says."""


NAMES = (
    "Warning", "Error", "InterfaceError", "DatabaseError", "DataError", "OperationalError", "IntegrityError",
    "InternalError", "ProgrammingError", "NotSupportedError",
)  # fmt: skip


def combined(error: errors.Error, base: type[Exception], advice: str = "") -> Exception:
    """An error of gtask as one that is of a driver's class, too, with the same traceback, causes and notes.

    No class can be of both where each is built on a structure in C, as ``gtask.CallTimeout`` on TimeoutError's and the
    errors of psycopg2. Then it is a ``gtask.FatalError`` or ``gtask.Error``, and the error of gtask is its cause.

    Args:
        error: of gtask.
        base: the driver's class.
        advice: for the end of its text.
    """
    counterpart: Exception = _class((type(error), base))(*((f"{error}{advice}",) if advice else error.args))
    _resemble(counterpart, error)
    if not isinstance(counterpart, type(error)):
        counterpart.__cause__ = error
    return counterpart


def of_driver(error: errors.RemoteError, package: str, base: type[Exception]) -> Exception | None:
    """The error that a driver raised in the worker, of its own class.

    Args:
        error: what was raised here instead.
        package: the driver's name; its classes are looked for among the modules that are imported here.
        base: the driver's ``Error``.

    Returns:
        None if it was none of the driver's, or its class is not known here.
    """
    if isinstance(error, base):
        return error
    _, _, _, args, attrs = origin(error)
    told = attrs.get(TOLD)
    if type(told) is not dict:
        return None
    for name in told.get("classes", ()):
        kind: Any = _find(name, package)
        if kind is not None and issubclass(kind, base):
            counterpart: Exception = _told_class(kind, frozenset(told["attributes"]))(*(args or ()))
            _resemble(counterpart, error)
            vars(counterpart).pop(TOLD, None)
            vars(counterpart)[_ATTRIBUTES] = {key: _namespace(value) for key, value in told["attributes"].items()}
            return counterpart
    return None


_ATTRIBUTES = "_gtask_attributes"


def _resemble(counterpart: BaseException, error: BaseException) -> None:
    vars(counterpart).update(vars(error))
    counterpart.__cause__, counterpart.__context__ = error.__cause__, error.__context__
    counterpart.__suppress_context__ = error.__suppress_context__
    counterpart.with_traceback(error.__traceback__)


@lru_cache(maxsize=256)
def _class(classes: tuple[type[errors.Error], type[Exception]]) -> type[Exception]:
    kind, base = classes
    try:
        return type(kind.__name__, classes, {"__module__": kind.__module__})
    except TypeError:
        general = errors.FatalError if issubclass(kind, errors.FatalError) else errors.Error
        return type(kind.__name__, (general, base), {"__module__": kind.__module__})


@lru_cache(maxsize=256)
def _told_class(kind: Any, names: frozenset[str]) -> Any:
    body: dict[str, Any] = {name: _Told(name) for name in names}
    body["__module__"], body["__qualname__"] = kind.__module__, kind.__qualname__
    return type(kind.__name__, (errors.RemoteError, kind), body)


class _Told:
    """An attribute that the original keeps in C, where nobody can set it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, error: Exception | None, owner: type) -> Any:
        return self if error is None else vars(error).get(_ATTRIBUTES, {}).get(self._name)


def _find(name: str, package: str) -> type[Exception] | None:
    module, _, kind = name.rpartition(".")
    if f"{module}.".startswith(f"{package}."):
        home = sys.modules.get(module)
        found = vars(home).get(kind) if isinstance(home, ModuleType) else None
        if isinstance(found, type) and issubclass(found, Exception):
            return found
    return None


def _namespace(value: Any) -> Any:
    return SimpleNamespace(**value) if type(value) is dict else value
