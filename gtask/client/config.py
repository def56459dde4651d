"""What a client may be told, as one frozen, validated value."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from gtask.aspects.context import Named
from gtask.wire.messages import DEFAULT_LIMIT

__all__ = ["ClientConfig", "check_count", "check_size", "check_timeout"]

CODECS = ("msgpack", "json")


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """The options of :class:`gtask.Client`, where they are described.

    Raises:
        ValueError, TypeError: an option makes no sense; the message names it and says what is allowed.
    """

    name: str = ""
    timeout: float | None = 30.0
    setup_timeout: float = 300.0
    min_workers: int = 2
    max_workers: int = 20
    max_checkouts: int | None = None
    max_lifetime: float | None = None
    max_idle: float | None = 600.0
    lifo: bool = True
    max_waiting: int | None = None
    shed_target: float | None = None
    shed_interval: float = 1.0
    max_connecting: int = 8
    reconnect_timeout: float = 300.0
    on_reconnect_failed: Callable[[Any], object] | None = None
    leak_after: float | None = None
    max_queue: int = 10_000
    refork_after_error: bool = True
    raises: Collection[type | ModuleType] | None = None
    limit_message: int = DEFAULT_LIMIT
    logs: bool = True
    context: Named = ()
    codec: str = "msgpack"
    pickle: bool = False
    insecure: bool = False

    def __post_init__(self) -> None:
        check_timeout(self.timeout)
        for name in ("setup_timeout", "shed_interval", "reconnect_timeout"):
            _check_seconds(name, getattr(self, name))
        for name in ("max_lifetime", "max_idle", "shed_target", "leak_after"):
            if getattr(self, name) is not None:
                _check_seconds(name, getattr(self, name), ", or None for no limit")
        for name in ("max_connecting", "max_queue"):
            check_count(name, getattr(self, name), 1)
        check_count("limit_message", self.limit_message, 1024)
        check_size(self.min_workers, self.max_workers)
        if self.max_checkouts is not None:
            check_count("max_checkouts", self.max_checkouts, 1)
        if self.max_waiting is not None:
            check_count("max_waiting", self.max_waiting, 0)
        if self.on_reconnect_failed is not None and not callable(self.on_reconnect_failed):
            raise TypeError(
                f"on_reconnect_failed={self.on_reconnect_failed!r}: write a function that takes the client, or None"
            )
        if self.codec not in CODECS:
            raise ValueError(f"codec={self.codec!r}: write {' or '.join(map(repr, CODECS))}")
        for name in ("lifo", "logs", "pickle", "insecure"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name}={getattr(self, name)!r}: write True or False")
        if self.pickle and self.codec == "json":
            raise ValueError("pickle=True: JSON carries no pickles; leave it out, or codec='json'")
        if self.raises is not None and not (
            isinstance(self.raises, Collection) and all(isinstance(item, (type, ModuleType)) for item in self.raises)
        ):
            raise TypeError(f"raises={self.raises!r}: list exception classes and modules")

    @property
    def title(self) -> str:
        """The client in a sentence: "client 'shop'", or "the client" if it has no name."""
        return f"client {self.name!r}" if self.name else "the client"

    @property
    def for_client(self) -> str:
        """What follows a worker or a checkout in a sentence: " for client 'shop'", or "" if the client has no name."""
        return f" for {self.title}" if self.name else ""


def check_timeout(timeout: float | None, name: str = "timeout") -> None:
    """Refuse a time-out that is neither None nor a number of seconds over 0."""
    if timeout is not None:
        _check_seconds(name, timeout, ", or None for no limit")


def check_size(min_workers: int, max_workers: int) -> None:
    """Refuse numbers of workers that make no sense."""
    check_count("min_workers", min_workers, 0)
    check_count("max_workers", max_workers, 1)
    if min_workers > max_workers:
        raise ValueError(
            f"min_workers={min_workers} is more than max_workers={max_workers}: lower the one, or raise the other"
        )


def check_count(name: str, value: int, least: int) -> None:
    """Refuse what is no whole number, or less than the least."""
    if not isinstance(value, int):
        raise TypeError(f"{name}={value!r}: write a whole number")
    if value < least:
        raise ValueError(f"{name}={value!r}: write a number of at least {least}")


def _check_seconds(name: str, value: float, otherwise: str = "") -> None:
    advice = f"{name}={value!r}: write a number of seconds over 0{otherwise}"
    if not isinstance(value, (int, float)):
        raise TypeError(advice)
    if not value > 0:
        raise ValueError(advice)
