"""The point of this test is to ensure that an exception in setup reaches the caller, promptly and as what it is.

The next checkout gets a new worker, whose setup runs again.
"""

import os

import gevent
import pytest

import gtask
from tests.support.waiting import wait_until

SOURCE = """
    import os

    def setup():
        with open(os.path.join(DIR, "setups"), "a") as file:
            file.write(f"{os.getpid()}\\n")
        if not os.path.exists(os.path.join(DIR, "repaired")):
            raise LookupError("no database at königsberg")

    def pid():
        return os.getpid()
"""


def test_the_caller_gets_it_and_the_next_one_a_new_worker(shared, connect, tmp_path):
    """Without any time-out, so that only the setup's own error can end the call."""
    client = connect(shared(SOURCE), timeout=None)
    with client.checkout() as worker:
        with pytest.raises(LookupError, match="no database at königsberg") as caught:
            worker.pid()
        assert isinstance(caught.value, gtask.SetupError)
        assert caught.traceback[-1].name == "setup"
        (tmp_path / "repaired").touch()
        with pytest.raises(gtask.SetupError, match="königsberg"):
            worker.pid()
    pid = client.call("pid")
    setups = [int(line) for line in (tmp_path / "setups").read_text().split()]
    assert setups[-1] == pid
    assert len(set(setups)) == len(setups) >= 2


def test_each_checkout_tries_again(shared, connect, tmp_path):
    """As long as setup raises, every checkout gets that error from a setup of its own."""
    client = connect(shared(SOURCE), timeout=None)
    for _ in range(3):
        with pytest.raises(gtask.SetupError):
            client.call("pid")
    setups = (tmp_path / "setups").read_text().split()
    assert len(set(setups)) == len(setups) == 3


def test_all_who_wait_are_told(shared, connect):
    """Nobody waits for a deadline behind a setup that cannot succeed."""
    client = connect(shared(SOURCE), timeout=None, max_workers=1)
    callers = [gevent.spawn(client.call, "pid") for _ in range(3)]
    for caller in callers:
        with pytest.raises(gtask.SetupError):
            caller.get()


def test_submitted_calls_are_told(shared, connect):
    """All of them: the error sticks to the checkout."""
    client = connect(shared(SOURCE), timeout=None)
    with client.checkout() as worker:
        for result in [worker.pid.submit() for _ in range(3)]:
            with pytest.raises(gtask.SetupError):
                result.get()


@pytest.mark.parametrize("exception", ["SystemExit(3)", "KeyboardInterrupt()", "GeneratorExit()"])
def test_no_exception_in_setup_can_end_the_caller(serve, connect, exception):
    """What would end a program arrives as a SetupError, an ordinary Exception."""
    client = connect(serve(f"def setup(): raise {exception}\ndef f(): pass"), timeout=None)
    with pytest.raises(gtask.SetupError, match=exception.partition("(")[0]) as caught:
        client.call("f")
    assert isinstance(caught.value, Exception)


def test_an_exit_in_setup_is_a_death_that_does_not_harm_the_server(serve, connect, tmp_path):
    """A worker that dies in its setup is tried again until the deadline; then it is said what happened."""
    source = SOURCE.replace('raise LookupError("no database at königsberg")', "os._exit(7)")
    server = serve(source)
    connect(server, min_workers=1).open()
    wait_until((tmp_path / "setups").exists)
    client = connect(server, timeout=2)
    with pytest.raises(gtask.AcquireTimeout, match="exited with status 7"):
        client.call("pid")
    (tmp_path / "repaired").touch()
    with client.checkout(timeout=30) as worker:
        assert worker.pid() != os.getpid()
