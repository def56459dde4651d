"""The point of this test is to ensure that a client's executor runs functions in workers, and blocks only greenlets.

That it is an executor as Python's own are is in tests/promises/calls/test_executor_compliance.py.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import itertools
import os
import threading
import traceback
import weakref

import gevent
import pytest

import gtask
from gtask.client.many.executor import Future
from tests.support.waiting import turn_hub, wait_until

SOURCE = """
    import os

    def pid():
        return os.getpid()

    def double(number, *, times=1):
        return 2 * number * times

    def add(first, second):
        return first + second

    def fail(number):
        if number == 2:
            raise LookupError("on purpose")
        return number

    def hold(gate):
        open(os.path.join(DIR, gate + "-inside"), "w").close()
        with open(os.path.join(DIR, gate)) as file:
            file.read()
        return gate

    def note(text):
        with open(os.path.join(DIR, "notes"), "a") as file:
            file.write(text)

    class Report:
        def render(self):
            return None

        @staticmethod
        def blank():
            return "blank"
"""


@pytest.fixture
def jobs(allow):
    """A server of SOURCE and math, and the module with that source."""
    return allow(SOURCE, "math")


class Gate:
    """Holds the call that comes; see ``hold`` in SOURCE."""

    def __init__(self, directory, name="gate"):
        self.name = name
        self._inside, self._gate = directory / f"{name}-inside", directory / name
        os.mkfifo(self._gate)

    def wait_inside(self):
        """Wait until a call is there."""
        wait_until(self._inside.exists)

    def open(self):
        """Let it go."""
        self._gate.write_text("")


@pytest.fixture
def gate(tmp_path):
    return Gate(tmp_path)


@pytest.fixture
def ticks():
    """How often another greenlet has run meanwhile, as a function."""
    count = itertools.count()

    def run():
        while True:
            next(count)
            turn_hub()

    greenlet = gevent.spawn(run)
    yield lambda: next(count)
    greenlet.kill()


# --- submit ---------------------------------------------------------------------------------------------


def test_functions_and_their_names(jobs, connect):
    """A function of an allowed module, its name, a static method; with keyword arguments."""
    server, module = jobs
    executor = connect(server).executor()
    assert executor.submit(module.double, 4, times=3).result() == 24
    assert executor.submit(f"{module.__name__}:double", 4, times=3).result() == 24
    assert executor.submit(module.Report.blank).result() == "blank"
    assert executor.submit("math:sqrt", 9).result() == 3
    assert executor.submit(module.pid).result() != os.getpid()
    assert isinstance(executor, concurrent.futures.Executor)


def test_functions_that_no_worker_can_find(jobs, connect):
    """They are refused at once, each with what to do."""
    server, module = jobs
    executor = connect(server).executor()

    def nested():
        return None

    for function, says in [
        (lambda: None, "write it with def"),
        (nested, "move it to the top level"),
        (module.Report().render, "bound to an object"),
        (3, "it is a int"),
    ]:
        with pytest.raises(TypeError, match=says):
            executor.submit(function)
        with pytest.raises(TypeError, match=says):
            executor.map(function, [1])
    with pytest.raises(ValueError, match='write "module:function"'):
        executor.submit("double", 1)
    with pytest.raises(gtask.EncodeError):
        executor.submit(module.double, object())
    with pytest.raises(PermissionError, match="os:getpid may not be called"):
        executor.submit("os:getpid").result()


def test_what_a_function_raises(jobs, connect):
    """It is raised by result, with the worker's lines, and given by exception; again and again the same."""
    server, module = jobs
    future = connect(server).executor().submit(module.fail, 2)
    error = future.exception()
    assert isinstance(error, LookupError)
    lines = []
    for _ in range(2):
        with pytest.raises(LookupError) as caught:
            future.result()
        assert caught.value is error
        lines.append(traceback.format_exception(error))
    assert 'raise LookupError("on purpose")' in "".join(lines[0])
    assert len(lines[0]) == len(lines[1])


def test_they_run_in_many_workers_at_once(jobs, connect, tmp_path):
    """As many as the client may have."""
    server, module = jobs
    gates = [Gate(tmp_path, name) for name in "abc"]
    executor = connect(server, max_workers=3).executor()
    futures = [executor.submit(module.hold, gate.name) for gate in gates]
    for gate in gates:
        gate.wait_inside()
    for gate in gates:
        gate.open()
    assert [future.result() for future in futures] == ["a", "b", "c"]


def test_submit_never_blocks(jobs, connect, gate):
    """Whether there is a worker or not; the line is as long as max_waiting lets it be."""
    server, module = jobs
    client = connect(server, max_workers=1, max_waiting=5)
    executor = client.executor()
    futures = [executor.submit(module.hold, "gate")]
    gate.wait_inside()
    futures += [executor.submit(module.double, number) for number in range(5)]
    with pytest.raises(gtask.Overloaded, match="5 wait in line"):
        executor.submit(module.double, 5)
    with pytest.raises(gtask.Overloaded, match="5 wait in line"):
        executor.map(module.double, range(5))
    gate.open()
    assert [future.result() for future in futures] == ["gate", 0, 2, 4, 6, 8]


def test_a_map_that_is_overloaded_leaves_nothing_behind(jobs, connect, gate):
    """What it had submitted until then is not run."""
    server, module = jobs
    client = connect(server, max_workers=1, max_waiting=3)
    executor = client.executor()
    held = executor.submit(module.hold, "gate")
    gate.wait_inside()
    with pytest.raises(gtask.Overloaded):
        executor.map(module.note, "abcdefg")
    assert client.stats().waiting == 0
    gate.open()
    held.result()


def test_the_time_out_is_the_clients_or_its_own(jobs, connect, gate):
    """The time in line is part of it."""
    server, module = jobs
    client = connect(server, max_workers=1, timeout=30)
    executor = client.executor(timeout=0.2)
    held = client.executor().submit(module.hold, "gate")
    with pytest.raises(gtask.AcquireTimeout):
        executor.submit(module.pid).result()
    gate.wait_inside()
    gate.open()
    assert held.result() == "gate"
    with pytest.raises(ValueError, match="timeout=0"):
        client.executor(timeout=0)


# --- futures --------------------------------------------------------------------------------------------


def test_waiting_blocks_the_greenlet_only(jobs, connect, gate, ticks):
    """For a result, an exception, by concurrent.futures and by gevent: others run meanwhile, also in this program,
    whose threading is not patched."""
    server, module = jobs
    executor = connect(server, max_workers=2).executor()
    held = executor.submit(module.hold, "gate")
    before = ticks()
    for wait in (held.result, held.exception):
        with pytest.raises(concurrent.futures.TimeoutError):
            wait(timeout=0.02)
        assert ticks() > before + 1
        before = ticks()
    assert not held.wait(0.01)
    done, left = concurrent.futures.wait([held], timeout=0.02)
    assert (done, left) == (set(), {held})
    assert ticks() > before + 1
    quick = executor.submit(module.pid)
    assert next(concurrent.futures.as_completed([held, quick], timeout=30)) is quick
    gate.wait_inside()
    gevent.spawn(gate.open)
    assert concurrent.futures.wait([held, quick]).done == {held, quick}
    assert held.wait()


def test_waiting_together_with_futures_of_threads(jobs, connect, gate):
    """Whichever is first is told."""
    server, module = jobs
    go = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        mine, other = connect(server).executor().submit(module.hold, "gate"), threads.submit(go.wait)
        gate.wait_inside()
        gevent.spawn_later(0.01, go.set)
        assert concurrent.futures.wait([mine, other], 30, "FIRST_COMPLETED").done == {other}
        gate.open()
        assert set(concurrent.futures.as_completed([mine, other])) == {mine, other}


def test_futures_are_gevents_too(jobs, connect, tmp_path):
    """gevent.wait and iwait take them; rawlink, unlink and ready."""
    server, module = jobs
    gates = [Gate(tmp_path, name) for name in "ab"]
    executor = connect(server, max_workers=2).executor()
    first, second = (executor.submit(module.hold, gate.name) for gate in gates)
    linked, unlinked = [], []
    second.rawlink(linked.append)
    second.rawlink(unlinked.append)
    second.unlink(unlinked.append)
    second.unlink(unlinked.append)
    assert not second.ready()
    assert gevent.wait([first, second], timeout=0.01) == []
    gates[1].wait_inside()
    gates[1].open()
    assert gevent.wait([first, second], count=1) == [second]
    assert second.ready()
    gates[0].wait_inside()
    gevent.spawn(gates[0].open)
    assert set(gevent.iwait([first, second])) == {first, second}
    second.rawlink(linked.append)
    turn_hub()
    turn_hub()
    assert linked == [second, second]
    assert unlinked == []


def test_callbacks(jobs, connect):
    """Each gets the future when it is done, and at once if it is."""
    server, module = jobs
    told = []
    future = connect(server).executor().submit(module.double, 1)
    future.add_done_callback(lambda future: told.append(future.result()))
    assert future.result() == 2
    future.add_done_callback(told.append)
    assert told == [2, future]


def test_cancel_until_it_is_sent(jobs, connect, gate, tmp_path):
    """What is in line does not run; what runs goes on, and says so."""
    server, module = jobs
    client = connect(server, max_workers=1)
    executor = client.executor()
    held, waiting, third = (
        executor.submit(module.hold, "gate"), executor.submit(module.note, "x"), executor.submit(module.pid)
    )  # fmt: skip
    told = []
    waiting.add_done_callback(told.append)
    gate.wait_inside()
    assert (held.running(), waiting.running()) == (True, False)
    assert repr(held).endswith(":hold, running>")
    assert repr(waiting).endswith(":note, in line>")
    assert not held.cancel()
    assert not held.cancelled()
    waiter = gevent.spawn(concurrent.futures.wait, [waiting])
    turn_hub()
    assert waiting.cancel()
    assert waiting.cancel()
    assert waiter.get(timeout=30).done == concurrent.futures.wait([waiting], timeout=30).done == {waiting}
    assert waiting.cancelled()
    assert waiting.done()
    assert repr(waiting).endswith(":note, cancelled>")
    assert told == [waiting]
    with pytest.raises(concurrent.futures.CancelledError):
        waiting.result()
    gate.open()
    assert held.result() == "gate"
    assert not held.cancel()
    assert not held.running()
    assert repr(held).endswith(":hold, done>")
    assert isinstance(third.result(), int)
    assert not (tmp_path / "notes").exists()
    assert client.stats().waiting == 0


def test_a_worker_that_dies_ends_one_future(jobs, connect, gate):
    """And not the executor."""
    server, module = jobs
    executor = connect(server).executor()
    pid = executor.submit(module.pid).result()
    held = executor.submit(module.hold, "gate")
    gate.wait_inside()
    os.kill(pid, 9)
    assert isinstance(held.exception(), gtask.WorkerDied)
    assert executor.submit(module.double, 2).result() == 4


def test_a_future_keeps_what_it_needs(jobs, connect):
    """The client may be dropped before the value is there; when it is, nothing holds on to it."""
    server, module = jobs
    client = gtask.Client(server.address, min_workers=0)
    gone = weakref.ref(client)
    future = client.executor().submit(module.double, 4)
    del client
    assert future.result() == 8
    gc.collect()
    assert gone() is None


def test_other_threads_may_wait(jobs, connect, gate):
    """Those of asyncio, for example, by the means that Python has for that."""
    server, module = jobs
    executor = connect(server).executor()
    future = executor.submit(module.hold, "gate")
    values = []

    async def wait():
        return await asyncio.wrap_future(future)

    threads = [
        threading.Thread(target=lambda: values.append(asyncio.run(wait()))),
        threading.Thread(target=lambda: values.append(future.result(30))),
    ]
    for thread in threads:
        thread.start()
    gate.wait_inside()
    gate.open()
    assert future.result() == "gate"
    wait_until(lambda: not any(thread.is_alive() for thread in threads))
    assert values == ["gate", "gate"]


# --- map ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"chunksize": 3}, {"chunksize": 100}, {"buffersize": 2}, {"timeout": 30}])
def test_map_gives_values_in_order(jobs, connect, options):
    """Of one iterable or several, as long as the shortest."""
    server, module = jobs
    executor = connect(server, max_workers=3).executor()
    assert list(executor.map(module.double, range(10), **options)) == [2 * number for number in range(10)]
    assert list(executor.map(module.add, range(10), itertools.count(5), **options)) == [5 + 2 * n for n in range(10)]
    assert list(executor.map(f"{module.__name__}:double", [], **options)) == []


def test_a_chunk_is_one_call(jobs, connect):
    """Run by one worker, one item after the other."""
    server, module = jobs
    client = connect(server, max_workers=1)
    assert len(list(client.executor().map(module.double, range(10), chunksize=4))) == 10
    assert client.stats().calls == 3


@pytest.mark.parametrize(("chunksize", "before"), [(1, [0, 1]), (2, [0, 1]), (3, [])])
def test_an_exception_in_a_map(jobs, connect, chunksize, before):
    """It is raised in place of the value, or of its whole chunk, and ends the iterator; as Python's executors do."""
    server, module = jobs
    values = connect(server).executor().map(module.fail, range(6), chunksize=chunksize)
    got = []
    with pytest.raises(LookupError, match="on purpose"):
        got.extend(iter(lambda: next(values), None))  # extend keeps what came before
    assert list(values) == []
    assert got in (before, [])


def test_a_map_that_takes_too_long(jobs, connect, gate, tmp_path):
    """The time counts from the call of map; what has not been sent is cancelled."""
    server, module = jobs
    client = connect(server, max_workers=1)
    executor = client.executor()
    held = executor.submit(module.hold, "gate")
    gate.wait_inside()
    values = executor.map(module.note, "xyz", timeout=0.05)
    with pytest.raises(concurrent.futures.TimeoutError):
        next(values)
    assert list(values) == []
    gate.open()
    held.result()
    executor.shutdown()
    assert not (tmp_path / "notes").exists()


def test_a_map_is_submitted_at_once_or_as_far_as_wanted(jobs, connect, tmp_path):
    """Without an iteration, as Python's; with buffersize only so many are taken from the iterable."""
    server, module = jobs
    executor = connect(server).executor()
    taken = []
    numbers = (taken.append(number) or number for number in itertools.count())
    values = executor.map(module.double, numbers, buffersize=3)
    assert taken == [0, 1, 2]
    assert [next(values) for _ in range(4)] == [0, 2, 4, 6]
    assert len(taken) == 6
    values.close()
    executor.map(module.note, "ab")
    with executor:
        pass
    assert sorted((tmp_path / "notes").read_text()) == ["a", "b"]


@pytest.mark.parametrize("options", [{"chunksize": 0}, {"chunksize": -1}, {"buffersize": 0}])
def test_what_makes_no_sense(connect, options):
    """It is refused at once."""
    with pytest.raises(ValueError, match="write a number of at least 1"):
        connect("unix:/nowhere").executor().map("math:sqrt", [1], **options)


# --- shutdown -------------------------------------------------------------------------------------------


def test_shutdown_waits(jobs, connect, gate, ticks):
    """For all that was submitted, blocking one greenlet; then nothing more is taken, but the client goes on."""
    server, module = jobs
    client = connect(server)
    with client.executor() as executor:
        future = executor.submit(module.hold, "gate")
        gate.wait_inside()
        executor.shutdown(wait=False)
        assert not future.done()
        with pytest.raises(RuntimeError, match="after shutdown"):
            executor.submit(module.pid)
        with pytest.raises(RuntimeError, match="after shutdown"):
            executor.map(module.double, [1])
        gevent.spawn(gate.open)
        before = ticks()
    assert ticks() > before
    assert future.done()
    assert "shut down" in repr(executor)
    assert client.call(f"{module.__name__}:double", 2) == 4


def test_shutdown_may_cancel(jobs, connect, gate, tmp_path):
    """What has not been sent."""
    server, module = jobs
    executor = connect(server, max_workers=1).executor()
    held = executor.submit(module.hold, "gate")
    gate.wait_inside()
    waiting = [executor.submit(module.note, "x") for _ in range(3)]
    gevent.spawn(gate.open)
    executor.shutdown(cancel_futures=True)
    assert held.result() == "gate"
    assert all(future.cancelled() for future in waiting)
    assert not (tmp_path / "notes").exists()
    assert "0 pending" in repr(executor)


def test_a_client_that_is_closed(jobs, connect):
    """Takes nothing more, and says why."""
    server, module = jobs
    client = connect(server)
    executor = client.executor()
    client.close()
    with pytest.raises(gtask.ClientClosed):
        executor.submit(module.pid)


def test_a_future_by_itself():
    """As Python's it can be set by hand, which the tests of programs do."""
    future = Future("a:b")
    assert not future.running()
    assert not future.cancel()
    future.set_result(3)
    assert future.result() == 3
