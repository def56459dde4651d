"""The point of this test is to ensure that dropping the last reference to a checkout releases it.

Wherever that happens: calls that were submitted finish first, and a collection by the cycle collector in a callback of
the hub, where nothing may block, does no harm.
"""

import gc
import os

import gevent
import pytest

from tests.support.waiting import turn_hub, wait_until

SOURCE = """
    import os

    def pid():
        return os.getpid()

    def note(text):
        with open(os.path.join(DIR, "ran"), "a") as file:
            file.write(text + "\\n")
        return text

    def hold():
        open(os.path.join(DIR, "inside"), "w").close()
        with open(os.path.join(DIR, "gate")) as gate:
            gate.read()
        return note("held")
"""
WITH_HOOK = (
    SOURCE
    + """
    def checkout_done():
        note("done")
"""
)


def test_the_next_one_gets_the_worker(shared, connect):
    """Kept in a variable, or never kept at all."""
    client = connect(shared(SOURCE), max_workers=1, timeout=None)
    checkout = client.checkout()
    pid = checkout.pid()
    del checkout
    assert client.checkout().pid() == pid
    method = client.checkout().pid
    assert method() == pid
    del method
    assert client.call("pid") == pid


def test_submitted_calls_finish_first(shared, connect, tmp_path):
    """The next checkout's calls run behind them, on the same worker."""
    os.mkfifo(tmp_path / "gate")
    client = connect(shared(SOURCE), max_workers=1, timeout=None)
    checkout = client.checkout()
    results = [checkout.hold.submit(), checkout.note.submit("second")]
    wait_until((tmp_path / "inside").exists)
    del checkout
    following = gevent.spawn(client.call, "note", "following")
    turn_hub()
    (tmp_path / "gate").write_text("")
    assert [result.get() for result in results] == ["held", "second"]
    assert following.get() == "following"
    assert (tmp_path / "ran").read_text().split() == ["held", "second", "following"]


def test_calls_that_are_not_yet_sent_finish_too(shared, connect, tmp_path):
    """Submitted and dropped while the worker was another's."""
    client = connect(shared(SOURCE), max_workers=1, timeout=None)
    holder = client.checkout()
    holder.pid()
    results = [client.checkout().note.submit(text) for text in ("first", "second")]
    turn_hub()
    holder.release()
    assert [result.get() for result in results] == ["first", "second"]
    assert client.call("note", "third") == "third"
    assert (tmp_path / "ran").read_text().split() == ["first", "second", "third"]


def test_a_place_in_line_is_given_up(shared, connect):
    """Dropped while it waited and before it had called."""
    client = connect(shared(SOURCE), max_workers=1, timeout=None)
    holder = client.checkout()
    pid = holder.pid()
    waiting, following = client.checkout(), client.checkout()
    del waiting
    holder.release()
    assert following.pid() == pid


@pytest.mark.parametrize("source", [SOURCE, WITH_HOOK], ids=["without a hook", "with checkout_done"])
def test_the_cycle_collector_may_run_in_a_callback_of_the_hub(serve, connect, source):
    """Two checkouts in cycles, one with a worker and one in line, are collected where nothing may switch."""
    client = connect(serve(source), max_workers=1, timeout=None)
    holder = [client.checkout()]
    pid = holder[0].pid()
    waiting = [client.checkout()]
    holder.append(holder)
    waiting.append(waiting)
    following = client.checkout()
    collected = []
    gc.disable()
    try:
        del holder, waiting
        gevent.get_hub().loop.run_callback(lambda: collected.append(gc.collect()))
        assert following.pid() == pid
    finally:
        gc.enable()
    assert collected
    following.release()


def test_a_checkout_in_use_is_not_dropped(serve, connect, tmp_path):
    """The call itself keeps it: its worker is not lent to another meanwhile."""
    os.mkfifo(tmp_path / "gate")
    client = connect(serve(WITH_HOOK), max_workers=1, timeout=None)
    call = gevent.spawn(lambda: client.checkout().hold())
    wait_until((tmp_path / "inside").exists)
    gc.collect()
    following = gevent.spawn(client.call, "note", "following")
    turn_hub()
    (tmp_path / "gate").write_text("")
    assert call.get() == "held"
    following.get()
    wait_until(lambda: len((tmp_path / "ran").read_text().split()) == 4)
    assert (tmp_path / "ran").read_text().split() == ["held", "done", "following", "done"]
