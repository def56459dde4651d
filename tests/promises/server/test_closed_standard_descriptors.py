"""The point of this test is to ensure that a server works that is started with descriptors 0, 1 and 2 closed.

Otherwise a pipe or a socket of its own would get these numbers, and what is printed would go there.
"""

import pytest

from tests.support.daemon import Daemon
from tests.support.process import is_gone
from tests.support.program import run_program
from tests.support.waiting import wait_until

CLOSED = [(0,), (1,), (2,), (1, 2), (0, 1, 2)]

SERVED = """
import logging
import os
import sys

print("loaded")

def talk():
    print("to stdout", flush=True)
    print("to stderr", file=sys.stderr, flush=True)
    os.write(1, b"to 1\\n")
    os.write(2, b"to 2\\n")
    logging.getLogger("served").warning("to the log")
    return os.getpid(), os.getppid()
"""


@pytest.mark.parametrize("closed", CLOSED, ids=str)
@pytest.mark.parametrize("how", ["spawn", "fork", "here", "client"])
def test_a_server_of_a_program(tmp_path, how, closed):
    """Its workers print, the program shows their log records, and all goes on. It ends with its program."""
    (tmp_path / "served.py").write_text(SERVED)
    servers = {
        "spawn": "gtask.spawn_server('served')",
        "fork": "gtask.fork_server(served)",
        "here": "Running()",
        "client": "contextlib.nullcontext()",
    }
    program = f"""
        import contextlib, os, signal, sys
        import gtask
        out = os.dup(1)
        import served

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
                os.waitpid(self.pid, 0)

        for number in {closed}:
            os.close(number)
        with {servers[how]} as server:
            address = "spawn:served" if server is None else server.address
            with gtask.Client(address, min_workers=0, timeout=20) as client:
                pid = {{client.call("talk")[1] for _ in range(20)}}
                os.write(out, b"%d master\\n" % len(pid))
        print("printed by the program", file=sys.stderr)
        os.write(out, b"master %d\\n" % pid.pop())
        os._exit(0)
    """
    lines = run_program(program, directory=tmp_path, options=()).stdout.splitlines()
    assert "1 master" in lines
    master = int(lines[-1].split()[-1])
    wait_until(lambda: is_gone(master), "the end of the server")


@pytest.mark.parametrize("closed", CLOSED, ids=str)
def test_a_daemon(tmp_path, connect, closed):
    """As a shell does it by ``<&- >&- 2>&-``."""
    redirections = " ".join(f"{number}>&-" for number in closed)
    launcher = ["bash", "-c", f'exec "$@" --listen unix:{tmp_path}/sock {redirections}', "bash"]
    daemon = Daemon(tmp_path, "--log-file", str(tmp_path / "server.log"), source=SERVED, wait=False, launcher=launcher)
    try:
        client = connect(daemon)
        for _ in range(3):
            assert client.call("talk")[1] == daemon.master
        assert daemon.end() == 0
        assert "to stderr" in (tmp_path / "server.log").read_text()
    finally:
        daemon.kill()
