"""A database backend of Django: SQLite, in workers of gtask; see :mod:`gtask.integrations.django.sqlite3.base`."""
