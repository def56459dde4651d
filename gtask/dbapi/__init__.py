"""PEP 249, Python's interface of databases, with a blocking driver in a worker."""

from __future__ import annotations

__all__ = ["apilevel"]

apilevel = "2.0"
