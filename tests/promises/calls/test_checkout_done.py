"""The point of this test is to ensure that checkout_done runs after each checkout, before its worker is lent again.

A checkout_done that raises retires the worker; the calls that had finished are unaffected.
"""

import os

import gevent
import pytest

from tests.support.waiting import wait_until

SOURCE = """
    import os

    def note(text):
        with open(os.path.join(DIR, "ran"), "a") as file:
            file.write(text + "\\n")
        return text

    def checkout_done():
        note("done")
        if os.path.exists(os.path.join(DIR, "gate")):
            with open(os.path.join(DIR, "gate")) as gate:
                gate.read()
        if os.path.exists(os.path.join(DIR, "broken")):
            raise RuntimeError("the hook is broken")

    def pid():
        return os.getpid()

    def fail():
        note("fail")
        raise LookupError("on purpose")

    def hang():
        note("hang")
        import time
        time.sleep(60)
"""


def ran(tmp_path):
    return (tmp_path / "ran").read_text().split() if (tmp_path / "ran").exists() else []


def wait_for(tmp_path, expected):
    wait_until(lambda: ran(tmp_path) == expected, what=f"{expected}, where there is {ran(tmp_path)},")


def test_it_runs_after_each_checkout(shared, connect, tmp_path):
    """Not after each call; also where no call was made; also when the checkout was released with calls under way."""
    client = connect(shared(SOURCE), max_workers=1)
    with client.checkout() as worker:
        worker.note("a")
        worker.note("b")
    client.call("note", "c")
    wait_for(tmp_path, ["a", "b", "done", "c", "done"])
    wait_until(lambda: client.stats().idle == 1, what="an idle worker")  # or else it would never be lent
    with client.checkout():
        pass
    wait_for(tmp_path, ["a", "b", "done", "c", "done", "done"])
    with client.checkout() as worker:
        worker.note.submit("d")
        worker.note.submit("e")
    wait_for(tmp_path, ["a", "b", "done", "c", "done", "done", "d", "e", "done"])


def test_it_runs_before_the_worker_is_lent_again(shared, connect, tmp_path):
    """While the hook runs, the next in line waits; with room for another worker it gets that one."""
    server = shared(SOURCE, "--stop-timeout", "0.3")
    client = connect(server, max_workers=1)
    with client.checkout() as worker:
        pid = worker.pid()
        os.mkfifo(tmp_path / "gate")
    wait_for(tmp_path, ["done"])
    following = gevent.spawn(client.call, "pid")
    other = connect(server)
    assert other.call("note", "meanwhile") == "meanwhile"  # the hub and the server had their turns
    assert not following.ready()
    (tmp_path / "gate").write_text("")
    assert following.get() == pid


def test_one_that_hangs_does_not_keep_others_waiting(shared, connect, tmp_path):
    """Another worker serves the next checkout."""
    client = connect(shared(SOURCE, "--stop-timeout", "0.3"), max_workers=2)
    with client.checkout() as worker:
        pid = worker.pid()
        os.mkfifo(tmp_path / "gate")
    wait_for(tmp_path, ["done"])
    with client.checkout() as worker:
        assert worker.pid() != pid


@pytest.mark.parametrize("refork_after_error", [True, False])
def test_it_runs_after_an_error(shared, connect, tmp_path, refork_after_error):
    """Whether the worker is kept or replaced."""
    client = connect(shared(SOURCE), max_workers=1, refork_after_error=refork_after_error)
    with client.checkout() as worker:
        pid = worker.pid()
        with pytest.raises(LookupError):
            worker.fail()
    assert (client.call("pid") == pid) is not refork_after_error
    wait_for(tmp_path, ["fail", "done", "done"])


def test_it_runs_when_the_client_closes(shared, connect, tmp_path):
    """After the checkout that was under way, and not a second time for one that was over."""
    client = connect(shared(SOURCE))
    client.call("note", "over")
    wait_for(tmp_path, ["over", "done"])
    with client.checkout() as worker:
        pid = worker.pid()
        client.close()
        worker.note("last")
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), what="the end of the worker")
    assert ran(tmp_path) == ["over", "done", "last", "done"]


def test_it_runs_when_the_checkout_is_cancelled(shared, connect, tmp_path):
    """The connection is closed amid a checkout between two calls: the worker cleans up before it exits."""
    client = connect(shared(SOURCE))
    with client.checkout() as worker:
        worker.note("begin")
        worker.cancel()
    wait_for(tmp_path, ["begin", "done"])


def test_one_that_raises_retires_the_worker(shared, connect, tmp_path):
    """The finished calls keep their values, and the next checkout has a new worker, also with max_workers=1."""
    client = connect(shared(SOURCE), max_workers=1, refork_after_error=False)
    (tmp_path / "broken").touch()
    with client.checkout() as worker:
        pid = worker.pid()
        result = worker.note.submit("a")
    assert result.get() == "a"
    wait_for(tmp_path, ["a", "done"])
    (tmp_path / "broken").unlink()
    with client.checkout() as worker:
        assert worker.pid() != pid
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), what="the end of the worker")
