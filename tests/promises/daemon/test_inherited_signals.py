"""The point of this test is to ensure that it does not matter which signals the starter of a server blocks or ignores.

A mask and the ignored signals are inherited. With SIGCHLD blocked or ignored nobody would notice that a process has
ended, and with SIGABRT ignored no hung worker would leave its stacks.
"""

import os
import signal

import pytest

import gtask
from tests.support.daemon import Daemon
from tests.support.process import is_gone
from tests.support.program import run_program
from tests.support.waiting import wait_until

SOURCE = """
    import itertools
    import os

    def pids():
        return os.getpid(), os.getppid()

    def spin():
        return -1 in itertools.count()

    def die():
        os._exit(7)
"""

EVERYTHING = set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}


def block():
    signal.pthread_sigmask(signal.SIG_BLOCK, EVERYTHING)


def ignore():
    for number in EVERYTHING - {signal.SIGHUP}:
        signal.signal(number, signal.SIG_IGN)


@pytest.mark.parametrize("inherit", [block, ignore])
def test_a_daemon(tmp_path, connect, inherit):
    """Deaths are noticed, hung calls are stopped, masters are replaced, signals are heeded."""
    daemon = Daemon(tmp_path, source=SOURCE, preexec_fn=inherit)
    try:
        client = connect(daemon)
        with pytest.raises(gtask.WorkerDied, match="status 7"):
            client.call("die")
        with pytest.raises(gtask.CallTimeout) as caught:
            client.checkout(timeout=1).spin()
        assert "in spin" in caught.value.stacks
        master = daemon.master
        os.kill(master, signal.SIGKILL)
        wait_until(lambda: daemon.log.count(" serves") == 2, "another master")
        old = daemon.serving
        daemon.reload()
        wait_until(lambda: is_gone(old), "the end of the old master")
        assert client.call("pids")[1] == daemon.serving
        assert daemon.end(signal.SIGTERM) == 0
    finally:
        daemon.kill()


@pytest.mark.parametrize("inherit", [block, ignore], ids=lambda function: function.__name__)
@pytest.mark.parametrize("how", ["spawn", "fork", "here"])
def test_a_server_of_a_program(tmp_path, how, inherit):
    """A private server, a forked one, and the program itself."""
    (tmp_path / "served.py").write_text(
        "import os\n\ndef die():\n    os._exit(7)\n\ndef master():\n    return os.getppid()\n"
    )
    number = "signal.pthread_sigmask(signal.SIG_BLOCK, every)" if inherit is block else (
        "[signal.signal(one, signal.SIG_IGN) for one in every if one != signal.SIGHUP]"
    )  # fmt: skip
    servers = {
        "spawn": "gtask.spawn_server('served')",
        "fork": "gtask.fork_server(served)",
        "here": "Running()",
    }
    program = f"""
        import os, signal
        import gtask, served

        every = set(signal.valid_signals()) - {{signal.SIGKILL, signal.SIGSTOP}}
        {number}

        class Running:
            address = "unix:{tmp_path}/sock"
            def __enter__(self):
                self.pid = os.fork()
                if not self.pid:
                    gtask.Server(self.address, served).run()
                    os._exit(0)
                return self
            def __exit__(self, *exc_info):
                os.kill(self.pid, signal.SIGTERM)
                try:
                    os.waitpid(self.pid, 0)
                except ChildProcessError:  # where SIGCHLD is ignored nobody is told
                    pass

        with {servers[how]} as server, gtask.Client(server.address, min_workers=0, timeout=20) as client:
            for _ in range(3):
                try:
                    client.call("die")
                except gtask.WorkerDied as error:
                    print(error.exitcode)
            print(client.call("master") == server.pid)
    """
    assert run_program(program, directory=tmp_path).stdout == "7\n7\n7\nTrue\n"
