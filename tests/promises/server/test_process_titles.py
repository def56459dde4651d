"""The point of this test is to ensure that process titles tell which server it is, and who is master and who worker."""

from pathlib import Path

import pytest

from tests.support.waiting import wait_until

SOURCE = """
    import os

    def pids():
        return [os.getppid(), os.getpid()]
"""


def title(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()


def test_master_and_worker_are_told_apart(serve, connect):
    """Both name the server; the master also says where it listens, and how many workers there are."""
    pytest.importorskip("setproctitle")
    server = serve(SOURCE, "--name", "the-hasher")
    master, worker = connect(server).call("pids")
    assert title(master).startswith(f"gtask-server: the-hasher master [{server.address}] ")
    assert title(worker) == "gtask-server: the-hasher worker"


def test_the_title_of_the_master_tells_what_the_scoreboard_says(serve, connect):
    """How many workers there are and what they do; it is brought up to date about once in a second."""
    pytest.importorskip("setproctitle")
    client = connect(serve(SOURCE), max_workers=1)
    with client.checkout() as worker:
        master, _ = worker.pids()
        wait_until(lambda: "1 workers: 0 busy, 1 lent, 0 idle" in title(master), what="the title")
    wait_until(lambda: "1 workers: 0 busy, 0 lent, 1 idle" in title(master), what="the title")
    client.close()
    wait_until(lambda: "0 workers" in title(master), what="the title")


def test_a_server_without_a_name_is_named_after_what_it_serves(serve, connect):
    """The module, as on the command line."""
    pytest.importorskip("setproctitle")
    server = serve(SOURCE)
    master, worker = connect(server).call("pids")
    module = Path(server.address.path).stem
    assert title(master).startswith(f"gtask-server: {module} master")
    assert title(worker) == f"gtask-server: {module} worker"
    server.stop()
    wait_until(lambda: not Path(f"/proc/{worker}").exists(), what="the end of the worker")
