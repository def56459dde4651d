"""The point of this test is to ensure that the server's own process never runs the application's code after loading.

A leak, a lock or a crash in it can harm a worker, and never the process that forks them all.
"""

import os
import signal

import pytest

import gtask
from tests.support.waiting import wait_until

SOURCE = """
    import os, signal

    def note(what):
        with open(os.path.join(DIR, "ran"), "a") as file:
            file.write(f"{what} {os.getpid()}\\n")
        return os.getppid()

    note("load")

    class Application:
        def __init__(self):
            note("init")

        @property
        def look(self):
            note("property")

        def setup(self):
            note("setup")

        def work(self):
            return note("work")

        def fail(self):
            note("fail")
            raise LookupError("on purpose")

        def die(self):
            note("die")
            os.kill(os.getpid(), signal.SIGKILL)

        def checkout_done(self):
            note("checkout_done")

        def teardown(self):
            note("teardown")
"""


def lines(tmp_path):
    return [line.split() for line in (tmp_path / "ran").read_text().splitlines()]


def test_only_loading_happens_there(serve, connect, tmp_path):
    """Calls, errors, a death, the end of a client and a stop: the master has loaded, once, and that is all."""
    server = serve(SOURCE, attribute="Application")
    client = connect(server, max_workers=2, min_workers=2)
    master = client.call("work")
    with pytest.raises(LookupError):
        client.call("fail")
    with pytest.raises(gtask.WorkerDied):
        client.call("die")
    with pytest.raises(AttributeError):
        client.call("look")
    client.call("work")
    client.close()
    wait_until(lambda: ["teardown"] in [line[:1] for line in lines(tmp_path)])
    os.kill(master, signal.SIGTERM)
    server.stop()
    assert [what for what, pid in lines(tmp_path) if int(pid) == master] == ["load"]
    assert [what for what, _ in lines(tmp_path)].count("load") == 1
    assert {what for what, _ in lines(tmp_path)} == {
        *("load", "init", "setup", "work", "fail", "die", "checkout_done", "teardown")
    }
