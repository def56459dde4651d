"""What happens when a server, or what it serves, has no descriptors left."""

import contextlib
import os
import resource
import signal

import pytest

import gtask
from tests.support.daemon import Daemon, daemon
from tests.support.process import children, descriptors
from tests.support.waiting import turn_hub, wait_until

SOURCE = """
    import os
    import signal
    import time

    def pid():
        return os.getpid()

    def use_up():
        kept = []
        try:
            while True:
                kept.append(os.dup(0))
        except OSError as error:
            raise OSError(error.errno, "no more") from error

    def sleep(seconds):
        time.sleep(seconds)

    def die():
        os.kill(os.getpid(), signal.SIGSEGV)
"""

PRELUDE = """
    import os, sys

    def _hook(event, args):
        if event == "import" and os.getpid() == _master and _is_loaded:
            os.write(_late, args[0].encode() + b"\\n")

    _late = os.open("late", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    _master, _is_loaded = os.getpid(), []
    sys.addaudithook(_hook)

    def _loaded():
        _is_loaded.append(True)

    import gtask.server.master.master as _module
    _real = _module.Master.run

    def _run(self):
        _loaded()
        return _real(self)

    _module.Master.run = _run
"""


def test_a_master_imports_nothing_once_it_serves(tmp_path, connect, unmeasured):
    """Where no descriptor is left an import would fail, and end the master."""
    arguments = ["--metrics", f"unix:{tmp_path}/metrics", "--hung-worker-timeout", "0.5", "--log-json"]
    with daemon(tmp_path, *arguments, source=PRELUDE + SOURCE) as server:
        client = connect(server)
        assert client.call("pid")
        with pytest.raises(gtask.WorkerDied):
            client.call("die")
        with pytest.raises((gtask.CallTimeout, gtask.WorkerDied)):
            client.call("sleep", 20)
        for number in (signal.SIGUSR2, signal.SIGUSR1, signal.SIGHUP):
            server.send(number)
        wait_until(lambda: server.log.count(" serves") == 2)
        assert server.end() == 0
    assert (tmp_path / "late").read_text() == ""


@pytest.mark.parametrize("limit", range(48, 56))
def test_more_clients_than_descriptors(tmp_path, connect, limit, unmeasured):
    """At each parity: who is served is served, the others wait, and no worker and no master dies of it."""

    def limited():
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    server = Daemon(tmp_path, "--max-workers", str(limit), source=SOURCE, preexec_fn=limited)
    try:
        master = server.master
        client = connect(server, max_workers=limit, min_workers=0, timeout=60)
        with contextlib.ExitStack() as held:
            checkouts = [client.checkout() for _ in range(limit)]
            for checkout in checkouts:
                held.callback(checkout.release)
            first = checkouts[0].pid()
            wait_until(lambda: "hardly any descriptors are left" in server.log, "the pause")
            assert checkouts[0].pid() == first
            served = len(children(master))
            server.send(signal.SIGUSR2)  # it hears signals, reaps and logs
            wait_until(lambda: "reloads; workers:" in server.log)
            os.kill(first, signal.SIGKILL)
            wait_until(lambda: f"worker {first} was ended by SIGKILL" in server.log)
            wait_until(lambda: len(children(master)) >= served, "another worker in its place")
            assert descriptors(master) < limit
        turn_hub()
        assert client.call("pid")
        assert server.master == master
        assert "status 70" not in server.log
        assert "Traceback" not in server.log
        client.close()
        assert server.end() == 0
    finally:
        server.kill()


def test_a_worker_that_has_none_left(tmp_path, connect):
    """The application has used all up: its error arrives, with the source of its lines, and later calls are served."""

    def limited():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    server = Daemon(tmp_path, source=SOURCE, preexec_fn=limited)
    try:
        with connect(server).checkout() as checkout:
            with pytest.raises(OSError, match="no more"):
                checkout.use_up()
            pid = checkout.pid()
            with pytest.raises(OSError, match="no more"):
                checkout.use_up()
            assert checkout.pid() == pid
        assert server.end() == 0
    finally:
        server.kill()
