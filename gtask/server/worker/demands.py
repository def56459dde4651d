"""Hooks, and classes, that want arguments: each worker would call them in vain, so they are refused. Pure."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["check"]


def check(name: str, hooks: Mapping[str, Any], make: Callable[[], Any] | None, is_of_instance: type) -> None:
    """Refuse hooks, and a class, that want arguments.

    Args:
        name: of the interface.
        hooks: its hooks by name; None for none.
        make: its class, of which each worker makes an instance, or None.
        is_of_instance: the class of what stands for a hook of that instance.

    Raises:
        TypeError: one of them wants arguments.
    """
    for hook, function in hooks.items():
        _check_arguments(name, hook, _of_class(make, hook) if isinstance(function, is_of_instance) else function)
    _check_arguments(name, "the constructor", make)


def _of_class(cls: Any, hook: str) -> Any:
    """The hook of a class, as its instances have it."""
    function: Any = inspect.getattr_static(cls, hook)
    is_bound = isinstance(function, (staticmethod, classmethod)) or not hasattr(function, "__get__")
    return getattr(cls, hook) if is_bound else function.__get__(object(), cls)


def _check_arguments(name: str, what: str, function: Any) -> None:
    try:
        signature = None if function is None else inspect.signature(function)
    except (TypeError, ValueError):  # written in C
        return
    if signature is not None:
        try:
            signature.bind()
        except TypeError as error:
            raise TypeError(
                f"{what} of the interface {name} wants arguments, and workers call it without: {error}"
            ) from None
