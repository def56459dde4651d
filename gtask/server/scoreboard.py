"""What each worker is doing and since when, in memory that it shares with the master.

A worker writes its line twice per call; the master reads the line when there is something to decide. Neither waits
for the other. A read may fall between two writes: then it shows a call that has just begun or ended.
"""

from __future__ import annotations

import math
import mmap
import os
from typing import NamedTuple

from gtask.printable import printable

__all__ = [
    "CALL", "DECODE", "HOOKS", "IDLE", "METHOD_BYTES", "SETUP", "SETUPS", "VIOLATIONS", "BoardLine", "Complaints",
    "View", "label",
]  # fmt: skip

IDLE, SETUP, CALL, HOOKS, DECODE = range(5)
"""What a worker does: wait for its client, run setup, run a call, run checkout_done or teardown, or read and decode a
message, of which the first byte has come."""

METHOD_BYTES = 42
"""Bytes of a method's name that the line shows."""

SINCE, STATE, CALLS, BUSY, TARGET, EXTENDED, UNTIL, HELD, FAILED = range(9)
"""The line's numbers, each of them a float64.

SINCE is when the worker began what it does; less than 0 while it waits for its client, so that one write tells both.
STATE is the phase of what it does or has done last, and LENT more in a checkout."""

LENT = 8.0
IN_CALL = CALL + LENT
METHOD = slice(72, 72 + METHOD_BYTES)
"""The bytes of the method's name, behind the numbers."""

CLIENT_BYTES = 32
"""Bytes of a client's name that the line shows."""

CLIENT = slice(METHOD.stop, METHOD.stop + CLIENT_BYTES)

_TERSE_PLACE = CLIENT.stop
_WANTED_PLACE = _TERSE_PLACE + 1
_SHUT_PLACE = _WANTED_PLACE + 1
_REPLIES_PLACE = _SHUT_PLACE + 1

MOST = 1e15
"""More than any number of a line is: seconds of a clock, calls, bytes."""

REPEAT = 60.0
"""Seconds for which a complaint is not logged again."""

SETUPS, VIOLATIONS = 0, 2
"""What complaints are about: each the place of two numbers."""

MEMORY = 32 * 1024
HOLDS = MEMORY - _REPLIES_PLACE
"""Bytes of replies that a line can hold."""

STACKS_LIMIT = 64 * 1024
"""Bytes of stacks that the master reads after a worker's death."""


def label(method: str) -> bytes:
    """The name of a method as the line shows it: cut or filled up to METHOD_BYTES."""
    return method.encode("utf-8", "replace")[:METHOD_BYTES].ljust(METHOD_BYTES, b"\0")


NO_METHOD = label("")


class View(NamedTuple):
    """What a worker does, as its line of the scoreboard says when the master looks.

    Attributes:
        since: when the worker began what it does, on the monotonic clock.
        phase: IDLE, SETUP, CALL, HOOKS or DECODE.
        method: the method of the call, cut at METHOD_BYTES; "" outside of a call.
        lent: whether it is in a checkout, as far as it knows.
        calls: the number of its calls, with the one that runs.
        busy: seconds that it had not waited for its client until ``since``.
        until: when the time ends for which the call has asked by :meth:`~gtask.running_call.CurrentCall.extend`, on the
            monotonic clock; 0 if it has not asked.
        client: the name of its client, cut at CLIENT_BYTES; "" if it has said none.
        client_pid: the process of its client, 0 if that is not known: the client is not on this machine.
        client_uid: the user of its client, -1 if that is not known.
    """

    since: float
    phase: int
    method: str
    lent: bool = False
    calls: int = 0
    busy: float = 0.0
    until: float = 0.0
    client: str = ""
    client_pid: int = 0
    client_uid: int = -1
    failed: int = 0


class Complaints:
    """When things were last logged that any worker may log, in memory that a master shares with its workers.

    Two workers that fail in the same moment may both log it.
    """

    def __init__(self) -> None:
        self._numbers = memoryview(mmap.mmap(-1, 32)).cast("d")
        self._numbers[0] = self._numbers[2] = -math.inf

    def add(self, now: float, about: int) -> int:
        """It has happened again.

        Args:
            now: the time, on the monotonic clock.
            about: SETUPS that have raised, or VIOLATIONS of the protocol.

        Returns:
            how many times since it was logged, this time included, if it is to be logged now; otherwise 0.
        """
        self._numbers[about + 1] += 1
        if now < self._numbers[about] + REPEAT:
            return 0
        count = int(self._numbers[about + 1])
        self._numbers[about], self._numbers[about + 1] = now, 0
        return count


class BoardLine:
    """One worker's line of the scoreboard, and a file where faulthandler leaves its stacks; made before the fork.

    Args:
        now: the time, on the monotonic clock, as everywhere here.
        stacks: a descriptor of the file for the stacks; the line closes it.
        peer: the process id and the user of the client, (0, -1) if they are not known.
        complaints: of the master's workers; by default this worker's alone.

    Attributes:
        lent: in the worker, whether it is in a checkout: from its first call on, until the worker resets it. The line
            shows the latter from the next :meth:`begin` or :meth:`end` on.
        call_weight: in the worker, what a call adds to the number of calls: 1, or 0 if its calls are not counted.
        read_at: in the worker, when the first byte came of what it reads or has just read; 0 once it does something
            else.
        stacks: the descriptor.
        complaints: as above.
    """

    __slots__ = (
        "_busy", "_calls", "_held", "_memory", "_method", "_numbers", "_peer", "_since", "_state", "call_weight",
        "complaints", "lent", "read_at", "stacks",
    )  # fmt: skip

    def __init__(
        self, now: float, stacks: int, peer: tuple[int, int] = (0, -1), complaints: Complaints | None = None
    ) -> None:
        self._peer = peer
        self._memory = mmap.mmap(-1, MEMORY)
        self._numbers = memoryview(self._memory)[: METHOD.start].cast("d")
        self._method = NO_METHOD
        self._held = 0
        self._calls = 0.0
        self._busy = 0.0
        self._since = 0.0  # 0 while it waits for its client
        self._state = 0.0
        self.read_at = 0.0
        self.call_weight = 1.0
        self.lent = False
        self.stacks = stacks
        self.complaints = complaints or Complaints()
        self.end(now)

    def begin(self, now: float, phase: int) -> None:
        """In the worker: it begins something that is no call.

        Args:
            now: the time.
            phase: SETUP or HOOKS.
        """
        self._write(phase + LENT if self.lent else phase)
        self.read_at = 0.0
        self._go_on(now)

    def begin_reading(self, now: float) -> float:
        """In the worker: a message of its client has come, or a part of one.

        Returns:
            when the first byte came.
        """
        if not self._since:
            self._write(DECODE + LENT if self.lent else DECODE)
            self._numbers[SINCE] = self._since = self.read_at = now
        return self._since

    def begin_call(self, now: float, method: bytes) -> None:
        """In the worker: it begins a call, in a checkout.

        Args:
            now: the time; or when the first byte of its request came, if nothing else has begun since.
            method: the :func:`label` of its method; the same object for the same method is cheapest.
        """
        numbers = self._numbers
        numbers[CALLS] = self._calls = self._calls + self.call_weight
        if method is not self._method:
            self._memory[METHOD] = self._method = method
        self.lent = True  # also if the line shows it still: the end of a checkout may come together with this call
        if self._state != IN_CALL:
            self._write(IN_CALL)
        if not self._since:
            numbers[SINCE] = self._since = now
        else:
            self.read_at = 0.0
            if self._since != now:
                self._go_on(now)

    def _write(self, state: float) -> None:
        self._numbers[STATE] = self._state = state

    def _go_on(self, now: float) -> None:
        """Do something, perhaps directly after something else."""
        if self._since:
            self._numbers[BUSY] = self._busy = self._busy + now - self._since
        self._numbers[SINCE] = self._since = now

    def end(self, now: float) -> None:
        """In the worker: it waits for its client since ``now``."""
        numbers = self._numbers
        numbers[SINCE] = -now
        if self._since:
            numbers[BUSY] = self._busy = self._busy + now - self._since
            self._since = 0.0
            self.read_at = 0.0
        if not self.lent and self._state >= LENT:
            self._write(IDLE)

    def setup_failed(self) -> None:
        """In the worker: its setup has raised."""
        self._numbers[FAILED] += 1

    def extend(self, since: float, until: float) -> None:
        """In the worker: the call that began at ``since`` may last until ``until``."""
        self._numbers[UNTIL] = until
        self._numbers[EXTENDED] = since

    def aim(self, since: float) -> None:
        """In the master, before SIGALRM: interrupt only what began at ``since``, nothing that has begun later."""
        self._numbers[TARGET] = since

    def is_aimed_at(self, since: float) -> bool:
        """In the worker, at SIGALRM: whether the master meant what began at ``since``."""
        return self._numbers[TARGET] == since

    def view(self) -> View:
        """In the master: what the worker does."""
        number = self._number
        since, state = number(SINCE), number(STATE)
        phase = IDLE if since < 0 or state % LENT > DECODE else int(state % LENT)
        method = self._text(METHOD) if phase == CALL else ""
        until = number(UNTIL) if number(EXTENDED) == since else 0.0
        return View(
            abs(since),
            phase,
            method,
            state >= LENT,
            int(number(CALLS)),
            number(BUSY),
            until,
            self._text(CLIENT),
            *self._peer,
            int(number(FAILED)),
        )

    def _number(self, place: int) -> float:
        """A number of the line. A worker can write there what it likes: what can be none of its numbers counts as 0."""
        number = self._numbers[place]
        return number if abs(number) < MOST else 0.0  # nan is no less

    def _text(self, place: slice) -> str:
        return printable(self._memory[place].rstrip(b"\0").decode("utf-8", "replace"))

    def name_client(self, name: str) -> None:
        """In the worker: its client has said its name."""
        self._memory[CLIENT] = name.encode("utf-8", "replace")[:CLIENT_BYTES].ljust(CLIENT_BYTES, b"\0")

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
        self._numbers[HELD] = self._held
        return True

    def take_held(self) -> bytes:
        """The replies that are held, in the worker to send them, or in the master after the worker's death.

        They are forgotten first: a reply may be lost with a worker that dies while it sends, but never comes twice.
        """
        held = int(min(max(0.0, self._number(HELD)), HOLDS))
        self._numbers[HELD] = 0
        self._held = 0
        return self._memory[_REPLIES_PLACE : _REPLIES_PLACE + held]

    def want_back(self) -> None:
        """In the master: others wait for a worker, and this one is wanted back."""
        self._memory[_WANTED_PLACE] = 1

    @property
    def is_wanted_back(self) -> bool:
        """In the worker: whether its master has said so."""
        return bool(self._memory[_WANTED_PLACE])

    def shut(self) -> None:
        """In the master: the worker reads the end of its stream next, and it is not its client that has hung up."""
        self._memory[_SHUT_PLACE] = 1

    @property
    def is_shut(self) -> bool:
        """In the worker: whether its master has said so."""
        return bool(self._memory[_SHUT_PLACE])

    def want_no_last_words(self) -> None:
        """In the worker: its client would not understand the master's last words."""
        self._memory[_TERSE_PLACE] = 1

    @property
    def wants_last_words(self) -> bool:
        """In the master, after the worker's death: whether its client is to be told of it."""
        return not self._memory[_TERSE_PLACE]

    def read_stacks(self) -> str:
        """In the master, after the worker's death: the stacks that faulthandler wrote, or ""."""
        return os.pread(self.stacks, STACKS_LIMIT, 0).decode("utf-8", "replace")

    def close(self) -> None:
        """Give the memory and the file back."""
        self._numbers.release()
        self._memory.close()
        os.close(self.stacks)
