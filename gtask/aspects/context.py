"""Context variables of calls: named and read at the caller, found and set in the worker.

A variable is known by the module that has it at its top level, and by its name. The worker never imports that module:
it looks among the modules that the application has loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any

from gtask.aspects.aspect import CallerAspect, Companion, WorkerAspect

if TYPE_CHECKING:
    from gtask.client.calls import Call
    from gtask.server.worker.worker import Worker
    from gtask.wire.messages import Request

__all__ = ["ContextAspect", "ContextVariables", "Finder", "Named", "name", "reset", "values"]

Named = tuple[tuple[str, ContextVar[Any]], ...]
Tokens = list[tuple[ContextVar[Any], Token[Any]]]


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


def _home(variable: ContextVar[Any]) -> str:
    for module_name, module in list(sys.modules.items()):
        if module_name != "__main__" and any(value is variable for value in list(vars(module).values())):
            return module_name
    return ""


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


class Finder:
    """In the worker: finds variables by their names, and sets them."""

    def __init__(self) -> None:
        self._found: dict[str, ContextVar[Any]] = {}

    def set(self, context: Mapping[str, Any]) -> Tokens:
        """Give the variables these values. A variable that is not found is left out.

        Returns:
            what :func:`reset` needs.
        """
        tokens: Tokens = []
        for full, value in context.items():
            variable = self._found.get(full) or self._find(full)
            if variable is not None:
                tokens.append((variable, variable.set(value)))
        return tokens

    def _find(self, full: str) -> ContextVar[Any] | None:
        """The variable of that module, or else the only one of that name in all modules; None if there is none."""
        module_name, _, own_name = full.partition(":")
        of_module = _of_name(sys.modules.get(module_name), own_name)
        everywhere = of_module or {
            id(variable): variable
            for module in list(sys.modules.values())
            for variable in _of_name(module, own_name).values()
        }
        if len(everywhere) != 1:
            return None
        (variable,) = everywhere.values()
        self._found[full] = variable
        return variable


def _of_name(module: object, own_name: str) -> dict[int, ContextVar[Any]]:
    named = list(vars(module).values()) if module is not None else []
    return {id(value): value for value in named if type(value) is ContextVar and value.name == own_name}


def reset(tokens: Tokens) -> None:
    """Give the variables back the values that they had before, last set first."""
    for variable, token in reversed(tokens):
        variable.reset(token)


class ContextAspect(WorkerAspect):
    """In the worker: the context variables that a call has brought are set while it runs."""

    def __init__(self, worker: Worker) -> None:
        self._finder = Finder()

    def begin(self, request: Request, method: str) -> _Set | None:
        meta = request.meta
        if meta is None or not meta.context:
            return None
        call = _Set(self._finder, meta.context)
        if not request.used:  # pickled values are there when the call enters
            call.enter()
        return call


class _Set:
    """The variables of one call."""

    __slots__ = ("_context", "_finder", "_tokens")

    def __init__(self, finder: Finder, context: Mapping[str, Any]) -> None:
        self._finder = finder
        self._context = context
        self._tokens: Tokens | None = None

    def enter(self) -> None:
        if self._tokens is None:
            self._tokens = self._finder.set(self._context)

    def leave(self, error: BaseException | None) -> None:
        reset(self._tokens or [])
