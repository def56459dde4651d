"""The point of this test is to ensure that max_workers=1 serves checkouts strictly in the order they were made.

The worker of a checkout that is released is the next one's. Nobody overtakes, and who has given up is passed over.
"""

import gevent

from tests.support.waiting import turn_hub

SOURCE = """
    import os

    seen = []

    def note(what):
        seen.append(what)
        return os.getpid()

    def history():
        return seen
"""


def test_the_order_of_the_checkouts_counts_not_that_of_the_calls(shared, connect):
    """20 checkouts are made, and called and released in the opposite order."""
    client = connect(shared(SOURCE), max_workers=1)
    checkouts = [client.checkout() for _ in range(20)]
    results = []
    for place in reversed(range(20)):
        results.append(checkouts[place].note.submit(place))
        checkouts[place].release()
    assert len({result.get() for result in results}) == 1
    assert client.call("history") == list(range(20))


def test_nobody_overtakes(shared, connect):
    """Who releases and at once asks again stands behind those who wait already."""
    client = connect(shared(SOURCE), max_workers=1)

    def work(name):
        for turn in range(3):
            with client.checkout() as worker:
                worker.note([turn, name])
                turn_hub()
                worker.note([turn, name])

    workers = [gevent.spawn(work, name) for name in "abcd"]
    gevent.joinall(workers, raise_error=True)
    assert client.call("history") == [[turn, name] for turn in range(3) for name in "abcd" for _ in range(2)]


def test_who_gave_up_is_passed_over(shared, connect):
    """One in line releases, one is dropped, one's greenlet is killed; the others keep their order."""
    client = connect(shared(SOURCE), max_workers=1)
    holder = client.checkout()
    holder.note("holder")

    def work(name):
        with client.checkout() as worker:
            worker.note(name)

    first = gevent.spawn(work, "first")
    turn_hub()
    released, dropped = client.checkout(), client.checkout()
    killed = gevent.spawn(work, "killed")
    turn_hub()
    last = gevent.spawn(work, "last")
    turn_hub()
    released.release()
    del dropped
    killed.kill()
    holder.release()
    gevent.joinall([first, last], raise_error=True)
    assert client.call("history") == ["holder", "first", "last"]


def test_a_waiter_killed_in_the_tick_of_its_hand_off_passes_the_worker_on(shared, connect):
    """The kill is on its way when the worker is handed over; neither the worker nor the next in line is lost."""
    client = connect(shared(SOURCE), max_workers=1, timeout=None)
    holder = client.checkout()
    holder.note("holder")

    def wait_with(checkout, name):
        with checkout:
            return checkout.note(name)

    killed = gevent.spawn(wait_with, client.checkout(), "killed")
    following = gevent.spawn(wait_with, client.checkout(), "following")
    turn_hub()
    killed.kill(block=False)
    holder.release()
    gevent.joinall([killed, following])
    assert following.successful()
    assert client.call("history")[-1] == "following"
