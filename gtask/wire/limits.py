"""What a peer may cost: the limits of one side as one frozen value, with their defaults. Pure.

A limit that strikes says which one it is, its value, and the option that sets it.
"""

from __future__ import annotations

from dataclasses import dataclass

from gtask.errors import ProtocolError

__all__ = ["DEFAULTS", "LimitExceededError", "Limits", "too_many_items"]


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a client or of a server. What has no option in brackets is the same everywhere.

    Attributes:
        first_message: bytes of a client's greeting.
        message: bytes of any other message, both ways (``limit_message``).
        shared: bytes that a message may have in shared memory, both ways (``limit_shared``).
        items: lists, maps, and values beyond msgpack's own, in one message. An empty list is one byte on its way and
            60 in memory (``limit_items``).
        collisions: members of a set, or keys of a map, that have the hash of another one.
        nesting: how deep lists and maps lie in each other; msgpack refuses more.
        name: characters of a client's name.
        compared: characters of a method's name for which a similar one is looked for.
        records: bytes of log records that a call may tell its client, and as many for warnings and errors.
        extension: at a client, seconds by which a call may be extended, all its extensions together
            (``max_extension``).
        strangers: at a server, connections that have not sent their first byte (``limit_strangers``).
        idle: at a server, seconds for which a peer may keep a worker outside of a checkout; None for any time
            (``idle_timeout``).
        connections: at a server, those of one user at a unix socket; None for any number (``limit_per_uid``).
        workers: at a server; None for a number that the machine decides (``max_workers``).
        memory: at a server, bytes by which a worker may grow; None for any number (``limit_memory``).
    """

    first_message: int = 16 * 1024
    message: int = 64 * 1024 * 1024
    shared: int = 1024 * 1024 * 1024
    items: int = 2_000_000
    collisions: int = 1_000
    nesting: int = 1_024
    name: int = 1_000
    compared: int = 100
    records: int = 1024 * 1024
    extension: float = 86_400.0
    strangers: int = 100
    idle: float | None = None
    connections: int | None = None
    workers: int | None = None
    memory: int | None = None


DEFAULTS = Limits()


class LimitExceededError(ProtocolError):
    """A message is whole, and its reader refuses it, or has no memory for it."""


def too_many_items(limit: int) -> LimitExceededError:
    """What is said of a message with more items than that."""
    return LimitExceededError(
        f"a message has more than {limit:,} lists, maps and other composed values, which is the limit (limit_items); "
        "send it in parts"
    )
