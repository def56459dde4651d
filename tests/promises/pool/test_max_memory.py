"""The point of this test is to ensure that a worker which has grown over ``max-memory`` is replaced after its checkout.

It asks for that itself; the checkout is not disturbed, and the client counts the cause.
"""

import pytest

GROWING = """
    import os

    _kept = []

    def pid():
        return os.getpid()

    def grow(mebibytes):
        _kept.append(bytearray(mebibytes << 20))
        for place in range(0, mebibytes << 20, 4096):
            _kept[-1][place] = 1

    def fail():
        grow(150)
        raise KeyError("after it has grown")
"""

WHY = "more than 128 MiB of memory"


@pytest.fixture
def client(shared, connect):
    return connect(shared(GROWING, "--max-memory", "128M"), max_workers=1)


def test_a_worker_that_has_grown_is_replaced(client):
    """Its checkout goes on with it, for as long as it takes; the next gets another. The cause is counted."""
    with client.checkout() as worker:
        pid = worker.pid()
        worker.grow(150)
        assert [worker.pid() for _ in range(3)] == [pid] * 3
    assert client.call("pid") != pid
    assert client.stats().retirements == {WHY: 1}


def test_a_worker_that_has_not_stays(client):
    """Also if it has grown a little."""
    with client.checkout() as worker:
        pid = worker.pid()
        worker.grow(1)
    assert [client.call("pid") for _ in range(3)] == [pid] * 3
    assert client.stats().retirements == {}


def test_queued_calls_are_answered(client):
    """What was submitted behind the call that made it grow runs in the same worker."""
    with client.checkout() as worker:
        results = [worker.pid.submit(), worker.grow.submit(150), *[worker.pid.submit() for _ in range(5)]]
        pid, _, *others = [result.get() for result in results]
        assert others == [pid] * 5
    assert client.call("pid") != pid
    assert client.stats().retirements == {WHY: 1}


def test_a_call_that_raises_after_it_has_grown(shared, connect):
    """It is noticed then as well, where the error alone would not retire the worker."""
    client = connect(shared(GROWING, "--max-memory", "128M"), max_workers=1, refork_after_error=False)
    with client.checkout() as worker:
        pid = worker.pid()
        with pytest.raises(KeyError, match="after it has grown"):
            worker.fail()
        assert worker.pid() == pid
    assert client.call("pid") != pid
    assert client.stats().retirements == {WHY: 1}
