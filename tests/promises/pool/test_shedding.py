"""The point of this test is to ensure that shed_target sheds the line when nobody is served fast enough any more.

When the shortest wait stayed over the target for a whole shed_interval, those that have waited longer than the target
are told Overloaded, so that who comes now is served in time. A line that moves is left alone, and so is every line by
default.
"""

import re
from time import monotonic

import gevent
import pytest

import gtask
from tests.support.waiting import stays, wait_until

SOURCE = """
    import time

    def echo(value):
        return value

    def work(seconds):
        time.sleep(seconds)
"""


def raised_by(function, *arguments):
    """What a call raises, as a value: for a greenlet of its own."""
    with pytest.raises(gtask.Error) as caught:
        function(*arguments)
    return caught.value


def running(serve, connect):
    """A server that is there, so that nobody is shed while it starts."""
    server = serve(SOURCE)
    connect(server).call("echo", "there")
    return server


def hold(client):
    """A checkout that has its worker."""
    holder = client.checkout()
    holder.echo("taken")
    return holder


def test_who_waited_longer_than_the_target_gives_way(serve, connect):
    """All of those, and they only: one that came late in the interval stays in line and is served."""
    client = connect(running(serve, connect), max_workers=1, shed_target=0.8, shed_interval=1.6)
    holder = hold(client)
    began = monotonic()
    old = [gevent.spawn(raised_by, client.call, "echo", number) for number in range(3)]
    late = gevent.spawn_later(1.5, client.call, "echo", "late")
    for caller in old:
        assert type(caller.get()) is gtask.Overloaded
    assert monotonic() - began >= 1.6
    holder.release()
    assert late.get() == "late"
    assert client.stats().shed == 3


def test_the_error_sticks_and_says_why(serve, connect):
    """All calls of the checkout get it. It tells the target, the interval, how long the line is, and what to do."""
    server = running(serve, connect)
    client = connect(server, name="shop", timeout=None, max_workers=1, shed_target=0.05, shed_interval=0.1)
    holder = hold(client)
    first, second = client.checkout(), client.checkout()
    results = [first.echo.submit(number) for number in range(2)]
    with pytest.raises(gtask.Overloaded) as caught:
        first.echo("behind them")
    for result in results:
        with pytest.raises(gtask.Overloaded):
            result.get()
    holder.release()
    with pytest.raises(gtask.Overloaded) as again:
        first.echo("later")
    assert str(again.value) == str(caught.value)
    said = str(caught.value)
    assert "'shop'" in said
    assert str(server.address) in said
    told = re.search(
        r"for 0\.1 s nobody was served within 0\.05 s \(shed_target\), and 2 wait in line, the first for (\S+) s;",
        said,
    )
    assert told is not None
    assert float(told[1]) >= 0.1
    for remedy in ("raise max_workers", "make the calls shorter", "send fewer"):
        assert remedy in said
    second.release()


def test_it_is_off_by_default(serve, connect):
    """Without a target nobody is shed, whatever the interval is."""
    client = connect(running(serve, connect), max_workers=1, shed_interval=0.01)
    holder = hold(client)
    caller = gevent.spawn(client.call, "echo", "patient")
    wait_until(lambda: client.stats().waiting == 1)
    stays(lambda: client.stats().waiting == 1, 0.3)  # many intervals
    holder.release()
    assert caller.get() == "patient"
    assert client.stats().shed == 0


def test_a_line_in_which_somebody_was_served_quickly_is_left_alone(serve, connect):
    """One quick service in the interval is enough: the next waits for longer than the target, and is served."""
    client = connect(running(serve, connect), max_workers=1, shed_target=0.5, shed_interval=1.0)
    holder = hold(client)
    quick, slow = client.checkout(), client.checkout()
    holder.release()  # into the hands of the quick one, at once
    caller = gevent.spawn(slow.echo, "slow")
    stays(lambda: client.stats().waiting == 1, 1.1)  # past the end of the interval, not of the next
    quick.release()
    assert caller.get() == "slow"
    slow.release()
    stats = client.stats()
    assert stats.shed == 0
    assert stats.waits.longest >= 1.0


def test_a_short_jam_is_left_alone(serve, connect):
    """Waits over the target do no harm as long as they do not last for a whole interval."""
    client = connect(running(serve, connect), max_workers=1, shed_target=0.001, shed_interval=30)
    holder = hold(client)
    callers = [gevent.spawn(client.call, "echo", number) for number in range(5)]
    wait_until(lambda: client.stats().waiting == 5)
    stays(lambda: client.stats().waiting == 5, 0.1)  # a hundred times the target
    holder.release()
    assert [caller.get() for caller in callers] == list(range(5))
    assert client.stats().shed == 0


def test_service_goes_on(serve, connect):
    """Of a flood, each is either served or shed, and counted so; then a call is served as if nothing had been."""
    client = connect(running(serve, connect), timeout=60, max_workers=1, shed_target=0.1, shed_interval=0.2)
    outcomes = []

    def work():
        try:
            client.call("work", 0.02)
        except gtask.Overloaded:
            outcomes.append("shed")
        else:
            outcomes.append("served")

    gevent.joinall([gevent.spawn(work) for _ in range(100)], raise_error=True)
    stats = client.stats()
    assert len(outcomes) == 100
    assert outcomes.count("shed") == stats.shed > 0
    assert outcomes.count("served") == stats.checkouts > 0
    assert client.call("echo", "afterwards") == "afterwards"
    assert client.stats().shed == stats.shed


def test_it_sheds_again(serve, connect):
    """Each interval is judged anew: a second jam is shed like the first."""
    client = connect(running(serve, connect), max_workers=1, shed_target=0.02, shed_interval=0.05)
    for jam in (1, 2):
        holder = hold(client)
        assert type(raised_by(client.call, "echo", jam)) is gtask.Overloaded
        holder.release()
        assert client.stats().shed == jam
        assert client.call("echo", jam) == jam


def test_a_server_that_is_down_sheds_nobody(connect, tmp_path):
    """There fewer callers would not help: they hear that it is unreachable."""
    client = connect(f"unix:{tmp_path}/never.sock", timeout=1, shed_target=0.05, shed_interval=0.1)
    error = raised_by(client.call, "echo", 1)
    assert type(error) is gtask.AcquireTimeout
    assert "server unreachable" in str(error)
    assert client.stats().shed == 0
