"""The point of this test is to ensure that an error of gtask is freed with the frames that it has passed, at once.

A program that turns garbage collection off, or makes large things in the frames of refused requests, must not keep
them: no error is in a cycle with its traceback, and a checkout in such a frame is given back.
"""

import gc
import threading
import weakref

import pytest

import gtask
from gtask.testing import wait_until
from tests.support.waiting import turn_hub

SOURCE = """
    import os
    import time

    def echo(value):
        return value

    def fail(text):
        raise ValueError(text)

    def die():
        os._exit(3)

    def rest(seconds):
        time.sleep(seconds)

    def unencodable():
        return object()
"""

FAILING = """
    class Failing:
        def setup(self):
            raise ValueError("no setup")

        def echo(self, value):
            return value

    failing = Failing()
"""


class Large:
    """Something in the frame of a caller."""


def with_checkout(act):
    """A caller with a checkout in a variable, without a with block."""

    def caller(client):
        checkout = client.checkout()
        act(checkout)

    return caller


def overloaded_by_line(client):
    first = client.checkout()
    first.echo(1)
    others = [client.checkout() for _ in range(3)]
    assert others


def overloaded_by_queue(checkout):
    for _ in range(10):
        checkout.rest.submit(0.01)


def acquire_timeout(client):
    first = client.checkout()
    first.echo(1)
    second = client.checkout(timeout=0.05)
    second.echo(2)


def nested(client):
    with client.checkout() as first, client.checkout() as second:
        first.echo(1)
        second.echo(2)


def after(end):
    def caller(client):
        checkout = client.checkout()
        checkout.echo(1)
        end(client, checkout)
        checkout.echo(2)

    return caller


def cancel_and_call(client, checkout):
    checkout.cancel()
    with pytest.raises(gtask.Cancelled):
        checkout.echo(1)


def dropped(checkout):
    checkout.fail.submit("first")
    checkout.echo.submit(2).get()


def in_another_thread(client):
    client.open()
    found = []

    def use():
        try:
            client.checkout()
        except gtask.WrongThread as error:
            found.append(type(error))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    raise found[0]()


CASES = {
    "an argument that cannot travel": (gtask.EncodeError, with_checkout(lambda one: one.echo(object()))),
    "a submitted one": (gtask.EncodeError, with_checkout(lambda one: one.echo.submit(object()))),
    "one of client.call": (gtask.EncodeError, lambda client: client.call("echo", object())),
    "an argument too large": (gtask.EncodeError, with_checkout(lambda one: one.echo(b"x" * 200_000))),
    "an exception": (gtask.RemoteError, with_checkout(lambda one: one.fail("x"))),
    "an exception of client.call": (gtask.RemoteError, lambda client: client.call("fail", "x")),
    "a submitted exception": (gtask.RemoteError, with_checkout(lambda one: one.fail.submit("x").get())),
    "a value that cannot travel": (gtask.Error, with_checkout(lambda one: one.unencodable())),
    "a death": (gtask.WorkerDied, with_checkout(lambda one: one.die())),
    "a submitted death": (gtask.WorkerDied, with_checkout(lambda one: one.die.submit().get())),
    "a dropped call": (gtask.CallDropped, with_checkout(dropped)),
    "a time-out": (gtask.CallTimeout, lambda client: client.checkout(timeout=0.05).rest(60)),
    "a full line": (gtask.Overloaded, overloaded_by_line),
    "a full queue": (gtask.Overloaded, with_checkout(overloaded_by_queue)),
    "no worker in time": (gtask.AcquireTimeout, acquire_timeout),
    "a wait for itself": (gtask.NestedCheckout, nested),
    "a cancelled checkout": (gtask.Cancelled, after(lambda client, one: one.cancel())),
    "a released checkout": (gtask.CheckoutReleased, after(lambda client, one: one.release())),
    "a sticky error": (gtask.Cancelled, after(cancel_and_call)),
    "a closed client": (gtask.ClientClosed, lambda client: (client.close(), client.checkout())),
    "a wrong thread": (gtask.WrongThread, in_another_thread),
    "a misspelt option": (TypeError, lambda client: client.checkout(timeuot=3)),
}


@pytest.fixture
def no_collection():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def frees(client, error, caller):
    """Have a caller raise; then neither what was in its frame nor a worker is kept."""
    kept = []

    def framed():
        large = Large()
        kept.append(weakref.ref(large))
        caller(client)

    try:
        framed()
    except error:
        pass
    else:
        raise AssertionError("nothing was raised")
    turn_hub()  # what a greenlet or the hub was just doing with it
    return kept[0]() is None


@pytest.mark.parametrize("case", CASES)
def test_the_frames_are_freed(serve, connect, no_collection, case):
    """With garbage collection off, when the handler ends."""
    error, caller = CASES[case]
    options = {"limit_message": 100_000, "max_waiting": 1, "max_queue": 3}
    client = connect(serve(SOURCE).address, min_workers=0, max_workers=1, timeout=20, **options)
    client.call("echo", "so that a worker is there")
    assert frees(client, error, caller)
    if error is not gtask.ClientClosed:
        wait_until(lambda: client.stats().busy == 0, 20, "the return of the worker")


def test_setup_that_fails(serve, connect, no_collection):
    """Nor does an error of setup keep who was told."""
    client = connect(serve(FAILING, attribute="failing").address, min_workers=0, max_workers=1, timeout=20)
    assert frees(client, gtask.SetupError, with_checkout(lambda one: one.echo(1)))


def test_no_server(connect, no_collection, tmp_path):
    """Nor one that tells of a missing server."""
    client = connect(f"unix:{tmp_path}/nobody", min_workers=0, max_workers=1, timeout=0.1)
    assert frees(client, gtask.AcquireTimeout, with_checkout(lambda one: one.echo(1)))
