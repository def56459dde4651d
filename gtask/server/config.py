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
        hung_worker_timeout: seconds that a call, setup or a hook may take, whatever its client says; None for no limit.
        stop_timeout: seconds that a worker gets for its hooks when its client has hung up or the server stops.
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
    hung_worker_timeout: float | None = 300.0
    stop_timeout: float = 5.0
    greeting_timeout: float = 10.0
    private: bool = False

    def __post_init__(self) -> None:
        if not self.addresses:
            raise ValueError("a server needs an address to listen at: write unix:/path/to/the.sock")
        for name, least in (("backlog", 1), ("limit_message", 1024)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)!r}: write a number of at least {least}")
        if self.hung_worker_timeout is not None:
            _check_seconds("hung_worker_timeout", self.hung_worker_timeout)
        _check_seconds("stop_timeout", self.stop_timeout)
        _check_seconds("greeting_timeout", self.greeting_timeout)
        if not 0 <= self.socket_mode <= 0o777:
            raise ValueError(f"socket_mode={self.socket_mode:#o}: write permissions such as 0o600")


def _check_seconds(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name}={value!r}: write a number of seconds over 0")
