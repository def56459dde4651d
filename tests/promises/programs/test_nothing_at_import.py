"""The point of this test is to ensure that importing gtask and making a Client does nothing yet.

No greenlet, hub, thread, process or descriptor comes of it, and no I/O, so that a Client can be made at import time:
before monkey-patching, before a fork, before its server runs.
"""

import textwrap

import pytest

from tests.support.program import run_program

BEGINNING = """
import os, sys, threading

def look():
    "What a process has open, in numbers and names."
    descriptors = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            descriptors[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass
    children = []
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children") as file:
            children += file.read().split()
    descriptors = {number: path for number, path in descriptors.items() if not path.endswith("/fd")}
    return descriptors, children, len(os.listdir("/proc/self/task")), threading.active_count()

def greenlets():
    import gc
    import greenlet
    return [thing for thing in gc.get_objects() if isinstance(thing, greenlet.greenlet) and not thing.dead]

def hub():
    from gevent._hub_local import get_hub_if_exists
    return get_hub_if_exists()

"""

ADDRESSES = ["unix:/run/nobody.sock", "unix:@nobody", "tcp://localhost:1", "spawn:no_such_module"]


@pytest.fixture
def run(tmp_path, unmeasured):
    """``run(source, *arguments)`` runs a program in this test's directory, with all warnings as errors."""

    def run(source, *arguments):
        ran = run_program(BEGINNING + textwrap.dedent(source), *arguments, directory=tmp_path)
        assert (ran.stdout, ran.stderr) == ("", "")

    return run


def test_import(run):
    """``import gtask`` opens nothing, starts nothing, and does not import gevent."""
    run("""
        before = look()
        import gtask
        assert look() == before
        assert not {"gevent", "greenlet", "socket", "msgpack"} & set(sys.modules)
    """)


def test_import_of_all_names(run):
    """Naming everything that gtask offers imports both sides, and still starts nothing."""
    run("""
        before = look()
        import gtask
        for name in gtask.__all__:
            getattr(gtask, name)
        assert look() == before
        assert hub() is None
        import greenlet
        assert greenlets() in ([], [greenlet.getcurrent()])
    """)


def test_construction(run):
    """A Client of any kind of address is made without a hub, greenlet, thread, process or descriptor."""
    run(
        """
        import gtask
        gtask.Client
        before = look()
        clients = [gtask.Client(address, min_workers=5, name="early") for address in sys.argv[1:]]
        texts = [repr(client) for client in clients]
        remotes = [client.remote.anything for client in clients]
        assert look() == before
        assert hub() is None
        import greenlet
        assert greenlets() in ([], [greenlet.getcurrent()])
        assert all("not yet open" in text for text in texts)
        """,
        *ADDRESSES,
    )


def test_construction_does_no_io(run):
    """While a Client is made and dropped, the interpreter reports no file, socket, process, thread or system call."""
    run(
        """
        import gtask
        gtask.Client
        seen = []
        watching = False

        def note(event, arguments):
            if watching and event.partition(".")[0] not in ("object", "sys", "builtins", "code", "marshal"):
                seen.append((event, arguments))

        sys.addaudithook(note)
        watching = True
        for address in sys.argv[1:]:
            gtask.Client(address)
        watching = False
        assert seen == [], seen

        watching = True
        open(os.devnull).close()
        watching = False
        assert [event for event, _ in seen] == ["open"]  # so the hook does see what there is
        """,
        *ADDRESSES,
    )


def test_closing_an_unused_client(run):
    """A Client that was never used can be closed, or dropped, and that does nothing, too."""
    run(
        """
        import gc
        import gtask
        gtask.Client
        before = look()
        for address in sys.argv[1:]:
            gtask.Client(address).close()
            with gtask.Client(address):
                pass
            client = gtask.Client(address)
            del client
        gc.collect()
        assert look() == before
        assert hub() is None
        """,
        *ADDRESSES,
    )


APPLICATION = """
import os

def pid():
    return os.getpid()

def wait_for(path):
    with open(path) as fifo:
        return fifo.readline()
"""


def test_a_client_made_before_patching(run, shared, tmp_path):
    """A Client made before ``monkey.patch_all()`` works after it, and blocks only the calling greenlet."""
    server = shared(APPLICATION)
    run(
        """
        import gtask
        client = gtask.Client(sys.argv[1], min_workers=0)

        from gevent import monkey
        monkey.patch_all()
        import gevent, time

        os.mkfifo("may_go_on")
        fifo = os.open("may_go_on", os.O_RDWR)  # to open it for writing alone would wait for the worker
        turns = []

        def let_it_go_on():
            for turn in range(3):
                time.sleep(0)
                turns.append(turn)
            os.write(fifo, b"go on\\n")

        threading.Thread(target=let_it_go_on).start()
        assert client.call("wait_for", os.path.abspath("may_go_on")) == "go on\\n"
        assert turns == [0, 1, 2]
        client.close()
        """,
        server.address,
    )


def test_a_client_made_before_a_fork(run, shared):
    """A Client made before a fork and not used yet works in the child and in the parent, each with its own workers."""
    server = shared(APPLICATION)
    run(
        """
        import gtask
        client = gtask.Client(sys.argv[1], min_workers=0)
        reading, writing = os.pipe()
        child = os.fork()
        pid = client.call("pid")
        client.close()
        if not child:
            os.write(writing, str(pid).encode())
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert int(os.read(reading, 20)) != pid
        """,
        server.address,
    )
