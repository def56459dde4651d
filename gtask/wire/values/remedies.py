"""What to do about a value that cannot travel and that a pickle could not carry either, or should not."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, Awaitable, ItemsView, Iterator, KeysView, ValuesView
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

__all__ = ["remedy"]

_FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType)

_METHOD = "argument 0"
"""The place of a method's name in a call by name."""


def remedy(value: Any, place: str) -> str:
    """What to do about a value, by its class; "" if its class has no remedy.

    Args:
        value: the one that cannot travel.
        place: the name of its place, such as ``"the result"`` or ``"argument 1"``.
    """
    is_result = place.startswith("the result")
    kind = type(value)
    if issubclass(kind, _FUNCTIONS):
        return _of_function(value, place)
    if issubclass(kind, (Awaitable, AsyncGenerator)):
        return "A worker has no event loop: write def in place of async def, and return the value itself"
    if issubclass(kind, io.IOBase):
        what = "its contents, or the path" if is_result else "the path, and open it in the worker"
        return f"An open file stays in its process: {'return' if is_result else 'pass'} {what}"
    if issubclass(kind, (Iterator, KeysView, ValuesView, ItemsView)):
        if is_result:
            return "Its items are made in the worker: return list(...) of it, or make each of them a call"
        return "Its items are made in this process: pass list(...) of it, or call client.map_unordered with it"
    return ""


def _of_function(function: Any, place: str) -> str:
    name = getattr(function, "__name__", "name")
    if place == _METHOD:
        return (
            f"A method is called by its name: client.call({name!r}, ...), client.remote.{name}(...); or give the "
            f"function to an executor: client.executor().submit({name}, ...)"
        )
    if "<" in getattr(function, "__qualname__", "<"):
        return "A lambda, or a function within a function, stays in its process: define it in the module that is served"
    return ""
