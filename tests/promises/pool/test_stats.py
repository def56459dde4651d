"""The point of this test is to ensure that client.stats() counts what happens, as it happens.

It is one frozen value, with gauges of how things are and counters of what has been. pop_stats() resets the counters.
"""

import dataclasses
import os
import signal

import gevent
import pytest

import gtask
from gtask.stats import BOUNDS, ClientStats, Times
from tests.support.waiting import stays, turn_hub, wait_until

SOURCE = """
    import os
    import time

    def pid():
        return os.getpid()

    def fail():
        raise LookupError("on purpose")

    def hold(gate):
        open(os.path.join(DIR, gate + ".inside"), "w").close()
        with open(os.path.join(DIR, gate)) as file:
            file.read()

    def sleep(seconds):
        time.sleep(seconds)

    def die(status):
        os._exit(status)
"""
GAUGES = ("min_workers", "max_workers", "idle", "busy", "connecting", "settling", "waiting")


@pytest.fixture
def address(shared, connect):
    """Where a server runs, which is up already: no attempt to connect will fail."""
    server = shared(SOURCE)
    connect(server).call("pid")
    return server.address


@pytest.fixture
def gate(tmp_path):
    """``gate(name)`` makes one at which the method ``hold`` waits; what it returns lets the worker go on."""

    def make(name):
        os.mkfifo(tmp_path / name)

        def let_go_on():
            wait_until((tmp_path / f"{name}.inside").exists)
            (tmp_path / name).write_text("")

        return let_go_on

    return make


def gauges(client):
    stats = client.stats()
    return {name: getattr(stats, name) for name in GAUGES[2:] if getattr(stats, name)}


def counters(client):
    """All that are not 0, without the times."""
    fields = dataclasses.asdict(client.stats())
    return {name: value for name, value in fields.items() if value and name not in (*GAUGES, "waits", "uses")}


def test_it_is_frozen(address, connect):
    """A value that was taken stays as it was, and nobody can change it."""
    client = connect(address)
    before = client.stats()
    client.call("pid")
    with pytest.raises(gtask.WorkerDied):
        client.call("die", 7)
    assert before == connect(address).stats()
    assert isinstance(before, ClientStats)
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.calls = 7
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.waits.count = 7
    assert before.deaths == before.retirements == {}


def test_before_the_first_use_and_after_the_end(address, connect):
    """Nothing needs to be open: all is 0 but the options, and the counters stay to be read after close()."""
    client = connect(address, min_workers=1, max_workers=7)
    stats = client.stats()
    assert (stats.min_workers, stats.max_workers) == (1, 7)
    assert (gauges(client), counters(client)) == ({}, {})
    assert stats.waits == stats.uses == Times()
    client.call("pid")
    client.close()
    assert gauges(client) == {}
    assert (client.stats().checkouts, client.stats().calls) == (1, 1)


def test_the_gauges_of_workers_and_waiters(address, connect, gate):
    """Connecting, busy, idle and waiting, step by step."""
    go_on = gate("gate")
    client = connect(address, max_workers=2)
    first = client.checkout()
    assert gauges(client) == {"connecting": 1, "waiting": 1}
    first.pid()
    assert gauges(client) == {"busy": 1}
    result = first.hold.submit("gate")
    second, third = client.checkout(), client.checkout()
    assert gauges(client) == {"busy": 1, "connecting": 1, "waiting": 2}
    second.pid()
    assert gauges(client) == {"busy": 2, "waiting": 1}
    third.release()
    assert gauges(client) == {"busy": 2}
    second.release()
    assert gauges(client) == {"busy": 1, "idle": 1}
    first.release()
    assert gauges(client) == {"busy": 1, "idle": 1}  # its call is not through
    go_on()
    result.get()
    wait_until(lambda: gauges(client) == {"idle": 2})
    client.resize(1, 5)
    assert (client.stats().min_workers, client.stats().max_workers) == (1, 5)


def test_the_gauge_of_settling_workers(serve, connect, gate):
    """A released worker counts as settling while its hook runs."""
    source = SOURCE + "\n    def checkout_done():\n        if os.path.exists(DIR + '/gate'): hold('gate')\n"
    go_on = gate("gate")
    client = connect(serve(source))
    client.call("pid")
    assert gauges(client) == {"settling": 1}
    go_on()
    wait_until(lambda: gauges(client) == {"idle": 1})


def test_checkouts_calls_and_errors(address, connect):
    """Each worker that was lent, each call, submitted ones included, and each that raised."""
    client = connect(address, max_workers=1, refork_after_error=False)
    with client.checkout() as worker:
        worker.pid()
        results = [worker.pid.submit() for _ in range(3)]
        for result in results:
            result.get()
        with pytest.raises(LookupError):
            worker.fail()
        failed = worker.fail.submit()
        with pytest.raises(LookupError):
            failed.get()
    client.call("pid")
    assert counters(client) == {"checkouts": 2, "calls": 7, "errors": 2, "connects": 1}


def test_a_checkout_that_is_given_up_in_line_is_none(address, connect):
    """Only workers that were lent count, and only their waits."""
    client = connect(address, max_workers=1)
    with client.checkout() as worker:
        worker.pid()
        client.checkout().release()
    assert client.stats().checkouts == client.stats().waits.count == client.stats().uses.count == 1


def test_call_timeouts(address, connect):
    """A call that took too long is counted so, and is no death."""
    client = connect(address)
    worker = client.checkout(timeout=0.05)
    wait_until(lambda: client.stats().busy == 1)  # a busy machine may take longer to start one
    with pytest.raises(gtask.CallTimeout):
        worker.sleep(60)
    assert counters(client) == {"checkouts": 1, "calls": 1, "call_timeouts": 1, "connects": 1}


def test_acquire_timeouts(address, connect):
    """A checkout that got no worker in time."""
    client = connect(address, max_workers=1)
    with client.checkout() as worker:
        worker.pid()
        other = client.checkout(timeout=0.05)
        with pytest.raises(gtask.AcquireTimeout):
            gevent.spawn(other.pid).get()
    assert counters(client) == {"checkouts": 1, "calls": 2, "acquire_timeouts": 1, "connects": 1}


def test_failed_connects(connect, tmp_path):
    """Each attempt that brought no worker."""
    client = connect(f"unix:{tmp_path}/nowhere")
    with client.checkout():
        wait_until(lambda: client.stats().failed_connects >= 2)
    assert client.stats().connects == 0


def test_failed_setups(shared, connect):
    """They are failed connects, too."""
    client = connect(shared("def setup(): raise ValueError('no licence')\ndef pid(): pass"))
    with pytest.raises(gtask.SetupError):
        client.call("pid")
    assert client.stats().failed_connects >= 1
    assert (client.stats().connects, client.stats().checkouts, client.stats().errors) == (0, 0, 0)


def test_deaths_by_cause(address, connect):
    """By signal or exit status, of busy and of idle workers."""
    client = connect(address, max_workers=3)
    for _ in range(2):
        with pytest.raises(gtask.WorkerDied):
            client.call("die", 7)
    with pytest.raises(gtask.WorkerDied):
        client.call("die", 8)
    with client.checkout() as worker:
        pid = worker.pid()
        sleep = worker.sleep.submit(60)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(gtask.WorkerDied):
            sleep.get()
    os.kill(client.call("pid"), signal.SIGUSR2)
    wait_until(lambda: gauges(client) == {}, what="an empty pool")
    assert client.stats().deaths == {"exit 7": 2, "exit 8": 1, "SIGKILL": 1, "SIGUSR2": 1}
    assert client.stats().retirements == {}


def retire_by_max_checkouts(address, connect):
    client = connect(address, max_checkouts=1)
    client.call("pid")
    return client


def retire_by_max_lifetime(address, connect):
    client = connect(address, max_lifetime=0.1)
    client.call("pid")
    return client


def retire_by_max_idle(address, connect):
    client = connect(address, max_idle=0.1)
    client.call("pid")
    return client


def retire_by_drain(address, connect):
    client = connect(address)
    client.call("pid")
    client.drain()
    return client


def retire_by_drain_while_lent(address, connect):
    client = connect(address)
    with client.checkout() as worker:
        worker.pid()
        client.drain()
        assert client.stats().retirements == {}
    return client


def retire_by_resize(address, connect):
    client = connect(address, max_workers=2)
    with client.checkout() as worker, client.checkout() as other:
        worker.pid(), other.pid()
        client.resize(0, 1)
    return client


def retire_by_close(address, connect):
    client = connect(address)
    client.call("pid")
    client.close()
    return client


def retire_by_close_while_lent(address, connect):
    client = connect(address)
    with client.checkout() as worker:
        worker.pid()
        client.close(timeout=0.01)
    return client


def retire_by_error(address, connect):
    client = connect(address)
    with pytest.raises(LookupError):
        client.call("fail")
    return client


def retire_by_interruption(address, connect):
    client = connect(address)
    with client.checkout() as worker:
        worker.pid()
        with gevent.Timeout(0.05, False):
            worker.sleep(60)
    return client


def retire_by_cancel(address, connect):
    client = connect(address)
    with client.checkout() as worker:
        worker.pid()
        worker.cancel("enough")
    return client


@pytest.mark.parametrize(
    ("retire", "cause"),
    [
        (retire_by_max_checkouts, "max_checkouts"),
        (retire_by_max_lifetime, "max_lifetime"),
        (retire_by_max_idle, "max_idle"),
        (retire_by_drain, "drain"),
        (retire_by_drain_while_lent, "drain"),
        (retire_by_resize, "resize"),
        (retire_by_close, "close"),
        (retire_by_close_while_lent, "close"),
        (retire_by_error, "a call raised"),
        (retire_by_interruption, "interrupted"),
        (retire_by_cancel, "interrupted"),
    ],
)
def test_retirements_by_cause(address, connect, retire, cause):
    """Each is counted once, under the one reason for which the client closed the worker, and none is a death."""
    client = retire(address, connect)
    wait_until(lambda: client.stats().retirements, what="a retirement")
    turn_hub()
    assert client.stats().retirements == {cause: 1}
    assert client.stats().deaths == {}


def test_every_worker_is_accounted_for(address, connect):
    """Those that came are there, or have died, were retired, or took too long."""
    client = connect(address, max_workers=3)
    for method, args in [("pid", ()), ("fail", ()), ("die", (7,)), ("pid", ()), ("fail", ()), ("pid", ())]:
        with gevent.Timeout(10):
            try:
                client.call(method, *args)
            except (LookupError, gtask.WorkerDied):
                pass
    with client.checkout() as worker:
        worker.cancel()
    worker = client.checkout(timeout=0.05)
    wait_until(lambda: client.stats().busy == 1)  # a busy machine may take longer to start one
    with pytest.raises(gtask.CallTimeout):
        worker.sleep(60)
    client.call("pid")
    client.drain()
    client.call("pid")
    stats = client.stats()
    gone = sum(stats.deaths.values()) + sum(stats.retirements.values()) + stats.call_timeouts
    assert stats.connects == stats.idle + stats.busy + stats.settling + gone


def test_turned_away(address, connect):
    """Checkouts for which max_waiting left no room, and those that shed_target has ended."""
    options = {"max_waiting": 1, "shed_target": 0.02, "shed_interval": 0.02}
    client = connect(address, min_workers=1, max_workers=1, **options)
    client.open(wait=True)
    with client.checkout() as worker:
        worker.pid()
        waiting = client.checkout()
        with pytest.raises(gtask.Overloaded):
            client.checkout()
        assert client.stats().rejected == 1
        wait_until(lambda: client.stats().shed == 1)
        assert client.stats().waiting == 0
        with pytest.raises(gtask.Overloaded):
            waiting.pid()
    assert (client.stats().rejected, client.stats().shed, client.stats().checkouts) == (1, 1, 1)


def test_waits_and_uses(address, connect, gate):
    """How long checkouts waited for their worker and had it: a number, a sum, the longest, the mean, a histogram."""
    go_on = gate("gate")
    client = connect(address, max_workers=1)
    client.call("pid")
    client.pop_stats()
    holding = gevent.spawn(client.call, "hold", "gate")
    turn_hub()
    waiting = gevent.spawn(client.call, "pid")
    wait_until(lambda: client.stats().waiting == 1)
    assert client.stats().waits == Times(1, 0.0, 0.0, (1, *[0] * len(BOUNDS)))
    assert client.stats().uses == Times()
    stays(lambda: client.stats().waiting == 1, 0.06)  # how long both last
    go_on()
    gevent.joinall([holding, waiting], raise_error=True)
    stats = client.stats()
    assert stats.waits.count == stats.uses.count == 2
    assert stats.waits.total == stats.waits.longest >= 0.05
    assert stats.uses.total > stats.uses.longest >= 0.06
    assert stats.waits.mean == stats.waits.total / 2
    for times in (stats.waits, stats.uses):
        assert len(times.buckets) == len(BOUNDS) + 1
        assert sum(times.buckets) == 2
        slowest = max(index for index, number in enumerate(times.buckets) if number)
        assert BOUNDS[slowest - 1] < times.longest
        assert slowest == len(BOUNDS) or times.longest <= BOUNDS[slowest]


def test_leaks(address, connect):
    """Checkouts that were held longer than leak_after."""
    client = connect(address, leak_after=0.05)
    with client.checkout() as worker:
        worker.pid()
        wait_until(lambda: client.stats().leaks == 1)


def test_pop_stats(address, connect):
    """It returns what stats() would, and then all counters begin at 0 again, but the gauges do not."""
    client = connect(address, min_workers=1, max_workers=3, refork_after_error=False)
    with client.checkout() as worker:
        worker.pid()
        with pytest.raises(gtask.WorkerDied):
            client.call("die", 7)
        with pytest.raises(LookupError):
            worker.fail()
        wait_until(lambda: gauges(client) == {"busy": 1})
        before = client.stats()
        assert client.pop_stats() == before
        assert before.deaths == {"exit 7": 1}
        assert counters(client) == {}
        assert client.stats().waits == client.stats().uses == Times()
        assert gauges(client) == {"busy": 1}
        assert (client.stats().min_workers, client.stats().max_workers) == (1, 3)
        worker.pid()
        assert counters(client) == {"calls": 1}
    assert client.stats().uses.count == 1  # the checkout that began before
    assert client.stats().checkouts == 0
    assert before.calls == 3
