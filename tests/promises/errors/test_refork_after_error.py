"""The point of this test is to ensure that a worker which raised is replaced at release, or kept if so told.

Within a checkout it is kept always, so that the caller can roll back or look at its state.
"""

import os

import pytest

from tests.support.waiting import wait_until

SOURCE = """
    import os

    rows = []

    def insert(row):
        if row is None:
            raise ValueError("no row")
        rows.append(row)

    def rollback():
        done = rows[:]
        rows.clear()
        return done

    def pid():
        return os.getpid()
"""


def is_gone(pid):
    return not os.path.exists(f"/proc/{pid}")


def test_by_default_the_next_checkout_has_a_new_worker(shared, connect):
    """And the worker that raised exits."""
    client = connect(shared(SOURCE), max_workers=1)
    with client.checkout() as worker:
        first = worker.pid()
        with pytest.raises(ValueError, match="no row"):
            worker.insert(None)
    assert client.call("pid") != first
    wait_until(lambda: is_gone(first), what="the end of the worker that raised")


def test_an_error_that_nobody_fetched_counts_too(shared, connect):
    """Submitted, raised, and the checkout released before the reply was there."""
    client = connect(shared(SOURCE), max_workers=1)
    with client.checkout() as worker:
        first = worker.pid()
        worker.insert.submit(None)
    assert client.call("pid") != first


def test_without_an_error_the_worker_is_kept(shared, connect):
    """Ten checkouts, one worker."""
    client = connect(shared(SOURCE), max_workers=1)
    assert len({client.call("pid") for _ in range(10)}) == 1


def test_with_refork_after_error_false_it_is_kept(shared, connect):
    """The next checkout has the same worker, though two calls raised."""
    client = connect(shared(SOURCE), max_workers=1, refork_after_error=False)
    with client.checkout() as worker:
        first = worker.pid()
        with pytest.raises(ValueError, match="no row"):
            worker.insert(None)
    with pytest.raises(ValueError, match="no row"):
        client.call("insert", None)
    assert client.call("pid") == first


@pytest.mark.parametrize("refork_after_error", [True, False])
def test_within_its_checkout_it_is_kept_always(shared, connect, refork_after_error):
    """After the error the caller rolls back, on the same worker, and goes on."""
    client = connect(shared(SOURCE), refork_after_error=refork_after_error)
    with client.checkout() as worker:
        first = worker.pid()
        worker.insert("a")
        worker.insert("b")
        with pytest.raises(ValueError, match="no row"):
            worker.insert(None)
        assert worker.rollback() == ["a", "b"]
        worker.insert("c")
        with pytest.raises(ValueError, match="no row"):
            worker.insert.submit(None).get()
        assert worker.rollback() == ["c"]
        assert worker.pid() == first
