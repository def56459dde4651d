"""The point of this test is to ensure that workers which nobody needs end, one per max_idle, down to min_workers.

Needed are as many as were in use at the busiest moment of the last max_idle seconds: the others were idle all the time.
"""

import time

import pytest

from tests.support.waiting import stays, wait_until

SOURCE = """
    import os

    def pid():
        return os.getpid()
"""


def lend(client, number):
    """So many checkouts, each with its worker, and their pids."""
    checkouts = [client.checkout() for _ in range(number)]
    return checkouts, [checkout.pid() for checkout in checkouts]


def burst(client, number):
    """So many workers are in use at once for a moment; their pids."""
    checkouts, pids = lend(client, number)
    for checkout in checkouts:
        checkout.release()
    return pids


def ended(client):
    return client.stats().retirements.get("max_idle", 0)


def test_one_after_the_other_ends_down_to_the_minimum(shared, connect):
    """Of five, three: never two in the same moment, and each of them takes at least max_idle."""
    client = connect(shared(SOURCE), min_workers=2, max_workers=5, max_idle=0.1)
    checkouts, pids = lend(client, 5)
    begun = time.monotonic()
    for checkout in checkouts:
        checkout.release()
    seen = [5]

    def look():
        idle = client.stats().idle
        if idle != seen[-1]:
            seen.append(idle)
        return idle <= 2

    wait_until(look, what="the end of three")
    assert seen == [5, 4, 3, 2]
    assert time.monotonic() - begun >= 3 * 0.1
    assert client.stats().retirements == {"max_idle": 3}
    # Those that were used last are the ones that stay.
    assert sorted(burst(client, 2)) == sorted(pids[3:])


def test_with_no_minimum_all_end(shared, connect):
    """And later ones come when they are needed, and end again."""
    client = connect(shared(SOURCE), max_idle=0.05)
    pids = burst(client, 2)
    wait_until(lambda: client.stats().idle == 0, what="the end of both")
    assert client.call("pid") not in pids
    wait_until(lambda: client.stats().idle == 0, what="the end of the new one")
    assert client.stats().retirements == {"max_idle": 3}


def test_the_minimum_stays_for_good(shared, connect):
    """Nothing ends and nothing is replaced, however long they are idle: here for ten times max_idle."""
    client = connect(shared(SOURCE), min_workers=2, max_idle=0.02)
    client.open(wait=True)
    pids = burst(client, 2)
    stays(lambda: client.stats().retirements == {}, 0.2)
    assert sorted(burst(client, 2)) == sorted(pids)
    assert client.stats().connects == 2


def test_lent_workers_do_not_end(shared, connect):
    """Held for many times max_idle; only the idle one beside them ends."""
    client = connect(shared(SOURCE), max_idle=0.03)
    checkouts, pids = lend(client, 3)
    checkouts[2].release()
    wait_until(lambda: ended(client) == 1, what="the end of the idle one")
    stays(lambda: client.stats().busy == 2, 0.15)
    assert [checkout.pid() for checkout in checkouts[:2]] == pids[:2]
    stats = client.stats()
    assert (stats.busy, stats.idle, stats.retirements) == (2, 0, {"max_idle": 1})


@pytest.mark.parametrize("lifo", [True, False])
def test_those_that_a_burst_needs_stay(shared, connect, lifo):
    """Two are in use now and then, all are idle most of the time: of four, two end, and these two serve on."""
    client = connect(shared(SOURCE), max_idle=1.0, lifo=lifo)
    burst(client, 4)

    wait_until(lambda: burst(client, 2) and ended(client) == 2, what="the end of two")
    pids = set(burst(client, 2))
    stays(lambda: set(burst(client, 2)) == pids and ended(client) == 2, 2.0)  # twice max_idle
    assert client.stats().connects == 4
    wait_until(lambda: client.stats().idle == 0, what="the end of the others, now unused")


def test_by_choice_all_stay(shared, connect):
    """With max_idle=None there is no alarm at all, so nothing can end them."""
    client = connect(shared(SOURCE), max_idle=None)
    burst(client, 3)
    stays(lambda: (client.stats().idle, client.stats().retirements) == (3, {}), 0.1)


def test_a_lower_minimum_counts_from_then_on(shared, connect):
    """What resize makes superfluous ends in the same way."""
    client = connect(shared(SOURCE), min_workers=3, max_workers=3, max_idle=0.05)
    client.open(wait=True)
    stays(lambda: client.stats().idle == 3, 0.1)
    client.resize(1, 3)
    wait_until(lambda: client.stats().idle == 1, what="the end of two")
    assert client.stats().retirements == {"max_idle": 2}


def test_a_higher_minimum_counts_at_once(shared, connect):
    """What was superfluous when the time began to run is kept, if it is not superfluous when that is over."""
    client = connect(shared(SOURCE), min_workers=2, max_idle=0.1)
    burst(client, 4)
    wait_until(lambda: ended(client) == 1, what="the end of the first")
    client.resize(3, 20)
    stays(lambda: client.stats().idle == 3, 0.3)
    stats = client.stats()
    assert (stats.idle, stats.retirements, stats.connects) == (3, {"max_idle": 1}, 4)
