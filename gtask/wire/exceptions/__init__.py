"""Exceptions and tracebacks as plain data."""
