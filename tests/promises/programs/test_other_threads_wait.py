"""The point of this test is to ensure that any thread may wait for a result or a future of a client's.

It waits as it waits for anything else: a greenlet blocks alone, beside others of its hub; a thread without a hub blocks
as a whole. It hears at once, without a LoopExit, however many wait, and also if the client's thread ends meanwhile.
"""

import concurrent.futures
import contextlib
import os
import threading

import gevent
import pytest

import gtask
from tests.support.waiting import SOON, turn_hub, wait_until

SOURCE = """
    import os

    def module():
        return __name__

    def hold(gate):
        with open(os.path.join(DIR, gate)) as file:
            file.readline()
        return "value"

    def fail(gate):
        raise LookupError(hold(gate))
"""


class Thread(threading.Thread):
    """Runs a function in an OS thread of its own, while this thread's hub turns."""

    def __init__(self, function, *args):
        super().__init__(daemon=True)
        self.function, self.args = function, args
        self.waits = threading.Event()
        self.start()

    def run(self):
        self.waits.set()
        try:
            self.outcome = self.function(*self.args)
        except BaseException as error:  # for the test
            self.outcome = error
        finally:
            gevent.get_hub().destroy()  # or its descriptors would stay

    def end(self):
        """Wait for its end; gives what the function has returned or raised."""
        wait_until(lambda: not self.is_alive(), "the end of the thread")
        return self.outcome


class Gate:
    """Lets a call go."""

    def __init__(self, directory):
        os.mkfifo(directory / "gate")
        self._fifo = os.open(directory / "gate", os.O_RDWR)  # blocks nobody, whoever comes first

    def open(self):
        os.write(self._fifo, b"\n")

    def close(self):
        os.close(self._fifo)


@pytest.fixture
def gate(tmp_path):
    with contextlib.closing(Gate(tmp_path)) as gate:
        yield gate


def submitted(client, method):
    """By submit: the checkout lives as long as it must."""
    return getattr(client.checkout(), method).submit("gate")


def future(client, method):
    """By the executor."""
    return client.executor().submit(f"{client.call('module')}:{method}", "gate")


@pytest.fixture(params=[submitted, future])
def begin(request, serve, connect):
    """``begin(method)`` begins a call that waits at the gate; gives its result or its future."""
    client = connect(serve(SOURCE), max_workers=1)
    return lambda method: request.param(client, method)


def get(result):
    return result.get() if hasattr(result, "get") else result.result()


WAITS = {
    "get": get,
    "result": lambda result: result.result(),
    "result with a time-out": lambda result: result.result(timeout=SOON),
    "wait": lambda result: result.wait() and get(result),
    "gevent.wait": lambda result: get(*gevent.wait([result])),
    "a count": lambda result: get(*gevent.wait([gevent.event.Event(), result], count=1)),
    "iwait": lambda result: get(*gevent.iwait([result])),
    "a greenlet": lambda result: gevent.spawn(get, result).get(),
    "many greenlets": lambda result: {one.get() for one in [gevent.spawn(get, result) for _ in range(5)]}.pop(),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_it_hears_at_once(begin, gate, wait):
    """Each of ten threads, whatever they wait in."""
    result = begin("hold")
    threads = [Thread(wait, result) for _ in range(10)]
    for thread in threads:
        thread.waits.wait(SOON)
    gate.open()
    assert [thread.end() for thread in threads] == ["value"] * 10
    assert get(result) == "value"


def test_one_that_is_there_already(begin, gate):
    """A thread that asks when all is over has it at once."""
    result = begin("hold")
    gate.open()
    assert get(result) == "value"
    assert [thread.end() for thread in [Thread(wait, result) for wait in WAITS.values()]] == ["value"] * len(WAITS)


def test_the_other_greenlets_of_its_hub_go_on(begin, gate):
    """Only the greenlet that waits is stopped."""
    result = begin("hold")
    others_run = threading.Event()

    def run():
        waiting = gevent.spawn(get, result)
        for _ in range(5):
            turn_hub()
        others_run.set()
        return waiting.get()

    thread = Thread(run)
    wait_until(others_run.is_set, "the greenlets beside the one that waits")
    gate.open()
    assert thread.end() == "value"


def test_it_hears_of_an_exception(begin, gate):
    """As the client's own thread does."""
    result = begin("fail")
    threads = [Thread(get, result) for _ in range(3)]
    gate.open()
    for thread in threads:
        error = thread.end()
        assert isinstance(error, LookupError)
        assert isinstance(error, gtask.RemoteError)


def test_a_time_out_passes(begin, gate):
    """It harms nobody: the next wait of the same thread hears."""
    result = begin("hold")

    def run():
        assert gevent.wait([result], timeout=0.01) == []
        assert not result.wait(0.01)
        with pytest.raises((gevent.Timeout, concurrent.futures.TimeoutError)):
            result.result(timeout=0.01)
        assert list(gevent.iwait([result], timeout=0.01)) == []
        given_up.set()
        return get(result)

    given_up = threading.Event()
    thread = Thread(run)
    wait_until(given_up.is_set)
    gate.open()
    assert thread.end() == "value"


def test_a_thread_that_ends_while_its_greenlets_wait(begin, gate):
    """Nobody else is disturbed."""
    result = begin("hold")
    Thread(lambda: gevent.spawn(get, result).join(timeout=0.01)).end()
    gate.open()
    assert get(result) == "value"


def test_a_callback_is_called_in_the_hub_that_has_asked_for_it(begin, gate):
    """And not once more after an unlink."""
    result = begin("hold")
    linked = []

    def run():
        gevent.get_hub()
        result.rawlink(lambda which: linked.append((which, threading.get_ident())))
        result.rawlink(linked.append)
        result.unlink(linked.append)
        gevent.wait([result])
        turn_hub()
        return threading.get_ident()

    thread = Thread(run)
    wait_until(thread.waits.is_set)
    gate.open()
    assert linked == [(result, thread.end())]


def test_the_clients_thread_ends_first(serve, gate):
    """Then nothing comes any more, and that is heard."""
    server = serve(SOURCE)
    begun = []

    def own():
        client = gtask.Client(server.address, max_workers=2)
        begun.extend([future(client, "hold"), submitted(client, "hold")])
        wait_until(lambda: client.stats().busy == 2, "the calls under way")

    owner = Thread(own)
    wait_until(lambda: len(begun) == 2)
    threads = [Thread(get, result) for result in begun for _ in range(2)]
    assert owner.end() is None
    begun.clear()
    for thread in threads:
        error = thread.end()
        assert isinstance(error, gtask.ClientClosed)
        assert "ended with its thread" in str(error)
