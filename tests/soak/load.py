"""The callers: greenlets that take turns at the workers, some of them to be killed, to hang, to cancel or to drop."""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections import deque
from collections.abc import Iterator
from time import monotonic

import gevent

import gtask
from tests.soak.plan import CANCEL, KILL, TIMEOUT, Step, Turn, turns
from tests.soak.record import Record

__all__ = ["HASTE", "PATIENCE", "Load", "payload"]

PATIENCE = 30.0
"""The time-out of a call, a place far back in the line included."""

HASTE = 0.5
"""The time-out of a checkout on which a call will hang."""

RATE = 1000
"""Turns in a second for which the callers rest between their turns; it bounds the logs, too."""

CALM, FEW = 10.0, 200
"""Seconds that a wait in line may take before the callers rest longer, unless few are under way. Else the line would
outlast PATIENCE on a slow machine."""

STARTS = 500
"""Callers that start in a second."""

MOMENTS = 0.01
"""Seconds after its first answer within which a caller is struck that is not struck in line."""


class Load:
    """All callers.

    Args:
        client: whose workers they call.
        record: takes down what happens.
        seed: of all their decisions.
        callers: how many they are.
    """

    def __init__(self, client: gtask.Client, record: Record, seed: int, callers: int) -> None:
        self._client = client
        self._record = record
        self._rest = callers / RATE
        self._stopping = False
        self._resting: set[gevent.Greenlet] = set()
        self._checkouts: weakref.WeakKeyDictionary[gtask.Checkout, str] = weakref.WeakKeyDictionary()
        self._usual = 0.01  # seconds that a turn has taken of late
        self._under_way = 0
        self._ends: deque[float] = deque(maxlen=1000)  # of the last turns
        self._callers: list[gevent.Greenlet] = []
        self._starter = gevent.spawn(self._start, seed, callers)

    def stop(self, patience: float) -> None:
        """Begin no more turns, and wait for those that are under way; cancel what has not ended by then.

        Args:
            patience: seconds that the line gets to empty.
        """
        self._stopping = True
        self._starter.kill()
        gevent.killall(list(self._resting), block=False)
        gevent.joinall(self._callers, patience)
        for checkout, turn in list(self._checkouts.items()):
            self._cancel(turn, checkout)
        gevent.joinall(self._callers, HASTE + 1)

    @property
    def begun(self) -> int:
        """How many callers have begun: on a machine that has other work they take long to."""
        return len(self._callers)

    def failures(self) -> list[BaseException]:
        """What ended a caller that should not have; nothing, unless the soak itself is wrong."""
        return [caller.exception for caller in self._callers if caller.exception is not None]

    # --- a caller ---------------------------------------------------------------------------------------

    def _start(self, seed: int, callers: int) -> None:
        # A few at a time: the hub starts greenlets in order, and what is behind thousands of them waits for seconds.
        for number in range(callers):
            self._callers.append(gevent.spawn(self._call, seed, number))
            if number % 20 == 19:
                gevent.sleep(20 / STARTS)
            while self._is_crowded():
                gevent.sleep(HASTE)

    def _call(self, seed: int, number: int) -> None:
        for count, plan in enumerate(turns(seed, number)):
            turn = f"{number}.{count}"
            if plan.fate == KILL:
                gevent.spawn(self._take_turn, turn, plan).join()
            else:
                self._take_turn(turn, plan)
            if self._stopping:
                return
            self._have_a_rest(plan.pause * self._rest)
            while self._is_crowded() and not self._stopping:
                self._have_a_rest(1 + plan.pause * self._rest)

    def _is_crowded(self) -> bool:
        """Whether who came now would wait for long, as fast as turns have ended of late."""
        pace = len(self._ends) / (monotonic() - self._ends[0]) if self._ends else 0.0
        return self._under_way > max(FEW, CALM * pace)

    def _have_a_rest(self, seconds: float) -> None:
        self._resting.add(gevent.getcurrent())
        gevent.sleep(seconds)
        self._resting.discard(gevent.getcurrent())

    def _take_turn(self, turn: str, plan: Turn) -> None:
        begin = monotonic()
        self._under_way += 1
        try:
            checkout = self._checkout_at_the_front(turn) if plan.hangs else self._checkout(turn, PATIENCE)
            with self._fate(turn, plan, checkout) as strike:
                answers = self._submit_all if plan.queued else self._call_each
                for _ in answers(turn, plan, checkout):
                    strike()
            if not plan.dropped:
                checkout.release()
        finally:
            self._under_way -= 1
            self._ends.append(now := monotonic())
        self._usual += (now - begin - self._usual) / 100

    def _checkout(self, turn: str, timeout: float) -> gtask.Checkout:
        checkout = self._client.checkout(timeout=timeout)
        self._checkouts[checkout] = turn
        return checkout

    def _checkout_at_the_front(self, turn: str) -> gtask.Checkout:
        """A checkout with a short time-out that is the next to be served, if it has not been served yet.

        A time-out begins with the first call, so another checkout before it in line tells when to make that.
        """
        with self._checkout(f"{turn}s", PATIENCE) as scout:
            checkout = self._checkout(turn, HASTE)
            self._blocking_call(f"{turn}s.0", Step("work", 10, 0), scout, PATIENCE)
        return checkout

    def _call_each(self, turn: str, plan: Turn, checkout: gtask.Checkout) -> Iterator[None]:
        timeout = HASTE if plan.hangs else PATIENCE
        for number, step in enumerate(plan.steps):
            self._blocking_call(f"{turn}.{number}", step, checkout, timeout)
            yield

    def _blocking_call(self, token: str, step: Step, checkout: gtask.Checkout, timeout: float) -> None:
        data = payload(token, step)
        self._record.asked(token, step.method, data, timeout)
        try:
            value = checkout.call(step.method, token, data, step.seconds)
        except gtask.Error as error:
            self._record.error(token, error)
        except BaseException as interruption:
            if isinstance(interruption, gevent.Timeout):
                self._record.fault(token.rpartition(".")[0], "interrupted")
            self._record.error(token, interruption)
            raise
        else:
            self._record.value(token, value)

    def _submit_all(self, turn: str, plan: Turn, checkout: gtask.Checkout) -> Iterator[None]:
        results = []
        for number, step in enumerate(plan.steps):
            token = f"{turn}.{number}"
            data = payload(token, step)
            self._record.asked(token, step.method, data, HASTE if plan.hangs else PATIENCE)
            try:
                result = getattr(checkout, step.method).submit(token, data, step.seconds)
            except gtask.Error as error:
                self._record.error(token, error)
                continue
            # The outcome is taken down also if nobody waits for it any more.
            result.rawlink(_Outcome(self._record, token))
            results.append(result)
        if plan.dropped:
            return
        for result in results:
            with contextlib.suppress(gtask.Error):
                result.get()
            yield

    # --- what befalls a caller --------------------------------------------------------------------------

    @contextlib.contextmanager
    def _fate(self, turn: str, plan: Turn, checkout: gtask.Checkout) -> Iterator[gevent.Greenlet]:
        """Arrange what will befall this turn; yields what is to be called after each answer."""
        seconds = plan.moment * (1.5 * self._usual if plan.in_line else MOMENTS)
        answers = itertools.count()
        timeout = gevent.Timeout(seconds)
        striker: list[gevent.Greenlet] = []

        def start() -> None:
            if plan.fate == TIMEOUT:
                timeout.start()
            elif plan.fate == KILL:
                striker.append(gevent.spawn_later(seconds, self._kill, turn, gevent.getcurrent()))
            elif plan.fate == CANCEL:
                striker.append(gevent.spawn_later(seconds, self._cancel, turn, checkout))

        def answered() -> None:
            if not next(answers) and not plan.in_line:
                start()

        if plan.in_line:
            start()
        try:
            yield answered
        except gevent.Timeout as caught:
            if caught is not timeout:
                raise
        finally:
            timeout.close()
            gevent.killall(striker, block=False)

    def _kill(self, turn: str, caller: gevent.Greenlet) -> None:
        self._record.fault(turn, "interrupted")
        caller.kill(block=False)

    def _cancel(self, turn: str, checkout: gtask.Checkout) -> None:
        self._record.fault(turn, "cancelled")
        checkout.cancel("on purpose")


class _Outcome:
    """Takes down the outcome of a submitted call."""

    def __init__(self, record: Record, token: str) -> None:
        self._record = record
        self._token = token

    def __call__(self, result: gevent.event.AsyncResult) -> None:
        if result.exception is None:
            self._record.value(self._token, result.value)
        else:
            self._record.error(self._token, result.exception)


def payload(token: str, step: Step) -> bytes:
    """What this call carries: no other call carries the same."""
    mark = f"{token}/".encode()
    return (mark * (step.size // len(mark) + 1))[: max(step.size, len(mark))]
