"""The stack of the greenlet that runs: where a checkout is made, and whether the client's own code is at work."""

from __future__ import annotations

import sys
import traceback

__all__ = ["has_client", "of_caller"]


def of_caller() -> traceback.StackSummary:
    """Where the program is that makes a checkout, innermost frame first, without the client's own frames."""
    frame = sys._getframe(3)  # of the client's caller
    return traceback.StackSummary.extract(traceback.walk_stack(frame), lookup_lines=False)


def has_client() -> bool:
    """For a finaliser, whose own frames do not count: whether it runs amid the client's own work."""
    frame = sys._getframe(2).f_back  # whatever was going on when the last reference went
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith("gtask.client."):
            return True
        frame = frame.f_back
    return False
