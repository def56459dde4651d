"""A call that was submitted: its outcome goes into a Result, as soon as what it has logged has been replayed.

Handlers may block, so what has been logged is replayed in a greenlet, for all calls of a lease in their order. There,
too, is loaded what has come pickled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from contextvars import Context, copy_context
from functools import partial
from types import ModuleType
from typing import Protocol

from gtask.client.calls import Call, Outcome, Result
from gtask.errors import EncodeError, Error
from gtask.wire.messages import Value
from gtask.wire.values.agreement import ConditionalFrame

__all__ = ["Replay", "SubmittedCall"]

Replay = tuple[Context, Callable[[], None], Callable[[], None]]
"""Where to run it, the replay of log records, and what is to follow it in any case."""


class Lease(Protocol):
    """The lease on which it was made, as far as the call must know it."""

    replays: deque[Replay] | None

    @property
    def raises(self) -> Collection[type | ModuleType] | None: ...
    def conclude(self, call: Call, outcome: Outcome, /) -> Error | None: ...
    def unseal(self, method: str, ok: Value, /) -> EncodeError | None: ...
    def spawn(self, function: Callable[[], object], /) -> None: ...


class SubmittedCall(Call):
    """A call whose outcome goes into a Result."""

    __slots__ = ("_context", "_is_delivered", "_lease", "result")

    def __init__(self, method: str, frame: bytes | ConditionalFrame, timeout: float | None, lease: Lease) -> None:
        Call.__init__(self, method, frame, timeout)
        self._lease = lease
        self._context = copy_context()
        self._is_delivered = False
        self.result = Result()

    def deliver(self, outcome: Outcome) -> None:
        if self._is_delivered or self.result.ready():
            return  # an interruption came just after it had been delivered
        if type(outcome) is Value and self.story is None and self._lease.replays is None and not outcome.used:
            self.result.set(outcome.value)
        else:
            self._conclude(outcome)

    def _conclude(self, outcome: Outcome) -> None:
        story, lease = self.story, self._lease
        error = lease.conclude(self, outcome)
        is_pickled = isinstance(outcome, Value) and bool(outcome.used)

        def finish() -> None:
            if error is not None:
                self.result.fail(error)
                return
            assert isinstance(outcome, Value)
            if outcome.used:
                self.result.fail(EncodeError(f"{self.method} was executed, but loading its result was interrupted"))
            else:
                self.result.set(outcome.value)

        def replay() -> None:
            nonlocal error
            if story is not None:
                story.replay(self.method, lease.raises)
            if isinstance(outcome, Value):
                error = lease.unseal(self.method, outcome)

        if lease.replays is not None:
            lease.replays.append((self._context, replay, finish))
        elif is_pickled or (story is not None and story.has_records):
            replays = deque([(self._context, replay, finish)])
            lease.spawn(partial(_replay_all, lease))
            lease.replays = replays  # last: whatever strikes before, the outcome is delivered again
        else:
            finish()
            return
        self._is_delivered = True


def _replay_all(lease: Lease) -> None:
    replays = lease.replays or deque()
    try:
        while replays:
            context, replay, then = replays[0]
            try:
                context.run(replay)
            finally:
                replays.popleft()
                then()
    finally:
        lease.replays = None
        for _, _, then in replays:  # a handler has ended this greenlet
            then()
