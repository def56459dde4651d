"""The point of this test is to ensure that a client of AnyEvent::Task in Perl works against gtask-server.

It speaks JSON on the same socket as others speak msgpack. What it sends and gets is looked at to the byte by way of a
plain socket, and then by a small client in Perl.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess

import pytest

from tests.support import perl
from tests.support.waiting import wait_until

SOURCE = """
    import os, time, gtask
    from gtask import logdefer

    marks = []

    def mark(text):
        marks.append(text)
        with open(os.path.join(DIR, "marks"), "a") as file:
            print(text, file=file)
        return list(marks)

    def setup():
        mark("setup")
        if os.path.exists(os.path.join(DIR, "broken")):
            raise OSError("no disk")

    def checkout_done():
        mark("done")
        if os.path.exists(os.path.join(DIR, "dirty")):
            raise ValueError("unclean")

    def teardown():
        mark("teardown")

    def echo(*args, **kwargs):
        return [list(args), kwargs] if kwargs else list(args)

    def pid():
        return os.getpid()

    def fail(text):
        raise LookupError(text)

    def give(what):
        return {"bytes": b"x", "set": {1}, "nan": [float("nan")], "keys": {1: 2}, "large": "x" * 100_000}[what]

    def leave(status):
        os._exit(status)

    def stop():
        raise SystemExit("enough")

    def logs(text):
        log = logdefer.current()
        with log.timer("disk"):
            log.info(text, {"n": 1}, b"raw", {5})
        log.data["half"] = 0.5
        if text == "bad":
            raise KeyError(text)
        gtask.current_call().extend(9)
        return "logged"

    def hang():
        try:
            mark("hangs")
            while True:
                time.sleep(60)
        finally:
            mark("unwound")

    def hang_in_c():
        mark("hangs")
        sum(range(10**15))
"""


class Peer:
    """A client with a plain socket."""

    def __init__(self, server):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        path = server.address.path
        wait_until(lambda: self.socket.connect_ex(path) == 0, "a connection")
        self._data = ""
        self._read = json.JSONDecoder().raw_decode

    def send(self, *messages):
        self.socket.sendall("".join(json.dumps(message) for message in messages).encode())

    def read(self, count):
        """So many bytes."""
        data = b""
        while len(data) < count:
            data += self.socket.recv(count - len(data)) or b"(the end)"
        return data

    def reply(self):
        """The next reply, or None when the worker has hung up; nothing but whole replies may have come."""
        while True:
            with contextlib.suppress(json.JSONDecodeError):
                message, end = self._read(self._data)
                self._data = self._data[end:]
                return message
            data = self.socket.recv(65536)
            if not data:
                assert self._data == ""
                return None
            self._data += data.decode()

    def call(self, *args):
        self.send(["do", {}, *args])
        return self.reply()

    def close(self):
        self.socket.close()


@pytest.fixture
def start(serve):
    """``start(*arguments)`` runs a server."""
    return lambda *arguments: serve(SOURCE, *arguments)


@pytest.fixture
def peer():
    """``peer(server)`` is a new :class:`Peer`."""
    peers = []

    def make(server):
        peers.append(Peer(server))
        return peers[-1]

    yield make
    for each in peers:
        each.close()


@pytest.fixture
def marks(tmp_path):
    """What the workers have marked so far, in order."""
    return lambda: (tmp_path / "marks").read_text().split() if (tmp_path / "marks").exists() else []


def wait_for(marks, mark):
    wait_until(lambda: mark in marks(), f"the mark {mark}")


def test_to_the_byte(start, peer):
    """One reply for each request, in order, in UTF-8, without a greeting or a separator; ``dn`` is not answered."""
    one = peer(start())
    one.socket.sendall('["do",{},"echo","hä"]["dn",{}] \n\t["do",null,"echo",1,2.5,null,true,{"k":[]}]'.encode())
    expected = '["ok",{},["hä"]]["ok",{},[1,2.5,null,true,{"k":[]}]]'.encode()
    assert one.read(len(expected)) == expected
    one.socket.sendall(b'["do",{"kw":{"key":7},"q":3,"unknown":1},"echo"]')
    expected = b'["ok",{},[[],{"key":7}]]'
    assert one.read(len(expected)) == expected
    one.socket.shutdown(socket.SHUT_WR)
    assert one.socket.recv(1) == b""


def test_in_pieces(start, peer):
    """Requests that come byte by byte, and one that is large."""
    one = peer(start())
    for byte in '["do",{},"echo","ä\\"]"]'.encode():
        one.socket.sendall(bytes([byte]))
    assert one.reply() == ["ok", {}, ['ä"]']]
    assert one.call("echo", "x" * 1_000_000) == ["ok", {}, ["x" * 1_000_000]]


def test_errors(start, peer):
    """An exception is its type and text; the worker stays, and calls behind a failed one run, whatever their epoch."""
    one = peer(start())
    one.send(["do", {"q": 5}, "fail", "näh"], ["do", {"q": 5}, "pid"])
    assert one.reply() == ["er", {}, "LookupError: näh"]
    kind, _, pid = one.reply()
    assert kind == "ok"
    kind, meta, text = one.call("ecko")
    assert (kind, meta) == ("er", {})
    assert text.startswith("AttributeError: ")
    assert one.call("pid") == ["ok", {}, pid]


@pytest.mark.parametrize("what", ["bytes", "set", "nan", "keys"])
def test_a_result_that_json_has_no_word_for(start, peer, what):
    """It is an error that says so, and the worker goes on."""
    one = peer(start())
    kind, meta, text = one.call("give", what)
    assert (kind, meta) == ("er", {})
    assert text.startswith("gtask.errors.EncodeError: cannot travel: the result")
    assert one.call("echo", 1) == ["ok", {}, [1]]


def test_a_result_over_the_limit(start, peer):
    """The same."""
    one = peer(start("--limit-message", "50000"))
    assert one.call("give", "large")[2].startswith("gtask.errors.EncodeError: too large")
    assert one.call("echo", 1) == ["ok", {}, [1]]


def test_a_request_over_the_limit_is_a_hang_up(start, peer):
    """As any other garbage; the other connections do not notice."""
    server = start("--limit-message", "2000")
    other = peer(server)
    assert other.call("echo", 1) == ["ok", {}, [1]]
    for garbage in (b'["do",{},"' + b"x" * 2000, b"[" * 1000, b'["hi",{"v":1}]', b'["ok",{},1]', b"[}", b'["do",{}}'):
        one = peer(server)
        one.socket.sendall(garbage)
        assert one.socket.recv(100) == b""
    assert other.call("echo", 2) == ["ok", {}, [2]]


def test_setup_errors(start, peer, marks, tmp_path):
    """Each call is told that setup failed, and tries it again; no hook runs before it has succeeded."""
    (tmp_path / "broken").touch()
    one = peer(start())
    one.send(["do", {}, "echo", 1], ["do", {}, "echo", 2], ["dn", {}])
    assert one.reply() == ["er", {}, "setup exception: OSError: no disk"]
    assert one.reply() == ["er", {}, "setup exception: OSError: no disk"]
    (tmp_path / "broken").unlink()
    assert one.call("echo", 3) == ["ok", {}, [3]]
    one.close()
    wait_for(marks, "teardown")
    assert marks() == ["setup", "setup", "setup", "done", "teardown"]


def test_a_setup_that_fails_for_good_ends_without_hooks(start, peer, marks, tmp_path):
    """There is nothing to tear down."""
    (tmp_path / "broken").touch()
    server = start()
    one = peer(server)
    assert one.call("echo", 1)[0] == "er"
    one.socket.shutdown(socket.SHUT_WR)
    assert one.reply() is None
    assert marks() == ["setup"]


def test_setup_of_a_class_can_be_run_again(serve, peer, tmp_path):
    """Each attempt makes a new instance, and runs its own hooks."""
    server = serve(
        """
        class Service:
            made = 0

            def __init__(self):
                Service.made += 1
                self.number = Service.made

            def setup(self):
                if self.number == 1:
                    raise OSError("not yet")

            def which(self):
                return self.number
        """,
        attribute="Service",
    )
    one = peer(server)
    assert one.call("which") == ["er", {}, "setup exception: OSError: not yet"]
    assert one.call("which") == ["ok", {}, 2]


def test_a_callable_gets_all_arguments(serve, peer):
    """Also the first, which otherwise names the method."""
    one = peer(serve("def interface(*args): return list(args)", attribute="interface"))
    assert one.call("a", 1) == ["ok", {}, ["a", 1]]
    assert one.call() == ["ok", {}, []]
    one.send(["do", {}, 1], ["do", {}, 2], ["dn", {}])  # which runs nothing, and holds no reply back
    assert [one.reply(), one.reply()] == [["ok", {}, [1]], ["ok", {}, [2]]]


def test_checkouts(start, peer, marks):
    """``dn`` runs checkout_done before the next call; the end of the connection does, too, and then teardown."""
    one = peer(start())
    one.call("mark", "a")
    one.send(["dn", {}], ["do", {}, "mark", "b"])
    assert one.reply() == ["ok", {}, ["setup", "a", "done", "b"]]
    one.close()
    wait_for(marks, "teardown")
    assert marks() == ["setup", "a", "done", "b", "done", "teardown"]


@pytest.mark.parametrize("method", ["leave", "hang", "hang_in_c"])
def test_no_last_words(start, peer, marks, method):
    """A worker that dies in a call, or is ended by hung_worker_timeout, just hangs up; what was answered has come."""
    one = peer(start("--hung-worker-timeout", "0.5"))
    one.send(["do", {}, "echo", 1], ["do", {}, method, *([3] if method == "leave" else [])], ["do", {}, "echo", 2])
    assert one.reply() == ["ok", {}, [1]]
    assert one.reply() is None
    if method == "hang":
        assert marks() == ["setup", "hangs", "unwound", "done", "teardown"]


def test_a_setup_that_hangs(serve, peer):
    """It is ended, without a reply."""
    server = serve("import time\ndef setup(): time.sleep(600)\ndef echo(): pass", "--hung-worker-timeout", "0.3")
    assert peer(server).call("echo") is None


def test_giving_up_a_call(start, peer, marks):
    """A client that hangs up stops the call, as any client does."""
    one = peer(start())
    one.send(["do", {}, "hang"])
    wait_for(marks, "hangs")
    one.close()
    wait_for(marks, "teardown")
    assert marks() == ["setup", "hangs", "unwound", "done", "teardown"]


def is_retired(one, server):
    """Whether the worker has hung up at the end of the checkout, and another connection gets another worker."""
    assert one.reply() is None
    another = Peer(server)
    try:
        return another.call("echo", 1) == ["ok", {}, [1]]
    finally:
        another.close()


def test_a_worker_that_wants_to_be_retired_hangs_up_between_checkouts(start, peer, tmp_path):
    """After SystemExit, or a checkout_done that raised; not before the checkout is over, and without a word."""
    server = start()
    one = peer(server)
    assert one.call("stop") == ["er", {}, "SystemExit: enough"]
    assert one.call("echo", 1) == ["ok", {}, [1]]
    one.send(["dn", {}])
    assert is_retired(one, server)
    (tmp_path / "dirty").touch()
    two = peer(server)
    assert two.call("echo", 1) == ["ok", {}, [1]]
    two.send(["dn", {}])
    assert two.reply() is None


def test_what_has_come_before_the_worker_hangs_up_is_served(start, peer):
    """The next checkout has begun: it is not cut short."""
    one = peer(start())
    one.send(["do", {}, "stop"], ["dn", {}], ["do", {}, "echo", 1], ["do", {}, "echo", 2], ["dn", {}])
    assert [one.reply() for _ in range(4)] == [
        ["er", {}, "SystemExit: enough"],
        ["ok", {}, [1]],
        ["ok", {}, [2]],
        None,
    ]


def test_a_drain(start, peer, marks):
    """A checkout that goes on is let end; an idle worker hangs up; then the server ends."""
    server = start()
    lent, idle = peer(server), peer(server)
    assert lent.call("echo", 1) == ["ok", {}, [1]]
    assert idle.call("echo", 1) == ["ok", {}, [1]]
    idle.send(["dn", {}])
    wait_until(lambda: marks().count("done") == 1, "the end of a checkout")
    os.kill(server.pid, signal.SIGTERM)
    assert idle.reply() is None
    assert lent.call("echo", 2) == ["ok", {}, [2]]
    lent.send(["dn", {}])
    assert lent.reply() is None
    wait_until(server.obituary, "the server's end")


def test_a_silent_peer(start, peer, connect):
    """One that says too little for too long is closed; a msgpack client beside it is served by the same server."""
    server = start("--greeting-timeout", "0.3")
    one, two = peer(server), peer(server)
    two.socket.sendall(b'["do",')
    assert connect(server).call("echo", 1) == [1]
    assert one.reply() is None
    assert two.socket.recv(1) == b""


# --- a client in Perl --------------------------------------------------------------------------------------


@pytest.fixture
def ask(start):
    """``ask(server, *requests)`` sends them from Perl; gives what came back. With ``at_once``, without waiting."""

    def run(server, *requests, at_once=False):
        command = [*perl.command("client.pl"), server.address.path, *(["all"] if at_once else [])]
        wait_until(lambda: os.path.exists(server.address.path), "the server")
        text = "".join(json.dumps(request) + "\n" for request in requests)
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        return [line if line == "closed" else json.loads(line) for line in done.stdout.splitlines()]

    return run


@pytest.mark.parametrize("at_once", [False, True])
def test_perl(start, ask, at_once):
    """AnyEvent::Handle's ``json`` writes and reads: values of all kinds, errors, checkouts, in order."""
    value = ["hä\u20ac\U0001f600", {"k": [1, -2.5, None, True]}]
    told = ask(
        start("--hung-worker-timeout", "1"),
        ["do", {}, "echo", *value],
        ["do", {}, "fail", "näh"],
        ["do", {}, "give", "bytes"],
        ["dn", {}],
        ["do", {}, "mark", "b"],
        ["do", {}, "hang_in_c"],
        at_once=at_once,
    )
    assert told[0] == ["ok", {}, value]
    assert told[1] == ["er", {}, "LookupError: näh"]
    assert told[2][2].startswith("gtask.errors.EncodeError: cannot travel: the result is of type bytes")
    assert told[3] == ["ok", {}, ["setup", "done", "b"]]
    assert told[4:] == ["closed"]


def test_perl_setup_errors(start, ask, tmp_path):
    """Told to each call."""
    (tmp_path / "broken").touch()
    told = ask(start(), ["do", {}, "echo", 1], ["do", {}, "echo", 2])
    assert told == [["er", {}, "setup exception: OSError: no disk"]] * 2


def test_logs_ride_with_the_reply(start, ask, peer):
    """In Log::Defer's shape, as what JSON can carry, with values and errors alike; none where nothing was logged."""
    server = start()
    for answers in (
        ask(server, ["do", {}, "logs", "good"], ["do", {}, "logs", "bad"], ["do", {}, "echo", 1]),
        [peer(server).call("logs", "good")],
    ):
        for (kind, meta, value), expected in zip(answers, (("ok", "logged"), ("er", "KeyError: 'bad'")), strict=False):
            assert (kind, value) == expected
            ld = meta["ld"]
            ((offset, level, text, *rest),) = ld["logs"]
            assert (level, text, rest) == (30, "good" if kind == "ok" else "bad", [{"n": 1}, "b'raw'", "{5}"])
            ((name, begin, end),) = ld["timers"]
            assert name == "disk"
            assert 0 <= begin <= offset <= end <= ld["now"]
            assert ld["start"] > 1e9
            assert ld["data"] == {"half": 0.5}
        assert answers[2:] in ([["ok", {}, [1]]], [])


def test_a_log_too_large_for_the_reply(start, ask):
    """Is left out: the value comes all the same."""
    told = ask(start("--limit-message", "1K"), ["do", {}, "logs", "x" * 970])
    assert told[0][0] == "ok"
    assert told[0][2] == "logged"
