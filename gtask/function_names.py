"""How a function is named so that a worker finds it: ``"module:qualname"``, such as ``"myapp.jobs:Report.render"``.

Both sides read names by this. Nothing is imported here.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, NoneType
from typing import Any

__all__ = ["EACH", "call_each", "name_of", "named", "split"]

EACH = "*"
"""In front of a name: the first argument is a list of lists of arguments. The function is called with each of those
and what it returns is listed. If it raises the rest is not done, and the error has a note with the item's number. A
second argument is the number of the first item."""

ADVICE = 'write "module:function", such as "myapp.jobs:render"'


def split(name: str) -> tuple[str, list[str]]:
    """A name's module, and the path from there.

    Args:
        name: ``"module:qualname"``.

    Raises:
        ValueError: it is none; the message says what is wrong with it.
    """
    module, colon, path = name.partition(":")
    if not colon:
        raise ValueError(f"{name!r:.200} names no function: {ADVICE}")
    parts = path.split(".")
    for part in [*module.split("."), *parts]:
        if part.startswith("_"):
            raise ValueError(f"{name!r:.200}: {part!r:.80} is private; give it, or what uses it, a public name")
        if not part.isidentifier():
            raise ValueError(f"{name!r:.200}: {part!r:.80} is no name; {ADVICE}")
    return module, parts


def name_of(function: Callable[..., Any] | str, *, is_new: bool = False) -> str:
    """The name by which a worker finds this function.

    Args:
        function: one at the top level of a module, a static method, or a class; or such a name, which is checked.
        is_new: whether it is just being defined, so that its module does not have it yet.

    Raises:
        ValueError: the name is none.
        TypeError: a worker cannot find it; the message says why, and what to do.
    """
    if isinstance(function, str):
        split(function)
        return function
    why = _unfindable(function)
    if why:
        raise TypeError(f"{_shown(function)} cannot be found by a worker: {why}")
    module, path = function.__module__, function.__qualname__
    home = sys.modules.get(module)
    if module == "__main__":
        spec = getattr(home, "__spec__", None)
        if spec is None or spec.name.endswith("__main__"):
            raise TypeError(
                f"{_shown(function)} belongs to the program that was started, which workers do not load: move it "
                "into a module, or start the program by its module's name (python -m name)"
            )
        module = spec.name
    name = f"{module}:{path}"
    try:
        split(name)
    except ValueError as error:
        raise TypeError(f"{_shown(function)} cannot be found by a worker: {error}") from None
    if not is_new and inspect.unwrap(_look_up(home, path)) is not inspect.unwrap(function):
        raise TypeError(
            f"{_shown(function)} cannot be found by a worker: {name} is something else; give this one a "
            "name of its own at the top level of its module"
        )
    return name


def call_each(function: Callable[..., Any], calls: list[list[Any]], first: int = 0) -> list[Any]:
    """Call a function with each of these lists of arguments, and list what it returns: see :data:`EACH`."""
    values: list[Any] = []
    try:
        for arguments in calls:
            values.append(function(*arguments))  # noqa: PERF401  # so that it is known which one has raised
    except Exception as error:
        notes = vars(error).get("__notes__", ())
        vars(error)["__notes__"] = [*notes, named(first + len(values))]
        raise
    return values


def named(item: int) -> str:
    """The note of an error of a map, which says which item it is about."""
    return f"item {item} of the map"


def _unfindable(function: Any) -> str:
    """Why it has no name, if so."""
    bound_to = getattr(function, "__self__", None)
    if isinstance(function, MethodType) or (
        isinstance(function, BuiltinFunctionType) and not isinstance(bound_to, (ModuleType, NoneType))
    ):
        return "it is bound to an object; write a function, or name a class's as 'module:Class.name'"
    if not isinstance(function, (FunctionType, BuiltinFunctionType, type)) and not hasattr(function, "__wrapped__"):
        return f"it is a {type(function).__name__}; give a function and its arguments, or a name"
    if "<lambda>" in function.__qualname__:
        return "it has no name; write it with def at the top level of a module"
    if "<locals>" in function.__qualname__:
        return (
            "it is made anew within a function; move it to the top level of a module, and give it what it needs as "
            "arguments (a decorator that makes one needs functools.wraps)"
        )
    return ""


def _look_up(found: Any, path: str) -> Any:
    for part in path.split("."):
        found = getattr(found, part, None)
    return found


def _shown(function: Any) -> str:
    module, path = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    return f"{module}.{path}" if path else f"{function!r:.200}"
