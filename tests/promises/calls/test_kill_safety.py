"""The point of this test is to ensure that an exception may strike at any line and at any greenlet switch.

A caller can be struck by gevent.Timeout, GreenletExit or KeyboardInterrupt anywhere: in a call, in the pool, in the
books of the ledger. Afterwards, and after a garbage collection, no caller ever gets another call's answer, the pool's
counters equal reality, and max_workers checkouts can be had at once.
"""

import contextlib
import contextvars
import functools
import gc
import itertools
import logging
import os
import sys

import gevent
import greenlet
import pytest

import gtask
from gtask.logdefer import RequestLog
from tests.support.waiting import PATIENCE, turn_hub

SOURCE = """
    import contextvars
    import logging
    import os
    import time

    import gtask.logdefer

    SETTING = contextvars.ContextVar("SETTING", default="")

    def echo(token, size=0):
        return [token, "x" * size]

    def slow(token):
        time.sleep(0.002)
        return [token, ""]

    def note(token):
        with open(os.path.join(DIR, "tokens"), "a") as file:
            file.write(f"{token}\\\\n")
        return [token, ""]

    def fail(token):
        raise LookupError(token)

    def tell(token):
        gtask.logdefer.current().info("deferred %s", token)
        logging.getLogger("struck").warning("told %s", token)
        return [token, SETTING.get()]
"""

MAX_WORKERS = 2
SETTING = contextvars.ContextVar("SETTING", default="")
STRIKES = [gevent.Timeout, gevent.GreenletExit, KeyboardInterrupt]
TAKE_TURNS = bool(os.environ.get("GTASK_STRIKES_TAKE_TURNS"))
"""Whether only one of them strikes at each line, the next one at the next line. It takes a third of the time."""
OF_THE_QUEUE = tuple(
    f"gtask.client.{name}"
    for name in (
        "connection", "one_at_a_time", "stream", "overtime", "preamble", "calls", "companions", "lease", "in_line",
        "refusals",
    )
)  # fmt: skip
tokens = itertools.count(1)


def at_line(number, strike, within="gtask."):
    """Raise at the so-manieth line of gtask, or of these of its modules, that is executed from now on.

    A KeyboardInterrupt may come in the hub's callbacks, too; the others only in the greenlet that they are meant for.
    """
    left = number
    victim = greenlet.getcurrent()
    usual = sys.gettrace()

    def local(frame, event, argument):
        nonlocal left
        if event == "line" and (strike is KeyboardInterrupt or greenlet.getcurrent() is victim):
            left -= 1
            if left == 0:
                sys.settrace(usual)
                raise strike()
        return local

    def trace(frame, event, argument):
        if frame.f_globals.get("__name__", "").startswith(within) and not in_finaliser(frame):
            return local
        return None

    sys.settrace(trace)
    return lambda: left > 0


def in_finaliser(frame):
    """What is raised in a finaliser never comes out of it: Python prints and forgets it."""
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def at_switch(number, strike):
    """Raise at the so-manieth time that the calling greenlet is switched back to."""
    left = number
    victim = greenlet.getcurrent()

    def trace(event, arguments):
        nonlocal left
        _, target = arguments
        if target is victim and event == "switch":
            left -= 1
            if left == 0:
                greenlet.settrace(None)
                raise strike()

    greenlet.settrace(trace)
    return lambda: left > 0


def run(scenario, client, how, number, strike):
    """Run a scenario in a greenlet, struck once; tells whether it is to be struck at a later place, too.

    That is so if there was a place of that number, or if it was not reached, for a call has timed out on the way.
    """
    outcome = {}

    usual = sys.gettrace()  # coverage's, perhaps

    def body():
        spared = how(number, strike)
        try:
            scenario(client)
        except BaseException as error:
            outcome["error"] = f"{type(error).__name__}: {error}"  # the error itself would keep what the scenario had
        finally:
            sys.settrace(usual)
            greenlet.settrace(None)
            outcome["spared"] = spared()

    victim = gevent.Greenlet(body)
    victim.start()
    with contextlib.suppress(KeyboardInterrupt):  # the hub hands on to the main greenlet what strikes itself
        victim.join(PATIENCE)
    victim.join(PATIENCE)
    assert victim.dead, "the struck greenlet hangs"
    error = outcome.get("error", "")
    assert not (outcome["spared"] and error.startswith("AssertionError")), error
    return not outcome["spared"] or bool(error)


def check(client):
    """All workers can be had at once, each answers its own caller, and the books are right."""
    gc.collect()
    checkouts = [client.checkout(timeout=60) for _ in range(MAX_WORKERS)]
    for checkout in checkouts:
        token = next(tokens)
        assert checkout.echo(token) == [token, ""]
    ledger = client._pool._ledger
    assert ledger.count("busy") == MAX_WORKERS == len(ledger.slots)
    for checkout in checkouts:
        checkout.release()
    assert ledger.count("busy") == 0
    assert ledger.waiting == 0
    assert ledger.count("idle") == len(ledger._idle) == len(ledger.slots)


# --- the scenarios -------------------------------------------------------------------------------------


def call(client):
    """Sending and waiting for a reply."""
    token = next(tokens)
    with client.checkout() as checkout:
        assert checkout.echo(token) == [token, ""]
        assert checkout.slow(token) == [token, ""]


def large(client):
    """Receiving half a reply, and sending half a request; and through shared memory."""
    token = next(tokens)
    with client.checkout() as checkout:
        assert checkout.echo(token, 300_000)[0] == token
        assert checkout.echo([token, "y" * 300_000], 1)[0][0] == token
        assert checkout.echo([token, b"y" * (1 << 20)], 1)[0][0] == token


def queue(client):
    """Submitting, with an error in between."""
    token = next(tokens)
    with client.checkout() as checkout:
        results = [checkout.echo.submit(token), checkout.fail.submit(token), checkout.echo.submit(token)]
        assert results[0].get() == [token, ""]
        with pytest.raises(gtask.RemoteError):
            results[1].get()
        with pytest.raises(gtask.CallDropped):
            results[2].get()


def waiting(client):
    """Waiting for a worker that others hold, and handing it on."""
    held = [client.checkout() for _ in range(MAX_WORKERS)]
    token = next(tokens)

    def other():
        with client.checkout() as checkout:
            assert checkout.slow(token) == [token, ""]

    waiters = [gevent.spawn(other), gevent.spawn(other)]
    turn_hub()
    try:
        with client.checkout() as mine:
            result = mine.echo.submit(token)
            for checkout in held:
                checkout.release()
            assert result.get() == [token, ""]
    finally:
        del held
        gevent.joinall(waiters, timeout=20)
        assert all(waiter.dead for waiter in waiters)


def connecting(client):
    """The first use after all workers have been retired."""
    for _ in range(MAX_WORKERS):
        with client.checkout() as checkout:
            checkout.cancel("make room")
    call(client)


def forms(client):
    """Every way to write a call: keywords, a time-out of its own, a name, no checkout."""
    token = next(tokens)
    with client.checkout(timeout=0.4) as checkout:
        assert checkout.echo(token=token, size=3) == [token, "xxx"]
        assert checkout.call("echo", token) == [token, ""]
    assert client.call("echo", token) == [token, ""]
    assert client.remote.echo(token, size=1) == [token, "x"]


def companions(client):
    """Calls that bring more than their value: log records, a request's log, a context variable."""
    told = []
    handler = logging.Handler()
    handler.emit = told.append
    logger = logging.getLogger("struck")
    logger.addHandler(handler)
    request_log = RequestLog(lambda record: None)
    before = SETTING.set(token := next(tokens))
    try:
        with client.checkout(log=request_log) as checkout:
            assert checkout.tell(token) == [token, token]
            result = checkout.tell.submit(token)
            assert result.get() == [token, token]
            with pytest.raises(gtask.RemoteError):
                checkout.fail(token)
        assert [record.getMessage() for record in told] == [f"told {token}"] * 2
    finally:
        SETTING.reset(before)
        logger.removeHandler(handler)


def burst(client):
    """Many calls in flight, and replies that come together."""
    token = next(tokens)
    with client.checkout() as checkout:
        results = [checkout.echo.submit([token, number]) for number in range(12)]
        assert [result.get()[0] for result in results] == [[token, number] for number in range(12)]


def leaving(client):
    """Releasing with calls under way: their worker hears the end behind them."""
    token = next(tokens)
    with client.checkout() as checkout:
        results = [checkout.echo.submit([token, number]) for number in range(3)]
    assert [result.get()[0] for result in results] == [[token, number] for number in range(3)]


SCENARIOS = [call, large, queue, waiting, connecting, forms, companions, burst, leaving]


@pytest.fixture
def client(request, shared, connect, monkeypatch):
    monkeypatch.setattr(gevent.get_hub(), "exception_stream", None)  # thousands of KeyboardInterrupts are no news
    server = shared(SOURCE)
    with connect(server, max_workers=MAX_WORKERS) as other:  # closed again, so that nothing strikes it
        other.call("echo", "the server is there")  # however long it takes to start
        check(other)
    gc.collect()
    gc.freeze()  # what has been imported need not be looked through after each of the thousands of strikes
    client = connect(
        server,
        max_workers=MAX_WORKERS,
        min_workers=0,
        timeout=0.5,
        codec=getattr(request, "param", "msgpack"),
        context=[SETTING] if request.node.callspec.params.get("scenario") is companions else (),
    )
    check(client)
    return client


# A socket that is struck between its making and its keeping is closed by the garbage collection, with a warning.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("strike", STRIKES)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_struck_at_every_line(client, scenario, strike):
    """Raise at the k-th line of gtask that the scenario's greenlet executes, for all k."""
    first, step = (1 + STRIKES.index(strike), len(STRIKES)) if TAKE_TURNS else (1, 1)
    for number in itertools.count(first, step):
        struck = run(scenario, client, at_line, number, strike)
        check(client)
        if not struck:
            break
    assert number > 50


@pytest.mark.parametrize("client", ["json"], indirect=True)
def test_json_struck_at_every_line(client):
    """With JSON the calls of a queue wait in the client, and are dropped there: the same, for what does that."""
    how = functools.partial(at_line, within=OF_THE_QUEUE)
    for number in itertools.count(1):
        struck = run(queue, client, how, number, KeyboardInterrupt)
        check(client)
        if not struck:
            break
    assert number > 50


@pytest.mark.parametrize("strike", STRIKES)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_struck_at_every_switch(client, scenario, strike):
    """Raise at the k-th switch back to the scenario's greenlet, for all k."""
    for number in itertools.count(1):
        struck = run(scenario, client, at_switch, number, strike)
        check(client)
        if not struck:
            break
    assert number > 1  # at least one was struck; how many there are depends on what has come meanwhile
