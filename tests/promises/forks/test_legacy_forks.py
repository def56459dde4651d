"""The point of this test is to ensure that programs which fork behind everybody's back do no harm to their clients.

By the system's own fork, while other real threads have clients of their own, or by multiprocessing in all its ways:
the child finds its client unused, and the parent's goes on. What is common to all forks is in
tests/promises/forks/test_fork.py. Each test is a program of its own.
"""

import os
import re
import subprocess
import sys
import textwrap

import pytest

from tests.support.waiting import wait_until

SOURCE = """
import os

def double(number):
    return 2 * number

def pids():
    return [os.getpid(), os.getppid()]
"""

PLAIN = "import gevent\n"
PATCHED = "from gevent import monkey; monkey.patch_all()\nimport gevent\n"

BEGINNING = """
import concurrent.futures, gc, multiprocessing, os, posix, signal, sys, threading, time, traceback
import gtask
from gtask import testing

address = sys.argv[1]

def in_child(function, end=os._exit):
    "Run a function in a child of the system's own fork, and wait for it."
    pid = posix.fork()
    if pid:
        return posix.waitpid(pid, 0)[1]
    signal.alarm(60)
    try:
        function()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    end(0)
"""


@pytest.fixture
def run(serve, tmp_path, unmeasured):
    """``run(beginning, source)`` runs a program that must end well and say nothing; warnings are errors."""
    (tmp_path / "application.py").write_text(SOURCE)

    def run(beginning, source, warnings="error"):
        alarm = "" if "__main__" in source else "signal.alarm(60)  # a program that hangs is killed\n"
        (tmp_path / "program.py").write_text(beginning + BEGINNING + alarm + textwrap.dedent(source))
        with open(tmp_path / "stderr", "w") as stderr:
            done = subprocess.run(
                [sys.executable, "-W", warnings, "program.py", str(serve(SOURCE).address)],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)},
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                timeout=80,
            )
        said = re.sub(r".* (INFO|WARNING) .* gtask.server: .*\n", "", (tmp_path / "stderr").read_text())
        assert (done.returncode, said) == (0, ""), said
        wait_until(lambda: not list(tmp_path.glob("gtask-*")), "the end of the private servers")

    return run


@pytest.mark.parametrize("beginning", [PLAIN, PATCHED], ids=["plain", "patched"])
def test_the_own_fork_of_the_system(run, beginning):
    """Which nobody has told gevent of: the child opens its own workers, and may not use what its parent holds."""
    run(
        beginning,
        """
        clients = [gtask.Client(where, min_workers=1, timeout=30) for where in (address, "spawn:application")]
        held = [client.checkout() for client in clients]
        pids = [checkout.pids() for checkout in held]

        def child():
            for client, checkout, (worker, server) in zip(clients, held, pids):
                try:
                    checkout.double(1)
                    raise AssertionError("it was allowed")
                except gtask.ClientClosed:
                    checkout.release()
                greenlets = [gevent.spawn(client.call, "double", number) for number in range(10)]
                assert [greenlet.get() for greenlet in greenlets] == list(range(0, 20, 2))
                own = client.call("pids")
                assert own[0] != worker
                assert (own[1] == server) is (client is clients[0])

        for end in (os._exit, sys.exit):
            assert in_child(child, end) == 0
            assert in_child(lambda: None, end) == 0
            assert in_child(gc.collect, end) == 0
            assert [checkout.pids() for checkout in held] == pids
        for client, checkout, own in zip(clients, held, pids):
            checkout.release()
            assert client.call("pids") == own
        """,
    )


def test_a_fork_while_other_threads_have_clients(run):
    """In the child these threads are no more; that ends nothing of the parent's, whose private servers live on."""
    run(
        PLAIN,
        """
        ready, may_end, may_ask, seen = threading.Barrier(3), threading.Event(), threading.Event(), []

        def use(where):
            client = gtask.Client(where, min_workers=0, timeout=30)
            with client.checkout() as worker:
                pids = worker.pids()
                ready.wait(30)
                may_ask.wait(30)
                seen.append(worker.pids() == pids and client.call("pids")[1] == pids[1])

        started = [threading.Thread(target=use, args=(where,)) for where in (address, "spawn:application")]
        for thread in started:
            thread.start()
        ready.wait(30)
        mine = gtask.Client(address, min_workers=0, timeout=30)
        own = mine.call("pids")

        def child():
            gc.collect()
            assert mine.call("pids")[0] != own[0]
            gc.collect()

        assert in_child(child) == 0
        assert in_child(child, sys.exit) == 0
        may_ask.set()
        for thread in started:
            thread.join()
        assert seen == [True, True]
        assert mine.call("pids") == own
        """,
        warnings="ignore",  # Python warns of a fork among threads, and rightly
    )


def test_multiprocessing_in_all_its_ways(run):
    """In a plain script: processes by fork, spawn and forkserver, a Pool, a ProcessPoolExecutor."""
    run(
        "",
        """
        client = gtask.Client(address, min_workers=0, timeout=30)

        def work(number):
            return client.call("double", number)

        def check(number):
            assert work(number) == 2 * number

        if __name__ == "__main__":
            signal.alarm(60)
            pids = client.call("pids")
            for method in ("fork", "spawn", "forkserver"):
                context = multiprocessing.get_context(method)
                processes = [context.Process(target=check, args=(number,)) for number in range(2)]
                for process in processes:
                    process.start()
                assert client.call("double", 4) == 8
                for process in processes:
                    process.join()
                    assert process.exitcode == 0, (method, process.exitcode)
            with multiprocessing.get_context("fork").Pool(2) as pool:
                assert pool.map(work, range(6)) == list(range(0, 12, 2))
                pool.close()
                pool.join()
            with concurrent.futures.ProcessPoolExecutor(2) as executor:
                assert list(executor.map(work, range(6))) == list(range(0, 12, 2))
            assert client.call("pids") == pids
        """,
        warnings="ignore",  # of Python 3.12 and later, of forks among the threads of pools
    )


def test_a_fork_in_a_patched_thread(run):
    """While others are in calls, and while it holds a checkout: they go on in the parent alone."""
    run(
        PATCHED,
        """
        client = gtask.Client(address, min_workers=0, max_workers=4, timeout=30)
        seen, forked = [], []

        def child():
            assert client.call("double", 4) == 8
            assert client.stats().connects == 1

        def fork():
            with client.checkout() as worker:
                pids = worker.pids()
                forked.append(in_child(child))
                seen.append(worker.pids() == pids)

        def call(number):
            with client.checkout() as worker:
                pids = worker.pids()
                while len(forked) < 2:
                    seen.append(worker.double(number) == 2 * number)
                seen.append(worker.pids() == pids)

        started = [threading.Thread(target=call, args=(number,)) for number in range(2)]
        started += [threading.Thread(target=fork) for _ in range(2)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()
        assert forked == [0, 0]
        assert all(seen) and len(seen) >= 4
        """,
    )


def test_a_private_server_that_gevent_has_reaped(run):
    """gevent takes the exit status of each child that ends while it looks after one of its own. The client notices the
    end all the same, starts another server, and does not kill the process that has the number next."""
    run(
        PATCHED,
        """
        import contextlib, logging, subprocess

        @contextlib.contextmanager
        def testing_of_logs(name):
            texts, handler = [], logging.Handler()
            handler.emit = lambda record: texts.append(record.getMessage())
            logging.getLogger(name).addHandler(handler)
            yield texts
            logging.getLogger(name).removeHandler(handler)

        client = gtask.Client("spawn:application", min_workers=0)
        server = client.call("pids")[1]
        subprocess.run(["true"], check=True)  # from now on gevent reaps
        os.kill(server, signal.SIGKILL)
        testing.wait_until(lambda: not os.path.exists(f"/proc/{server}"), 20, "that gevent reaps the server")
        client.drain()
        with testing_of_logs("gtask.client") as texts:
            assert client.checkout(timeout=60).double(1) == 2
        assert any("the private server has ended" in text for text in texts), texts
        assert client.stats().server_restarts == 1
        client.close()
        """,
    )
