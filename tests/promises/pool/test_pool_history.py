"""The point of this test is to ensure that the pool keeps its promises in random histories with real workers.

Checkouts, calls that return, raise, hang and die, releases and second ones, callers that are killed while they wait,
workers that are killed, a server that goes away and comes back, a setup that fails for a while. After every step, those
who wait are served in the order of their places, nobody waits while a worker is idle, no worker has two owners, there
are not too many of them, and each answer belongs to its call. In the end everybody is served.
"""

import contextlib
import os
import random
import re
import signal
import weakref
from collections import Counter

import gevent
import pytest

from gtask import errors
from tests.support.waiting import turn_hub, wait_until

SOURCE = """
    import os
    import time

    def setup():
        if os.path.exists(os.path.join(DIR, "broken")):
            raise LookupError("no such model")

    def pid():
        return os.getpid()

    def echo(token):
        with open(os.path.join(DIR, "executed"), "a") as file:
            file.write(f"{token}\\n")
        return token

    def slow(token):
        time.sleep(0.003)
        return echo(token)

    def fail(token):
        raise LookupError(echo(token))

    def die(token):
        echo(token)
        os._exit(7)

    def hang(token):
        echo(token)
        time.sleep(60)
"""
HOOK = """
    def checkout_done():
        time.sleep(0.002)
"""
STEPS = 500
BRIEF = 0.3


class History:
    """Those who use a client, what they have seen, and what befalls their workers."""

    def __init__(self, chance, client, server, restart, marker):
        self.chance, self.client, self.server, self.restart, self.marker = chance, client, server, restart, marker
        self.checkouts = []  # in the order of their places, each with its time-out
        self.served = weakref.WeakSet()  # seen with a worker: if that is lost unused, they are the first in line again
        self.leases = []
        self.calls = []  # each with its token
        self.tokens = 0
        self.ceiling = client.stats().max_workers
        self.restarts = self.deaths = 0

    def some(self):
        return self.chance.choice(self.checkouts)

    def workers(self):
        """The workers that are lent: of each checkout that has one, the pid."""
        shown = [(checkout, re.search(r"worker (\d+) of", repr(checkout))) for checkout, _ in self.checkouts]
        return {checkout: int(found[1]) for checkout, found in shown if found}

    # --- what happens ---

    def come(self):
        """Somebody takes a place in line."""
        if len(self.checkouts) < 12:
            # A call that hangs is given up soon; the others must not be, however busy this machine is.
            timeout = self.chance.choice([BRIEF, 60, 60, 60])
            checkout = self.client.checkout(timeout=timeout)
            self.checkouts.append((checkout, timeout))
            self.leases.append(checkout._lease)  # which are there also when the checkout was forgotten

    def submit(self):
        """Somebody calls, without waiting."""
        checkout, timeout = self.some()
        method = self.chance.choice([*["echo", "slow"] * 5, "fail", "die", "hang"])
        self.tokens += 1
        try:
            call = getattr(checkout, "echo" if method == "hang" and timeout > BRIEF else method).submit(self.tokens)
        except errors.Error:
            return  # a sticky one, or it is released
        self.calls.append((call, self.tokens))

    def call(self):
        """Somebody calls in a with block, in a greenlet of its own, and is perhaps killed in it."""
        checkout, _ = self.some()
        self.tokens += 1

        def blocked(token):
            with checkout:
                try:
                    return checkout.slow(token)
                except errors.Error as error:
                    return error

        self.calls.append((gevent.spawn(blocked, self.tokens), self.tokens))

    def kill_caller(self):
        """Somebody who waits is killed, and a worker is given back in the same turn of the hub."""
        waiting = [call for call, _ in self.calls if isinstance(call, gevent.Greenlet) and not call.ready()]
        if waiting:
            self.chance.choice(waiting).kill(block=False)
            self.release()

    def release(self):
        """A checkout ends; or had ended before."""
        lent = list(self.workers())
        (self.chance.choice(lent) if lent else self.some()[0]).release()

    def go(self):
        """Somebody forgets a checkout, whatever it does."""
        self.checkouts.remove(self.some())

    def cancel(self):
        self.some()[0].cancel()

    def kill_worker(self):
        """A worker is killed that somebody has."""
        lent = self.workers()
        if lent:
            with contextlib.suppress(ProcessLookupError):  # it has died already, and nobody has noticed
                os.kill(self.chance.choice(list(lent.values())), signal.SIGKILL)

    def turn(self):
        turn_hub()

    def wait(self):
        """Some milliseconds, in which workers do what they do."""
        gevent.sleep(0.004)

    def drain(self):
        self.client.drain()

    def resize(self):
        most = self.chance.randint(1, 4)
        self.client.resize(self.chance.randint(0, most), most)
        self.ceiling = max(self.ceiling, most)

    def break_setup(self):
        self.marker.touch()

    def heal_setup(self):
        self.marker.unlink(missing_ok=True)

    def kill_server(self):
        """The master is killed, and another takes its place."""
        if self.restarts < 1:
            self.restarts += 1
            os.kill(self.server.pid, signal.SIGKILL)
            self.server.stop()
            self.server = self.restart()

    OFTEN = (come, come, submit, submit, submit, call, release, release, turn, wait, wait, wait, wait, go, heal_setup)
    NOW_AND_THEN = (kill_caller, cancel, kill_worker)
    SELDOM = (drain, resize, break_setup, kill_server)

    def step(self):
        if not self.checkouts:
            self.come()
        actions = self.chance.choices([self.OFTEN, self.NOW_AND_THEN, self.SELDOM], [20, 5, 1])[0]
        self.chance.choice(actions)(self)
        self.look()

    # --- what holds after every step ---

    def look(self):
        stats, lent = self.client.stats(), self.workers()
        assert len(set(lent.values())) == len(lent), "a worker has two owners"
        assert not (stats.idle and stats.waiting), "somebody waits while a worker is idle"
        assert stats.waiting == sum(lease.wants for lease in self.leases), "somebody's place was lost, or was kept"
        total = stats.idle + stats.busy + stats.settling + stats.connecting
        assert total <= self.ceiling
        self.ceiling = max(stats.max_workers, min(self.ceiling, total))
        deaths = sum(stats.deaths.values())
        if deaths > self.deaths:  # somebody may have got a dead one since the last look, and wait again
            self.served.update(checkout for checkout, _ in self.checkouts)
        self.deaths = deaths
        waits = False
        for checkout, _ in self.checkouts:
            if checkout in lent and checkout not in self.served:
                self.served.add(checkout)
                assert not waits, "somebody was served before another who had come earlier"
            waits = waits or (checkout not in self.served and "in line" in repr(checkout))
        over = [entry for entry in self.checkouts if re.search("Checkout (released|ended)", repr(entry[0]))]
        for entry in over[:-2]:  # two are kept, to be used after their end
            self.checkouts.remove(entry)

    def look_at_outcomes(self):
        """Every call has one, and a value is that of its own call."""
        for call, token in self.calls:
            outcome = call.exception or call.value
            if isinstance(outcome, BaseException):
                known = (errors.FatalError, errors.RemoteError, errors.CallDropped, errors.CheckoutReleased)
                assert isinstance(outcome, (*known, gevent.GreenletExit)), repr(outcome)
            else:
                assert outcome == token


@pytest.mark.parametrize("hook", ["", HOOK], ids=["plain", "checkout_done"])
@pytest.mark.parametrize("lifo", [True, False], ids=["lifo", "fifo"])
def test_random_histories(serve, connect, tmp_path, hook, lifo):
    """Whatever happens, in whatever order: it holds after every step, and all ends well."""
    seed = random.randrange(10**6)
    print(f"the seed is {seed}")  # shown if it fails
    server = serve(SOURCE + hook)
    client = connect(server, min_workers=1, max_workers=3, max_checkouts=10, lifo=lifo)
    client.open(wait=True)
    history = History(
        random.Random(seed), client, server, lambda: serve(SOURCE + hook, address=server.address), tmp_path / "broken"
    )
    for _ in range(STEPS):
        history.step()
    history.heal_setup()
    for checkout, _ in history.checkouts:
        checkout.release()
    wait_until(lambda: all(call.ready() for call, _ in history.calls), "the outcome of every call")
    history.look_at_outcomes()
    executed = Counter((tmp_path / "executed").read_text().split() if (tmp_path / "executed").exists() else [])
    assert not [token for token, times in executed.items() if times > 1], "a call was executed twice"

    def is_quiet():
        stats = client.stats()
        return not (stats.busy or stats.waiting or stats.settling or stats.connecting)

    wait_until(is_quiet, f"the end of all checkouts: {client!r}")
    client.drain()  # among the idle ones may be one that was killed in the last step, and nobody has noticed
    wait_until(is_quiet, f"the end of all checkouts: {client!r}")
    checkouts = [client.checkout(timeout=20) for _ in range(client.stats().max_workers)]
    pids = [checkout.pid.submit() for checkout in checkouts]
    assert len({pid.get() for pid in pids}) == len(checkouts), "a place for a worker is lost"
    for checkout in checkouts:
        checkout.release()
