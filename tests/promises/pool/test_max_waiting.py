"""The point of this test is to ensure that max_waiting bounds the line: who would be one too many is told so at once.

Those for whom a worker may still be connected do not count as too many. The error says how long the line is, how long
one waits in it, and what can be done.
"""

import re

import gevent
import pytest

import gtask
from tests.support.waiting import stays, turn_hub, wait_until

SOURCE = """
    def echo(value):
        return value
"""


def test_one_too_many_is_rejected_at_once(shared, connect):
    """By client.checkout() itself, without a turn of the hub; those in line are served in their order."""
    client = connect(shared(SOURCE), max_workers=1, max_waiting=2)
    holder = client.checkout()
    holder.echo("the only worker")
    order, turns = [], []

    def wait(number):
        with checkouts[number] as worker:
            order.append(worker.echo(number))

    checkouts = [client.checkout() for _ in range(2)]
    gevent.spawn(turns.append, "the hub has run")
    for ask in (client.checkout, lambda: client.call("echo", 1), lambda: client.remote.echo(1)):
        with pytest.raises(gtask.Overloaded):
            ask()
    assert not turns
    waiters = [gevent.spawn(wait, number) for number in range(2)]
    holder.release()
    gevent.joinall(waiters, raise_error=True)
    assert order == [0, 1]


def test_a_worker_may_still_be_connected(serve, connect, tmp_path):
    """With room for three workers, of which none is there yet, three wait for these, and only then is there a line."""
    client = connect(f"unix:{tmp_path}/late.sock", max_workers=3, max_waiting=1)
    checkouts = [client.checkout() for _ in range(4)]
    with pytest.raises(gtask.Overloaded):
        client.checkout()
    serve(SOURCE, address=f"unix:{tmp_path}/late.sock")
    for checkout in checkouts[:3]:
        assert checkout.echo("there") == "there"
    assert client.stats().waiting == 1
    with pytest.raises(gtask.Overloaded):
        client.checkout()
    checkouts[0].release()
    assert checkouts[3].echo("there") == "there"


def test_nobody_may_wait(shared, connect):
    """With max_waiting=0, who cannot have a worker is told so; as soon as one is free, the next may have it."""
    client = connect(shared(SOURCE), max_workers=2, max_waiting=0)
    holders = [client.checkout() for _ in range(2)]
    for holder in holders:
        holder.echo("taken")
    with pytest.raises(gtask.Overloaded, match="nobody may wait in line"):
        client.checkout()
    holders.pop().release()
    with client.checkout() as worker:
        assert worker.echo("free") == "free"
        with pytest.raises(gtask.Overloaded):
            client.checkout()


def test_the_message(shared, connect):
    """It names client and address, tells how long the line is and how long one waits in it, and what to do."""
    server = shared(SOURCE)
    client = connect(server, name="shop", max_workers=1, max_waiting=2)
    holder = client.checkout()
    holder.echo("taken")
    waiting = [client.checkout() for _ in range(2)]
    stays(lambda: client.stats().waiting == 2, 0.15)
    with pytest.raises(gtask.Overloaded) as caught:
        client.checkout()
    said = str(caught.value)
    assert "'shop'" in said
    assert str(server.address) in said
    told = re.search(r"all workers are taken and 2 wait in line, the first for (\S+) s", said)
    assert told is not None
    assert float(told[1]) >= 0.15
    assert "(max_waiting=2)" in said
    for remedy in ("raise max_workers", "make the calls shorter", "send fewer", "or raise max_waiting"):
        assert remedy in said
    del waiting


def test_it_is_counted(shared, connect):
    """As rejected, and as nothing else: it neither waited nor timed out."""
    client = connect(shared(SOURCE), max_workers=1, max_waiting=1)
    with client.checkout() as holder:
        holder.echo("taken")
        waiting = client.checkout()
        for _ in range(3):
            with pytest.raises(gtask.Overloaded):
                client.checkout()
        stats = client.stats()
    assert (stats.rejected, stats.waiting, stats.checkouts) == (3, 1, 1)
    assert (stats.shed, stats.acquire_timeouts, stats.errors) == (0, 0, 0)
    waiting.release()
    assert client.pop_stats().rejected == 3
    assert client.stats().rejected == 0


@pytest.mark.parametrize("way", ["released", "cancelled", "timed out", "killed", "dropped"])
def test_a_place_that_is_given_up_is_free(shared, connect, way):
    """However somebody leaves the line, another may stand in it."""
    client = connect(shared(SOURCE), max_workers=1, max_waiting=1)
    holder = client.checkout()
    holder.echo("taken")
    waiting = client.checkout(timeout=0.05 if way == "timed out" else None)
    with pytest.raises(gtask.Overloaded):
        client.checkout()
    if way == "released":
        waiting.release()
    elif way == "cancelled":
        waiting.cancel()
    elif way == "timed out":
        with pytest.raises(gtask.AcquireTimeout):
            waiting.echo(1)
    elif way == "killed":
        caller = gevent.spawn(waiting.echo, 1)
        turn_hub()
        del waiting
        caller.kill()
        del caller
    else:
        del waiting
    wait_until(lambda: client.stats().waiting == 0, what="an empty line")
    following = client.checkout()
    with pytest.raises(gtask.Overloaded):
        client.checkout()
    holder.release()
    assert following.echo("next") == "next"


def test_there_is_no_limit_by_default(shared, connect):
    """A thousand may wait for one worker, and all are served."""
    client = connect(shared(SOURCE), max_workers=1)
    holder = client.checkout()
    holder.echo("taken")
    callers = [gevent.spawn(client.call, "echo", number) for number in range(1000)]
    wait_until(lambda: client.stats().waiting == 1000)
    holder.release()
    assert [caller.get() for caller in callers] == list(range(1000))
    assert client.stats().rejected == 0
