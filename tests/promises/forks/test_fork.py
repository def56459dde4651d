"""The point of this test is to ensure that a client which a process inherits by fork is as good as new there.

Its child has a pool of its own, whatever the client did in the parent, never speaks on the parent's sockets, and holds
none of them open. The parent notices nothing, and no code of its greenlets runs in the child. Each test is a program
of its own, plain or monkey-patched.
"""

import os
import subprocess
import sys
import textwrap

import pytest

SOURCE = """
    import os

    def pid():
        return os.getpid()

    def server():
        return os.getppid()

    def echo(value):
        return value

    def note(text):
        with open(os.path.join(DIR, "noted"), "a") as file:
            file.write(text + "\\n")

    def hold(gate):
        open(os.path.join(DIR, gate + ".inside"), "w").close()
        with open(os.path.join(DIR, gate)) as file:
            return file.read()
"""
PLAIN = "import gevent\n"
PATCHED = "from gevent import monkey; monkey.patch_all()\nimport gevent\n"
BY_C = PLAIN + "import ctypes, os\nos.fork = ctypes.CDLL(None).fork  # which tells Python nothing\n"
BEGINNING = """
import gc, multiprocessing, os, sys, threading, traceback
import gtask
from tests.support.waiting import wait_until
from gtask import testing

address, DIR = sys.argv[1:3]
PARENT = os.getpid()

def fork(function, fork=os.fork, end=os._exit):
    "Run a function in a forked child, and return the child's pid."
    pid = fork()
    if pid:
        return pid
    try:
        function()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    end(0)

def wait_for(pid):
    "Wait for the end of a child, while other greenlets run."
    from gevent.os import waitpid  # which also knows of the children that gevent has reaped

    found = []
    testing.wait_until(lambda: found.append(waitpid(pid, os.WNOHANG)) or found[-1][0], 20, "the end of the child")
    assert os.waitstatus_to_exitcode(found[-1][1]) == 0, found[-1]

def is_gone(pid):
    return not os.path.exists(f"/proc/{pid}")

def sockets():
    "The sockets that this process holds open."
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the listing's own
            continue
        if path.startswith("socket:"):
            found.add(path)
    return found

def new_gate(name):
    "For the method hold: a worker waits there until we let it go on."
    os.mkfifo(os.path.join(DIR, name))

def await_worker_at(gate):
    testing.wait_until(lambda: os.path.exists(os.path.join(DIR, gate + ".inside")), 30)

def let_go_on(gate, text="go on"):
    with open(os.path.join(DIR, gate), "w") as file:
        file.write(text)

def note(text):
    with open(os.path.join(DIR, "ran"), "a") as file:
        file.write(f"{'parent' if os.getpid() == PARENT else 'child'} {text}\\n")

def noted():
    with open(os.path.join(DIR, "ran")) as file:
        return sorted(file.read().splitlines())

"""


@pytest.fixture(params=[PLAIN, PATCHED, BY_C], ids=["plain", "patched", "by C"])
def run(request, shared, tmp_path, unmeasured):
    """``run(source)`` runs a program with a server at ``address``, and checks that it ends well and says nothing."""

    def run(source, address=None):
        (tmp_path / "program.py").write_text(request.param + BEGINNING + textwrap.dedent(source))
        with open(tmp_path / "stderr", "w") as stderr:
            done = subprocess.run(
                [sys.executable, "program.py", str(address or shared(SOURCE).address), str(tmp_path)],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)},
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                timeout=50,
            )
        said = (tmp_path / "stderr").read_text()
        assert done.returncode == 0, said
        assert "Traceback" not in said

    return run


def test_a_fresh_pool_and_an_undisturbed_parent(run):
    """Both call by turns, in a checkout that the parent has held since before, and each has its own worker."""
    run("""
        client = gtask.Client(address, min_workers=0, max_workers=2, timeout=30)
        child_may, parent_may = os.pipe(), os.pipe()

        def child():
            assert client.stats().connects == client.stats().checkouts == 0
            workers = set()
            for number in range(10):
                assert os.read(child_may[0], 1)
                assert client.call("echo", number) == number
                workers.add(client.call("pid"))
                os.write(parent_may[1], b".")
            assert len(workers) == client.stats().connects == 1
            assert workers.isdisjoint(mine)

        idle = client.checkout()
        with client.checkout() as worker:
            mine = {worker.pid(), idle.pid()}
            assert len(mine) == 2
            idle.release()
            pid = fork(child)
            for number in range(10):
                assert worker.echo(-number) == -number
                os.write(child_may[1], b".")
                assert worker.pid() in mine and client.call("pid") in mine
                assert os.read(parent_may[0], 1)
            wait_for(pid)
            assert worker.pid() in mine
        assert client.call("pid") in mine
        assert client.stats().connects == 2
        assert not client.stats().deaths
        client.close()
    """)


def test_min_workers_and_the_books_of_the_child(run):
    """The child's pool opens at its first use there, with its own min_workers; closing it closes nothing of the
    parent's."""
    run("""
        client = gtask.Client(address, min_workers=2, timeout=30)
        client.open(wait=True)

        def child():
            assert "not yet open" in repr(client)
            client.open(wait=True)
            assert client.stats().idle == 2
            client.close()

        wait_for(fork(child))
        assert client.stats().idle == client.stats().connects == 2
        assert client.call("echo", 1) == 1
        client.close()
    """)


@pytest.mark.parametrize("end", ["os._exit", "sys.exit"])
def test_a_fork_in_a_greenlet_while_others_wait(run, end):
    """In a call, for a result, in line, for a connection, for open and for close: none of them goes on in the child,
    not even to its finally blocks, while the child works, collects garbage and ends."""
    run(f"""
        new_gate("one")
        new_gate("two")
        client = gtask.Client(address, min_workers=0, max_workers=2, timeout=20)
        nowhere = gtask.Client("unix:nowhere", min_workers=1, timeout=1)
        closing = gtask.Client(address, min_workers=0, timeout=30)
        held = closing.checkout()
        held.pid()

        def marked(name, function, *args):
            try:
                function(*args)
            except gtask.Error as error:
                note(name + " " + type(error).__name__)
            finally:
                note(name)

        def result():
            with client.checkout() as worker:
                return worker.hold.submit("two").get()

        greenlets = [
            gevent.spawn(marked, "call", client.call, "hold", "one"),
            gevent.spawn(marked, "result", result),
            gevent.spawn(marked, "line", client.call, "echo", 1),
            gevent.spawn(marked, "connection", nowhere.call, "echo", 1),
            gevent.spawn(marked, "open", lambda: nowhere.open(wait=True, timeout=0.5)),
            gevent.spawn(marked, "close", lambda: closing.close(timeout=0.5)),
        ]
        await_worker_at("one")
        await_worker_at("two")
        assert client.stats().waiting == 1

        def child():
            assert client.call("echo", "child") == "child"
            greenlets.clear()  # nothing of the program refers to them any more
            gc.collect()
            other = gtask.Client("unix:nowhere", min_workers=1)
            try:
                other.open(wait=True, timeout=1.5)  # by when the time-outs of the others would be over
            except gtask.AcquireTimeout:
                pass
            assert client.call("echo", "child") == "child"
            note("works")

        def forker():
            children.append(fork(child, end={end}))

        children = []
        gevent.spawn(forker).get()
        wait_for(children[0])
        let_go_on("one")
        let_go_on("two")
        gevent.joinall(greenlets, timeout=30, raise_error=True)
        expected = ["call", "close", "connection", "connection AcquireTimeout", "line", "open", "open AcquireTimeout"]
        assert noted() == ["child works"] + ["parent " + name for name in expected + ["result"]], noted()
        client.close()
        nowhere.close()
    """)


def test_a_call_under_way_is_the_parents_alone(run):
    """It is executed once, and its value comes to the parent, whatever the child does."""
    run("""
        new_gate("gate")
        client = gtask.Client(address, min_workers=0, max_workers=1, timeout=30)

        def call():
            with client.checkout() as worker:
                return [worker.hold("gate"), worker.note("parent"), worker.pid()]

        calling = gevent.spawn(call)
        await_worker_at("gate")

        def child():
            client.call("note", "child")
            client.close()

        wait_for(fork(child))
        let_go_on("gate", "value")
        assert calling.get()[0] == "value"
        assert calling.get()[2] == client.call("pid")
        with open(os.path.join(DIR, "noted")) as file:
            assert file.read().split() == ["child", "parent"]
        client.close()
    """)


def test_the_child_holds_no_socket_of_the_parent(run):
    """Workers hear that the parent has closed its client, or is dead, though the child lives on."""
    run("""
        client = gtask.Client(address, min_workers=0, max_workers=2, timeout=30)
        with client.checkout() as one, client.checkout() as other:
            workers = one.pid(), other.pid()
        mine = sockets()
        assert len(mine) >= 2
        may_end, child_may_end = os.pipe()

        def child():
            if type(os.fork).__name__ == "_FuncPtr":
                repr(client)  # a fork by C code is noticed at the first use
            assert sockets().isdisjoint(mine)
            assert client.call("echo", 1) == 1
            assert sockets().isdisjoint(mine)
            os.read(may_end, 1)

        pid = fork(child)
        client.close()
        testing.wait_until(lambda: all(map(is_gone, workers)), 30, "the end of the workers")
        assert not is_gone(pid)
        os.write(child_may_end, b".")
        wait_for(pid)
    """)


def test_an_inherited_checkout(run):
    """Using it in the child raises ClientClosed, which names both processes; ending it does nothing."""
    run("""
        client = gtask.Client(address, min_workers=0, max_workers=1, timeout=30)
        inner = None

        def refused(use, *args):
            try:
                use(*args)
            except gtask.ClientClosed as error:
                assert str(PARENT) in str(error) and str(os.getpid()) in str(error), error
                assert "client.checkout()" in str(error)
                return True

        def child():
            for _ in range(2):  # before and after the child's own first use
                for checkout in (worker, waiting):
                    assert refused(checkout.pid)
                    assert refused(checkout.pid.submit)
                    assert refused(checkout.call, "pid")
                    checkout.cancel("the child")
                    checkout.release()
                    assert "ClientClosed" in repr(checkout)
                assert client.call("echo", 1) == 1
            assert client.stats().busy == 0

        with client.checkout() as worker:
            pid = worker.pid()
            waiting = client.checkout()
            wait_for(fork(child))
            assert worker.pid() == pid
        assert waiting.pid() == pid
        waiting.release()
        client.close()
    """)


def test_a_fork_within_a_with_block(run):
    """The child leaves the with block, or drops the checkout, and the parent still has it."""
    run("""
        client = gtask.Client(address, min_workers=0, max_workers=1, timeout=30)
        dropped = [client.checkout()]
        dropped[0].echo(1)
        dropped.pop().release()
        with client.checkout() as worker:
            mine = worker.pid()
            pid = os.fork()
        if not pid:
            del worker
            gc.collect()
            os._exit(client.call("pid") == mine)
        wait_for(pid)
        assert client.call("pid") == mine
        client.close()
    """)


def test_multiprocessing(run):
    """A process of the fork context uses the client that it finds, also as an argument."""
    run("""
        context = multiprocessing.get_context("fork")
        client = gtask.Client(address, min_workers=0, max_workers=2, timeout=30)
        mine = client.call("pid")

        def child(client, values):
            for number in range(10):
                values[number] = client.call("echo", number)
            values[-1] = client.call("pid")

        answers = [context.RawArray("i", 11) for _ in range(2)]
        processes = [context.Process(target=child, args=(client, values)) for values in answers]
        for process in processes:
            process.start()
        for process in processes:
            process.join(20)
            assert process.exitcode == 0
        assert [values[:-1] for values in answers] == [list(range(10))] * 2
        assert len({mine, answers[0][-1], answers[1][-1]}) == 3
        assert client.call("pid") == mine
        client.close()
    """)


@pytest.mark.parametrize("fork", ["gevent.fork", "gevent.os.fork_and_watch"])
def test_forks_of_gevent(run, fork):
    """They are forks as any."""
    run(f"""
        import gevent.os
        client = gtask.Client(address, min_workers=0, max_workers=2, timeout=30)
        mine = client.call("pid")
        ended = []

        def child():
            assert client.call("pid") != mine

        if {fork!r} == "gevent.fork":
            wait_for(fork(child, fork=gevent.fork))
        else:
            fork(child, fork=lambda: gevent.os.fork_and_watch(ended.append))
            testing.wait_until(lambda: ended, 20)
            assert ended[0].rstatus == 0
        assert client.call("pid") == mine
        client.close()
    """)


def test_a_fork_in_another_thread(run):
    """The child's only thread is one that did not own the client, and it owns it there."""
    run("""
        client = gtask.Client(address, min_workers=0, max_workers=2, timeout=30)
        mine = client.call("pid")

        def child():
            assert client.call("pid") != mine

        children = []
        thread = threading.Thread(target=lambda: children.append(fork(child)))
        thread.start()
        thread.join()
        wait_for(children[0])
        assert client.call("pid") == mine
        client.close()
    """)


def test_children_of_children(run):
    """Each generation has its own pool."""
    run("""
        client = gtask.Client(address, min_workers=0, max_workers=2, timeout=30)

        def generation(number, workers):
            for pid in workers:
                assert not is_gone(pid)
            with client.checkout() as worker:
                workers.add(worker.pid())
                assert len(workers) == number
                if number < 3:
                    wait_for(fork(lambda: generation(number + 1, workers)))
                assert worker.pid() in workers

        generation(1, set())
        client.close()
    """)


def test_a_client_that_was_never_used_or_is_closed(run):
    """The one works in the child, and the other is closed there, too."""
    run("""
        unused = gtask.Client(address, min_workers=0, timeout=30)
        closed = gtask.Client(address, min_workers=0, timeout=30)
        closed.call("pid")
        closed.close()

        def child():
            assert unused.call("echo", 1) == 1
            try:
                closed.call("echo", 1)
            except gtask.ClientClosed:
                return
            raise AssertionError

        wait_for(fork(child))
        assert unused.call("echo", 1) == 1
        unused.close()
    """)


def test_a_client_with_a_private_server(run, tmp_path):
    """The child starts one of its own. Neither's end is the other's: each server ends with its own process's client."""
    (tmp_path / "application.py").write_text("DIR = '.'\n" + textwrap.dedent(SOURCE))
    run(
        """
        client = gtask.Client("spawn:application", min_workers=0, max_workers=1, timeout=30)
        mine = client.call("server")
        may_end, child_may_end = os.pipe()
        tell, told = os.pipe()

        def child():
            own = client.call("server")
            assert own != mine
            os.write(told, b"%d\\n" % own)
            os.read(may_end, 1)
            assert client.call("server") == own

        pid = fork(child)
        theirs = int(os.read(tell, 20))
        assert client.call("server") == mine
        client.close()
        testing.wait_until(lambda: is_gone(mine), 30, "the end of the parent's server")
        assert not is_gone(pid) and not is_gone(theirs)
        os.write(child_may_end, b".")
        wait_for(pid)
        testing.wait_until(lambda: is_gone(theirs), 30, "the end of the child's server")
        """,
        "none",
    )


def test_a_private_server_survives_the_child(run, tmp_path):
    """A child that never used the client, and ends in whatever way, leaves the parent's server alone."""
    (tmp_path / "application.py").write_text("DIR = '.'\n" + textwrap.dedent(SOURCE))
    run(
        """
        client = gtask.Client("spawn:application", min_workers=0, max_workers=1, timeout=30)
        mine, worker = client.call("server"), client.call("pid")
        wait_for(fork(gc.collect))
        wait_for(fork(gc.collect, end=sys.exit))
        assert (client.call("server"), client.call("pid")) == (mine, worker)
        client.close()
        """,
        "none",
    )
