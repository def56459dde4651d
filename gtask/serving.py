"""Which server this process is a worker of, if it is one: a worker's code may be a client, and call that server."""

from __future__ import annotations

import os

from gtask.address import Address, TcpAddress, UnixAddress

__all__ = ["begin", "is_served_by"]

HERE = {"localhost", "127.0.0.1", "::1", "0.0.0.0", "::"}
"""Hosts that are this machine for certain; the last two when a server listens at them."""

_addresses: tuple[Address, ...] = ()


def begin(addresses: tuple[Address, ...]) -> None:
    """From now on this process is a worker of the server that listens at these addresses."""
    global _addresses
    _addresses = addresses


def is_served_by(address: Address | None) -> bool:
    """Whether this process is a worker of the server at this address, as far as the addresses tell."""
    return address is not None and any(_is_same(own, address) for own in _addresses)


def _is_same(own: Address, address: Address) -> bool:
    if isinstance(own, TcpAddress) and isinstance(address, TcpAddress):
        return own == address or (own.port == address.port and {own.host, address.host} <= HERE)
    if isinstance(own, UnixAddress) and isinstance(address, UnixAddress):
        return own == address or os.path.realpath(own.path) == os.path.realpath(address.path)
    return False
