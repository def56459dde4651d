"""The point of this test is to ensure that max_checkouts replaces a worker after it was lent so many times.

Whatever leaks in the application's code leaks no further.
"""

import os

import pytest

from gtask import testing

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
    testing.wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), what="the end of the workers")


def test_by_default_there_is_no_limit(serve, connect):
    """50 checkouts, one worker."""
    client = connect(serve(SOURCE), max_workers=1)
    assert len({client.call("pid") for _ in range(50)}) == 1
