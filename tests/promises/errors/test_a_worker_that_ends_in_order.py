"""The point of this test is to ensure that a worker that ends in order costs no caller an error, but for its state.

Such a worker says as its last message that it has begun nothing since its last reply. The first calls of a checkout go
to another worker then, once; a later one raises WorkerDied, which says that the call was not executed. (The workers
here are scripts on real sockets, for the moment in question is short.)
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
from contextlib import closing

import gevent
import gevent.socket
import pytest

import gtask
from gtask.wire.frames import Decoder, Encoder
from gtask.wire.lastwords import ReplyDecoder
from gtask.wire.messages import Done, Greeting, Request, Retire, Value
from tests.support.waiting import wait_until

END = Retire("the server drains", end=True)


class Script:
    """One worker: hears requests, and says what the script says."""

    def __init__(self, sock):
        self.socket = sock
        self.encode, self.decoder = Encoder().encode, Decoder()
        self.messages = []
        self.say(Greeting(pid=7, name="script"), after=Greeting)

    def hear(self, kind=Request):
        """The next message of this kind; None at the end of the stream."""
        while True:
            for number, message in enumerate(self.messages):
                if isinstance(message, kind):
                    del self.messages[: number + 1]
                    return message
            self.messages.clear()
            count = self.socket.recv_into(self.decoder.space)
            if not count:
                return None
            self.messages += self.decoder.received(count)

    def say(self, *messages, after=None):
        """Say these, once a message of a kind has come."""
        if after is not None:
            assert self.hear(after) is not None
        self.socket.sendall(b"".join(map(self.encode, messages)))

    def serve(self):
        """Echo until the client hangs up."""
        while (request := self.hear()) is not None:
            self.say(Value(request.args[1]))


@pytest.fixture(params=["unix", "tcp"])
def scripted(request, tmp_path, connect):
    """``client = scripted(script, ...)``: the first worker runs the first script, and so on; those after them serve."""
    closers = []

    def start(*scripts, **options):
        if request.param == "unix":
            address = f"unix:{tmp_path}/script.sock"
            listener = gevent.socket.socket(socket.AF_UNIX)
            listener.bind(f"{tmp_path}/script.sock")
        else:
            listener = gevent.socket.socket(socket.AF_INET)
            listener.bind(("127.0.0.1", 0))
            address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        listener.listen(8)
        left = list(scripts)

        def work(sock):
            with closing(sock):
                worker = Script(sock)
                (left.pop(0) if left else Script.serve)(worker)

        def accept():
            while True:
                sock, _ = listener.accept()
                greenlets.append(gevent.spawn(work, sock))

        greenlets = [gevent.spawn(accept)]
        closers.append((listener, greenlets))
        return connect(address, **{"max_workers": 1, "timeout": 20, **options})

    yield start
    for listener, greenlets in closers:
        gevent.killall(greenlets)
        listener.close()


def test_the_first_call_goes_elsewhere(scripted):
    """A worker that ends while the request is under way has not begun it."""
    client = scripted(lambda worker: worker.say(END, after=Request))
    assert client.call("echo", 1) == 1


def test_all_that_is_queued_goes_elsewhere(scripted):
    """Calls that were submitted, in their order; also when the checkout is released meanwhile."""

    def script(worker):
        for _ in range(20):
            assert worker.hear() is not None
        worker.say(END)

    client = scripted(script)
    with client.checkout() as checkout:
        client.open(wait=True)
        results = [checkout.echo.submit(number) for number in range(20)]
    assert [result.get() for result in results] == list(range(20))


def test_it_goes_elsewhere_as_often_as_it_must(scripted):
    """Three workers end in order, one after the other; the call is made once, by the fourth."""
    scripts = [lambda worker: worker.say(END, after=Request)] * 3
    assert scripted(*scripts, timeout=60).call("echo", 2) == 2


def test_the_time_runs_on(scripted):
    """The time-out of a call counts from its beginning, wherever it goes."""
    heard = []

    def listen(worker):
        heard.append(worker.hear())
        worker.hear()

    client = scripted(lambda worker: worker.say(END, after=Request), listen, timeout=1.5)
    with pytest.raises(gtask.CallTimeout, match=r"echo took longer than 1\.5 s"):
        client.call("echo", 1)
    assert len(heard) == 1


def test_a_later_call_raises(scripted):
    """The checkout may rely on what its worker has kept. The error says that the call was not executed."""

    def script(worker):
        worker.say(Value(1), after=Request)
        worker.say(END, after=Request)

    with scripted(script).checkout() as checkout:
        assert checkout.echo(1) == 1
        with pytest.raises(gtask.WorkerDied) as caught:
            checkout.echo(2)
        assert caught.value.executed is False
        assert caught.value.method == "echo"
        assert "ended, because the server drains" in str(caught.value)
        assert "the call was not executed" in str(caught.value)
        with pytest.raises(gtask.WorkerDied):  # it sticks
            checkout.echo(3)


def test_the_next_checkout_is_served(scripted):
    """One that the worker has served before counts no more. (The end of that checkout may ride with the request.)"""

    def script(worker):
        worker.say(Value(1), after=Request)
        worker.say(END, after=Request)

    client = scripted(script)
    assert client.call("echo", 1) == 1
    assert client.call("echo", 2) == 2


def test_an_idle_worker_may_end(scripted):
    """Nobody notices; a new one serves."""
    ended = []

    def script(worker):
        worker.say(Value(1), after=Request)
        worker.say(END, after=Done)
        ended.append(worker)

    client = scripted(script)
    assert client.call("echo", 1) == 1
    wait_until(lambda: ended and client.stats().idle == 0, "the end of the worker")
    assert client.call("echo", 2) == 2


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET], ids=["unix", "tcp"])
@pytest.mark.parametrize("last", [(), (END,)], ids=["gone", "in order"])
def test_replies_are_heard_before_the_end(tmp_path, connect, family, last):
    """A worker has replied and is gone when the next request is written: the replies are read all the same."""
    gone = threading.Event()

    def work():
        sock, _ = listener.accept()
        with sock:
            worker = Script(sock)
            worker.say(Value(-1), after=Request)
            for _ in range(3):
                assert worker.hear() is not None
            worker.say(Value(0), Value(1), Value(2), *last)
        gone.set()

    with socket.socket(family) as listener:
        listener.bind(f"{tmp_path}/script.sock" if family == socket.AF_UNIX else ("127.0.0.1", 0))
        listener.listen(1)
        name = listener.getsockname()
        thread = threading.Thread(target=work)
        thread.start()
        client = connect(f"unix:{name}" if family == socket.AF_UNIX else f"tcp://127.0.0.1:{name[1]}")
        with client.checkout() as checkout:
            assert checkout.echo(-1) == -1
            results = [checkout.echo.submit(number) for number in range(3)]
            assert gone.wait(20)  # natively, so that the hub reads nothing meanwhile
            results.append(checkout.echo.submit(3))
            assert [result.get() for result in results[:3]] == [0, 1, 2]
            with pytest.raises(gtask.WorkerDied) as caught:
                results[3].get()
            assert caught.value.executed is (False if last else None)
        thread.join()


def test_a_write_that_fails_while_the_worker_lives(serve, connect):
    """No end comes then, for which the call could wait: it raises at once, and says that it was not executed."""
    client = connect(serve("def echo(value):\n    return value\n"), timeout=None, max_workers=1)

    def send(data):
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    with client.checkout() as checkout:
        assert checkout.echo(1) == 1
        (slot,) = client._pool._ledger.slots
        slot.worker._stream._send = send
        with pytest.raises(
            gtask.WorkerDied, match=r"broke the connection .no buffer space available.*not executed"
        ) as caught:
            checkout.echo(2)
    assert caught.value.executed is False
    assert client.call("echo", 3) == 3


class Conversation:
    """A plain client, whose socket is at hand."""

    def __init__(self, sock, address):
        wait_until(lambda: sock.connect_ex(address) == 0, "the server")
        sock.settimeout(20)
        self.socket = sock
        self.encode, self.decoder = Encoder().encode, ReplyDecoder()
        self.heard = []
        self.send(Greeting())

    def send(self, *messages):
        self.socket.sendall(b"".join(map(self.encode, messages)))

    def hear(self, count):
        """So many messages, or all until the end of the stream."""
        while len(self.heard) < count:
            got = self.socket.recv_into(self.decoder.space)
            if not got:
                break
            self.heard += self.decoder.received(got)
        return [type(message) for message in self.heard]


def test_a_server_says_so(serve):
    """A worker between two calls whose server stops says it as its last message, and nothing after it."""
    server = serve("def echo(value):\n    return value\n")
    with socket.socket(socket.AF_UNIX) as sock:
        client = Conversation(sock, server.address.path)
        client.hear(1)
        client.send(Request(("echo", 1)))
        client.hear(2)
        os.kill(server.pid, signal.SIGINT)
        assert client.hear(100) == [Greeting, Value, Retire]
        assert client.heard[-1].end


@pytest.mark.parametrize("scheme", ["unix", "tcp"])
def test_a_client_that_does_not_answer(serve, scheme):
    """It has a worker in no checkout, and is asked to let go of it; then it is told that it has none any more."""
    if scheme == "unix":
        server, family = serve("def echo(value):\n    return value\n"), socket.AF_UNIX
        address = server.address.path
    else:
        with socket.socket() as finder:
            finder.bind(("127.0.0.1", 0))
            address, family = finder.getsockname(), socket.AF_INET
        server = serve("def echo(value):\n    return value\n", address=f"tcp://127.0.0.1:{address[1]}")
    with socket.socket(family) as sock:
        client = Conversation(sock, address)
        client.hear(1)
        client.send(Request(("echo", 1)), Done())
        client.hear(2)
        os.kill(server.pid, signal.SIGTERM)
        assert client.hear(100) == [Greeting, Value, Retire, Retire]
        assert [message.end for message in client.heard[2:]] == [False, True]


def test_a_client_that_hangs_up_hears_nothing(serve):
    """It has ended the conversation itself: after a half-close there comes nothing but the end."""
    server = serve("def echo(value):\n    return value\n")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        wait_until(lambda: sock.connect_ex(server.address.path) == 0, "the server")
        sock.sendall(Encoder().encode(Greeting()))
        assert sock.recv(4096)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""


def test_addresses_are_named(scripted):
    """The error says which worker it was, and where."""

    def script(worker):
        worker.say(Value(1), after=Request)
        worker.say(Retire("", end=True), after=Request)

    client = scripted(script, name="web")
    with client.checkout() as checkout:
        checkout.echo(1)
        with pytest.raises(gtask.WorkerDied) as caught:
            checkout.echo(2)
    where = f"worker 7 of script at {client.address}, for client 'web'"
    assert f"{where} ended, because its server stops " in str(caught.value)
