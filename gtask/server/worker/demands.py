"""What is found when an interface is loaded: methods, and those who want arguments that no worker has. Pure."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["check", "methods_of"]


def check(name: str, hooks: Mapping[str, Any], make: Callable[[], Any] | None, is_of_instance: type) -> None:
    """Refuse hooks, and a class, that want arguments: each worker would call them in vain.

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


def methods_of(cls: type) -> list[str]:
    """The names of the public methods of a class. Looking runs no property."""
    return [name for name in dir(cls) if not name.startswith("_") and _is_method(inspect.getattr_static(cls, name))]


def _is_method(attribute: Any) -> bool:
    if isinstance(attribute, functools.cached_property):
        return False
    return inspect.isroutine(attribute) or isinstance(attribute, (staticmethod, classmethod))
