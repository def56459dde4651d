"""placeholder"""

from __future__ import annotations

from typing import Any

INSTALLED = False


def start_call(method: str, peer: str) -> Any: ...
