"""The point of this test is to ensure that values are pickled where both sides have consented to it, and nowhere else.

With ``--pickle`` and ``Client(pickle=True)`` what msgpack cannot carry travels pickled, both ways. Where one side has
not consented nothing is pickled, and nothing that comes is unpickled. On TCP it takes ``--insecure`` as well.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import os
import pickle
import re
import socket
import subprocess
import sys
import textwrap
import traceback
import types

import gevent
import gevent.server
import gevent.socket
import msgpack
import pytest

import gtask
from gtask.client.config import ClientConfig
from gtask.server.config import OpenSocket, ServerConfig
from gtask.server.listener import AddressUnavailable, listen
from gtask.tool.conversation import Session
from gtask.wire.frames import Decoder, Encoder
from gtask.wire.messages import Failure, Greeting, Value
from gtask.wire.values import kinds as extensions
from tests.support.daemon import refused
from tests.support.waiting import wait_until

SHARED = """
    import dataclasses, os, time, gevent

    @dataclasses.dataclass
    class Point:
        x: object
        y: object = 0

    class Marks:
        '''Leaves a mark where it is unpickled.'''

        def __init__(self, path):
            self.path = path

        def __setstate__(self, state):
            self.path = state["path"]
            with open(self.path, "a") as file:
                file.write(f"{os.getpid()}\\n")

    class Hangs:
        '''Takes its time to be unpickled.'''

        def __init__(self, seconds):
            self.seconds = seconds

        def __setstate__(self, state):
            time.sleep(state["seconds"])

    class Yields:
        '''Lets other greenlets run while it is unpickled, which the hub itself must not.'''

        def __init__(self):
            self.where = None

        def __setstate__(self, state):
            gevent.sleep(0)
            self.where = type(gevent.getcurrent()).__name__
"""

SERVED = """
    import contextvars, os, sys, types
    import gtask
    from shared_points import Point, Yields

    user = contextvars.ContextVar("user", default=None)

    there = sys.modules["only_there"] = types.ModuleType("only_there")
    there.There = type("There", (), {"__module__": "only_there"})

    def echo(*args, **kwargs):
        return [list(args), kwargs]

    def one(value):
        return value

    def kind(value):
        return type(value).__name__

    def point(x):
        return Point(x)

    def yields():
        return Yields()

    def from_there():
        return [1, there.There()]

    def what_cannot():
        return {"a": [lambda: 0]}

    def fail():
        raise ValueError(Point(1), "on purpose")

    def who():
        return user.get().x

    def pid():
        return os.getpid()

    def checkout_done():
        pass
"""


@pytest.fixture
def points(tmp_path, monkeypatch):
    """The module that both sides have."""
    (tmp_path / "shared_points.py").write_text(textwrap.dedent(SHARED))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "shared_points", raising=False)
    yield importlib.import_module("shared_points")
    del sys.modules["shared_points"]


@pytest.fixture
def here(monkeypatch):
    """A class that the server cannot import."""
    module = types.ModuleType("only_here")
    module.Here = type("Here", (), {"__module__": "only_here"})
    monkeypatch.setitem(sys.modules, "only_here", module)
    return module.Here


@pytest.fixture
def server(points, serve):
    """A server that consents."""
    return serve(SERVED, "--pickle")


def test_both_consent(server, connect, points):
    """Arguments, keyword arguments and values; by call and submit; also of calls that were made before there was a
    worker."""
    point = points.Point
    client = connect(server, pickle=True, max_workers=1)
    with client.checkout() as worker:
        early = [worker.one.submit(point(number)) for number in range(20)]
        assert [result.get() for result in early] == [point(number) for number in range(20)]
        assert worker.kind(point(1)) == "Point"
        assert worker.point(2) == point(2)
        value = [point(1), {"a": (point(2), 3)}, {(1, 2): point(3)}]
        assert worker.echo(*value, key=point(4)) == [
            [point(1), {"a": [point(2), 3]}, {(1, 2): point(3)}],
            {"key": point(4)},
        ]
        results = [worker.one.submit(value) for value in (1, point(2), 3, {(4,): 5})]
        assert [result.get() for result in results] == [1, point(2), 3, {(4,): 5}]
        assert worker.one(point) is point
    assert client.remote.one(point(5)) == point(5)


def test_what_cannot_be_pickled_either(server, connect):
    """It is an EncodeError that says where, whichever side it was for; the checkout goes on with the same worker."""
    with connect(server, pickle=True).checkout() as worker:
        pid = worker.pid()
        with pytest.raises(
            gtask.EncodeError, match=r"one was not sent: .* argument 1\[0\] is of type function.* either"
        ):
            worker.one([lambda: 0])
        with pytest.raises(gtask.EncodeError, match=r"the result\['a'\]\[0\] is of type function.* either"):
            worker.what_cannot()
        assert worker.pid() == pid


NEITHER = r"argument 1 is of type shared_points\.Point\. What can.*this client does not: write Client"
ONE_SIDED = {
    (True, False): (NEITHER, "the client does not: write Client"),
    (False, True): (
        r"argument 1 is of type shared_points\.Point\. .*the server does not: start gtask-server with --pickle",
        "this server does not: start gtask-server with --pickle",
    ),
    (False, False): (NEITHER, "the result is of type shared_points.Point. What can"),
}


@pytest.mark.parametrize(("serves", "asks"), ONE_SIDED, ids=["only the server", "only the client", "neither"])
def test_one_side_alone(serve, connect, points, serves, asks):
    """Nothing is pickled. The error says which side has not consented, and what to write; the worker is unharmed. That
    is so if the call is made before there is a worker, too."""
    sent, returned = ONE_SIDED[serves, asks]
    with connect(serve(SERVED, *(["--pickle"] if serves else [])), pickle=asks).checkout() as worker:
        for _ in range(2):
            with pytest.raises(gtask.EncodeError, match=f"^one was not sent: .*{sent}"):
                worker.one(points.Point(1))
            pid = worker.pid()
        with pytest.raises(gtask.EncodeError, match=returned) as caught:
            worker.point(1)
        assert isinstance(caught.value, gtask.RemoteError)
        with pytest.raises(gtask.EncodeError, match=r"\(1, 2\)" if not asks else "is of type dict"):
            worker.one({(1, 2): 3})
        assert worker.one([1, (2,)]) == [1, [2]]
        assert worker.pid() == pid


def test_calls_behind_one_that_is_not_sent(shared, connect, points):
    """Calls that were queued behind it, before it was known that the server does not consent, do not run: it is as if
    it had raised. Those before it run, and so do later ones."""
    with connect(shared(SERVED), pickle=True).checkout() as worker:
        before, refused_, behind = [worker.one.submit(value) for value in (1, points.Point(2), 3)]
        with pytest.raises(gtask.EncodeError, match="one was not sent"):
            refused_.get()
        with pytest.raises(gtask.CallDropped):
            behind.get()
        assert before.get() == 1
        assert worker.one(4) == 4


def test_a_released_checkout_whose_only_call_is_not_sent(shared, connect, points):
    """Its worker goes to the next in line."""
    client = connect(shared(SERVED), pickle=True, max_workers=1)
    with client.checkout() as worker:
        result = worker.one.submit(points.Point(2))
    assert client.call("one", 3) == 3
    with pytest.raises(gtask.EncodeError, match="one was not sent"):
        result.get()
    assert client.stats().connects == 1


def test_a_server_that_no_longer_consents(serve, connect, points, tmp_path):
    """Each worker says for itself whether it does."""
    address = f"unix:{tmp_path}/s.sock"
    first = serve(SERVED, "--pickle", address=address)
    client = connect(address, pickle=True)
    assert client.call("one", points.Point(1)) == points.Point(1)
    first.stop()
    serve(SERVED, address=address)
    with pytest.raises(gtask.EncodeError, match="the server does not"):
        client.call("one", points.Point(1))
    assert client.call("one", 1) == 1


# --- loading ---------------------------------------------------------------------------------------------


def test_what_the_worker_cannot_load(server, connect, points, here):
    """It is the error of that call, with the reason; the worker goes on, and the calls behind it are in step."""
    with connect(server, pickle=True).checkout() as worker:
        pid = worker.pid()
        with pytest.raises(gtask.EncodeError, match="argument 2 could not be unpickled: ModuleNotFoundError") as caught:
            worker.echo(points.Point(1), [{"a": here()}])
        assert isinstance(caught.value, gtask.RemoteError)
        assert isinstance(caught.value.__cause__, ModuleNotFoundError)
        with pytest.raises(gtask.EncodeError, match="argument key could not be unpickled"):
            worker.echo(key=here())
        bad, behind = worker.one.submit(here()), worker.one.submit(2)
        with pytest.raises(gtask.EncodeError):
            bad.get()
        with pytest.raises(gtask.CallDropped):
            behind.get()
        assert worker.one(points.Point(3)) == points.Point(3)
        assert worker.pid() == pid


def test_what_the_caller_cannot_load(server, connect):
    """It is the error of that call, with the reason; the connection is in step."""
    with connect(server, pickle=True).checkout() as worker:
        pid = worker.pid()
        told = "from_there was executed, but its result could not be unpickled: ModuleNotFoundError: .*only_there"
        with pytest.raises(gtask.EncodeError, match=told) as caught:
            worker.from_there()
        assert not isinstance(caught.value, gtask.RemoteError)
        results = [worker.one.submit(1), worker.from_there.submit(), worker.one.submit(2)]
        assert (results[0].get(), results[2].get()) == (1, 2)
        with pytest.raises(gtask.EncodeError, match=told):
            results[1].get()
        assert worker.pid() == pid


def test_loading_is_part_of_the_call(server, connect, points):
    """It is interrupted when the call's time is over, at the line that hangs."""
    client = connect(server, pickle=True)
    client.call("pid")  # so that there is a worker
    with client.checkout(timeout=1) as worker:
        with pytest.raises(gtask.CallTimeout) as caught:
            worker.one(points.Hangs(60))
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert "__setstate__" in names


def test_the_caller_loads_in_a_greenlet(server, connect):
    """A class's own code may switch, which in the hub it must not: for a call in its caller, for submit in another."""
    with connect(server, pickle=True).checkout() as worker:
        assert worker.yields().where in ("greenlet", "Greenlet")
        results = [worker.yields.submit(), worker.one.submit(1)]
        assert [gevent.spawn(results[0].get).get().where, results[1].get()] == ["Greenlet", 1]


def test_a_call_that_is_skipped_loads_nothing(server, connect, points, tmp_path):
    """What lies behind a call that raised is not unpickled."""
    mark = tmp_path / "mark"
    with connect(server, pickle=True).checkout() as worker:
        worker.pid()
        results = [worker.fail.submit(), worker.one.submit(points.Marks(str(mark)))]
        with pytest.raises(gtask.CallDropped):
            results[1].get()
        assert not mark.exists()
        worker.one(points.Marks(str(mark)))
        assert len(mark.read_text().split()) == 2  # there and back


def test_arguments_of_exceptions_are_not_pickled(server, connect):
    """They travel as they always do: of one that is no plain data only its class is told, beside the text."""
    with connect(server, pickle=True).checkout() as worker, pytest.raises(ValueError, match="on purpose") as caught:
        worker.fail()
    assert str(caught.value) == "(Point(x=1, y=0), 'on purpose')"
    assert caught.value.args[1] == "on purpose"
    with pytest.raises(gtask.StayedInWorker, match=r"args\[0\] \(shared_points.Point\) stayed in the worker"):
        caught.value.args[0].x()


def test_context_variables(server, connect, points, monkeypatch):
    """Their values may need a pickle, too."""
    module = types.ModuleType("tests_users")
    module.user = contextvars.ContextVar("user")
    monkeypatch.setitem(sys.modules, "tests_users", module)
    module.user.set(points.Point("ann"))
    assert connect(server, pickle=True, context=[module.user]).call("who") == "ann"


# --- where it is allowed ---------------------------------------------------------------------------------


def test_a_server_at_tcp_refuses(tmp_path):
    """On this machine, too, where every user could connect; the message says what to do."""
    for where in ("tcp://127.0.0.1:7001", "tcp://localhost:7001"):
        status, line = refused(tmp_path, "--pickle", "--listen", where)
        assert status == 2
        assert f"pickle=True: any process that connects to {where} could have a worker run any code" in line
        assert "--insecure" in line
    address = gtask.address.parse("tcp://127.0.0.1:7001")
    with pytest.raises(ValueError, match="--insecure"):
        gtask.Server(address, {"echo": repr}, pickle=True)
    with pytest.raises(ValueError, match="insecure=True"):
        gtask.spawn_server("json", address, pickle=True)
    with pytest.raises(ValueError, match="--insecure"):
        ServerConfig((gtask.address.parse("unix:x"), address), pickle=True)
    assert ServerConfig((address,), pickle=True, insecure=True).pickle
    assert ServerConfig((gtask.address.parse("unix:x"),), pickle=True, metrics=address).pickle


ABSTRACT = "unix:@gtask-test-consent"
"""Every user may connect to it, and listen there: it has no owner and no permissions."""


def test_a_server_at_an_abstract_name_refuses(tmp_path):
    """Unless it says who may connect, for the kernel tells users apart; however the socket was opened."""
    status, line = refused(tmp_path, "--pickle", "--listen", ABSTRACT)
    assert status == 2
    assert f"pickle=True: any process that connects to {ABSTRACT} could have a worker run any code" in line
    address = gtask.address.parse(ABSTRACT)
    for make in (
        lambda: gtask.Server(address, {"echo": repr}, pickle=True),
        lambda: gtask.spawn_server("json", address, pickle=True),
        lambda: ServerConfig((gtask.address.parse("unix:x"), address), pickle=True),
    ):
        with pytest.raises(ValueError, match="Use a unix socket at a path"):
            make()
    assert ServerConfig((address,), pickle=True, insecure=True).pickle
    assert ServerConfig((address,), pickle=True, allow_uid=(os.getuid(),)).pickle
    for name, family in ((f"\0gtask-test-opened-{os.getpid()}", socket.AF_UNIX), (("127.0.0.1", 0), socket.AF_INET)):
        with socket.socket(family) as opened:
            opened.bind(name)
            opened.listen()
            with pytest.raises(AddressUnavailable, match="pickle=True: any process that connects to"):
                listen(ServerConfig((OpenSocket(os.dup(opened.fileno())),), pickle=True))


def test_a_client_of_an_abstract_name_refuses():
    """The process that listens there first answers."""
    with pytest.raises(ValueError, match=rf"pickle=True: any process that answers at {ABSTRACT} .* insecure=True"):
        gtask.Client(ABSTRACT, pickle=True)
    assert gtask.Client(ABSTRACT, pickle=True, insecure=True)
    assert gtask.Client(ABSTRACT)


def test_a_client_of_tcp_refuses():
    """It would unpickle whatever comes from there."""
    with pytest.raises(
        ValueError, match=r"pickle=True: any process that answers at tcp://127\.0\.0\.1:1 .* insecure=True"
    ):
        gtask.Client("tcp://127.0.0.1:1", pickle=True)
    assert gtask.Client("tcp://127.0.0.1:1", pickle=True, insecure=True).address == "tcp://127.0.0.1:1"
    assert gtask.Client("tcp://127.0.0.1:1", insecure=True)


def test_over_tcp_if_both_were_told_so(points, serve, connect):
    """``--insecure`` and ``insecure=True``."""
    server = serve(SERVED, "--pickle", "--insecure", "--listen", "tcp://127.0.0.1:0")
    client = connect(server, pickle=True)
    (master,) = {client.call("pid")}
    assert master
    with gtask_status(server) as status:
        (address,) = [where for where in status["addresses"] if where.startswith("tcp:")]
    with connect(address, pickle=True, insecure=True).checkout() as worker:
        assert worker.one(points.Point(1)) == points.Point(1)


@contextlib.contextmanager
def gtask_status(server):
    with Session(server.address, 20, about=True) as conversation:
        yield conversation.call("status")


def test_json_carries_no_pickles():
    """A client that is told both is told which to leave out."""
    with pytest.raises(ValueError, match="JSON carries no pickles"):
        gtask.Client("unix:/x", codec="json", pickle=True)


@pytest.mark.parametrize("name", ["pickle", "insecure"])
def test_consent_is_true_or_false(name):
    """Nothing else is taken for it."""
    with pytest.raises(TypeError, match=f"{name}='yes': write True or False"):
        ClientConfig(**{name: "yes"})


# --- servers of a program --------------------------------------------------------------------------------

PROGRAM = """
import gtask
from shared_points import Point

def one(value):
    return value

with gtask.fork_server({"one": one}, pickle=True) as consents, gtask.fork_server({"one": one}) as does_not:
    with gtask.Client(consents.address, pickle=True) as client:
        assert client.call("one", Point(1)) == Point(1)
    with gtask.Client(does_not.address, pickle=True) as client:
        try:
            client.call("one", Point(1))
        except gtask.EncodeError as error:
            assert "gtask.Server with pickle=True" in str(error), error
        else:
            raise AssertionError
print("all is well")
"""


def test_fork_server(points, tmp_path):
    """It takes the option of gtask.Server."""
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=50,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("all is well\n", 0), done.stderr


def test_private_servers(points, connect, tmp_path):
    """spawn_server takes it, and the private server of a client consents if the client does."""
    (tmp_path / "served_points.py").write_text("from shared_points import Point\ndef one(value): return value\n")
    point = points.Point(1)
    with gtask.spawn_server("served_points", pickle=True) as server:
        client = connect(server, pickle=True)
        assert client.call("one", point) == point
        client.close()
    client = connect("spawn:served_points", pickle=True)
    assert client.call("one", point) == point


# --- hostile peers ---------------------------------------------------------------------------------------


def speak(server, hi, *frames):
    """Say these things to a worker; what it answers, until it hangs up or has answered all."""
    sock = gevent.socket.socket(gevent.socket.AF_UNIX)
    sock.settimeout(20)
    wait_until(lambda: sock.connect_ex(server.address.path) == 0, "a connection")
    decoder, answers = Decoder(), []
    with contextlib.closing(sock):
        for frame in (Encoder().encode(hi), *frames):
            sock.sendall(frame)
            count = sock.recv_into(decoder.space)
            if not count:
                break
            answers += decoder.received(count)
    return answers


def call_with(value):
    """The frame of kind(value), where the value is an ext type that nobody has checked."""
    body = msgpack.packb(["do", None, "kind", value])
    return len(body).to_bytes(4, "big") + body


def offers(consents):
    """What a side's greeting offers."""
    return frozenset({"pickle"} if consents else ())


@pytest.mark.parametrize(
    ("serves", "asks"),
    [(False, False), (True, False), (False, True)],
    ids=["neither", "only the server", "only the peer"],
)
def test_a_pickle_without_consent_closes_the_connection(serve, points, tmp_path, serves, asks):
    """A worker to which it comes unpickles nothing, and hangs up."""
    server = serve(SERVED, *(["--pickle"] if serves else []))
    mark = tmp_path / "mark"
    bomb = msgpack.ExtType(extensions.PICKLE, pickle.dumps(points.Marks(str(mark))))
    answers = speak(server, Greeting(offers=offers(asks)), call_with(1), call_with([bomb]), call_with(2))
    assert [type(answer) for answer in answers] == [Greeting, Value]
    assert not mark.exists()
    assert ("pickle" in answers[0].offers) == serves


def test_a_pickle_with_consent_by_hand(server, points, tmp_path):
    """The same bytes where both have consented: that is what the other test would see if it were unpickled."""
    mark = tmp_path / "mark"
    bomb = msgpack.ExtType(extensions.PICKLE, pickle.dumps(points.Marks(str(mark))))
    garbage = msgpack.ExtType(extensions.PICKLE, b"garbage")
    answers = speak(server, Greeting(offers=frozenset({"pickle"})), call_with(garbage), call_with({"a": bomb}))
    assert [type(answer) for answer in answers] == [Greeting, Failure, Value]
    assert "argument 1 could not be unpickled" in answers[1].text
    assert mark.exists()


@pytest.mark.parametrize(("says", "asks"), [(False, True), (True, False)], ids=["only the client", "only the server"])
def test_a_server_that_sends_a_pickle_without_consent(connect, points, tmp_path, says, asks):
    """The client unpickles nothing, and gives the connection up with a ProtocolError."""
    mark = tmp_path / "mark"
    body = msgpack.packb(["ok", None, msgpack.ExtType(extensions.PICKLE, pickle.dumps(points.Marks(str(mark))))])
    frame = len(body).to_bytes(4, "big") + body

    def serve_badly(sock, address):
        sock.recv(65536)
        sock.sendall(Encoder().encode(Greeting(pid=1, name="bad", offers=offers(says))))
        if sock.recv(65536):
            sock.sendall(frame)
            sock.recv(65536)

    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(gevent.socket.socket(gevent.socket.AF_UNIX))
        listener.bind(str(tmp_path / "bad.sock"))
        listener.listen()
        bad = gevent.server.StreamServer(listener, serve_badly)
        bad.start()
        stack.callback(bad.stop)
        client = connect(f"unix:{tmp_path}/bad.sock", pickle=asks)
        with pytest.raises(gtask.ProtocolError, match="a pickle, upon which both sides have not agreed"):
            client.call("one", 1)
        client.close()
    assert not mark.exists()


def test_the_greeting_tells_it(serve, points):
    """Each side says whether it consents, whatever the other says; who has never heard of it leaves it out."""
    server = serve(SERVED, "--pickle")
    for hi in (Greeting(), Greeting(offers=frozenset({"pickle"})), Greeting(name="old")):
        (answer,) = speak(server, hi)
        assert "pickle" in answer.offers
    assert re.fullmatch(rb"....\x92\xa2hi\x81\xa1v\x01", Encoder().encode(Greeting()), re.DOTALL)
