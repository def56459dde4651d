"""SQLAlchemy's own plugin for pytest, and the dialect that it tests."""

from __future__ import annotations

import pytest
from sqlalchemy.dialects import registry

pytest.register_assert_rewrite("sqlalchemy.testing.assertions")  # before the plugin imports it
registry.register("sqlite.gtask", "gtask.integrations.sqlalchemy", "SQLiteDialect")

import provision  # noqa: E402, F401
from sqlalchemy.testing.plugin.pytestplugin import *  # noqa: E402, F403
