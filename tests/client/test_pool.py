"""The pool in long random histories: the real ledger, pool, leases and connections, on a fake transport and clock.

What is fake: the sockets, the workers behind them, the timers, the time. Nothing waits, so that hypothesis can try
some ten thousand steps, and whatever it finds it can repeat.
"""

from __future__ import annotations

import errno
import gc
import itertools
import sys
import types
import weakref
from collections import Counter, deque

import gevent
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gtask import address as addresses
from gtask import errors
from gtask.client import calls as calls_module
from gtask.client import connection as connection_module
from gtask.client import handshake as handshake_module
from gtask.client import in_line as in_line_module
from gtask.client import overtime as overtime_module
from gtask.client import stream as stream_module
from gtask.client.checkout import Checkout
from gtask.client.config import ClientConfig
from gtask.client.connection import Connection
from gtask.client.loop import Alarm
from gtask.client.pool import connector as connector_module
from gtask.client.pool import ownership as ownership_module
from gtask.client.pool import workers as workers_module
from gtask.client.pool.connector import Connector
from gtask.client.pool.pool import Pool
from gtask.client.pool.slots import BUSY, CONNECTING, IDLE
from gtask.wire.conversation import Conversation
from gtask.wire.frames import Decoder, Encoder
from gtask.wire.lastwords import last_words
from gtask.wire.messages import Done, Failure, Greeting, LastWords, Request, Retire, Skipped, Value
from tests.support.examples import examples
from tests.support.waiting import turn_hub

ADDRESS = addresses.parse("unix:/nowhere/fake.sock")
READ = 1
SETUP_TIMEOUT = 10.0
OFTENER = ("drain", "resize", "kill_server", "break_setup")
RARE = ("pop_stats", "open", *OFTENER, *OFTENER, "stop_server", "close", "fork")


# --- the fake world ----------------------------------------------------------------------------------------


class Timer:
    """As the hub's, but it fires when the world says so."""

    def __init__(self, world, after, repeat, ref):
        self.world, self.after, self.repeat, self.holds = world, after, repeat, ref
        self.at, self.number, self.call = 0.0, 0, None

    def start(self, function, *args, update=True):
        self.at, self.number, self.call = self.world.now + self.after, next(self.world.numbers), (function, args)
        self.world.timers.add(self)

    def stop(self):
        self.world.timers.discard(self)
        self.call = None

    close = stop

    def fire(self):
        if self.call is not None:  # or it was stopped in the same turn
            function, args = self.call
            function(*args)


class Watcher:
    """Tells that a socket is readable, when the world says so."""

    def __init__(self):
        self.active, self.function = False, None

    def start(self, function, *args):
        self.active, self.function = True, function

    def stop(self):
        self.active = False

    close = stop

    def fire(self):
        if self.active:  # or it was stopped in the same turn
            self.function()


class Socket:
    """The client's end of the connection to a fake worker."""

    def __init__(self, worker):
        self.worker, self.closed = worker, False

    def fileno(self):
        return self.worker.number

    def recv_into(self, space):
        assert not self.closed
        out = self.worker.out
        if out:
            count = min(len(out), len(space))
            space[:count] = out[:count]
            del out[:count]
            return count
        if self.worker.dead:
            return 0
        raise BlockingIOError

    def send(self, data):
        assert not self.closed
        if self.worker.dead:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        self.worker.hear(bytes(data))
        return len(data)

    def shutdown(self, how):
        assert not self.closed
        if self.worker.dead:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        self.worker.hung_up_on = True

    def close(self):
        self.closed = True


class Worker:
    """Hears calls, and does with them what the machine says."""

    def __init__(self, world, number):
        self.world, self.number = world, number
        self.socket, self.reader = Socket(self), None
        self.out = bytearray()
        self.todo = deque()
        self.has_end_behind = False  # an end of the checkout that it takes after the calls before it
        self.dead = self.hung_up_on = False
        self.exchange, self.decoder, self.encoder = Conversation(), Decoder(), Encoder()

    def hear(self, data):
        self.decoder.space[: len(data)] = data
        for message in self.decoder.received(len(data)):
            if isinstance(message, Done) and self.todo:
                self.has_end_behind = True
                continue
            assert not self.has_end_behind, "a call behind the end of its checkout"
            self.exchange.client_says(message)
            if isinstance(message, Request):
                self.todo.append(message)
                self.world.executed[message.args[1]] += 1

    def say(self, message):
        self.exchange.worker_says(message)
        self.out += self.encoder.encode(message)

    @property
    def alive(self):
        return not self.dead and not self.socket.closed

    def greet(self):
        self.world.setup_has_failed |= not self.world.setup_works
        broken = "" if self.world.setup_works else "LookupError: no such model"
        self.say(Greeting(pid=self.number, name="fake", done=self.world.hook, text=broken))

    def answer(self, how="ok"):
        do = self.todo.popleft()
        if self.exchange.must_skip(do):
            self.say(Skipped())
        elif how == "ok":
            self.say(Value(do.args[1]))
        else:
            self.exchange.failed(do)
            interrupted = {"type": "Interrupted", "module": "gtask.errors"} if how == "interrupted" else None
            self.say(Failure(how, interrupted))
        if self.has_end_behind and not self.todo:
            self.has_end_behind = False
            self.exchange.client_says(Done())

    def die(self, how="eof"):
        if how == "last words":
            self.out += last_words(LastWords(self.number, signal="SIGKILL"))
        elif how == "half a reply" and self.todo:
            self.out += self.encoder.encode(Value(self.todo[0].args[1]))[:-1]
        elif how == "in order" and self.exchange.state in ("idle", "busy", "settling"):
            for do in self.todo:
                self.world.executed[do.args[1]] -= 1
            self.say(Retire("the server drains", end=True))
        self.dead = True


def is_twin(error, other):
    """Whether it is the same sticky error; each time a copy is raised."""
    return (type(error), str(error)) == (type(other), str(other))


class World:
    """The time, the server and the hub's timers. It is the pool's loop, and that of its connections, too."""

    def __init__(self, machine):
        self.machine = machine
        self.now = 1000.0
        self.numbers = itertools.count(1)
        self.timers = set()
        self.workers = []
        self.executed = Counter()
        self.up = self.setup_works = True
        self.hook = self.setup_has_failed = False
        self.wrong = []  # what went wrong where nobody would hear an exception
        self.hub = gevent.get_hub()

    # for the connector

    def connect(self, address, timeout):
        if not self.up:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        worker = Worker(self, next(self.numbers))
        self.workers.append(worker)
        return worker.socket

    # for connections: the loop of gevent's hub

    def io(self, number, events, ref):
        watcher = Watcher()
        if events == READ:
            self.workers[-1].reader = watcher
            assert self.workers[-1].number == number
        return watcher

    def run_callback(self, function, *args):
        self.hub.loop.run_callback(function, *args)

    # for the pool: gtask.client.loop.Loop

    def clock(self):
        return self.now

    def alarm(self, function, holds=False):
        return Alarm(Hub(self).loop, function, holds)

    def soon(self, function):
        self.hub.loop.run_callback(function)

    from_anywhere = soon

    def at_thread_end(self, function):
        return lambda: None  # it does not end

    def spawn(self, function, *args):
        if getattr(function, "__self__", None) is not workers_module.log:
            function(*args)

    greenlet = staticmethod(gevent.getcurrent)

    # for the machine

    def in_hub(self, function, *args):
        """Call a function in the hub, behind what is due there."""
        done = []

        def call():
            try:
                function(*args)
            except BaseException as error:
                self.wrong.append(error)
            done.append(True)

        self.hub.loop.run_callback(call)
        while not done:
            turn_hub()

    def read(self, worker):
        """The client reads what the worker has said."""
        while (worker.out or worker.dead) and worker.reader.active:
            self.in_hub(worker.reader.fire)

    def turn(self):
        """One turn of the hub: what can be read is read, what was put off is done."""
        turn_hub()
        for worker in self.workers:
            self.read(worker)
        self.workers = [worker for worker in self.workers if not worker.socket.closed]
        turn_hub()

    def advance(self, seconds):
        """Time passes, and timers fire, each in a turn of its own."""
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer.at <= end]:
            timer = min(due, key=lambda timer: (timer.at, timer.number))
            self.now = max(self.now, timer.at)
            self.timers.discard(timer)
            if timer.repeat:
                timer.at += timer.repeat
                self.timers.add(timer)
            self.in_hub(timer.fire)
            self.turn()
        self.now = end

    def serve(self, turns=4):
        """All workers do their duty for some turns."""
        for _ in range(turns):
            for worker in self.workers:
                if worker.alive and worker.exchange.state == "greeting":
                    worker.greet()
                while worker.alive and worker.todo:
                    worker.answer()
                if worker.alive and worker.exchange.state == "settling":
                    worker.say(Done())
            self.turn()


class Hub:
    """What a connection sees of gevent."""

    def __init__(self, world):
        self.loop = types.SimpleNamespace(
            io=world.io,
            run_callback=world.run_callback,
            timer=lambda after, repeat, ref: Timer(world, after, repeat, ref),
        )


# --- the machine -------------------------------------------------------------------------------------------


class Submitted:
    """A call, its token, and how it ended."""

    def __init__(self, token):
        self.token, self.result, self.greenlet, self.outcome = token, None, None, None

    def look(self):
        """How it ended, or None."""
        if self.outcome is not None:
            self.greenlet = None  # it knows its frames
        if self.outcome is None and self.result is not None and self.result.ready():
            error = self.result.exception
            self.outcome = ("raised", type(error)) if error is not None else ("ok", self.result.value)
        elif self.outcome is None and self.greenlet is not None and self.greenlet.dead:
            self.outcome = "raised", gevent.GreenletExit  # before it began
        return self.outcome


class Holder:
    """A checkout, as its user has it, and the calls made on it."""

    def __init__(self, checkout, timeout):
        self.checkout, self.lease, self.timeout = checkout, checkout._lease, timeout
        self.calls = []
        self.released = self.killed = self.cancelled = self.entered = False

    @property
    def open_calls(self):
        return [call for call in self.calls if call.look() is None]

    @property
    def is_over(self):
        return self.released and self.lease.connection is None and not self.open_calls


class Histories(RuleBasedStateMachine):
    """A client's pool, its users, its workers, its server; and a model of the line."""

    current = None  # the machine that runs

    # --- the start ---

    @initialize(
        size=st.tuples(st.integers(0, 2), st.integers(0, 2)),
        max_checkouts=st.none() | st.integers(1, 3),
        max_lifetime=st.sampled_from([None, None, 20.0]),
        max_waiting=st.sampled_from([None, None, None, 0, 2]),
        shed_target=st.sampled_from([None, None, 0.5]),
        leak_after=st.sampled_from([None, 3.0]),
        flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
        max_connecting=st.sampled_from([8, 1]),
        taken=st.integers(0, 4),
    )
    def start(
        self, size, max_checkouts, max_lifetime, max_waiting, shed_target, leak_after, flags, max_connecting, taken
    ):
        lifo, refork, hook = flags
        Histories.current = self
        self.world = World(self)
        self.world.hook = hook
        self.config = ClientConfig(
            timeout=5.0,
            setup_timeout=SETUP_TIMEOUT,
            min_workers=size[0],
            max_workers=max(1, sum(size)),
            max_checkouts=max_checkouts,
            max_lifetime=max_lifetime,
            max_idle=10.0,
            lifo=lifo,
            max_waiting=max_waiting,
            shed_target=shed_target,
            max_connecting=max_connecting,
            reconnect_timeout=5.0,
            leak_after=leak_after,
            max_queue=3,
            refork_after_error=refork,
        )
        self.pool = Pool(self.config, Connector(ADDRESS, self.config), make_loop=lambda: self.world)
        self.ceiling = self.config.max_workers
        self.tokens = itertools.count(70)  # a reply that ends with 75 could be the end of somebody's last words
        self.line = []  # leases, as the model has it
        self.holders = []
        self.over = []  # holders whose checkout has ended
        self.places = {}  # lease -> holder
        self.inherited = []
        self.stale = set()  # leases that were struck as they left the line
        self.strike = self.closed = False
        self.arriving = 0
        self.lent = 0
        self.world.hub.handle_error = self.failed_in_greenlet
        for _ in range(taken):
            self.take_place(2.0)
        self.world.serve(2)

    def failed_in_greenlet(self, context, kind, error, trace):
        self.world.wrong.append(error)

    @property
    def ledger(self):
        return self.pool._ledger

    def pick(self, number, things):
        return things[number % len(things)]

    # --- what the pool does, as it does it ---

    def lends(self, connection):
        """A worker is handed over."""
        self.look_at_the_line()
        lease, worker = connection.slot.holder, connection._stream._socket.worker
        self.lent += 1
        right = {
            "has one owner": not [h for h in self.holders if h.lease is not lease and h.lease.connection is connection],
            "is the one of the lease": lease.connection is connection,
            "is booked as busy": connection.slot.state == BUSY,
            "is clean": connection.state == "idle" and not (connection.pending or worker.todo or worker.socket.closed),
        }
        if lease in self.line:
            right["goes to the first in line"] = self.line[0] is lease
            self.line.remove(lease)
        else:
            right["goes to somebody who just came"] = self.arriving > 0
            right["overtakes nobody"] = not self.line
        self.world.wrong += [f"a worker that is handed over {what}: no" for what, is_so in right.items() if not is_so]

    def rejoins(self, lease):
        """A lease whose worker was found dead stands in line again."""
        if lease.released and not lease.queue:
            self.world.wrong.append("a lease that is over stands in line again")
        if not self.closed:
            self.line.insert(0, lease)

    def leaves(self):
        if self.strike:
            self.strike = False
            raise KeyboardInterrupt

    # --- callers ---

    def take_place(self, timeout):
        """A checkout is made."""
        before = self.ledger.waiting
        self.arriving += 1
        lent = self.lent
        try:
            checkout = self.pool.checkout(timeout, self)
        except errors.ClientClosed:
            assert self.closed
            return None
        except errors.Overloaded:
            assert self.config.max_waiting is not None
            assert before >= self.config.max_waiting
            return None
        finally:
            self.arriving -= 1
        assert not self.closed
        holder = Holder(checkout, timeout)
        self.holders.append(holder)
        self.places[holder.lease] = holder
        if self.lent == lent:
            self.line.append(holder.lease)
        return holder

    @rule(timeout=st.sampled_from([2.0, 2.0, None]))
    def checkout(self, timeout):
        """Take a place, or get a worker at once."""
        if len(self.holders) < 12:
            self.take_place(timeout)

    @rule(count=st.integers(2, 5))
    def many_checkouts(self, count):
        """A crowd."""
        for _ in range(count if len(self.holders) < 8 else 0):
            self.submit_on(self.take_place(2.0))

    def submit_on(self, holder):
        if holder is None:
            return
        lease, call = holder.lease, Submitted(next(self.tokens))
        before, waiting = lease.error, len(holder.open_calls)
        try:
            call.result = holder.checkout.echo.submit(call.token)
        except errors.CheckoutReleased:
            assert holder.released
        except errors.Error as error:
            refused = waiting >= self.config.max_queue or isinstance(before, errors.Overloaded)
            if not is_twin(error, before) and not (isinstance(error, errors.Overloaded) and refused):
                self.world.wrong.append(error)
        else:
            assert not holder.released
            assert before is None
            holder.calls.append(call)

    @precondition(lambda self: self.holders)
    @rule(number=st.integers(0, 11), count=st.sampled_from([1, 1, 1, 2, 4]))
    def submit(self, number, count):
        """Call, without waiting."""
        for _ in range(count):
            self.submit_on(self.pick(number, self.holders))

    @precondition(lambda self: self.holders)
    @rule(number=st.integers(0, 11), with_block=st.booleans())
    def call(self, number, with_block):
        """Call and block, in a greenlet of its own."""
        holder = self.pick(number, self.holders)
        call = Submitted(next(self.tokens))
        call.greenlet = gevent.spawn(self.blocked, holder, call, with_block)
        holder.calls.append(call)
        holder.entered |= with_block

    def blocked(self, holder, call, with_block):
        try:
            try:
                if with_block:
                    holder.checkout.__enter__()
                call.outcome = "ok", holder.checkout.call("echo", call.token)
            finally:
                if with_block:
                    holder.released = True
                    holder.checkout.release()
        except (errors.Error, gevent.GreenletExit) as error:
            call.outcome = "raised", type(error)
            if isinstance(error, gevent.GreenletExit) and self.world.executed[call.token] and holder.lease.connection:
                self.world.wrong.append("a call was interrupted, and its worker is still there")

    @precondition(lambda self: not self.closed and len(self.holders) < 8)
    @rule()
    def nested(self):
        """A greenlet holds a checkout and blocks on another."""
        outer = self.take_place(2.0)
        if outer is not None:
            call = Submitted(next(self.tokens))
            call.greenlet = gevent.spawn(self.blocked_twice, outer, call)
            outer.calls.append(call)
            outer.entered = True

    def blocked_twice(self, outer, call):
        try:
            with outer.checkout:
                try:
                    inner = self.take_place(2.0)
                    if inner is None:
                        call.outcome = "raised", errors.ClientClosed
                        return
                    inner.calls.append(call)
                    inner.entered = True
                    self.blocked(inner, call, True)
                finally:
                    outer.released = True
        except gevent.GreenletExit as error:
            call.outcome = "raised", type(error)

    def people(self):
        return [(h, call) for h in self.holders for call in h.open_calls if call.greenlet is not None]

    @precondition(lambda self: len(self.holders) < 12)
    @rule(then=st.sampled_from(["release", "answer"]))
    def round(self, then):
        """Somebody comes, calls and goes, before or after the answer."""
        holder = self.take_place(2.0)
        self.submit_on(holder)
        if then == "answer":
            self.world.serve(2)
        if holder is not None:
            holder.released = True
            holder.checkout.release()

    @precondition(lambda self: self.people())
    @rule(number=st.integers(0, 11))
    def kill(self, number):
        """Kill a greenlet that waits: it gets that in the next turn, and perhaps a worker before."""
        _, call = self.pick(number, self.people())
        call.greenlet.kill(block=False)
        for other in self.holders:
            other.killed |= call in other.calls

    @precondition(lambda self: self.holders)
    @rule(number=st.integers(0, 11))
    def release(self, number):
        """The end of a checkout; perhaps the second one."""
        holder = self.pick(number, self.holders)
        holder.released = True
        holder.checkout.release()

    @precondition(lambda self: [h for h in self.holders if h.lease.connection is not None])
    @rule(number=st.integers(0, 11))
    def release_one_that_holds(self, number):
        """The usual end of a checkout."""
        holder = self.pick(number, [holder for holder in self.holders if holder.lease.connection is not None])
        holder.released = True
        holder.checkout.release()

    @precondition(lambda self: self.over)
    @rule(number=st.integers(0, 4), cancel=st.booleans())
    def use_what_is_over(self, number, cancel):
        """The end has no end: a second release or cancel disturbs nobody, and a call is refused."""
        holder = self.pick(number, self.over)
        holder.checkout.release()
        if cancel:
            holder.checkout.cancel("too late")
        self.submit_on(holder)

    @precondition(lambda self: self.holders)
    @rule(number=st.integers(0, 11))
    def drop(self, number):
        """The last reference to a checkout goes, unless a greenlet has one."""
        holder = self.pick(number, self.holders)
        busy = [call for call in holder.open_calls if call.greenlet is not None]
        if isinstance(holder.checkout, Checkout) and not busy:
            is_there, holder.checkout = weakref.ref(holder.checkout), None
            holder.released = True
            if is_there() is not None:
                # A sticky error that was raised knows its frames, and they the checkout. It has no worker any more.
                assert holder.lease.connection is None, gc.get_referrers(is_there())
                assert holder.lease not in self.ledger.line
                holder.lease.release()
            self.world.turn()
            holder.checkout = types.SimpleNamespace(
                release=holder.lease.release, cancel=holder.lease.cancel, echo=types.SimpleNamespace(submit=self.refuse)
            )
            holder.checkout.call = holder.checkout.__enter__ = self.refuse

    def refuse(self, *args):
        raise errors.CheckoutReleased

    @precondition(lambda self: self.holders)
    @rule(number=st.integers(0, 11))
    def cancel(self, number):
        """Whatever it does, it is over."""
        holder = self.pick(number, self.holders)
        holder.cancelled = True
        holder.checkout.cancel("enough")

    @precondition(lambda self: self.bare())
    @rule(number=st.integers(0, 11), first=st.booleans())
    def release_struck(self, number, first):
        """A Ctrl-C strikes a waiter as it leaves the line: it may still be offered a worker, and refuses it."""
        holder = self.bare()[0] if first else self.pick(number, self.bare())
        self.strike = holder.released = True
        with pytest.raises(KeyboardInterrupt):
            holder.checkout.release()
        self.line.remove(holder.lease)
        self.stale.add(holder.lease)

    def bare(self):
        """Who waits and has made no call."""
        return [h for h in self.holders if h.lease in self.line and not h.lease.queue and not h.released]

    # --- workers ---

    def in_state(self, *states):
        """The workers that live and whose conversation is in one of these states."""
        return [worker for worker in self.world.workers if worker.alive and worker.exchange.state in states]

    @precondition(lambda self: self.in_state("greeting"))
    @rule(number=st.integers(0, 11), at_once=st.booleans())
    def greet(self, number, at_once):
        """A worker's setup has run, or has raised."""
        workers = self.in_state("greeting")
        worker = self.pick(number, workers)
        worker.greet()
        if at_once:
            self.world.read(worker)

    @precondition(lambda self: self.in_state("new", "greeting") or self.pool._connector.attempts)
    @rule()
    def greet_all(self):
        """All workers that start have started."""
        self.world.turn()
        for worker in self.in_state("greeting"):
            worker.greet()
        self.world.turn()

    @precondition(lambda self: self.in_state("busy"))
    @rule(number=st.integers(0, 11), how=st.sampled_from(["ok", "ok", "ok", "it raised"]), at_once=st.booleans())
    def answer(self, number, how, at_once):
        """A worker answers a call."""
        workers = self.in_state("busy")
        worker = self.pick(number, workers)
        worker.answer("interrupted" if worker.hung_up_on and how != "ok" else how)
        if at_once:
            self.world.read(worker)

    @precondition(lambda self: self.in_state("settling"))
    @rule(number=st.integers(0, 11), at_once=st.booleans())
    def settled(self, number, at_once):
        """A worker's checkout_done has run."""
        workers = self.in_state("settling")
        worker = self.pick(number, workers)
        worker.say(Done())
        if at_once:
            self.world.read(worker)

    @precondition(lambda self: self.in_state("idle", "busy", "settling"))
    @rule(number=st.integers(0, 11), at_once=st.booleans())
    def bye(self, number, at_once):
        """A worker asks to be retired."""
        workers = self.in_state("idle", "busy", "settling")
        worker = self.pick(number, workers)
        worker.say(Retire("memory"))
        if at_once:
            self.world.read(worker)

    @precondition(lambda self: self.in_state("greeting", "idle", "busy", "settling"))
    @rule(
        number=st.integers(0, 11),
        state=st.sampled_from(["greeting", "idle", "busy", "settling"]),
        how=st.sampled_from(["eof", "last words", "half a reply", "in order"]),
        at_once=st.booleans(),
    )
    def die(self, number, state, how, at_once):
        """A worker dies, which is noticed at once, or when something is sent to it, or in the hub's next turn."""
        workers = self.in_state(state) or self.in_state("greeting", "idle", "busy", "settling")
        worker = self.pick(number, workers)
        worker.die(how)
        if at_once:
            self.world.read(worker)

    @precondition(lambda self: self.world.workers)
    @rule()
    def serve(self):
        """For a while all goes well."""
        self.world.serve(2)

    # --- the server ---

    @precondition(lambda self: not (self.world.up and self.world.setup_works))
    @rule()
    def heal(self):
        """The server is there, and setup works."""
        self.world.up = self.world.setup_works = True

    def stop_server(self):
        """No new workers can be had."""
        self.world.up = False

    def kill_server(self):
        """The old ones die, too."""
        self.world.up = False
        for worker in self.world.workers:
            worker.die()

    def break_setup(self):
        """From now on setup raises."""
        self.world.setup_works = False

    # --- time and the client ---

    @rule()
    def turn(self):
        """The hub's next turn."""
        self.world.turn()

    @rule(seconds=st.sampled_from([0.01, 0.01, 0.06, 0.06, 0.3, 0.3, 1.1, 3.0, 12.0]))
    def advance(self, seconds):
        """Time passes."""
        self.world.advance(seconds)

    @rule()
    def advance_to_the_next_timer(self):
        """The next thing that is due happens."""
        if self.world.timers:
            self.world.advance(max(0.0, min(timer.at for timer in self.world.timers) - self.world.now))

    @rule(what=st.sampled_from(RARE), least=st.integers(0, 2), more=st.integers(0, 2))
    def now_and_then(self, what, least, more):
        """What happens less often than the rest."""
        if what == "resize" and not self.closed:
            self.resize(least, max(1, least + more))
        elif not self.closed or what not in ("open", "drain", "resize", "close"):
            getattr(self, what)()

    def open(self):
        self.pool.open()

    def drain(self):
        """Afterwards no idle worker is left of those before."""
        idle = {slot for slot in self.ledger.slots if slot.state == IDLE}
        self.pool.drain()
        assert not idle & self.ledger.slots

    def resize(self, least, most):
        self.pool.resize(least, most)
        self.ceiling = max(most, self.ceiling)  # until those beyond it have come back

    def close(self):
        """Nobody is served any more."""
        self.pool.close()
        self.closed = True
        assert self.ledger.waiting == 0

    def fork(self):
        """The rest of the history happens in the child; the parent's workers hear nothing of it."""
        if self.people():
            return  # whose greenlets the child would not have
        heard = [(worker, worker.exchange.state, len(worker.todo), worker.hung_up_on) for worker in self.world.workers]
        # Whose checkout has failed was told so by the parent, though perhaps from the hub's next turn.
        waiting = [call for holder in self.holders if holder.lease.error is None for call in holder.open_calls]
        self.pool._ownership.after_fork()
        for worker, state, todo, hung_up_on in heard:
            assert (worker.exchange.state, len(worker.todo), worker.hung_up_on) == (state, todo, hung_up_on)
        self.world.turn()
        assert all(call.look() is None for call in waiting), "a call of the parent was woken in the child"
        self.world.workers = []
        used = [holder for holder in self.holders if not holder.is_over]
        self.inherited += used
        self.holders, self.over, self.line, self.stale = [], [], [], set()
        self.lent = 0
        self.ceiling = self.pool.stats().max_workers

    @precondition(lambda self: self.inherited)
    @rule(number=st.integers(0, 11))
    def use_inherited(self, number):
        """A checkout of the parent's is refused in the child, and its end disturbs nobody."""
        holder = self.inherited.pop(number % len(self.inherited))
        with pytest.raises(errors.Error) as caught:
            holder.checkout.echo.submit(next(self.tokens))
        assert isinstance(caught.value, (errors.ClientClosed, errors.CheckoutReleased)) or holder.lease.error
        holder.checkout.release()

    def pop_stats(self):
        self.check_counters(self.pool.stats(reset=True))
        self.lent = 0

    # --- what holds after every step ---

    def check_counters(self, stats):
        assert stats.checkouts == self.lent == stats.waits.count == sum(stats.waits.buckets)
        assert stats.uses.count == sum(stats.uses.buckets)
        assert min([*stats.deaths.values(), *stats.retirements.values(), 1]) > 0

    @invariant()
    def all_is_well(self):
        self.check_what_was_heard()
        self.check_the_line()
        self.check_the_gauges()
        self.check_the_calls()

    def check_what_was_heard(self):
        for wrong in self.world.wrong:
            raise AssertionError(str(wrong)) from (wrong if isinstance(wrong, BaseException) else None)

    def check_the_line(self):
        """Everybody who waits is there, in order; who is not there any more was served, or told why not."""
        self.look_at_the_line()
        self.check_what_was_heard()
        assert [lease for lease in self.ledger.line if lease not in self.stale] == self.line
        for lease in self.line:
            if lease.queue:
                # A worker may end in order, having begun nothing, when the time of its call is over already.
                rings_at = self.pool._workers.line_clock._alarm.at
                assert lease.queue[0].deadline >= min(self.world.now, rings_at), "its time is over, and it waits"

    def look_at_the_line(self):
        """Cross out of the model's line who has given up or was turned away."""
        for lease in list(self.line):
            if lease.queue:
                continue  # also one that is released, or to which more calls were refused
            if lease.error is not None:
                self.check_turned_away(self.places[lease], lease.error)
            if lease.error is not None or lease.released:
                self.line.remove(lease)

    def check_turned_away(self, holder, error):
        reasons = {
            errors.AcquireTimeout: holder.timeout is not None,
            errors.ClientClosed: self.closed,
            errors.SetupError: self.world.setup_has_failed,
            errors.Overloaded: True,
            errors.Cancelled: holder.cancelled or holder.killed,
            errors.NestedCheckout: holder.entered,
        }
        if not any(isinstance(error, kind) and right for kind, right in reasons.items()):
            self.world.wrong.append(error)

    def check_the_gauges(self):
        stats, leases = self.pool.stats(), [holder.lease for holder in self.holders]
        there = [connection for connection in self.pool._connector.connections if connection.error is None]
        held = [lease.connection for lease in leases if lease.connection is not None]
        assert len(set(held)) == len(held), "a worker has two owners"
        assert set(held) <= set(there), "a worker that is lent is closed"
        free = [connection for connection in there if connection not in held and connection.slot.state != CONNECTING]
        settling = [connection for connection in free if connection.state == "settling"]
        idle = [connection for connection in free if connection.state != "settling"]
        for connection in idle:
            assert connection.state == "idle", "a dirty worker is idle"
            assert not connection.pending
            assert not connection._stream._socket.worker.todo
        assert stats.waiting == len(self.ledger.line)
        assert (stats.busy, stats.idle, stats.settling) == (len(held), len(idle), len(settling))
        assert stats.connecting == self.pool._connector.attempts
        assert self.ledger.slots == {connection.slot for connection in there} | {
            slot for slot in self.ledger.slots if slot.state == CONNECTING
        }
        opened = {worker.socket for worker in self.world.workers if not worker.socket.closed}
        assert opened == {connection._stream._socket for connection in there}, "a socket is nobody's"
        assert not (self.line and idle), "somebody waits while a worker is idle"
        total = stats.busy + stats.idle + stats.settling + stats.connecting
        assert total <= self.ceiling, "too many workers"
        self.ceiling = max(stats.max_workers, min(total, self.ceiling))
        self.check_counters(stats)
        assert not self.closed or stats.idle + stats.connecting + stats.waiting == 0

    def check_the_calls(self):
        for holder in self.holders:
            for call in holder.calls:
                how, what = call.look() or (None, None)
                if how == "ok":
                    assert what == call.token, "the answer of another call"
                elif how == "raised":
                    assert issubclass(what, (errors.Error, gevent.GreenletExit))
        assert max(self.world.executed.values(), default=0) <= 1, "a call was sent twice"
        self.over = [*self.over, *(holder for holder in self.holders if holder.is_over)][-5:]
        self.holders = [holder for holder in self.holders if not holder.is_over]

    # --- the end ---

    def teardown(self):
        if not hasattr(self, "world"):
            return
        try:
            if sys.exc_info()[0] is None:
                self.all_ends_well()
        finally:
            self.pool.close()
            for _, call in self.people():
                call.greenlet.kill(block=False)
            self.holders, self.over, self.inherited, self.places = [], [], [], {}
            for _ in range(4):
                turn_hub()
            self.world.hub.__dict__.pop("handle_error", None)

    def all_ends_well(self):
        """Once all is well again, every call ends, every worker comes back, and everybody can be served."""
        world = self.world
        world.up = world.setup_works = True
        for holder in self.holders:
            if not holder.released:
                holder.released = True
                holder.checkout.release()
        for _ in range(8):
            world.serve()
            world.advance(1.0)
        world.serve()
        self.all_is_well()
        assert not [call for holder in self.holders for call in holder.open_calls], "a call has no outcome"
        stats = self.pool.stats()
        assert (stats.busy, stats.settling, stats.waiting, stats.connecting) == (0, 0, 0, 0)
        if self.closed:
            assert not self.ledger.slots
            return
        if self.ledger.opened:
            assert stats.idle >= stats.min_workers
        most = stats.max_workers
        taken = [self.take_place(None) for _ in range(most)]
        world.serve()
        world.serve()
        assert all(holder is not None and holder.lease.connection is not None for holder in taken), "a place is lost"
        self.all_is_well()
        self.pool.close()
        self.closed = True
        for holder in taken:
            holder.checkout.release()
        world.serve()
        world.advance(1.0)
        assert not self.ledger.slots
        assert not self.pool._connector.connections
        assert not world.timers, [timer.call for timer in world.timers]


@pytest.fixture
def fake_world(monkeypatch):
    """The client's modules see the time, the sockets and the hub of the machine that runs."""

    def now():
        return Histories.current.world.now

    def get_hub():
        return Hub(Histories.current.world)

    lend, rejoin, leave = Connection.lend, Pool.rejoin, Pool.leave

    def lends(connection):
        connection._owner.loop.machine.lends(connection)
        lend(connection)

    def rejoins(pool, lease):
        pool._workers.loop.machine.rejoins(lease)
        rejoin(pool, lease)

    def leaves(pool, lease):
        pool._workers.loop.machine.leaves()
        leave(pool, lease)

    for module in (in_line_module, connection_module, handshake_module, overtime_module):
        monkeypatch.setattr(module, "monotonic", now)
    monkeypatch.setattr(connection_module, "gevent", types.SimpleNamespace(get_hub=get_hub))
    monkeypatch.setattr(calls_module, "gevent", types.SimpleNamespace(get_hub=get_hub))
    monkeypatch.setattr(stream_module, "socket_writer", lambda sock: sock.send)
    monkeypatch.setattr(connector_module, "connect", lambda *args: Histories.current.world.connect(*args))
    monkeypatch.setattr(ownership_module, "_inherited", [])
    monkeypatch.setattr(Connection, "lend", lends)
    monkeypatch.setattr(Pool, "rejoin", rejoins)
    monkeypatch.setattr(Pool, "leave", leaves)


def test_long_histories(fake_world):
    """Whatever happens, in whatever order: what the invariants say holds after every step, and all ends well."""
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=examples(3),
            stateful_step_count=60,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            database=None,
            report_multiple_bugs=False,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
