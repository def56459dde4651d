"""The functions of an interface by their full names, ``"module:qualname"``: so executors and tasks call them.

A full name is another name of what is served, and never leads to anything else. Any name may have EACH before it.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from gtask.function_names import EACH, call_each
from gtask.wire.limits import DEFAULTS

if TYPE_CHECKING:
    from gtask.server.worker.interface import Interface

__all__ = ["find", "unknown"]


def find(interface: Interface, name: Any) -> Callable[..., Any] | None:
    """The function with this full name; if the name begins with EACH, what calls it or any other again and again. None
    for none."""
    if type(name) is not str:
        return None
    full = name.removeprefix(EACH)
    short = _short_names(interface).get(full) if ":" in full else full
    function = None if short is None or short is name else interface.find(short)
    return function if function is None or full is name else partial(call_each, function)


def unknown(interface: Interface, name: str) -> str:
    """What is said of a full name that leads nowhere: what there is, and which server has other functions."""
    full, known = name.removeprefix(EACH), sorted(_short_names(interface))
    close = difflib.get_close_matches(full[: DEFAULTS.compared], known, 1, cutoff=0.8)
    if close:
        hint = f"did you mean {close[0]}?"
    else:
        module = full.partition(":")[0]
        hint = (
            f"it serves {', '.join(known) or 'none by such a name'}. Another server serves those of {module}: "
            f"gtask-server gtask.server.functions --allow {module}, or "
            f'gtask.Client("spawn:gtask.server.functions?allow={module}")'
        )
    return f"the server of {interface.name} has no function {full:.200}: {hint}"


def _short_names(interface: Interface) -> dict[str, str]:
    """Each full name, with the name by which the interface has it."""
    return {
        full: short
        for short, function in interface.functions().items()
        for full in _full_names(interface.name, short, function)
    }


def _full_names(served: str, short: str, function: Any) -> Iterator[str]:
    """Where a function is defined, and where the module that is served has it."""
    home, path = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if isinstance(home, str) and isinstance(path, str) and "<" not in path:
        yield f"{home}:{path}"
    if getattr(sys.modules.get(served), short, None) is function:
        yield f"{served}:{short}"
