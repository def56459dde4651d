"""The point of this test is to ensure that of several idle workers the one that was used last is lent next.

Its caches are warm, and those that nobody needs stay unused and may end. With ``lifo=False`` it is the one that has
been idle for longest.
"""

SOURCE = """
    import os

    def pid():
        return os.getpid()
"""


def three_idle(client):
    """The pids of three workers, in the order in which they came back."""
    checkouts = [client.checkout() for _ in range(3)]
    pids = [checkout.pid() for checkout in checkouts]
    for checkout in checkouts:
        checkout.release()
    return pids


def test_by_default_the_last_used_is_the_first_lent(shared, connect):
    """Again and again as long as one is enough, and the one before it where two are needed."""
    client = connect(shared(SOURCE))
    first, second, third = three_idle(client)
    assert [client.call("pid") for _ in range(4)] == [third] * 4
    with client.checkout() as one, client.checkout() as other:
        assert [one.pid(), other.pid()] == [third, second]
    # The blocks end inside out: the other is released first.
    assert client.call("pid") == third
    with client.checkout(), client.checkout(), client.checkout() as worker:
        assert worker.pid() == first


def test_the_order_of_return_counts(shared, connect):
    """Not the order in which they were lent or connected."""
    client = connect(shared(SOURCE))
    one, other = client.checkout(), client.checkout()
    pid = one.pid()
    assert other.pid() != pid
    other.release()
    one.release()
    assert client.call("pid") == pid


def test_by_choice_the_longest_idle_is_the_first_lent(shared, connect):
    """All take turns."""
    client = connect(shared(SOURCE), lifo=False)
    pids = three_idle(client)
    assert [client.call("pid") for _ in range(6)] == pids * 2
