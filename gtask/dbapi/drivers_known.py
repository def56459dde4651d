"""Which drivers are known, by name."""

from __future__ import annotations

import contextlib
import importlib
import sys
from functools import lru_cache
from types import ModuleType

from gtask.dbapi.driver import Driver
from gtask.dbapi.psycopg2 import Psycopg2
from gtask.dbapi.sqlite import SQLite

__all__ = ["known", "named"]

_KNOWN: dict[str, type[Driver]] = {"sqlite3": SQLite, "psycopg2": Psycopg2}


def named(name: str) -> Driver:
    """The driver of that name, which is imported.

    Raises:
        ImportError: it cannot be.
        TypeError: it is no driver.
    """
    module = importlib.import_module(name)
    if not isinstance(getattr(module, "Error", None), type):
        raise TypeError(f"like={name!r}: {name} is no database driver, it has no Error (PEP 249)")
    for part in ("errors", "err"):  # where drivers keep classes beside PEP 249's
        with contextlib.suppress(ImportError):
            importlib.import_module(f"{name}.{part}")
    return _driver(name, module)


def known(name: str) -> Driver:
    """The driver of that name as far as this process has imported it."""
    return _driver(name, sys.modules.get(name))


@lru_cache(maxsize=32)
def _driver(name: str, module: ModuleType | None) -> Driver:
    return _KNOWN.get(name, Driver)(name, module) if module is not None else Driver(name, None)
