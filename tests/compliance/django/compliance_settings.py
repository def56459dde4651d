"""The settings for Django's own tests. What differs from run to run comes from the environment."""

from __future__ import annotations

import os

_directory = os.environ["COMPLIANCE_DIRECTORY"]
_server = os.environ.get("COMPLIANCE_SERVER")  # none for Django's own backend

DATABASES = {
    alias: {
        "ENGINE": "gtask.integrations.django.sqlite3" if _server else "django.db.backends.sqlite3",
        "HOST": _server or "",
        "TEST": {"NAME": f"{_directory}/{alias}.sqlite3"},  # the plain backend, too: it can do more in memory
    }
    for alias in ("default", "other")
}
SECRET_KEY = "of the tests"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
TEST_RUNNER = "compliance_outcomes.Runner"
