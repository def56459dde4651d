"""The point of this test is to ensure that ``Client(address, codec="json")`` works with a server of AnyEvent::Task.

The server is a small one in Perl, which behaves as that does: it knows nothing of queues, greetings and last words. The
same client also calls a gtask-server.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import math
import os
import socket
import subprocess

import gevent
import pytest

import gtask
from gtask.address import UnixAddress
from gtask.logdefer import RequestLog
from tests.support import perl
from tests.support.waiting import turn_hub, wait_until


class Perl:
    """A running server.pl; ``marks`` are the lines that its workers have left."""

    def __init__(self, directory):
        self.address = UnixAddress(f"{directory}/perl.sock")
        self.directory = directory
        self._process = subprocess.Popen([*perl.command("server.pl"), self.address.path, str(directory)])
        wait_until(lambda: "serves" in self.marks, "the server in Perl")

    @property
    def marks(self):
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / "marks").read_text().split()
        return []

    def wait_for(self, mark, count=1):
        wait_until(lambda: self.marks.count(mark) == count, f"the mark {mark} in {self.marks}")

    def stop(self):
        self._process.kill()
        self._process.wait()


@pytest.fixture
def server(tmp_path, nothing_is_left_behind):
    """A server in Perl, for one test."""
    server = Perl(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def client(server, connect):
    """A client of it, with at most one worker."""
    return connect(server, codec="json", max_workers=1)


def test_values(client):
    """What JSON has is returned as it was sent; methods by name, as an attribute, from client.remote."""
    values = [None, True, -5, 2.5, "hä\u20ac\U0001f600\0", ["x", []], {"k": {"ä": 1}}]
    with client.checkout() as worker:
        assert worker.echo(*values) == values
        assert worker.call("add", 2, 3) == 5
        assert worker("add", 3, 4) == 7
        assert worker.echo("x" * 1_000_000) == ["x" * 1_000_000]
    assert client.remote.echo((1, 2)) == [[1, 2]]


def test_what_cannot_travel_is_not_sent(client):
    """The error names it, and the checkout goes on."""
    with client.checkout() as worker:
        for value in (b"x", {1: 2}, {3}, math.nan):
            with pytest.raises(gtask.EncodeError, match="echo was not sent: cannot travel: argument 1"):
                worker.echo(value)
        assert worker.echo(1) == [1]


def test_what_the_server_would_ignore_is_not_sent(server, connect, client):
    """Keyword arguments and context variables: an AnyEvent::Task server runs the call without them."""
    user = contextvars.ContextVar("user")
    with client.checkout() as worker:
        for call in (worker.echo, worker.echo.submit, client.remote.echo):
            with pytest.raises(gtask.EncodeError, match=r"echo was not sent: cannot travel: argument key.*by position"):
                call(1, key=2)
        assert worker.echo(1) == [1]
    assert [mark for mark in server.marks if mark != "done"] == ["serves"]
    other = connect(server, codec="json", context=[user])
    assert other.call("echo", 1) == [1]

    def call():
        user.set("ann")
        with pytest.raises(gtask.EncodeError, match=r"the context variable :user.*pass the value as an argument"):
            other.call("echo", 1)

    contextvars.copy_context().run(call)


def test_a_checkout_has_one_worker_and_ends(server, client):
    """The worker is kept for the next, and told that the checkout is over: with the next request, or after a moment."""
    with client.checkout() as worker:
        pid = worker.pid()
        assert worker.pid() == pid
        worker.mark("a")
    with client.checkout() as worker:
        worker.mark("b")
        assert worker.pid() == pid
    server.wait_for("done", 2)
    assert server.marks == ["serves", "a", "done", "b", "done"]


def test_errors(client):
    """A RemoteError with the text, without its newline; an error that is data is told as JSON."""
    with client.checkout() as worker:
        with pytest.raises(gtask.RemoteError) as caught:
            worker.error("näh")
        assert type(caught.value) is gtask.RemoteError
        assert str(caught.value) == "näh"
        assert caught.value.remote_type == ""
        assert "error raised this in the worker at unix:" in caught.value.__notes__[0]
        with pytest.raises(gtask.RemoteError, match=r"^no newline at .*server.pl line \d+\."):
            worker.where()
        with pytest.raises(gtask.RemoteError, match=r'^\{"code": 4\}'):
            worker.data()
        assert worker.echo(1) == [1]


@pytest.mark.parametrize("refork", [True, False])
def test_after_an_error_the_worker_is_replaced(server, connect, refork):
    """As by default anywhere; a kept one is told that the checkout is over."""
    client = connect(server, codec="json", max_workers=1, refork_after_error=refork)
    with client.checkout() as worker:
        pid = worker.pid()
        with pytest.raises(gtask.RemoteError):
            worker.error("no")
    assert (client.call("pid") == pid) is not refork


def test_a_queue_runs_in_order_and_one_at_a_time(server, client):
    """What is submitted waits in the client until the reply before it has come."""
    with client.checkout() as worker:
        results = [worker.mark.submit(f"m{number}") for number in range(50)]
        last = worker.add.submit(1, 2)
        assert last.get() == 3
        assert all(result.ready() for result in results)
    assert server.marks[1:51] == [f"m{number}" for number in range(50)]


def test_what_is_queued_behind_an_error_is_never_sent(server, client):
    """CallDropped, and what is called after the error has come runs."""
    with client.checkout() as worker:
        before, bad = worker.mark.submit("before"), worker.error.submit("bad")
        behind = [worker.mark.submit("never") for _ in range(3)]
        with pytest.raises(gtask.RemoteError, match=r"^bad"):
            bad.get()
        assert worker.mark("after") == 1
        assert before.get() == 1
        for result in behind:
            with pytest.raises(gtask.CallDropped, match="mark did not run: an earlier call"):
                result.get()
    server.wait_for("after")
    assert server.marks == ["serves", "before", "error", "after"]


def test_an_error_in_a_queue_whose_checkout_is_over(server, client):
    """Released with calls under way: the worker comes back when they are through, and the next checkout is served."""
    with client.checkout() as worker:
        results = [worker.mark.submit("a"), worker.error.submit("bad"), worker.mark.submit("never")]
    assert client.call("echo", 1) == [1]
    assert [type(result.exception) for result in results] == [type(None), gtask.RemoteError, gtask.CallDropped]
    assert "never" not in server.marks


def test_calls_that_wait_in_line(server, client):
    """Queued before there is a worker: the same order, and the same end at an error."""
    with client.checkout() as holder:
        holder.echo(1)
        with client.checkout() as waiting:
            results = [waiting.mark.submit("a"), waiting.error.submit("bad"), waiting.mark.submit("never")]
            holder.__exit__(None, None, None)
            gevent.wait(results)
    assert [type(result.exception) for result in results] == [type(None), gtask.RemoteError, gtask.CallDropped]
    assert server.marks == ["serves", "done", "a", "error"]


def test_the_queue_is_bounded(server, connect):
    """By max_queue, as anywhere."""
    client = connect(server, codec="json", max_queue=2)
    with client.checkout() as worker:
        results = [worker.mark.submit("a") for _ in range(2)]
        with pytest.raises(gtask.Overloaded, match="max_queue"):
            worker.mark.submit("a")
        assert [result.get() for result in results] == [1, 1]


def test_a_time_out(server, client, monkeypatch):
    """Sticky; calls behind it never run, and the next checkout has another worker. Nobody waits for last words."""
    monkeypatch.setattr("gtask.client.overtime.LAST_WORDS", 600)
    with client.checkout(timeout=0.5) as worker:
        late, behind = worker.sleep.submit(60), worker.mark.submit("never")
        with pytest.raises(gtask.CallTimeout, match=r"sleep took longer than 0.5 s in the worker at unix:"):
            late.get()
        with pytest.raises(gtask.CallTimeout):
            behind.get()
        with pytest.raises(gtask.CallTimeout):
            worker.echo(1)
    assert client.call("echo", 2) == [2]
    assert "never" not in server.marks
    assert client.stats().call_timeouts == 1


def test_each_call_has_its_own_time(client):
    """The clock of a queued call starts when the one before it is answered."""
    with client.checkout(timeout=2) as worker:
        results = [worker.sleep.submit(0.5) for _ in range(5)]
        assert [result.get() for result in results] == [1] * 5


def test_a_worker_that_dies(server, client):
    """WorkerDied, for the call and for those behind it."""
    with client.checkout() as worker:
        died, behind = worker.leave.submit(3), worker.mark.submit("never")
        with pytest.raises(
            gtask.WorkerDied, match=r"closed the connection .* after leave was called; whether"
        ) as caught:
            died.get()
        assert (caught.value.method, caught.value.exitcode, caught.value.executed) == ("leave", None, None)
        with pytest.raises(gtask.WorkerDied):
            behind.get()
        with pytest.raises(gtask.WorkerDied):
            worker.echo(1)
    assert client.call("echo", 2) == [2]
    assert "never" not in server.marks


def test_cancelling(server, client):
    """By ``cancel``, or by a gevent.Timeout in the caller."""
    with client.checkout() as worker:
        result = worker.sleep.submit(60)
        worker.cancel("enough")
        with pytest.raises(gtask.Cancelled, match="enough"):
            result.get()
    with client.checkout() as worker:
        with gevent.Timeout(0.1, False):
            worker.sleep(60)
        with pytest.raises(gtask.Cancelled, match="interrupted in its caller by Timeout"):
            worker.echo(1)
    assert client.call("echo", 2) == [2]


def test_setup_errors(server, client):
    """Setup runs before the first call, whose error is a sticky SetupError; a later checkout finds setup mended."""
    (server.directory / "broken").touch()
    with client.checkout() as worker:
        first, second = worker.mark.submit("never"), worker.mark.submit("never")
        for result in (first, second):
            with pytest.raises(gtask.SetupError, match=r"^no disk"):
                result.get()
        with pytest.raises(gtask.SetupError):
            worker.echo(1)
    (server.directory / "broken").unlink()
    assert client.call("echo", 1) == [1]
    assert "never" not in server.marks
    assert dict(client.stats().retirements) == {"setup failed": 1}


def test_logs_in_a_reply(client):
    """A reply that carries a deferred log is a reply like any other."""
    assert client.call("logs", "careful") == "logged"


def test_many_greenlets(server, connect):
    """Each gets its own answers."""
    client = connect(server, codec="json", max_workers=3)

    def work(number):
        with client.checkout() as worker:
            return [worker.add(number, step) for step in range(5)]

    greenlets = [gevent.spawn(work, number) for number in range(30)]
    gevent.joinall(greenlets, timeout=60, raise_error=True)
    assert [greenlet.value for greenlet in greenlets] == [[n + step for step in range(5)] for n in range(30)]


def test_a_peer_that_speaks_something_else(tmp_path, connect):
    """A ProtocolError says what came."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/other.sock")
        listener.listen()
        listener.settimeout(30)
        client = connect(f"unix:{tmp_path}/other.sock", codec="json")
        with client.checkout() as worker:
            result = worker.echo.submit(1)
            turn_hub()
            peer, _ = listener.accept()
            with peer:
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                with pytest.raises(gtask.ProtocolError, match="a JSON text that is no array: it begins with b'HTTP"):
                    result.get()


def test_nobody_there(tmp_path, connect):
    """As without JSON."""
    with pytest.raises(gtask.AcquireTimeout, match="unreachable"):
        connect(f"unix:{tmp_path}/none.sock", codec="json", timeout=0.2).call("echo", 1)


# --- the same client, and gtask's own server ------------------------------------------------------------------

SOURCE = """
    import os, time

    def setup():
        if os.path.exists(os.path.join(DIR, "broken")):
            raise OSError("no disk")

    def checkout_done():
        with open(os.path.join(DIR, "marks"), "a") as file:
            print("done", file=file)

    def echo(*args, **kwargs):
        return [list(args), kwargs]

    def fail():
        raise LookupError("no")

    def give():
        return b"x"

    def leave():
        os._exit(3)

    def hang():
        time.sleep(60)

    def stop():
        raise SystemExit("enough")

    def pid():
        return os.getpid()
"""


def test_a_gtask_server(shared, connect, tmp_path):
    """Errors are texts; a worker that dies, or hangs, has no last words."""
    client = connect(shared(SOURCE), codec="json", max_workers=1, refork_after_error=False)
    (tmp_path / "broken").touch()
    with pytest.raises(gtask.SetupError, match=r"^OSError: no disk"):
        client.call("echo")
    (tmp_path / "broken").unlink()
    assert client.call("echo", "hä", [1]) == [["hä", [1]], {}]
    with client.checkout() as worker:
        with pytest.raises(gtask.RemoteError, match=r"^LookupError: no"):
            worker.fail()
        with pytest.raises(gtask.RemoteError, match="EncodeError: cannot travel: the result is of type bytes"):
            worker.give()
        results = [worker.echo.submit(number) for number in range(5)]
        assert [result.get()[0] for result in results] == [[number] for number in range(5)]
        with pytest.raises(gtask.WorkerDied, match="closed the connection"):
            worker.leave()
    with client.checkout(timeout=0.5) as worker, pytest.raises(gtask.CallTimeout):
        worker.hang()
    assert client.call("echo") == [[], {}]


def test_a_gtask_worker_that_wants_to_be_retired(serve, connect):
    """It hangs up after the checkout, and the next has another worker."""
    client = connect(serve(SOURCE), codec="json", max_workers=1, refork_after_error=False)
    with client.checkout() as worker:
        pid = worker.pid()
        with pytest.raises(gtask.RemoteError, match=r"^SystemExit: enough"):
            worker.stop()
        assert worker.pid() == pid
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the worker's end")
    assert client.call("pid") != pid


def test_a_private_server(monkeypatch, tmp_path, connect):
    """``spawn:`` servers can be asked in JSON."""
    (tmp_path / "private_json.py").write_text("def double(x): return 2 * x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with connect("spawn:private_json", codec="json") as client:
        assert client.call("double", 21) == 42


def test_logs_go_to_a_request_log(client):
    """What comes with a reply is merged, its times moved into the call if that clock is wrong; the call is a timer."""
    records = []
    with RequestLog(records.append) as log, client.checkout(log=log) as worker:
        assert worker.logs("hello") == "logged"
        assert worker.echo(1) == [1]
    (record,) = records
    ((offset, *message),) = record["logs"]
    assert message == [20, "hello", {"n": 1}]
    assert sorted(timer[0] for timer in record["timers"]) == ["disk", "echo", "logs"]
    assert 0 < offset - 0.25 < record["end"]  # it is what the server says, of a call that did not take so long


def test_logs_without_a_request_log(client, caplog):
    """Are logged by the logger gtask.peer."""
    caplog.set_level(logging.DEBUG, "gtask.peer")
    assert client.call("logs", "hello") == "logged"
    (record,) = [record for record in caplog.records if record.name == "gtask.peer"]
    assert (record.levelno, record.getMessage()) == (logging.WARNING, "hello {'n': 1}")
