"""What a client may be told, as one frozen, validated value.

Each option has its default, its check and one sentence here; :class:`gtask.Client` has the same names in its signature.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields
from types import ModuleType
from typing import Any

from gtask.aspects.context import Named
from gtask.wire.limits import DEFAULTS as DEFAULT_LIMITS
from gtask.wire.limits import Limits

__all__ = ["MAX_WORKERS", "MIN_WORKERS", "ClientConfig", "check_count", "check_size", "check_timeout"]

Check = Callable[[str, Any], None]
"""Refuses the value of an option by raising TypeError or ValueError; is given the option's name and the value."""


# --- checks ------------------------------------------------------------------------------------------------


def check_timeout(timeout: float | None, name: str = "timeout") -> None:
    """Refuse a time-out that is neither None nor a number of seconds over 0."""
    _seconds_or_none(name, timeout)


def check_size(min_workers: int, max_workers: int) -> None:
    """Refuse numbers of workers that make no sense."""
    check_count("min_workers", min_workers, 0)
    check_count("max_workers", max_workers, 1)
    if min_workers > max_workers:
        raise ValueError(
            f"min_workers={min_workers} is more than max_workers={max_workers}: lower the one, or raise the other"
        )


def check_count(name: str, value: int, least: int) -> None:
    """Refuse a value that is no whole number, or less than the least."""
    if not isinstance(value, int):
        raise TypeError(f"{name}={value!r}: write a whole number")
    if value < least:
        raise ValueError(f"{name}={value!r}: write a number of at least {least}")


def _seconds(name: str, value: float, otherwise: str = "") -> None:
    advice = f"{name}={value!r}: write a number of seconds over 0{otherwise}"
    if not isinstance(value, (int, float)):
        raise TypeError(advice)
    if not value > 0:
        raise ValueError(advice)


def _seconds_or_none(name: str, value: float | None) -> None:
    if value is not None:
        _seconds(name, value, ", or None for no limit")


def _count(least: int) -> Check:
    return lambda name, value: check_count(name, value, least)


def _count_or_none(least: int) -> Check:
    return lambda name, value: check_count(name, value, least) if value is not None else None


def _flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: write True or False")


def _codec(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name}={value!r}: write the name of a codec")


def _function_or_none(name: str, value: object) -> None:
    if value is not None and not callable(value):
        raise TypeError(f"{name}={value!r}: write a function that takes the client, or None")


def _classes_or_none(name: str, value: object) -> None:
    if value is not None and not (
        isinstance(value, Collection) and all(isinstance(item, (type, ModuleType)) for item in value)
    ):
        raise TypeError(f"{name}={value!r}: list exception classes and modules")


def _client_name(name: str, value: str) -> None:
    if isinstance(value, str) and len(value) > DEFAULT_LIMITS.name:
        raise ValueError(
            f"{name}={value[:20]!r}...: it has {len(value)} characters, write {DEFAULT_LIMITS.name} at most"
        )


def _anything(name: str, value: object) -> None:
    pass


# --- options -----------------------------------------------------------------------------------------------


class Default(int):
    """A number that stands where the user has written none: it gives way to a number that is written."""


MIN_WORKERS, MAX_WORKERS = Default(2), Default(20)


def _option(check: Check, sentence: str) -> dict[str, Any]:
    return {"check": check, "sentence": sentence}


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """The options of :class:`gtask.Client`, where they are described in full.

    Raises:
        ValueError, TypeError: an option makes no sense; the message names it and says what is allowed.
    """

    name: str = field(default="", metadata=_option(_client_name, "this client's, for errors and the server's log"))
    timeout: float | None = field(
        default=30.0,
        metadata=_option(_seconds_or_none, "seconds that a call may take, the time in line for a worker included"),
    )
    min_workers: int = field(
        default=MIN_WORKERS,
        metadata=_option(_count(0), "the number of workers that are kept ready once the pool is open"),
    )
    max_workers: int = field(default=MAX_WORKERS, metadata=_option(_count(1), "the most workers that there may be"))
    max_checkouts: int | None = field(
        default=None,
        metadata=_option(
            _count_or_none(1), "how often a worker is lent before a new one takes its place, or up to a tenth less"
        ),
    )
    max_lifetime: float | None = field(
        default=None,
        metadata=_option(_seconds_or_none, "seconds after which a worker is replaced, or up to a tenth less"),
    )
    max_idle: float | None = field(
        default=600.0,
        metadata=_option(_seconds_or_none, "seconds in which one worker was never needed, after which one ends"),
    )
    lifo: bool = field(default=True, metadata=_option(_flag, "whether the worker that was used last is lent next"))
    max_waiting: int | None = field(
        default=None, metadata=_option(_count_or_none(0), "the most checkouts that may wait in line")
    )
    shed_target: float | None = field(
        default=None, metadata=_option(_seconds_or_none, "seconds that a wait in line may last")
    )
    shed_interval: float = field(
        default=1.0, metadata=_option(_seconds, "seconds that a burst may last before checkouts are shed")
    )
    max_connecting: int = field(
        default=8, metadata=_option(_count(1), "the most workers that may be starting at a time")
    )
    reconnect_timeout: float = field(
        default=300.0,
        metadata=_option(_seconds, "seconds without any worker to be had, after which on_reconnect_failed is called"),
    )
    on_reconnect_failed: Callable[[Any], object] | None = field(
        default=None, metadata=_option(_function_or_none, "a function that takes the client")
    )
    leak_after: float | None = field(
        default=None, metadata=_option(_seconds_or_none, "seconds after which a checkout that is still held is logged")
    )
    refork_after_error: bool = field(
        default=True,
        metadata=_option(_flag, "whether a worker in which a call raised is replaced at the end of the checkout"),
    )
    raises: Collection[type | ModuleType] | None = field(
        default=None,
        metadata=_option(
            _classes_or_none, "exception classes, and modules of such, that may be raised for a worker's exception"
        ),
    )
    setup_timeout: float = field(
        default=300.0, metadata=_option(_seconds, "seconds that a new worker's setup may take")
    )
    max_queue: int = field(
        default=10_000, metadata=_option(_count(1), "the most calls that may be queued on one checkout")
    )
    limit_message: int = field(
        default=DEFAULT_LIMITS.message, metadata=_option(_count(1024), "bytes that a message may have, both ways")
    )
    limit_shared: int = field(
        default=DEFAULT_LIMITS.shared,
        metadata=_option(_count(0), "bytes that a message may have in shared memory, both ways; 0 for none"),
    )
    limit_items: int = field(
        default=DEFAULT_LIMITS.items,
        metadata=_option(_count(1024), "lists, maps and other composed values that a message of a worker may have"),
    )
    max_extension: float = field(
        default=DEFAULT_LIMITS.extension,
        metadata=_option(_seconds, "seconds by which a call may be extended beyond its time-out, all together"),
    )
    logs: bool = field(
        default=True, metadata=_option(_flag, "whether records that workers log during a call are replayed here")
    )
    context: Named = field(
        default=(), metadata=_option(_anything, "context variables whose values travel with each call")
    )
    codec: str = field(default="msgpack", metadata=_option(_codec, "how messages are written"))
    pickle: bool = field(
        default=False,
        metadata=_option(
            _flag, "whether values that cannot travel otherwise are pickled, if the server consents as well"
        ),
    )
    server_uid: int | None = field(
        default=None, metadata=_option(_count_or_none(0), "the number of the user who must serve at the unix socket")
    )
    insecure: bool = field(
        default=False, metadata=_option(_flag, "whether pickle is allowed over TCP and at abstract names")
    )

    def __post_init__(self) -> None:
        for option in fields(self):
            option.metadata["check"](option.name, getattr(self, option.name))
        if isinstance(self.min_workers, Default):
            object.__setattr__(self, "min_workers", min(int(self.min_workers), self.max_workers))
        elif isinstance(self.max_workers, Default):
            object.__setattr__(self, "max_workers", max(int(self.max_workers), self.min_workers))
        check_size(self.min_workers, self.max_workers)
        if self.pickle and self.codec == "json":
            raise ValueError("pickle=True: JSON carries no pickles; leave it out, or codec='json'")

    @property
    def limits(self) -> Limits:
        """What a server may cost."""
        return Limits(
            message=self.limit_message,
            shared=self.limit_shared,
            items=self.limit_items,
            extension=self.max_extension,
        )

    @property
    def title(self) -> str:
        """The client in a sentence: "client 'shop'", or "the client" if it has no name."""
        return f"client {self.name!r}" if self.name else "the client"

    @property
    def remark(self) -> str:
        """The client in brackets, after the subject of a sentence: " (client 'shop')", or "" if it has no name."""
        return f" ({self.title})" if self.name else ""

    @property
    def for_client(self) -> str:
        """What follows a worker or a checkout in a sentence: " for client 'shop'", or "" if the client has no name."""
        return f" for {self.title}" if self.name else ""
