"""The point of this test is to ensure that a worker's code knows the call that it runs, and may ask for more time."""

from __future__ import annotations

from time import monotonic

import pytest

import gtask

SOURCE = """
    import os, threading, time
    import gtask

    def what():
        call = gtask.current_call()
        return [call.method, call.client, call.left, dict(call.headers), dict(call.context), repr(call)]

    def in_a_thread():
        found = []
        thread = threading.Thread(target=lambda: found.append(gtask.current_call().method))
        thread.start()
        thread.join()
        return found[0]

    def busy(seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
        return gtask.current_call().left

    def longer(times, each, ask):
        for _ in range(times):
            gtask.current_call().extend(ask)
            busy(each)
        return gtask.current_call().left

    def wrong(seconds):
        gtask.current_call().extend(seconds)

    def checkout_done():
        assert gtask.current_call() is None
"""


def test_what_a_call_knows(shared, connect):
    """Its method, the client's name and what is left of its time; as a function, too."""
    client = connect(shared(SOURCE), name="web", timeout=200)
    method, name, left, headers, context, shown = client.call("what")
    assert (method, name, headers, context) == ("what", "web", {}, {})
    assert 100 < left <= 200
    assert shown.startswith("<call of what, ")
    assert client.call("in_a_thread") == "in_a_thread"
    with client.checkout(timeout=None) as checkout:
        assert checkout.what()[2] is None
    with client.checkout(timeout=100) as checkout:
        assert 50 < checkout.what()[2] <= 100
    assert connect(shared(SOURCE), timeout=None).call("what")[2] is None
    assert gtask.current_call() is None


def test_waiting_for_a_worker_counts(shared, connect):
    """What is left is what is left for the caller, who has waited in line."""
    client = connect(shared(SOURCE), min_workers=1, max_workers=1, timeout=20)
    with client.checkout() as first:
        running = first.busy.submit(2.0)
        second = client.checkout()
        waiting = second.what.submit()
        behind = second.what.submit()
    assert running.get() <= 18
    assert waiting.get()[2] <= 18.1
    assert behind.get()[2] > waiting.get()[2]  # its time began when it was first in the queue
    second.release()


def test_extend(shared, connect):
    """A call that asks for it in time may go on; one that does not is given up as before."""
    client = connect(shared(SOURCE, "--hung-worker-timeout", "1.5"), min_workers=1, timeout=1.5)
    client.open(wait=True)
    began = monotonic()
    left = client.call("longer", 2, 1.0, 30.0)
    assert monotonic() - began >= 2.0
    assert 1.5 < left <= 30
    with pytest.raises(gtask.CallTimeout):
        client.call("longer", 1, 60, 0.3)
    assert monotonic() - began < 30
    with client.checkout(timeout=30) as checkout, pytest.raises(gtask.CallTimeout, match="hung_worker_timeout"):
        checkout.longer(1, 60, 0.2)  # never less than the server allows anyway


def test_wrong_arguments(shared, connect):
    """Are told what to write."""
    client = connect(shared(SOURCE))
    for seconds in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="number of seconds over 0"):
            client.call("wrong", seconds)
    for seconds in ("1", None, True):
        with pytest.raises(TypeError, match="number of seconds over 0"):
            client.call("wrong", seconds)
