"""The point of this test is to ensure that process titles tell which server it is, and who is master and who worker."""

from pathlib import Path

import pytest

from gtask import testing

SOURCE = """
    import os

    def pids():
        return [os.getppid(), os.getpid()]
"""


def title(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()


def test_master_and_worker_are_told_apart(serve, connect):
    """Both name the server; the master also says where it listens."""
    pytest.importorskip("setproctitle")
    server = serve(SOURCE, "--name", "the-hasher")
    master, worker = connect(server).call("pids")
    assert title(master) == f"gtask-server: the-hasher master [{server.address}]"
    assert title(worker) == "gtask-server: the-hasher worker"


def test_a_server_without_a_name_is_named_after_what_it_serves(serve, connect):
    """The module, as on the command line."""
    pytest.importorskip("setproctitle")
    server = serve(SOURCE)
    master, worker = connect(server).call("pids")
    module = Path(server.address.path).stem
    assert title(master).startswith(f"gtask-server: {module} master")
    assert title(worker) == f"gtask-server: {module} worker"
    server.stop()
    testing.wait_until(lambda: not Path(f"/proc/{worker}").exists(), what="the end of the worker")
