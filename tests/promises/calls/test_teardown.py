"""The point of this test is to ensure that teardown runs once in each worker, before it exits, whatever ends it.

Nothing else of the application runs at a worker's end: its exit handlers are the server's.
"""

import os

import pytest

from tests.support.waiting import wait_until

SOURCE = """
    import atexit, os

    def note(text):
        with open(os.path.join(DIR, "ran"), "a") as file:
            file.write(f"{text} {os.getpid()}\\n")
        return os.getpid()

    def checkout_done():
        note("done")

    def teardown():
        note("teardown")
        if os.path.exists(os.path.join(DIR, "broken")):
            raise RuntimeError("teardown is broken")

    def fail():
        raise LookupError("on purpose")

    def leave():
        raise SystemExit(3)

    atexit.register(note, "exit-handler")
"""


def ends(tmp_path, pid):
    """What a worker did at its end, once it is gone."""
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), what="the end of the worker")
    lines = (tmp_path / "ran").read_text().splitlines()
    return [line.split()[0] for line in lines if line.endswith(f" {pid}")]


def test_it_runs_when_the_client_closes(shared, connect, tmp_path):
    """Once, after the checkout_done of its last checkout."""
    client = connect(shared(SOURCE), max_workers=1)
    pid = client.call("note", "a")
    assert client.call("note", "b") == pid
    client.close()
    assert ends(tmp_path, pid) == ["a", "done", "b", "done", "teardown"]


def test_it_runs_when_a_worker_is_replaced(shared, connect, tmp_path):
    """After an error, after a SystemExit, and after max_checkouts."""
    server = shared(SOURCE)
    client = connect(server, max_workers=1)
    for method in ("fail", "leave"):
        with client.checkout() as worker:
            pid = worker.note("a")
            with pytest.raises(Exception, match=r"on purpose|SystemExit"):
                worker.call(method)
        assert ends(tmp_path, pid) == ["a", "done", "teardown"]
    pid = connect(server, max_checkouts=1).call("note", "a")
    assert ends(tmp_path, pid) == ["a", "done", "teardown"]


def test_it_runs_when_the_client_hangs_up_amid_a_checkout(shared, connect, tmp_path):
    """After the checkout_done that is due."""
    with connect(shared(SOURCE)).checkout() as worker:
        pid = worker.note("a")
        worker.cancel()
    assert ends(tmp_path, pid) == ["a", "done", "teardown"]


def test_one_that_raises_harms_nobody(shared, connect, tmp_path):
    """The worker ends, and the server goes on."""
    (tmp_path / "broken").touch()
    server = shared(SOURCE)
    client = connect(server)
    pid = client.call("note", "a")
    client.close()
    assert ends(tmp_path, pid) == ["a", "done", "teardown"]
    assert connect(server).call("note", "b") != pid


def test_an_object_has_its_own(serve, connect, tmp_path):
    """That of a class runs on the instance which its worker made."""
    source = """
        import os

        class Counter:
            def __init__(self):
                self.count = 0

            def add(self):
                self.count += 1
                return os.getpid()

            def teardown(self):
                with open(os.path.join(DIR, "ran"), "a") as file:
                    file.write(f"{self.count} {os.getpid()}\\n")
    """
    client = connect(serve(source, attribute="Counter"), max_workers=1)
    pids = {client.call("add") for _ in range(3)}
    client.close()
    (pid,) = pids
    assert ends(tmp_path, pid) == ["3"]
