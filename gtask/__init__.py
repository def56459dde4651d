"""gtask: blocking and CPU-bound code in forked worker processes, called from gevent as if it were local.

The front door. Names load when they are first used, so that a server does not import the client's side (and
gevent with it), nor a client the server's.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gtask.errors import (
    AcquireTimeout,
    CallDropped,
    CallTimeout,
    Cancelled,
    CheckoutReleased,
    ClientClosed,
    EncodeError,
    Error,
    FatalError,
    Interrupted,
    NestedCheckout,
    Overloaded,
    ProtocolError,
    RemoteError,
    SetupError,
    StayedInWorker,
    UsedWhileLoading,
    WorkerDied,
    WrongThread,
)

if TYPE_CHECKING:
    from gtask import shared as shared
    from gtask.client.checkout import Checkout
    from gtask.client.client import Client
    from gtask.running_call import current_call
    from gtask.server.embed import Server, fork_server
    from gtask.server.worker.interface import Interface
    from gtask.spawn import spawn_server
    from gtask.tasks import task

__version__ = "0.1.0"

__all__ = [
    "AcquireTimeout",
    "CallDropped",
    "CallTimeout",
    "Cancelled",
    "Checkout",
    "CheckoutReleased",
    "Client",
    "ClientClosed",
    "EncodeError",
    "Error",
    "FatalError",
    "Interface",
    "Interrupted",
    "NestedCheckout",
    "Overloaded",
    "ProtocolError",
    "RemoteError",
    "Server",
    "SetupError",
    "StayedInWorker",
    "UsedWhileLoading",
    "WorkerDied",
    "WrongThread",
    "current_call",
    "fork_server",
    "spawn_server",
    "task",
]

_MODULES = {"shared"}

_HOMES = {
    "current_call": "gtask.running_call",
    "Checkout": "gtask.client.checkout",
    "Client": "gtask.client.client",
    "Interface": "gtask.server.worker.interface",
    "Server": "gtask.server.embed",
    "fork_server": "gtask.server.embed",
    "spawn_server": "gtask.spawn",
    "task": "gtask.tasks",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
