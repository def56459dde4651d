"""Calls that never began: there is no such method, or their arguments do not fit. The worker is as it was.

The error says so by the attribute ``executed``, which travels as any plain attribute does: its client keeps the worker.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from gtask.function_names import EACH
from gtask.server.worker import full_names
from gtask.wire.limits import DEFAULTS

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
    if type(name) is str:
        name = name.removeprefix(EACH)
    is_full = type(name) is str and ":" in name
    raise _marked(AttributeError(full_names.unknown(interface, name) if is_full else _unknown(interface, name)))


def _unknown(interface: Interface, name: Any) -> str:
    """What is said of a method that the interface does not have."""
    if name is None:
        return f"the interface {interface.name} is called by method: checkout.name(...); it has {_all(interface)}"
    if type(name) is not str:
        return f"the interface {interface.name} has no method {name!r:.80}: a method is called by its name, a str"
    close = difflib.get_close_matches(name[: DEFAULTS.compared], interface.methods, 1)
    hint = f"did you mean {close[0]}?" if close else f"it has {_all(interface)}"
    return f"the interface {interface.name} has no method {name!r:.80}: {hint}"


def _all(interface: Interface) -> str:
    return ", ".join(interface.methods)


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
        _marked(error)
        named = {parameter.name for parameter in signature.parameters.values()}
        for name, advice in _OF_A_CALL.items():
            if name in kwargs and name not in named:
                error.__dict__.setdefault("__notes__", []).append(
                    f"{name} went to the function, as an argument. {advice}"
                )


def _marked(error: BaseException) -> BaseException:
    error.__dict__["executed"] = False
    return error
