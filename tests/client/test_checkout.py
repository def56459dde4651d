"""The lease: what it does when its worker turns out to be dead while it hands over its queue."""

import types

from gtask.client.counters import Counters
from gtask.client.lease import Lease
from gtask.client.loop import thread_ident
from gtask.errors import WorkerDied


class Pool:
    """What a lease knows of its pool."""

    terms = types.SimpleNamespace(name="", remark="", max_queue=10, raises=None, timeout=None, context=())
    peer = "unix:/x"

    def __init__(self):
        self.rejoined = []
        self.counters = Counters()
        self.thread = thread_ident()

    def encode(self, args, kwargs, epoch, meta, name):
        return b""

    def rejoin(self, lease):
        self.rejoined.append(lease)

    def leave(self, lease):
        pass

    def deadlock_of(self, lease):
        raise AssertionError("nobody blocks")

    def start_clock(self, lease, deadline):
        raise AssertionError("there is no time-out")

    def stop_clock(self, lease):
        pass

    def wrong_thread(self):
        raise AssertionError("there is one thread")

    def interrupted(self):
        raise AssertionError("nothing was interrupted")


class Dying:
    """A connection that shows at the so-manieth request that its worker is dead."""

    def __init__(self, at, end):
        self.sent, self.at, self.end = [], at, end

    pending = waiting = 1
    behind = ()

    def prepare(self, call):
        return ""

    def lend(self):
        pass

    def hang_up(self, error):
        pass

    def send(self, call):
        self.sent.append(call)
        if len(self.sent) == self.at:
            self.end()


def lease_with(calls):
    lease = Lease(Pool(), None)
    results = [lease.submit(name, (name,), {}) for name in calls]
    return lease, results


def test_a_worker_found_dead_at_the_first_request():
    """Nothing was sent, so the lease stands in line again, with each call once and in order."""
    lease, _ = lease_with("abc")
    connection = Dying(1, lambda: lease.stand_again(list(connection.sent)))
    assert lease.accept(connection)
    assert [call.method for call in lease.queue] == ["a", "b", "c"]
    assert lease.connection is None
    assert lease.lender.rejoined == [lease]


def test_a_worker_found_dead_at_a_later_request():
    """The lease has failed, its queue is gone, and nobody minds."""
    lease, _ = lease_with("abc")
    connection = Dying(2, lambda: lease.fail(WorkerDied("gone")))
    assert lease.accept(connection)
    assert not lease.queue
    assert isinstance(lease.error, WorkerDied)
