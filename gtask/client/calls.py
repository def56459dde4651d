"""A call on the client's side: one request, and whoever waits for its outcome.

Some wait in it (:class:`BlockingCall`), others hold a :class:`Result` of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import AsyncResult
from gevent.hub import Waiter

from gtask.aspects.caller import CallReport
from gtask.errors import Error
from gtask.wire.messages import Failure, Skipped, Value
from gtask.wire.values.agreement import ConditionalFrame

__all__ = ["BlockingCall", "Call", "Outcome", "Result"]

Outcome = Value | Failure | Skipped | Error
"""How a call ended: with the worker's reply, or with the error that ended its connection."""


if TYPE_CHECKING:
    _AsyncResult = AsyncResult[Any]
else:
    _AsyncResult = AsyncResult  # generic for type checkers only


class Result(_AsyncResult):
    """What ``submit`` returns: gevent's AsyncResult (``get``, ``ready``, ``rawlink``, ``gevent.wait``).

    Its ``get`` keeps the worker's frames, where AsyncResult raises without a traceback.
    """

    __slots__ = ("_worker_frames",)

    def fail(self, error: Error) -> None:
        """Set the exception, with its traceback."""
        self._worker_frames = error.__traceback__
        self.set_exception(error)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """The value, as soon as it is there; or raises what the call raised, or gevent.Timeout."""
        try:
            return super().get(block, timeout)
        except Error as error:
            if error is self.exception:
                raise error.with_traceback(self._worker_frames)  # noqa: B904  # the same error, with its own cause
            raise


class Call:
    """One request, and whoever waits for its outcome: see :class:`BlockingCall` and what ``submit`` makes.

    Args:
        method: its name, for messages.
        frame: the encoded request.
        timeout: seconds that it may take from when it is at the head of its queue; None for no limit.

    Attributes:
        story: what comes with its outcome, if anything does.
    """

    __slots__ = ("deadline", "frame", "method", "sent_at", "story", "timeout")

    def __init__(self, method: str, frame: bytes | ConditionalFrame, timeout: float | None) -> None:
        self.method = method
        self.frame = frame
        self.timeout = timeout
        self.deadline = 0.0  # not at the head yet
        self.sent_at = 0.0
        self.story: CallReport | None = None

    def deliver(self, outcome: Outcome) -> None:
        """Take the outcome; called once, in the hub."""
        raise NotImplementedError

    @property
    def greenlet(self) -> Any:
        """The greenlet that is blocked in it, if one is."""
        return None

    def post(self, outcome: Outcome) -> None:
        """Deliver the outcome from outside the hub: at its next turn."""
        gevent.get_hub().loop.run_callback(self.deliver, outcome)

    def reach_head(self, now: float) -> float:
        """Start the call's clock unless it runs already; returns its deadline (infinite for none)."""
        if not self.deadline:
            self.deadline = math.inf if self.timeout is None else now + self.timeout
        return self.deadline


class BlockingCall(Call):
    """A call whose greenlet waits."""

    __slots__ = ("_waiter", "deliver")

    def __init__(self, method: str, frame: bytes | ConditionalFrame, timeout: float | None) -> None:
        Call.__init__(self, method, frame, timeout)
        self._waiter: Waiter[Outcome] = Waiter()
        self.deliver = self._waiter.switch  # type: ignore[assignment]  # saves a frame in the hot path

    @property
    def greenlet(self) -> Any:
        return self._waiter.greenlet

    def wait(self) -> Outcome:
        """Block this greenlet until the outcome is there."""
        outcome: Outcome = self._waiter.get()
        return outcome
