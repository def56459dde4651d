"""From a callable, mapping, module, class or object to named functions and hooks: what an interface offers. Pure."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from gtask.server.worker import demands

__all__ = ["HOOKS", "Hook", "Offered", "discover", "name_of"]

Hook = Callable[[], object]
HOOKS = ("setup", "checkout_done", "teardown")


@dataclass(slots=True)
class Offered:
    """What an interface offers. Where workers are yet to make the instance of a class, its methods have stand-ins.

    Attributes:
        hooks: by name, each None if there is none.
        methods: the functions that can be called, by name.
        function: the callable, which gets all arguments; None where methods are called by name.
        make: the class of which each worker makes an instance; None if there is no such class, or the instance is made.
    """

    hooks: dict[str, Hook | None]
    methods: dict[str, Callable[..., Any]]
    function: Callable[..., Any] | None = None
    make: Callable[[], Any] | None = None

    def of(self, instance: Any) -> Offered:
        """What this instance offers, that a worker has made."""
        return Offered(
            {
                hook: getattr(instance, hook) if isinstance(function, _OfInstance) else function
                for hook, function in self.hooks.items()
            },
            {name: getattr(instance, name) for name in self.methods},
            None if self.function is None else instance,
        )

    def functions(self) -> dict[str, Callable[..., Any]]:
        """As :meth:`gtask.server.worker.interface.Interface.functions`."""
        if self.function is not None:
            return {"()": self.function if self.make is None else inspect.getattr_static(self.make, "__call__")}
        return {
            name: getattr(self.make, name) if isinstance(function, _OfInstance) else function
            for name, function in sorted(self.methods.items())
        }

    def is_method(self, name: str) -> bool:
        """As :meth:`gtask.server.worker.interface.Interface.is_method`."""
        if self.make is None or not (self.function is self.make or isinstance(self.methods.get(name), _OfInstance)):
            return False
        return inspect.isfunction(inspect.getattr_static(self.make, "__call__" if name == "()" else name))


def discover(name: str, target: Any, hooks: Mapping[str, Hook | None]) -> Offered:
    """Look at what is to be served; none of its code runs.

    Args:
        name: of the interface, for messages.
        target: as of :class:`gtask.server.worker.interface.Interface`.
        hooks: those that are given beside it, which win, by all the names of :data:`HOOKS`.

    Raises:
        TypeError: the target offers nothing, or a part of it cannot be called, or a class or hook wants arguments.
    """
    for hook, function in hooks.items():
        if function is not None and not callable(function):
            raise TypeError(f"{hook}={function!r} of the interface {name} cannot be called")
    offered = Offered(dict(hooks), {})
    if isinstance(target, ModuleType):
        _take_module(offered, target)
    elif isinstance(target, Mapping):
        _take_mapping(offered, name, target)
    elif isinstance(target, type):
        offered.make = target
        _take_class(offered, target, _OfInstance)
        if any("__call__" in vars(base) for base in target.__mro__):
            offered.function, offered.methods = target, {}
    else:
        _take_class(offered, type(target), lambda name: getattr(target, name))
        if callable(target):
            offered.function, offered.methods = target, {}
    if offered.function is None and not offered.methods:
        raise TypeError(
            f"the interface {name} offers nothing to call: give it a public function or method, "
            "or serve a callable, mapping, module, class or object that has one"
        )
    demands.check(name, offered.hooks, offered.make, _OfInstance)
    return offered


def _take_module(offered: Offered, module: ModuleType) -> None:
    listed = getattr(module, "__all__", None)
    for name, value in vars(module).items():
        if name in HOOKS and callable(value):
            offered.hooks[name] = offered.hooks[name] or value
        elif listed is not None:
            if name in listed and callable(value):
                offered.methods[name] = value
        elif not name.startswith("_") and inspect.isfunction(value) and value.__module__ == module.__name__:
            offered.methods[name] = value


def _take_mapping(offered: Offered, served: str, mapping: Mapping[Any, Any]) -> None:
    for name, function in mapping.items():
        if not isinstance(name, str) or not callable(function):
            raise TypeError(f"the interface {served} maps {name!r} to {function!r}: map names to callables")
        offered.methods[name] = function


def _take_class(offered: Offered, cls: type, get: Callable[[str], Callable[..., Any]]) -> None:
    for name in dir(cls):
        if name.startswith("_") or not _is_method(inspect.getattr_static(cls, name)):  # looking runs no property
            continue
        if name in HOOKS:
            offered.hooks[name] = offered.hooks[name] or get(name)
        else:
            offered.methods[name] = get(name)


def _is_method(attribute: Any) -> bool:
    if isinstance(attribute, functools.cached_property):
        return False
    return inspect.isroutine(attribute) or isinstance(attribute, (staticmethod, classmethod))


class _OfInstance:
    """Stands for a method of the instance that each worker is yet to make."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError(f"{self.name} was called before setup")


def name_of(target: Any) -> str:
    """The name of an interface that is given none."""
    name = getattr(target, "__name__", None) or type(target).__name__
    return name if isinstance(name, str) else type(target).__name__
