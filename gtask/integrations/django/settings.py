"""Clients by alias, as Django's settings describe them.

::

    GTASK = {
        "default": {"ADDRESS": "unix:/run/jobs.sock", "TIMEOUT": 5},
        "reports": {"ADDRESS": "unix:/run/reports.sock", "MAX_WORKERS": 2},
    }

``ADDRESS`` is the server's (``unix:``, ``tcp://`` or ``spawn:``); the other keys are options of :class:`gtask.Client`
in capitals. ``docs/howto/django.rst`` has a whole program.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.connection import ConnectionProxy

import gtask
from gtask.integrations.configured import make_client

__all__ = ["Clients", "client", "clients"]

_EXAMPLE = 'write GTASK = {"default": {"ADDRESS": "unix:/run/jobs.sock"}}'


class Clients:
    """The clients of ``settings.GTASK``: ``clients["default"]``. Each is made when it is first asked for.

    A process has one for each alias, which connects at its first use; all its greenlets share it.
    """

    def __init__(self) -> None:
        self._clients: dict[str, gtask.Client] = {}

    def __getitem__(self, alias: str) -> gtask.Client:
        """The client of that alias.

        Raises:
            ImproperlyConfigured: there is no such alias, or what the settings say of it makes no sense.
        """
        if alias not in self._clients:
            self._clients[alias] = _make(alias)
        return self._clients[alias]

    def __iter__(self) -> Iterator[str]:
        """The aliases."""
        return iter(_described())

    def forget(self) -> None:
        """Let go of all clients, which end with what still uses them; they are made anew when they are asked for."""
        self._clients.clear()


def _described() -> Mapping[str, Any]:
    described = getattr(settings, "GTASK", {})
    if not isinstance(described, Mapping) or not all(isinstance(each, Mapping) for each in described.values()):
        raise ImproperlyConfigured(f"settings.GTASK has a dict for each alias, and is {described!r}: {_EXAMPLE}")
    return described


def _make(alias: str) -> gtask.Client:
    described = _described()
    if alias not in described:
        raise ImproperlyConfigured(f"settings.GTASK has no {alias!r}, only {sorted(described)}: {_EXAMPLE}")
    where = f"settings.GTASK[{alias!r}]"
    options = dict(described[alias])
    address = options.pop("ADDRESS", None)
    for key in options:
        if key != key.upper():
            raise ImproperlyConfigured(f"{where}[{key!r}]: write {key.upper()!r}")
    options = {key.lower(): value for key, value in options.items()}
    try:
        return make_client(address, f"{where}['ADDRESS']", options, str.upper)
    except (ValueError, TypeError) as error:
        raise ImproperlyConfigured(f"{where}: {error}") from error


clients = Clients()

client: gtask.Client = ConnectionProxy(clients, "default")
"""Stands for ``clients["default"]``."""


def _forget(*, setting: str, **_: object) -> None:
    if setting == "GTASK":  # by override_settings, in a test
        clients.forget()


setting_changed.connect(_forget)
