"""The point of this test is to ensure that 100 checkouts over 5 workers are all served, by at most 5 workers."""

import gevent

from tests.support.waiting import turn_hub

SOURCE = """
    import os

    def siblings():
        # The master's children, as the kernel counts them at this moment.
        with open(f"/proc/{os.getppid()}/task/{os.getppid()}/children") as listing:
            return len(listing.read().split())

    def pid():
        return os.getpid()
"""


def test_100_checkouts_over_5_workers(serve, connect):
    """All at once; each makes two calls, on one worker, and counts the server's workers."""
    client = connect(serve(SOURCE), max_workers=5)

    def work():
        with client.checkout() as worker:
            before = worker.pid()
            siblings = worker.siblings()
            turn_hub()
            assert worker.pid() == before
            return before, siblings

    served = [greenlet.get() for greenlet in [gevent.spawn(work) for _ in range(100)]]
    assert len(served) == 100
    assert max(siblings for _, siblings in served) <= 5
    assert len({pid for pid, _ in served}) <= 5


def test_a_surge_of_queued_calls(serve, connect):
    """The same with checkouts that are made, called and released before any worker is there."""
    client = connect(serve(SOURCE), max_workers=5)
    results = []
    for _ in range(100):
        with client.checkout() as worker:
            results.append((worker.pid.submit(), worker.siblings.submit(), worker.pid.submit()))
    for before, siblings, after in results:
        assert before.get() == after.get()
        assert siblings.get() <= 5
    assert len({before.get() for before, _, _ in results}) <= 5
