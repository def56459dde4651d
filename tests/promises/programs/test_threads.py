"""The point of this test is to ensure that a client says so clearly when it is used in another OS thread than its own.

Nothing is done then, and nothing is harmed. Only a release is allowed anywhere: the hub of the client's thread carries
it out. Threads that want to call have a client each.
"""

import gc
import os
import textwrap
import threading

import gevent
import pytest

import gtask
from tests.support.program import run_program
from tests.support.waiting import turn_hub, wait_until

SOURCE = """
    import os

    def pid():
        return os.getpid()

    def echo(value):
        return value

    def hold():
        open(os.path.join(DIR, "inside"), "w").close()
        with open(os.path.join(DIR, "gate")) as gate:
            gate.read()
"""


def in_thread(function, *args):
    """Run a function in an OS thread of its own; return what it returns, or raise what it raises.

    The hub of this thread stands still meanwhile.
    """
    outcome = []

    def run():
        try:
            outcome.append((function(*args), None))
        except BaseException as error:  # to be raised in the test
            outcome.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    ((value, error),) = outcome
    if error is not None:
        raise error
    return value


def enter(checkout):
    with checkout:
        checkout.pid()


USES = {
    "checkout": lambda client, checkout: client.checkout(),
    "call": lambda client, checkout: client.call("pid"),
    "remote": lambda client, checkout: client.remote.pid(),
    "open": lambda client, checkout: client.open(),
    "open and wait": lambda client, checkout: client.open(wait=True, timeout=1),
    "close": lambda client, checkout: client.close(),
    "close and wait": lambda client, checkout: client.close(timeout=1),
    "end of the client's with block": lambda client, checkout: client.__exit__(None, None, None),
    "drain": lambda client, checkout: client.drain(),
    "resize": lambda client, checkout: client.resize(0, 5),
    "a call on a checkout": lambda client, checkout: checkout.pid(),
    "a call by name": lambda client, checkout: checkout.call("pid"),
    "a call as a function": lambda client, checkout: checkout("pid"),
    "submit": lambda client, checkout: checkout.pid.submit(),
    "submit as a function": lambda client, checkout: checkout.submit("pid"),
    "cancel": lambda client, checkout: checkout.cancel(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_any_use_is_refused(shared, connect, use):
    """The error names both threads and the remedy, and all is as it was before."""
    client = connect(shared(SOURCE), name="shop", max_workers=2)
    with client.checkout() as checkout:
        pid = checkout.pid()
        before, books = client.stats(), repr(client)
        with pytest.raises(gtask.WrongThread) as told:
            in_thread(use, client, checkout)
        assert (client.stats(), repr(client)) == (before, books)
        assert checkout.pid() == pid
    assert client.call("pid") == pid
    for words in ("'shop'", f"thread {threading.get_ident()}", "a client of its own"):
        assert words in str(told.value)
    assert isinstance(told.value, RuntimeError)
    assert not told.value.sticky


def test_a_with_block_in_another_thread(shared, connect):
    """Its calls are refused; its end gives the worker back."""
    client = connect(shared(SOURCE), max_workers=1)
    checkout = client.checkout()
    pid = checkout.pid()
    with pytest.raises(gtask.WrongThread):
        in_thread(enter, checkout)
    wait_until(lambda: client.stats().idle == 1, what="the release")
    assert client.call("pid") == pid


def test_a_checkout_that_is_still_in_line(shared, connect):
    """It keeps its place, and is served in its own thread."""
    client = connect(shared(SOURCE), max_workers=1)
    holder = client.checkout()
    holder.pid()
    waiting = client.checkout()
    with pytest.raises(gtask.WrongThread):
        in_thread(waiting.pid)
    with pytest.raises(gtask.WrongThread):
        in_thread(waiting.cancel)
    holder.release()
    assert waiting.pid()
    waiting.release()


@pytest.mark.parametrize("way", ["release", "end of the with block", "drop"])
def test_a_release_is_carried_out_by_the_owner(shared, connect, way):
    """Not in that thread, but in the next turn of the hub of the client's own."""
    client = connect(shared(SOURCE), max_workers=1)
    checkouts = [client.checkout()]
    pid = checkouts[0].pid()
    if way == "release":
        in_thread(checkouts[0].release)
    elif way == "drop":
        in_thread(checkouts.clear)
    else:
        in_thread(checkouts[0].__exit__, None, None, None)
    assert client.stats().busy == 1  # the hub has had no turn yet
    following = client.checkout()
    assert following.pid() == pid
    following.release()


def test_a_release_wakes_the_owner(shared, connect):
    """A greenlet that waits for the worker gets it though nothing else happens in its thread."""
    client = connect(shared(SOURCE), max_workers=1, timeout=None)
    checkout = client.checkout()
    pid = checkout.pid()
    waits = threading.Event()

    def release():
        waits.wait(10)
        checkout.release()

    thread = threading.Thread(target=release)
    thread.start()
    following = client.checkout()
    gevent.get_hub().loop.run_callback(waits.set)
    assert following.pid() == pid
    thread.join(10)
    following.release()


def test_a_release_with_calls_under_way(shared, connect, tmp_path):
    """They finish first, as with any release."""
    os.mkfifo(tmp_path / "gate")
    client = connect(shared(SOURCE), max_workers=1)
    checkout = client.checkout()
    results = [checkout.hold.submit(), checkout.echo.submit("second")]
    wait_until((tmp_path / "inside").exists)
    in_thread(checkout.release)
    turn_hub()
    (tmp_path / "gate").write_text("")
    assert [result.get() for result in results] == [None, "second"]
    wait_until(lambda: client.stats().idle == 1, what="the release")


def test_a_release_of_what_is_released(shared, connect):
    """It does nothing, from wherever."""
    client = connect(shared(SOURCE), max_workers=1)
    checkout = client.checkout()
    checkout.pid()
    checkout.release()
    following = client.checkout()
    in_thread(checkout.release)
    assert following.pid()
    assert client.stats().busy == 1
    following.release()


def test_a_client_that_is_dropped_in_another_thread(shared):
    """Its pool is closed by the hub of its own thread."""
    clients = [gtask.Client(shared(SOURCE).address, min_workers=0)]
    pid = clients[0].call("pid")

    def drop():
        clients.clear()
        gc.collect()

    in_thread(drop)
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), what="the end of the worker")


def test_what_only_looks_is_allowed(shared, connect):
    """stats() and reprs are for those who watch, in whatever thread."""
    client = connect(shared(SOURCE))
    with client.checkout() as checkout:
        checkout.pid()
        assert in_thread(client.stats) == client.stats()
        assert in_thread(repr, client) == repr(client)
        assert in_thread(repr, checkout) == repr(checkout)


def test_the_first_user_is_the_owner(shared):
    """Construction binds a client to no thread: it belongs to the one that uses it first."""
    client = gtask.Client(shared(SOURCE).address, min_workers=0)

    def use():
        try:
            return client.call("echo", 1), threading.get_ident()
        finally:
            client.close()
            gevent.get_hub().destroy()

    assert in_thread(use)[0] == 1


def test_a_client_for_each_thread(shared):
    """Several threads call at the same time, each with a hub and a client of its own."""
    address = shared(SOURCE).address
    values = {}

    def work(me):
        with gtask.Client(address, min_workers=0, max_workers=2, timeout=30) as client:
            values[me] = [client.call("echo", [me, number]) for number in range(20)]
        gevent.get_hub().destroy()

    threads = [threading.Thread(target=work, args=(me,)) for me in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert values == {me: [[me, number] for number in range(20)] for me in range(3)}


PROGRAM = """
import gevent, os, sys, threading
import gtask
from gtask import testing

address = sys.argv[1]
threadpool = gevent.get_hub().threadpool

def attempt(use, *args):
    try:
        use(*args)
    except gtask.WrongThread as error:
        return "a client of its own" in str(error)

def refused(use, *args):
    return threadpool.apply(attempt, (use, *args))

client = gtask.Client(address, min_workers=0, max_workers=2, timeout=30)
with client.checkout() as checkout:
    pid = checkout.pid()
    assert refused(checkout.pid)
    assert refused(client.call, "pid")
    assert refused(client.checkout)
    assert refused(client.close)
    assert refused(checkout.cancel)
    assert checkout.pid() == pid
    threadpool.apply(checkout.release)
    testing.wait_until(lambda: client.stats().idle == 1, 30)
"""


def run(tmp_path, address, source):
    assert run_program(source, address, directory=tmp_path, options=()).stderr == ""


def test_the_threadpool_of_gevent(serve, tmp_path, unmeasured):
    """Its threads are OS threads, too: use is refused, and release works."""
    run(tmp_path, serve(SOURCE).address, PROGRAM)


def test_under_monkey_patching(serve, tmp_path, unmeasured):
    """There, a thread is a greenlet, and may use the client; one of the threadpool is none, and may not."""
    run(
        tmp_path,
        serve(SOURCE).address,
        "from gevent import monkey; monkey.patch_all()\n"
        + PROGRAM
        + textwrap.dedent("""
            values = []
            threads = [threading.Thread(target=lambda: values.append(client.call("echo", 7))) for _ in range(5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert values == [7] * 5
            checkout = client.checkout()
            checkout.pid()
            thread = threading.Thread(target=checkout.release)
            thread.start()
            thread.join()
            assert client.stats().busy == 0
        """),
    )
