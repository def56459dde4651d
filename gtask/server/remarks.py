"""What is said once about an application when it is loaded: what will not do what its author may expect."""

from __future__ import annotations

import _thread
import functools
import inspect
import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from gtask.server.worker.discovery import HOOKS
from gtask.server.worker.interface import Interface

__all__ = ["about", "not_served", "threads"]

CHECKOUTS_OWN = ("call", "cancel", "release", "submit")
"""The names of a checkout's own methods: ``checkout.cancel()`` never reaches a worker."""

_STANDARD = os.path.join(sysconfig.get_path("stdlib"), "")


def about(target: Any, interface: Interface) -> list[str]:
    """The remarks, each one line.

    Args:
        target: what the interface was made of.
        interface: the interface.
    """
    functions = interface.functions()
    remarks = [*_taken(functions), *_asynchronous(functions), *_standard(target)]
    return [f"{interface.name}: {remark}" for remark in remarks]


def not_served(target: Any) -> str:
    """The names that a caller may try in vain, and why; "" if there are none."""
    if isinstance(target, ModuleType):
        names = _of_module(target)
    elif isinstance(target, (Mapping, Interface)) or (callable(target) and not isinstance(target, type)):
        names = {}
    else:
        names = _of_class(target if isinstance(target, type) else type(target))
    return "not served: " + ", ".join(f"{name} ({why})" for name, why in names.items()) if names else ""


def _of_module(module: ModuleType) -> dict[str, str]:
    listed = getattr(module, "__all__", None)
    names = {}
    for name, value in vars(module).items():
        if inspect.isfunction(value) and value.__module__ == module.__name__ and name not in HOOKS:
            if listed is not None and name not in listed:
                names[name] = "not in __all__"
            elif listed is None and _is_private(name):
                names[name] = "private"
    return names


def _of_class(cls: type) -> dict[str, str]:
    names = {}
    for name in dir(cls):
        value = inspect.getattr_static(cls, name)
        if isinstance(value, (property, functools.cached_property)) and not name.startswith("_"):
            names[name] = "a property"
        elif _is_private(name) and inspect.isfunction(value):
            names[name] = "private"
    return names


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _taken(functions: dict[str, Callable[..., Any]]) -> list[str]:
    return [
        f"{name}: a checkout has a method of this name, so checkout.{name}() does not reach a worker. Call "
        f"checkout.call({name!r}, ...), or choose another name"
        for name in functions
        if name in CHECKOUTS_OWN
    ]


def _asynchronous(functions: dict[str, Callable[..., Any]]) -> list[str]:
    return [
        f"{name}: no worker awaits the value of an async function, and it cannot travel. Write a plain function that "
        "calls asyncio.run()"
        for name, function in functions.items()
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    ]


def _standard(target: Any) -> list[str]:
    if not isinstance(target, ModuleType):
        return []
    name = target.__name__.partition(".")[0]
    path = getattr(target, "__file__", None)
    if name not in sys.stdlib_module_names or (path is not None and not path.startswith(_STANDARD)):
        return []
    return [
        f"{target.__name__} is a module of Python's own. If you have meant another one, that is not found before it: "
        "rename yours"
    ]


def threads(name: str) -> list[str]:
    """What is to be said of threads that run before the first fork of the server of this name."""
    others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    count = max(len(others), _thread._count())
    if not count:
        return []
    names = f" ({', '.join(others)})" if others else ""
    run = "threads run" if count > 1 else "thread runs"
    return [
        f"{name}: {count} {run}{names} in the master: no worker has it, and a lock that it holds at a fork stays "
        "locked. Start threads in setup"
    ]
