"""Monkey-patches: which module has made them, and what a server does about them.

A server uses :mod:`gtask.server.originals` whatever is patched. An application that is patched works, but waits through
a hub in each worker, and that is worth a line in the log.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any

from gtask.errors import Interrupted

__all__ = ["Patches", "renew_hub"]

PATCHED: dict[str, dict[str, str]] = {
    "os": {"fork": "posix", "read": "posix", "write": "posix", "close": "posix", "waitpid": "posix"},
    "select": {"select": "select", "poll": "select"},
    "signal": {"signal": "signal"},
    "socket": {"socket": "socket", "create_connection": "socket"},
    "threading": {"Thread": "threading", "Event": "threading"},
    "time": {"sleep": "time"},
    "_thread": {"start_new_thread": "_thread"},
}
"""Names that gevent and eventlet replace, with the module that each comes from."""

PATCHERS = ("gevent", "eventlet", "importlib", "_frozen_importlib", __name__)
"""The modules, and those in them, that do not patch of their own accord."""

REMEDY = (
    "Workers need no patches, for each is a process that may block: leave patching to the programs that call them, or "
    "serve a module that does not import it"
)


class _Watched(ModuleType):
    """The class of a module that is watched."""

    def __setattr__(self, name: str, value: Any) -> None:
        _note(self.__name__, name)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        _note(self.__name__, name)
        super().__delattr__(name)


_origins: dict[str, str] = {}
"""The first place that has patched each watched module."""


def _note(module: str, name: str) -> None:
    if name in PATCHED[module] and module not in _origins:
        _origins[module] = _origin(sys._getframe(2))


def _origin(frame: FrameType | None) -> str:
    """The nearest code that is no patcher's, as ``module (file:line)``."""
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if not any(f"{name}.".startswith(f"{patcher}.") for patcher in PATCHERS):
            return f"{name} ({frame.f_code.co_filename}:{frame.f_lineno})"
        frame = frame.f_back
    return ""


class Patches:
    """The patches that come while an application is loaded, and those that were there before."""

    def __init__(self) -> None:
        self._before = set(_patched())

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note who patches, while the application is loaded."""
        modules = [sys.modules[name] for name in PATCHED if type(sys.modules.get(name)) is ModuleType]
        for module in modules:
            module.__class__ = _Watched
        try:
            yield
        finally:
            for module in modules:
                module.__class__ = ModuleType

    def warning(self) -> str:
        """A line for the log, with the module that has patched and the remedy; "" if nothing is patched."""
        now = _patched()
        if not now:
            return ""
        new = [name for name in now if name not in self._before]
        names = list(dict.fromkeys(_origins[name] for name in new if name in _origins))
        who = ", ".join(names) or ("the application" if new else "something that was imported before the application")
        return f"{who} has monkey-patched {', '.join(now)} in this server, which goes on without. {REMEDY}"


def _patched() -> list[str]:
    """The modules that are patched now."""
    return [name for name, origins in PATCHED.items() if _is_patched(sys.modules.get(name), origins)]


def _is_patched(module: ModuleType | None, origins: dict[str, str]) -> bool:
    if module is None:
        return False
    values = vars(module)
    return any(
        name not in values or getattr(values[name], "__module__", "") != origin for name, origin in origins.items()
    )


def renew_hub() -> None:
    """In a new worker: a hub of gevent that the application has made while it was loaded begins anew.

    An interruption that strikes while a hub waits is raised in the greenlet that runs the call.
    """
    hubs: Any = sys.modules.get("gevent.hub")
    if hubs is not None:
        hubs.Hub.SYSTEM_ERROR = (*hubs.Hub.SYSTEM_ERROR, Interrupted)
        hubs.reinit()
        hub = sys.modules["gevent._hub_local"].get_hub_if_exists()
        if hub is not None and hasattr(hub.loop, "reset_sigchld"):
            hub.loop.reset_sigchld()  # it has a handler of SIGCHLD that the master's has replaced; it makes another
