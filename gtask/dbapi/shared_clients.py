"""The clients that connections share: one for each thread, and for each address."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

from gevent.hub import Hub, get_hub

from gtask.client.client import Client

__all__ = ["PerThread", "shared"]


class PerThread:
    """A client for each thread that asks for one, made when it does. It ends with the thread's hub.

    Args:
        make: makes a client.
    """

    def __init__(self, make: Callable[[], Client]) -> None:
        self._make = make
        self._clients: WeakKeyDictionary[Hub, Client] = WeakKeyDictionary()

    def __call__(self) -> Client:
        """This thread's."""
        hub = get_hub()
        client = self._clients.get(hub)
        if client is None:
            client = self._clients[hub] = self._make()
        return client


_shared: dict[str, PerThread] = {}


def shared(address: str) -> Client:
    """This thread's client of an address, whose workers outlive the errors of their databases."""
    if address not in _shared:
        Client(address)  # refused here, if it makes no sense
        _shared[address] = PerThread(lambda: Client(address, refork_after_error=False))
    return _shared[address]()
