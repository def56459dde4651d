"""The point of this test is to ensure that a checkout held for longer than leak_after is logged, once, and counted.

The log shows the line of the program where it was made.
"""

import gc
import inspect
import logging
import os

import gevent
import pytest

from tests.support.waiting import stays, turn_hub, wait_until

SOURCE = """
    import os

    def pid():
        return os.getpid()

    def wait_for_gate():
        with open(os.path.join(DIR, "gate")) as gate:
            gate.read()
"""
LONG = 0.1
"""Seconds; the leak_after of most of these tests."""


@pytest.fixture
def records():
    """What the client logged, with its text as it was then."""
    found = []

    class Handler(logging.Handler):
        def emit(self, record):
            record.text = record.getMessage()
            found.append(record)

    handler, logger = Handler(), logging.getLogger("gtask.client")
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


@pytest.fixture
def leaks(records):
    """``leaks()`` gives the texts that were logged about leaks so far."""
    return lambda: [record.text for record in records if "leak_after" in record.text]


def wait_for_leaks(client, count):
    wait_until(lambda: client.stats().leaks >= count, what=f"{count} leaks")
    turn_hub()  # the log is written in the next turn of the hub


def this_line(offset=0):
    return inspect.currentframe().f_back.f_lineno + offset


def make_one(client):
    return client.checkout()


def test_it_is_logged_with_the_line_where_it_was_made(shared, connect, leaks):
    """The last line of the stack is the caller's, and the lines of its callers stand before it."""
    server = shared(SOURCE)
    client = connect(server, name="shop", leak_after=LONG)
    line = this_line(1)
    checkout = make_one(client)
    pid = checkout.pid()
    wait_for_leaks(client, 1)
    (text,) = leaks()
    assert f"worker {pid}" in text
    assert "'shop'" in text
    assert str(server.address) in text
    assert f"{LONG:g} s" in text
    stack = text.rstrip().splitlines()
    assert stack[-1].strip() == "return client.checkout()"
    assert "in make_one" in stack[-2]
    assert f"line {line}, in test_it_is_logged" in text
    assert "gtask/client" not in text.partition("Made at:")[2]
    checkout.release()


@pytest.mark.parametrize("way", ["call", "remote"])
def test_calls_without_a_checkout_of_ones_own(shared, connect, leaks, tmp_path, way):
    """Of client.call() and client.remote, too, the caller's line is the last."""
    os.mkfifo(tmp_path / "gate")
    client = connect(shared(SOURCE), leak_after=LONG)

    def in_the_program():
        if way == "call":
            client.call("wait_for_gate")
        else:
            client.remote.wait_for_gate()

    caller = gevent.spawn(in_the_program)
    wait_for_leaks(client, 1)
    (tmp_path / "gate").write_text("")
    caller.get()
    (text,) = leaks()
    assert "in wait_for_gate for" in text  # what its worker does
    assert "in in_the_program" in text.rstrip().splitlines()[-2]


def test_the_log_is_a_warning(shared, connect, records):
    """It comes from the logger ``gtask.client`` with the level WARNING."""
    client = connect(shared(SOURCE), leak_after=LONG)
    with client.checkout() as worker:
        worker.pid()
        wait_for_leaks(client, 1)
    (record,) = [record for record in records if "leak_after" in record.text]
    assert (record.name, record.levelno) == ("gtask.client", logging.WARNING)


def test_each_is_logged_once(shared, connect, leaks):
    """Held for much longer it is not told again, nor are others that come to be leaks later."""
    client = connect(shared(SOURCE), leak_after=LONG)
    first = client.checkout()
    first.pid()
    wait_for_leaks(client, 1)
    second = client.checkout()
    second.pid()
    wait_for_leaks(client, 2)
    third = client.checkout()
    third.pid()
    wait_for_leaks(client, 3)
    assert client.stats().leaks == len(leaks()) == 3
    assert len(set(leaks())) == 3


def test_a_worker_that_leaked_once_may_leak_again(shared, connect, leaks):
    """Each checkout of the same worker is looked at anew."""
    client = connect(shared(SOURCE), max_workers=1, leak_after=LONG)
    for count in (1, 2):
        with client.checkout() as worker:
            worker.pid()
            wait_for_leaks(client, count)
    assert client.stats().leaks == len(leaks()) == 2


def test_one_that_ended_before_is_no_leak(shared, connect, leaks):
    """Many short checkouts of a worker are none, however long they are together."""
    client = connect(shared(SOURCE), max_workers=2, leak_after=0.5)
    held = client.checkout()  # for long enough that the others together would be a leak, too
    held.pid()
    while not client.stats().leaks:
        client.call("pid")
    wait_for_leaks(client, 1)
    held.release()
    assert client.stats().checkouts > 2
    assert client.stats().leaks == len(leaks()) == 1


def test_time_in_line_does_not_count(shared, connect, leaks):
    """Who waits for a worker holds none: its time begins with the worker."""
    client = connect(shared(SOURCE), max_workers=1, leak_after=LONG)
    holder = client.checkout()
    holder.pid()
    waiting = client.checkout()
    wait_for_leaks(client, 1)
    stays(lambda: client.stats().leaks == 1, LONG)  # the other has waited for as long, though it came later
    holder.release()
    waiting.pid()
    later = client.checkout()
    wait_for_leaks(client, 2)
    assert client.stats().uses.count == 1
    assert client.stats().uses.longest >= LONG
    waiting.release()
    later.release()
    assert client.stats().uses.buckets[-1] == 0
    assert min(client.stats().waits.longest, client.stats().uses.total / 2) >= LONG


def test_without_leak_after_nothing_is_logged(shared, connect, leaks):
    """The default is no limit."""
    server = shared(SOURCE)
    client, strict = connect(server), connect(server, leak_after=LONG)
    with client.checkout() as worker, strict.checkout() as other:
        worker.pid()
        other.pid()
        wait_for_leaks(strict, 1)
    assert client.stats().leaks == 0
    assert len(leaks()) == 1


def test_a_dropped_one_that_is_collected_in_the_hub(shared, connect, leaks):
    """It is logged with its holder's stack while it is held; collected where nothing may block, its worker serves on.

    It is one of the faults that must do no harm: nothing more is logged, and the hub runs on.
    """
    client = connect(shared(SOURCE), max_workers=1, timeout=None, leak_after=LONG)
    held = [make_one(client)]
    pid = held[0].pid()
    wait_for_leaks(client, 1)
    held.append(held)  # a cycle: only the collector ends it
    following = client.checkout()
    collected = []
    gc.disable()
    try:
        del held
        gevent.get_hub().loop.run_callback(lambda: collected.append(gc.collect()))
        assert following.pid() == pid
    finally:
        gc.enable()
    following.release()
    assert collected
    assert client.stats().leaks == len(leaks()) == 1
    assert "in make_one" in leaks()[0]


def test_one_dropped_in_time_is_no_leak(shared, connect, leaks):
    """A list of checkouts that is cleared in a callback of the hub gives all of its workers back."""
    client = connect(shared(SOURCE), max_workers=3, leak_after=60)
    held = [client.checkout() for _ in range(3)]
    assert len({checkout.pid() for checkout in held}) == 3
    gevent.get_hub().loop.run_callback(held.clear)
    wait_until(lambda: client.stats().idle == 3, what="three idle workers")
    assert client.stats().leaks == 0
    assert leaks() == []


def test_a_log_that_is_broken_does_no_harm(shared, connect):
    """A handler that raises does not keep the pool from counting, nor others from their workers."""

    class Broken(logging.Handler):
        def emit(self, record):
            raise OSError("no space left")

    broken = Broken()
    logger = logging.getLogger("gtask.client")
    logger.addHandler(broken)
    hub, told = gevent.get_hub(), []
    usual = hub.handle_error
    hub.handle_error = lambda *args: told.append(args[1])
    try:
        client = connect(shared(SOURCE), max_workers=1, leak_after=LONG)
        with client.checkout() as worker:
            worker.pid()
            wait_for_leaks(client, 1)
            wait_until(lambda: told, what="the end of the logging")
        assert client.call("pid")
        assert client.stats().leaks == 1
    finally:
        hub.handle_error = usual
        logger.removeHandler(broken)
