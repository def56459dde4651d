"""The point of this test is to ensure that threads of every kind call through clients, or are told clearly why not.

Those of a monkey-patched program are greenlets and share a client. A real one has a client of its own, which ends with
it; in another's it is told WrongThread. Each test is a program of its own.
"""

import re
import textwrap

import pytest

from tests.support.program import run_program

SOURCE = """
import os
import time

def double(number):
    return 2 * number

def fail(key):
    return {}[key]

def pids():
    return [os.getpid(), os.getppid()]

def hang():
    time.sleep(3600)
"""

PLAIN = "import gevent\nfrom gevent.monkey import get_original\nfrom gtask import testing\n"
PATCHED = "from gevent import monkey; monkey.patch_all()\n" + PLAIN

BEGINNING = """
import concurrent.futures, contextlib, gc, os, queue, select, signal, sys, threading, time, traceback
import gtask
from tests.support.waiting import wait_until

signal.alarm(60)  # a program that hangs is killed
address = sys.argv[1]

def real_thread(function):
    "Run a function in a real thread to its end, while the hub here turns; gives what it gave or raised."
    outcome, ended = [], get_original("_thread", "allocate_lock")()
    ended.acquire()

    def run():
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)
        threads.append(get_original("_thread", "get_ident")())
        ended.release()

    get_original("_thread", "start_new_thread")(run, ())
    testing.wait_until(lambda: ended.acquire(False), 30)
    (outcome,) = outcome
    return outcome

threads = []

def wait_until_gone(*pids):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            end = os.pidfd_open(pid)
            assert select.select([end], [], [], 30)[0], "it goes on"
            os.close(end)
"""


@pytest.fixture
def run(shared, tmp_path, unmeasured):
    """``run(beginning, source)`` runs a program that must end well and say nothing; warnings are errors."""
    (tmp_path / "application.py").write_text(SOURCE)

    def run(beginning, source):
        source = beginning + BEGINNING + textwrap.dedent(source)
        ran = run_program(source, shared(SOURCE).address, directory=tmp_path)
        assert re.sub(r".* (INFO|WARNING) .* gtask.server: .*\n", "", ran.stderr) == ""

    return run


def test_fifty_patched_threads_share_a_client(run):
    """With thread-locals of their own, a queue between them, events, errors and time-outs."""
    run(
        PATCHED,
        """
        with gtask.Client(address, min_workers=0, max_workers=3, timeout=30) as client:
            mine, done, may_begin = threading.local(), queue.Queue(), threading.Event()

            def work(number):
                mine.number = number
                may_begin.wait()
                with client.checkout() as worker:
                    mine.worker = worker.pids()
                    try:
                        worker.fail(str(number))
                    except KeyError as error:
                        assert error.args == (str(mine.number),)
                    doubled = worker.double(mine.number)
                    assert worker.pids() == mine.worker
                done.put((mine.number, doubled))

            started = [threading.Thread(target=work, args=(number,)) for number in range(50)]
            for thread in started:
                thread.start()
            may_begin.set()
            assert sorted(done.get(timeout=30) for _ in started) == [(number, 2 * number) for number in range(50)]
            for thread in started:
                thread.join()
            assert not hasattr(mine, "number")
            timer = threading.Timer(0.01, lambda: done.put(client.call("double", 4)))
            timer.start()
            assert done.get(timeout=30) == 8
            assert client.stats().busy == 0
        """,
    )


def test_patched_futures(run):
    """A ThreadPoolExecutor's workers are greenlets: values, exceptions with the worker's lines, time-outs, and an end
    while its tasks wait."""
    run(
        PATCHED,
        """
        client = gtask.Client(address, min_workers=0, max_workers=3, timeout=30)
        with concurrent.futures.ThreadPoolExecutor(10) as executor:
            assert list(executor.map(client.remote.double, range(50))) == list(range(0, 100, 2))
            error = executor.submit(client.call, "fail", "k").exception()
            assert isinstance(error, KeyError) and isinstance(error, gtask.RemoteError)
            assert "return {}[key]" in "".join(traceback.format_exception(type(error), error, error.__traceback__))
            late = executor.submit(lambda: client.checkout(timeout=0.2).hang())
            assert isinstance(late.exception(), gtask.CallTimeout)
            first = concurrent.futures.as_completed([executor.submit(client.call, "double", n) for n in range(9)])
            assert next(first).result() in range(0, 18, 2)
        executor = concurrent.futures.ThreadPoolExecutor(2)
        waits = executor.submit(client.call, "hang")
        testing.wait_until(lambda: client.stats().busy == 1, 30)
        client.close(timeout=0.1)
        assert isinstance(waits.exception(), gtask.ClientClosed)
        executor.shutdown()
        """,
    )


@pytest.mark.parametrize("beginning", [PLAIN, PATCHED], ids=["plain", "patched"])
def test_a_real_thread_may_not_use_anothers_client(run, beginning):
    """One that was started behind gevent's back is told what to do, and nothing is harmed. (tests/promises/
    test_threads.py has all uses, and the threads of gevent's threadpool.)"""
    run(
        beginning,
        """
        client = gtask.Client(address, name="shop", min_workers=0, max_workers=2, timeout=30)
        with client.checkout() as worker:
            pids = worker.pids()
            books = repr(client), client.stats()
            uses = [lambda: client.call("pids"), client.checkout, client.remote.pids, worker.pids, client.close]
            for use in uses:
                error = real_thread(use)
                assert type(error) is gtask.WrongThread, error
                for words in ("'shop'", str(threads[-1]), "give each thread a client of its own"):
                    assert words in str(error), error
            assert (repr(client), client.stats()) == books
            assert worker.pids() == pids
        assert client.call("pids") == pids
        """,
    )


ENDS = {
    "returns": "",
    "keeps it": "kept.append(client)",
    "keeps a checkout": "kept.append(client.checkout()); kept[-1].pids()",
    "closes it": "client.close()",
    "leaves a call": "gevent.spawn(client.call, 'hang'); gevent.spawn(client.call, 'hang')\n"
    "while client.stats().busy < 2: gevent.sleep(0)",
    "leaves an attempt": "gevent.spawn(client.call, 'double', 1), gevent.spawn(client.call, 'double', 1)",
    "destroys the hub": "gevent.get_hub().destroy()",
    "closes and destroys": "client.close(); gevent.get_hub().destroy()",
    "raises": "raise KeyError('on purpose')",
}


@pytest.mark.parametrize("beginning", [PLAIN, PATCHED], ids=["plain", "patched"])
def test_a_client_ends_with_its_real_thread(run, beginning):
    """In whatever way the thread ends: its workers and its private server go, and nobody else may use it."""
    run(
        beginning,
        f"""
        outer = gtask.Client(address, min_workers=0, timeout=30)
        mine = outer.call("pids")
        for end in {list(ENDS.values())!r}:
            for where in (address, "spawn:application"):
                kept = []

                def use():
                    client = gtask.Client(where, min_workers=1, max_workers=2, timeout=30)
                    pids = client.call("pids")
                    try:
                        exec(end)
                    except KeyError:
                        return pids
                    return pids

                worker, server = real_thread(use)
                wait_until_gone(worker)
                if where != address:
                    wait_until_gone(server)
                for each in kept:
                    try:
                        each.call("pids")
                        raise AssertionError("it was allowed")
                    except gtask.ClientClosed as error:
                        assert str(threads[-1]) in str(error), error
                        assert "a client of its own" in str(error), error
                    each.close() if isinstance(each, gtask.Client) else each.release()
        kept.clear()
        gc.collect()
        assert outer.call("pids") == mine
        with gtask.spawn_server("application") as server:  # who starts a server looks after those of ended threads
            assert testing.Leftovers().children == {{server.pid}}
        assert not [name for name in os.listdir() if name.startswith("gtask-")]
        """,
    )


def test_many_real_threads_at_a_time(run):
    """Each with a client of its own, some of which share a server."""
    run(
        PLAIN,
        """
        answers = queue.Queue()

        def use(number):
            client = gtask.Client(address if number % 4 else "spawn:application", min_workers=0, timeout=30)
            answers.put([client.call("double", number) for _ in range(20)])

        started = [threading.Thread(target=use, args=(number,)) for number in range(12)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()
        assert sorted(answers.get(timeout=1) for _ in started) == [[2 * number] * 20 for number in range(12)]
        """,
    )


def test_gevent_first_imported_in_a_thread(run):
    """gevent takes that thread for the main one. Threads that come after it have clients all the same."""
    run(
        "",
        """
        def use(where):
            client = gtask.Client(where, min_workers=0, timeout=30)
            pids.extend(client.call("pids")[:1])
            if where != address:
                client.close()

        pids = []
        for where in [address, "spawn:application"] * 3:
            thread = threading.Thread(target=use, args=(where,))
            thread.start()
            thread.join()
        assert len(pids) == 6
        wait_until_gone(*pids)
        """,
    )
