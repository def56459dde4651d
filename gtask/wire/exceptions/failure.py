"""Exception <-> plain data: the functions that the rest of gtask uses.

What is told of an exception is in :mod:`gtask.wire.exceptions.telling`, what is made of it in
:mod:`gtask.wire.exceptions.making`.
"""

from __future__ import annotations

from gtask.wire.exceptions.anatomy import Parts
from gtask.wire.exceptions.anatomy import parts as origin
from gtask.wire.exceptions.making import rebuild
from gtask.wire.exceptions.telling import Data, brief, describe, text

__all__ = ["Data", "Parts", "brief", "describe", "origin", "rebuild", "text"]
