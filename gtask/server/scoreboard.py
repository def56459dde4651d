"""What each worker is doing and since when, in memory that it shares with the master.

A worker writes its slot twice per call; the master reads it when there is something to decide. Neither waits
for the other: a slot is a few bytes, and a torn read only shows a call that has just begun or ended.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import NamedTuple

__all__ = ["CALL", "HOOKS", "IDLE", "SETUP", "BoardLine", "View"]

IDLE, SETUP, CALL, HOOKS = range(4)
"""What a worker does: wait for its client, run setup, run a call, run checkout_done or teardown."""

_ENTRY = struct.Struct("=dBBId42s")
_TARGET = struct.Struct("=d")
_TARGET_PLACE = 64
_EXTENSION = struct.Struct("=dd")
_EXTENSION_PLACE = 72
_HELD = struct.Struct("=I")
_HELD_PLACE = 88
_TERSE_PLACE = 92
_REPLIES_PLACE = 93

MEMORY = 32 * 1024
HOLDS = MEMORY - _REPLIES_PLACE
"""Bytes of replies that a slot can hold."""

STACKS_LIMIT = 64 * 1024
"""Bytes of stacks that the master reads after a worker's death."""


class View(NamedTuple):
    """What a worker does, as its slot of the scoreboard says when the master looks.

    Attributes:
        since: when the worker began what it does, on the monotonic clock.
        phase: IDLE, SETUP, CALL or HOOKS.
        method: the method of the call, cut at 42 bytes.
        lent: whether it is in a checkout, as far as it knows.
        calls: how many calls it has run.
        busy: for how many seconds it had done something else than wait for its client, when it began what it does.
        until: how long it may last, if it has asked for more time than hung_worker_timeout; else 0.
    """

    since: float
    phase: int
    method: str
    lent: bool = False
    calls: int = 0
    busy: float = 0.0
    until: float = 0.0


class BoardLine:
    """One worker's line of the scoreboard, and a file where faulthandler leaves its stacks; made before the fork.

    Attributes:
        calls: how many calls it has run; ``lent``, whether it is in a checkout. In the worker they are set, and written
            down with what it begins or ends next.
        stacks: the file's descriptor.
    """

    __slots__ = ("_busy", "_held", "_memory", "_since", "calls", "lent", "stacks")

    def __init__(self, now: float, stacks: int) -> None:
        self._memory = mmap.mmap(-1, MEMORY)
        self._held = 0
        self._busy = 0.0
        self._since = 0.0  # 0 while it waits for its client
        self.calls = 0
        self.lent = False
        self.stacks = stacks
        self.end(now)

    def begin(self, now: float, phase: int, method: str = "") -> None:
        """In the worker: it begins something."""
        if self._since:
            self._busy += now - self._since
        self._since = now
        name = method.encode("utf-8", "replace")
        _ENTRY.pack_into(self._memory, 0, now, phase, self.lent, self.calls, self._busy, name)

    def end(self, now: float) -> None:
        """In the worker: it waits for its client."""
        if self._since:
            self._busy += now - self._since
            self._since = 0.0
        _ENTRY.pack_into(self._memory, 0, now, IDLE, self.lent, self.calls, self._busy, b"")

    def extend(self, since: float, until: float) -> None:
        """In the worker: what began then may last until then."""
        _EXTENSION.pack_into(self._memory, _EXTENSION_PLACE, since, until)

    def aim(self, since: float) -> None:
        """In the master, before SIGALRM: interrupt only what began then, and nothing that has begun meanwhile."""
        _TARGET.pack_into(self._memory, _TARGET_PLACE, since)

    def is_aimed_at(self, since: float) -> bool:
        """In the worker, at SIGALRM: whether the master meant what began then."""
        return bool(_TARGET.unpack_from(self._memory, _TARGET_PLACE)[0] == since)

    def view(self) -> View:
        """In the master: what the worker does."""
        since, phase, lent, calls, busy, method = _ENTRY.unpack_from(self._memory)
        extended, until = _EXTENSION.unpack_from(self._memory, _EXTENSION_PLACE)
        name = method.rstrip(b"\0").decode("utf-8", "replace")
        return View(since, phase, name, bool(lent), calls, busy, until if extended == since else 0.0)

    def hold(self, reply: bytes) -> bool:
        """In the worker: keep a reply back, to be sent with the next, by the worker or else by the master.

        Returns:
            False if there is no room for it.
        """
        begin = _REPLIES_PLACE + self._held
        end = begin + len(reply)
        if end > MEMORY:
            return False
        self._memory[begin:end] = reply
        self._held += len(reply)
        _HELD.pack_into(self._memory, _HELD_PLACE, self._held)
        return True

    def take_held(self) -> bytes:
        """The replies that are held, in the worker to send them, or in the master after the worker's death.

        They are forgotten first: a reply may be lost with a worker that dies while it sends, but never comes twice.
        """
        (held,) = _HELD.unpack_from(self._memory, _HELD_PLACE)
        _HELD.pack_into(self._memory, _HELD_PLACE, 0)
        self._held = 0
        return self._memory[_REPLIES_PLACE : _REPLIES_PLACE + held]

    def want_no_last_words(self) -> None:
        """In the worker: its client speaks JSON, and would not understand them."""
        self._memory[_TERSE_PLACE] = 1

    @property
    def wants_last_words(self) -> bool:
        """In the master, after the worker's death: whether its client is to be told of it."""
        return not self._memory[_TERSE_PLACE]

    def read_stacks(self) -> str:
        """In the master, after the worker's death: the stacks that faulthandler wrote, or ""."""
        return os.pread(self.stacks, STACKS_LIMIT, 0).decode("utf-8", "replace")

    def close(self) -> None:
        self._memory.close()
        os.close(self.stacks)
