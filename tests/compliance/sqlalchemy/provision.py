"""How SQLAlchemy's suite makes and drops databases of SQLite, for the driver gtask, too."""

from __future__ import annotations

from sqlalchemy.dialects.sqlite import provision

provision._drivernames.add("gtask")
