"""Context variables of calls in the worker: found by their names, and set while a call runs.

The worker never imports the module by which a variable is named: it looks among those that the application has loaded.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Mapping
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any

from gtask.aspects.aspect import WorkerAspect
from gtask.installed import is_of_application
from gtask.wire.exceptions.tracebacks import module_vars

if TYPE_CHECKING:
    from gtask.server.worker.worker import Worker
    from gtask.wire.messages import Request

__all__ = ["ContextAspect", "Finder", "reset"]

log = logging.getLogger("gtask.server")

Tokens = list[tuple[ContextVar[Any], Token[Any]]]


class Finder:
    """In the worker: finds variables by their names, and sets those that clients may set.

    Args:
        allowed: what they may set, each as ``module:name``; none for what the application has; None for everything.
    """

    def __init__(self, allowed: Collection[str] | None = None) -> None:
        self._allowed = allowed
        self._found: dict[str, ContextVar[Any]] = {}
        self._warned: set[str] = set()

    def set(self, context: Mapping[str, Any]) -> Tokens:
        """Give the variables these values. A variable that is not found is left out; if it may be one of several, a
        warning says so once.

        Returns:
            what :func:`reset` needs.

        Raises:
            PermissionError: one is none that clients may set. Then none is set.
        """
        found = [(self._found.get(full) or self._find(full), value) for full, value in context.items()]
        return [(variable, variable.set(value)) for variable, value in found if variable is not None]

    def _find(self, full: str) -> ContextVar[Any] | None:
        """The variable of that module, or else the only one of that name in all modules; None if there is none."""
        module_name, _, own_name = full.partition(":")
        homes = {module_name: _of_name(module_name, own_name)}
        if not homes[module_name]:
            homes = {name: found for name in list(sys.modules) if (found := _of_name(name, own_name))}
        variables = {key: variable for found in homes.values() for key, variable in found.items()}
        if len(variables) == 1:
            self._check(full, own_name, [name for name, found in homes.items() if found])
            (self._found[full],) = variables.values()
            return self._found[full]
        if variables and full not in self._warned:
            self._warned.add(full)
            log.warning(
                "the caller's context variable %s is left out: the worker has %d variables of that name, in %s. Have "
                "caller and worker import it from the same module",
                full,
                len(variables),
                ", ".join(homes),
            )
        return None

    def _check(self, full: str, own_name: str, homes: Collection[str]) -> None:
        if self._allowed is None:
            return
        if self._allowed:
            is_allowed = not {full, *(f"{home}:{own_name}" for home in homes)}.isdisjoint(self._allowed)
        else:
            is_allowed = any(is_of_application(home, module_vars(home).get("__file__")) for home in homes)
        if not is_allowed:
            raise PermissionError(
                f"the server lets no client set the context variable {full}; leave it out of the client's context, or "
                f"start the server with --peer-context {full}"
            )


def _of_name(module_name: str, own_name: str) -> dict[int, ContextVar[Any]]:
    named = list(module_vars(module_name).values())
    return {id(value): value for value in named if type(value) is ContextVar and value.name == own_name}


def reset(tokens: Tokens) -> None:
    """Give the variables back the values that they had before, last set first."""
    for variable, token in reversed(tokens):
        variable.reset(token)


class ContextAspect(WorkerAspect):
    """In the worker: the context variables that a call has brought are set while it runs."""

    def __init__(self, worker: Worker) -> None:
        config = worker.config
        self._finder = Finder(None if config.private else config.peer_context)

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
