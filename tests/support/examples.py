"""How many random examples a test tries: few where somebody waits for it, many where CI runs it."""

from __future__ import annotations

import os

from hypothesis import settings

from tests.support import needs

settings.register_profile("quick", deadline=None, max_examples=25)
settings.register_profile("thorough", deadline=None, max_examples=100)
settings.load_profile("thorough" if os.environ.get(needs.REQUIRED) else "quick")


def examples(times):
    """A number of examples for ``settings(max_examples=...)``: so many times the usual one."""
    return round(times * settings.default.max_examples)
