"""What a server serves to :mod:`gtask.integrations.django.sqlite3`: sqlite3, with Django's functions and converters.

::

    gtask-server gtask.integrations.django.sqlite3.server:interface --listen unix:/run/app/db.sock

A client names the database. A server that has one only is a module of three lines::

    from gtask.integrations.django.sqlite3.server import register
    from gtask.server.dbapi import wrap
    interface = wrap(sqlite3, init=register, database="/var/lib/app/db.sqlite3")
"""

from __future__ import annotations

import sqlite3

from django.db.backends.sqlite3 import base  # which registers the converters

from gtask.server.dbapi import wrap

__all__ = ["interface", "register"]


def register(connection: sqlite3.Connection) -> None:
    """An init hook: give a connection the functions and aggregates that Django's queries use."""
    base.register_functions(connection)


interface = wrap(sqlite3, init=register)
"""For ``gtask-server gtask.integrations.django.sqlite3.server:interface``."""
