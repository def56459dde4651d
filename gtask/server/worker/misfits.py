"""Calls that never began: there is no such method, or their arguments do not fit. The worker is as it was.

The error says so by the attribute ``executed``, which travels as any plain attribute does: its client keeps the worker.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from gtask.server.worker import full_names

if TYPE_CHECKING:
    from gtask.server.worker.interface import Interface

__all__ = ["explain", "function_of"]

_OF_A_CALL = {
    "timeout": "The time of a call is that of its checkout: client.checkout(timeout=...), client.executor(timeout=...)",
    "log": "The log of a request is given to its checkout: client.checkout(log=...)",
}
"""Arguments that are not the function's, and were meant for gtask."""


def function_of(interface: Interface, name: Any) -> Callable[..., Any]:
    """What a call of a method runs: the function, or what refuses the call if there is none."""
    found = interface.find(name) or full_names.find(interface, name)
    return partial(_refuse, interface, name) if found is None else found


def _refuse(interface: Interface, name: Any, /, *args: Any, **kwargs: Any) -> NoReturn:
    try:
        if type(name) is str and ":" in name:
            full_names.refuse(interface, name)
        elif type(name) is str or name is None:
            interface.refuse(name)
        else:
            _refuse_nameless(interface, name)
    except AttributeError as error:
        _mark(error)
        raise


def _refuse_nameless(interface: Interface, given: Any) -> NoReturn:
    raise AttributeError(
        f"the interface {interface.name} has no method {given!r:.80}: a method is called by its name, a str"
    )


def explain(error: BaseException, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Mark the error of a call whose arguments did not fit its function, and say what was probably meant.

    Args:
        error: what the call has raised.
        function: what was called, with ``args`` and ``kwargs``.
    """
    if type(error) is not TypeError:
        return
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):  # C code does not tell
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        _mark(error)
        named = {parameter.name for parameter in signature.parameters.values()}
        for name, advice in _OF_A_CALL.items():
            if name in kwargs and name not in named:
                error.__dict__.setdefault("__notes__", []).append(
                    f"{name} went to the function, as an argument. {advice}"
                )


def _mark(error: BaseException) -> None:
    error.__dict__["executed"] = False
