"""The point of this test is to ensure that max_checkouts replaces a worker after it was lent so many times.

Or up to a tenth less, so that workers which began together do not all end together. Whatever leaks in the
application's code leaks no further.
"""

import os

import pytest

from tests.support.waiting import wait_until

SOURCE = """
    import os

    def pid():
        return os.getpid()
"""
WITH_HOOK = (
    SOURCE
    + """
    def checkout_done():
        pass
"""
)


@pytest.mark.parametrize("source", [SOURCE, WITH_HOOK], ids=["without a hook", "with checkout_done"])
def test_a_worker_is_lent_so_often_and_no_more(serve, connect, source):
    """Nine checkouts of two calls each: three workers, three checkouts each; the first two exit."""
    client = connect(serve(source), max_workers=1, max_checkouts=3)
    pids = []
    for _ in range(9):
        with client.checkout() as worker:
            pids.append(worker.pid())
            assert worker.pid() == pids[-1]
    assert [pids[:3], pids[3:6], pids[6:]] == [[pids[0]] * 3, [pids[3]] * 3, [pids[6]] * 3]
    assert len(set(pids)) == 3
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), what="the end of the workers")


def test_by_default_there_is_no_limit(shared, connect):
    """50 checkouts, one worker."""
    client = connect(shared(SOURCE), max_workers=1)
    assert len({client.call("pid") for _ in range(50)}) == 1


COUNTING = """
    import os

    calls = 0

    def count():
        global calls
        calls += 1
        return [os.getpid(), calls]
"""


def test_workers_differ_by_a_tenth(shared, connect):
    """Of twelve workers none is lent more than 50 times or less than 45, and not all are lent equally often."""
    client = connect(shared(COUNTING), max_workers=1, max_checkouts=50)
    most = {}
    while len(most) < 13:
        pid, calls = client.call("count")
        most[pid] = calls
    ended = list(most.values())[:12]  # the last one is still there
    assert 45 <= min(ended) < max(ended) <= 50
    assert client.stats().retirements == {"max_checkouts": 12}


def test_few_checkouts_are_kept_to_exactly(shared, connect):
    """A tenth of nine is no whole checkout."""
    client = connect(shared(COUNTING), max_workers=1, max_checkouts=9)
    assert [client.call("count")[1] for _ in range(90)] == list(range(1, 10)) * 10
