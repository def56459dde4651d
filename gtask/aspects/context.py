"""Context variables of calls at the caller: named, and read at each call.

A variable is known by the module that has made it, at its top level, and by its name.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Sequence
from contextvars import ContextVar
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from gtask.aspects.aspect import CallerAspect, Companion
from gtask.wire.exceptions.tracebacks import module_vars

if TYPE_CHECKING:
    from gtask.client.calls import Call

__all__ = ["ContextVariables", "Named", "name", "values"]

Named = tuple[tuple[str, ContextVar[Any]], ...]


def name(variables: Sequence[ContextVar[Any]]) -> Named:
    """Each variable with the name by which it travels: ``module:name``, or ``:name`` if no module has it.

    Raises:
        TypeError: one is no context variable.
        ValueError: two have the same name.
    """
    named: dict[str, ContextVar[Any]] = {}
    for variable in variables:
        if not isinstance(variable, ContextVar):
            raise TypeError(f"context={variable!r}: list context variables (contextvars.ContextVar)")
        full = f"{_home(variable)}:{variable.name}"
        if full in named:
            raise ValueError(f"context: two variables are named {full!r}, and the worker could not tell them apart")
        named[full] = variable
    return tuple(named.items())


_MAIN = ("__main__", "__mp_main__")
"""The names of a main module, here and in processes that multiprocessing has started. No worker knows them."""


def _home(variable: ContextVar[Any]) -> str:
    """The module that has made a variable; or else one that has it, for others may have imported it from there."""
    homes: dict[str, set[str]] = {}
    for module_name in list(sys.modules):
        names = {key for key, value in list(module_vars(module_name).items()) if value is variable}
        if names:
            homes[module_name] = names
    found = [module_name for module_name in homes if module_name not in _MAIN]
    if not found:
        return next((_spec_name(module_name) for module_name in homes), "")
    return next((home for home in found if len(found) > 1 and _makes(home, homes[home])), found[0])


def _spec_name(module_name: str) -> str:
    """The name by which a module was found; "" for a script."""
    return str(getattr(module_vars(module_name).get("__spec__"), "name", ""))


def _makes(module_name: str, names: set[str]) -> bool:
    """Whether a module's code gives one of these names the value of a call, rather than what it imports."""
    spec = module_vars(module_name).get("__spec__")
    try:
        code = spec.loader.get_code(spec.name)  # type: ignore[union-attr]
        steps = [step for step in dis.get_instructions(code) if step.opname not in ("EXTENDED_ARG", "CACHE")]
    except Exception:  # a module that nobody has loaded, or a loader that knows no code
        return False
    return any(
        step.opname in ("STORE_NAME", "STORE_GLOBAL") and step.argval in names and before.opname.startswith("CALL")
        for before, step in pairwise(steps)
    )


def values(named: Named) -> dict[str, Any]:
    """The values that the variables have now, by their names; a variable without a value is left out."""
    found = ((full, variable.get(_UNSET)) for full, variable in named)
    return {full: value for full, value in found if value is not _UNSET}


_UNSET = object()


class ContextVariables(CallerAspect):
    """The values of context variables travel with each call.

    Args:
        named: the variables, by the names by which they travel.
    """

    key = "context"

    def __init__(self, named: Named) -> None:
        self._named = named

    def begin(self, call: Call) -> tuple[Any, Companion | None] | None:
        return values(self._named) or None, None
