"""What psycopg2's own functions want of a connection by a worker: ``register_uuid()`` and its kin, and ``info``.

psycopg2 keeps what makes values, its casters, in connections and cursors of its own, which are written in C. Those that
are registered with a connection by a worker are kept there, and run here.
"""

from __future__ import annotations

import datetime
import sys
from functools import lru_cache
from types import ModuleType
from typing import Any, ClassVar

from gtask.dbapi.cursor import Connection, Cursor

__all__ = ["Info", "accept_ours"]


def accept_ours(module: ModuleType, kind: type[Cursor]) -> None:
    """Have psycopg2's ``register_type`` take a connection by a worker, too, wherever psycopg2 itself calls it.

    Args:
        module: psycopg2.
        kind: of cursors of such a connection.
    """
    extensions: Any = module.extensions
    original = extensions.register_type
    if hasattr(original, "accepts"):
        return

    def register_type(caster: Any, conn_or_curs: Any = None, /) -> None:
        """As psycopg2's: have a caster make the values of its types, everywhere, or for one connection or cursor."""
        if isinstance(conn_or_curs, kind):
            raise module.NotSupportedError("register a type with the connection, not with a cursor of it")
        cast_here = getattr(type(conn_or_curs), "cast_here", None)
        if cast_here is None:
            original(caster, conn_or_curs)
        else:
            blank = _blank_cursor(extensions)
            cast_here(conn_or_curs, lambda text: caster(text, blank), caster.values)

    register_type.accepts = kind  # type: ignore[attr-defined]
    for name, home in list(sys.modules.items()):
        if f"{name}.".startswith("psycopg2.") and vars(home).get("register_type") is original:
            vars(home)["register_type"] = register_type


@lru_cache
def _blank_cursor(extensions: Any) -> Any:
    """A cursor of psycopg2's without a connection, for casters: their C code wants no other."""

    class Blank(extensions.cursor):  # type: ignore[misc]
        def cast(self, oid: int, text: str | None) -> Any:
            caster = extensions.string_types.get(oid)
            return text if caster is None else caster(text, self)

    blank = Blank.__new__(Blank)
    blank.tzinfo_factory = datetime.timezone
    return blank


class Info:
    """As psycopg2's ``connection.info``, as far as a worker tells it."""

    _methods: ClassVar = {
        "backend_pid": "get_backend_pid",
        "dsn_parameters": "get_dsn_parameters",
        "transaction_status": "get_transaction_status",
    }

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        if name in self._methods:
            return self._connection.look(None, self._methods[name])()
        return self._connection.look(None, name)
