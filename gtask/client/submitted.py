"""A call that was submitted: its outcome goes into a Result, as soon as its companions have been replayed.

A replay may block, since log handlers may. So it runs in a greenlet, for all calls of a lease in their order.
"""

from __future__ import annotations

from collections import deque
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from gtask.client.calls import Call, Result
from gtask.errors import EncodeError
from gtask.wire.messages import Value

if TYPE_CHECKING:
    from gtask.client.lease import Lease
    from gtask.client.outcomes import Outcome

__all__ = ["SubmittedCall"]


class SubmittedCall(Call):
    """A call whose outcome goes into a Result.

    Args:
        name, timeout: as for :class:`gtask.client.calls.Call`.
        lease: the lease on which it was made.
    """

    __slots__ = ("_context", "_error", "_is_delivered", "_lease", "_outcome", "result")

    def __init__(self, name: str | None, timeout: float | None, lease: Lease) -> None:
        Call.__init__(self, name, timeout)
        self._lease = lease
        self._context = copy_context()
        self._is_delivered = False
        self.result = Result(lease.lender.thread)

    def take(self, value: Any) -> None:
        if self.companions is None and self._lease.replays is None and not self._is_delivered:
            self.result.set(value)
        else:
            self.deliver(Value(value))

    def deliver(self, outcome: Outcome) -> None:
        if self._is_delivered or self.result.ready():
            return  # an interruption came just after it had been delivered
        lease = self._lease
        self._outcome = outcome
        self._error = lease.conclude(self, outcome)
        if lease.replays is not None:
            lease.replays.append(self)
        elif self.needs_replay:
            replays = deque([self])
            lease.lender.spawn(partial(_replay_all, lease, replays), partial(_finish_all, lease, replays))
            lease.replays = replays  # last: whatever strikes before, the outcome is delivered again
        else:
            self.finish()
            return
        self._is_delivered = True

    def replay_in_context(self) -> None:
        """Have the companions replay in the context in which the call was made."""
        self._error = self._context.run(self.replay) or self._error

    def finish(self) -> None:
        """Set the result, also if the replay was cut short. Again does nothing."""
        if self.result.ready():
            return
        error, outcome = self._error, self._outcome
        if error is None and self.withholds_value:
            error = EncodeError(f"{self.method} was executed, but loading its result was interrupted")
        if error is not None:
            self.result.fail(error)
        else:
            assert isinstance(outcome, Value)
            self.result.set(outcome.value)


def _replay_all(lease: Lease, replays: deque[SubmittedCall]) -> None:
    try:
        while replays:
            call = replays[0]
            try:
                call.replay_in_context()
            finally:
                call.finish()
                replays.popleft()
    finally:
        _finish_all(lease, replays)


def _finish_all(lease: Lease, replays: deque[SubmittedCall]) -> None:
    """Finish the calls that are left when the greenlet of their replays ends early, by a handler or a Ctrl-C."""
    if lease.replays is replays:
        lease.replays = None
    while replays:
        replays[0].finish()
        replays.popleft()
