"""What a server may be told, as one frozen, validated value."""

from __future__ import annotations

from dataclasses import dataclass

from gtask import address as addresses
from gtask.wire.codec import DEFAULT_LIMIT

__all__ = ["ServerConfig"]


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The options of a server.

    Args:
        addresses: where it listens; at least one.
        name: for messages and process titles.
        backlog: connections that the kernel keeps until the master accepts them.
        socket_mode: permissions of a unix socket.
        limit_message: bytes that a message may have.
        stop_timeout: seconds that workers get to end when the server stops, before they are killed.
        greeting_timeout: seconds that a connected peer may stay silent before it is closed.
        private: the socket lies in a directory of its own, which goes with it.

    Raises:
        ValueError: an option makes no sense; the message names it and says what is allowed.
    """

    addresses: tuple[addresses.Address, ...]
    name: str = ""
    backlog: int = 1024
    socket_mode: int = 0o600
    limit_message: int = DEFAULT_LIMIT
    stop_timeout: float = 5.0
    greeting_timeout: float = 10.0
    private: bool = False

    def __post_init__(self) -> None:
        if not self.addresses:
            raise ValueError("a server needs an address to listen at: write unix:/path/to/the.sock")
        for name, least in (("backlog", 1), ("limit_message", 1024)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)!r}: write a number of at least {least}")
        for name in ("stop_timeout", "greeting_timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)!r}: write a number of seconds over 0")
        if not 0 <= self.socket_mode <= 0o777:
            raise ValueError(f"socket_mode={self.socket_mode:#o}: write permissions such as 0o600")
