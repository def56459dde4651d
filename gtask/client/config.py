"""What a client may be told, as one frozen, validated value."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from types import ModuleType

from gtask.wire.codec import DEFAULT_LIMIT

__all__ = ["ClientConfig"]


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
    max_queue: int = 10_000
    refork_after_error: bool = True
    raises: Collection[type | ModuleType] | None = None
    limit_message: int = DEFAULT_LIMIT

    def __post_init__(self) -> None:
        check_timeout(self.timeout)
        _check_seconds("setup_timeout", self.setup_timeout, "")
        _check_count("min_workers", self.min_workers, 0)
        _check_count("max_workers", self.max_workers, 1)
        _check_count("max_queue", self.max_queue, 1)
        _check_count("limit_message", self.limit_message, 1024)
        if self.max_checkouts is not None:
            _check_count("max_checkouts", self.max_checkouts, 1)
        if self.min_workers > self.max_workers:
            raise ValueError(
                f"min_workers={self.min_workers} is more than max_workers={self.max_workers}: lower the one, "
                "or raise the other"
            )
        if self.raises is not None and not (
            isinstance(self.raises, Collection) and all(isinstance(item, (type, ModuleType)) for item in self.raises)
        ):
            raise TypeError(f"raises={self.raises!r}: list exception classes and modules")


def check_timeout(timeout: float | None) -> None:
    """Refuse a time-out that is neither None nor a number of seconds over 0."""
    if timeout is not None:
        _check_seconds("timeout", timeout, ", or None for no limit")


def _check_seconds(name: str, value: float, otherwise: str) -> None:
    advice = f"{name}={value!r}: write a number of seconds over 0{otherwise}"
    if not isinstance(value, (int, float)):
        raise TypeError(advice)
    if not value > 0:
        raise ValueError(advice)


def _check_count(name: str, value: int, least: int) -> None:
    if not isinstance(value, int):
        raise TypeError(f"{name}={value!r}: write a whole number")
    if value < least:
        raise ValueError(f"{name}={value!r}: write a number of at least {least}")
