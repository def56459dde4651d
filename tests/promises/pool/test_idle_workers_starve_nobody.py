"""The point of this test is to ensure that the idle workers of one client do not keep all others waiting.

A server that has as many workers as ``max_workers`` allows, and connections that wait, takes idle workers back one by
one. Their client notices nothing but a retirement.
"""

import gevent
import pytest

import gtask
from tests.support.waiting import stays, turn_hub, wait_until

SOURCE = """
    import time

    def echo(value):
        return value

    def rest(seconds):
        time.sleep(seconds)
"""

MOST = 4


@pytest.fixture
def server(serve):
    return serve(SOURCE, "--max-workers", str(MOST))


def fill(client, number=MOST):
    """Use this number of workers at once, and leave them idle."""
    checkouts = [client.checkout() for _ in range(number)]
    for checkout in checkouts:
        checkout.echo(1)
    for checkout in checkouts:
        checkout.release()


def test_another_client_is_served(server, connect):
    """Though the first client keeps what it once needed for ten minutes."""
    first = connect(server.address, min_workers=0, max_workers=MOST, timeout=60)
    fill(first)
    second = connect(server.address, min_workers=0, max_workers=MOST, timeout=60)
    assert second.call("echo", 2) == 2
    assert first.stats().retirements == {"others wait for a worker": 1}
    fill(second)
    assert first.stats().idle == 0
    assert second.stats().busy + second.stats().idle == MOST


def test_nobody_gets_an_error(server, connect):
    """While three clients with as many workers each as there may be in all use them in turns."""
    clients = [connect(server.address, min_workers=1, max_workers=MOST, timeout=120) for _ in range(3)]

    def work(client, number):
        for turn in range(10):
            with client.checkout() as checkout:
                assert checkout.echo((number, turn)) == [number, turn]
            for _ in range(number % 3):
                turn_hub()

    greenlets = [gevent.spawn(work, client, number) for number, client in enumerate(clients * 3)]
    gevent.joinall(greenlets, raise_error=True)
    assert sum(client.stats().errors + sum(client.stats().deaths.values()) for client in clients) == 0


def test_lent_workers_are_left_alone(server, connect):
    """A checkout keeps its worker, called or not; a second client waits, and its error says that the server is full."""
    first = connect(server.address, min_workers=0, max_workers=MOST, timeout=60)
    held = [first.checkout() for _ in range(MOST)]
    for checkout in held:
        checkout.echo(1)
    second = connect(server.address, min_workers=0, max_workers=1, timeout=1)
    with pytest.raises(gtask.AcquireTimeout, match="connected, but no worker has greeted"):
        second.call("echo", 2)
    assert [checkout.echo(3) for checkout in held] == [3] * MOST
    assert first.stats().retirements == {}
    for checkout in held:
        checkout.release()
    wait_until(lambda: second.call("echo", 4) == 4)


def test_nobody_is_asked_without_need(server, connect):
    """A full server at which nobody waits lets its clients keep their workers."""
    client = connect(server.address, min_workers=0, max_workers=MOST, timeout=60)
    fill(client)
    stays(lambda: (client.stats().idle, client.stats().retirements) == (MOST, {}), 1)  # while it looks several times
