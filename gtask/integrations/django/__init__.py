"""gtask for Django, which the extra ``django`` installs: clients that are described in the settings."""

from __future__ import annotations

from gtask.integrations.django.settings import Clients, client, clients

__all__ = ["Clients", "client", "clients"]
