"""A call on the client's side: one request, and the greenlet or the result that gets its outcome.

A greenlet waits in a :class:`BlockingCall`. ``submit`` makes a :class:`gtask.client.submitted.SubmittedCall`, whose
outcome goes into a :class:`Result`.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import gevent

from gtask.client import companions
from gtask.client.elsewhere import SharedResult
from gtask.client.outcomes import copy_to_raise
from gtask.errors import Error

if TYPE_CHECKING:
    from gtask.aspects.aspect import CallerAspect, Companion
    from gtask.client.outcomes import Outcome
    from gtask.wire.values.agreement import Frame

__all__ = ["BlockingCall", "Call", "Result"]


class Result(SharedResult):
    """What ``submit`` returns: gevent's AsyncResult (``get``, ``ready``, ``rawlink``, ``gevent.wait``), for any thread.

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
            if error is not self.exception:
                raise
            error.__traceback__ = self._worker_frames  # or it would know this frame, and so what made the call
        again = copy_to_raise(self.exception, self._worker_frames)
        try:
            raise again
        finally:
            del again


class Call:
    """One request.

    Args:
        name: of the method; None if the interface is a function.
        timeout: seconds that it may take from when it is at the head of its queue; None for no limit.

    Attributes:
        frame: the encoded request.
        deadline: when its time is over; 0 while it is not at the head of its queue.
        sent_at: when it was sent.
        companions: what follows it beside its value, by their aspects; None for a plain call.
    """

    __slots__ = ("companions", "deadline", "frame", "name", "sent_at", "timeout")

    def __init__(self, name: str | None, timeout: float | None) -> None:
        self.name = name
        self.timeout = timeout
        self.deadline = 0.0
        self.companions: dict[CallerAspect, Companion] | None = None
        self.frame: Frame
        self.sent_at = 0.0

    @property
    def method(self) -> str:
        """The name, for messages."""
        return "()" if self.name is None else self.name

    def take(self, value: Any) -> None:
        """Take the value of a plain reply; called in the hub, once unless an interruption has struck there."""
        raise NotImplementedError

    def deliver(self, outcome: Outcome) -> None:
        """The same for any outcome."""
        raise NotImplementedError

    @property
    def waiting(self) -> Any:
        """The greenlet that is blocked in it; None if none is."""
        return None

    def post(self, outcome: Outcome) -> None:
        """Deliver the outcome from outside the hub: at its next turn."""
        gevent.get_hub().loop.run_callback(self.deliver, outcome)

    def reach_head(self, now: float) -> float:
        """Start the call's clock unless it runs already; returns its deadline (infinite for none)."""
        if not self.deadline:
            self.deadline = math.inf if self.timeout is None else now + self.timeout
        return self.deadline

    # These stand in companions.py, for a plain call has no companions.
    begin = companions.begin
    hear = companions.hear
    end = companions.end
    replay = companions.replay
    needs_replay = property(companions.needs_replay)
    withholds_value = property(companions.withholds_value)


class BlockingCall(Call):
    """A call whose greenlet waits.

    Attributes:
        greenlet: the one that is blocked in the call; None while none is.
        outcome: how the call ended, if it got no plain reply: then the greenlet is switched to with the call itself.
    """

    __slots__ = ("greenlet", "outcome")

    outcome: Outcome

    def __init__(self, name: str | None, timeout: float | None) -> None:
        super().__init__(name, timeout)
        self.greenlet: Any = None

    @property
    def waiting(self) -> Any:
        return self.greenlet

    def take(self, value: Any) -> None:
        greenlet = self.greenlet
        if greenlet is not None:  # or it was interrupted, and hears of its call no more
            try:
                greenlet.switch(value)
            except BaseException:  # of the greenlet that was switched to, or of an interruption before
                if self.greenlet is greenlet:
                    raise  # an interruption has come before the switch: the outcome is posted again
                # The greenlet has died of an exception: the hub reports that, and the connection goes on.
                gevent.get_hub().handle_error(greenlet, *sys.exc_info())

    def deliver(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.take(self)
