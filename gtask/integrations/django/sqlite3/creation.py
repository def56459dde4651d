"""Test databases: each is a file, for the memory of one worker is not another's."""

from __future__ import annotations

import os
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db.backends.base.creation import TEST_DATABASE_PREFIX, BaseDatabaseCreation
from django.db.backends.sqlite3 import creation

__all__ = ["DatabaseCreation"]


class DatabaseCreation(creation.DatabaseCreation):
    """As sqlite3's, but for databases in memory. Django removes and copies the files itself, so it must be on the same
    machine as the server."""

    def _get_test_db_name(self) -> Any:
        settings = self.connection.settings_dict
        name = settings["TEST"]["NAME"]
        if not name and settings["NAME"] and not os.fspath(settings["NAME"]).startswith((":", "file:")):
            directory, base = os.path.split(settings["NAME"])
            name = os.path.join(directory, TEST_DATABASE_PREFIX + base)
        if not name or self.is_in_memory_db(name):
            raise ImproperlyConfigured(
                f"settings.DATABASES[{self.connection.alias!r}]['TEST']['NAME'] must be a file: databases in memory "
                "are not shared by the workers of gtask"
            )
        return name

    setup_worker_connection = BaseDatabaseCreation.setup_worker_connection
    """For ``test --parallel``: as everywhere but in memory."""
