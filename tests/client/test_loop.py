"""The alarm: it calls once, early rather than late, and an interruption takes no call away."""

from __future__ import annotations

import math
from time import monotonic

import gevent
import pytest

from gtask.client import loop as loop_module
from gtask.client.loop import Alarm
from tests.support.waiting import stays, wait_until


@pytest.fixture
def calls():
    return []


@pytest.fixture
def alarm(calls):
    alarm = Alarm(gevent.get_hub().loop, lambda: calls.append(monotonic()))
    yield alarm
    alarm.close()


def test_it_calls_once_at_its_deadline(alarm, calls):
    """Not before; and then it is unset."""
    now = monotonic()
    alarm.set(now + 0.02, now)
    assert alarm.at == now + 0.02
    wait_until(lambda: calls, "the call")
    stays(lambda: len(calls) == 1, 0.02)
    assert calls[0] >= now + 0.019
    assert alarm.at == math.inf


def test_only_an_earlier_deadline_counts(alarm, calls):
    """A later one does not put the call off."""
    now = monotonic()
    alarm.set(now + 0.02, now)
    alarm.set(now + 60, now)
    assert alarm.at == now + 0.02
    alarm.set(now - 1, now)
    wait_until(lambda: calls, "the call")
    stays(lambda: len(calls) == 1, 0.03)  # past the deadline that was replaced


def test_a_deadline_that_has_always_been_over(alarm, calls):
    """Minus infinity is met at once, and the alarm serves on."""
    alarm.set(-math.inf, monotonic())
    wait_until(lambda: calls, "the call")
    assert len(calls) == 1
    assert alarm.at == math.inf


def test_it_is_never_set_to_infinity(alarm):
    """A call without a time-out costs no timer."""
    alarm.set(math.inf, monotonic())
    assert alarm._timer is None


def test_stopped_and_set_again(alarm, calls):
    """A stop forgets the deadline, and the alarm serves on."""
    now = monotonic()
    alarm.set(now + 0.01, now)
    alarm.stop()
    assert alarm.at == math.inf
    stays(lambda: calls == [], 0.03)  # past the deadline
    now = monotonic()
    alarm.set(now + 0.01, now)
    wait_until(lambda: calls, "the call")
    assert len(calls) == 1


def test_closed_for_good(alarm, calls):
    """Nothing sets it any more, and whoever compares with its deadline does not try."""
    now = monotonic()
    alarm.set(now + 0.01, now)
    alarm.close()
    alarm.set(now + 0.01, now)
    stays(lambda: calls == [], 0.03)  # past the deadline
    assert alarm.at == -math.inf


def test_set_and_closed_within_the_call():
    """The function may do both."""
    now, calls = monotonic(), []

    def function():
        calls.append(alarm)
        if len(calls) < 3:
            alarm.set(now, now)
        else:
            alarm.close()

    alarm = Alarm(gevent.get_hub().loop, function)
    alarm.set(now, now)
    wait_until(lambda: len(calls) == 3, "three calls")
    assert alarm._timer is None


def test_what_is_struck_is_called_again(monkeypatch):
    """A Ctrl-C in the hub takes no deadline away."""
    monkeypatch.setattr(loop_module, "AGAIN", 0.01)
    monkeypatch.setattr(gevent.get_hub(), "handle_error", lambda *args: None)
    calls = []

    def function():
        calls.append(True)
        if len(calls) == 1:
            raise KeyboardInterrupt

    alarm = Alarm(gevent.get_hub().loop, function)
    now = monotonic()
    alarm.set(now, now)
    wait_until(lambda: len(calls) == 2, "the second call")
    assert alarm._timer is None


def test_a_hub_that_is_gone():
    """An alarm of a thread that has ended can still be stopped."""

    class Gone:
        def start(self, *args, **kwargs):
            pass

        def stop(self):
            raise ValueError("operation on destroyed loop")

    class Loop:
        def timer(self, *args):
            return Gone()

    alarm = Alarm(Loop(), print)
    alarm.set(1.0, 0.0)
    alarm.close()
