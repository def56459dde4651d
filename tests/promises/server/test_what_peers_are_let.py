"""The point of this test is to ensure that peers read, set and switch no more than the operator lets them.

Log records below a level, what an exception has beside its text, and context variables of libraries stay in the server;
and a client talks to no server of another user than the one that it names.
"""

import contextlib
import logging
import os
import socket
import threading
from time import monotonic

import gevent
import msgpack
import pytest

import gtask
from gtask.wire.frames import Encoder
from gtask.wire.messages import Greeting, Retire
from tests.support.daemon import daemon
from tests.support.waiting import PATIENCE, SOON

SOURCE = """
    import contextvars
    import email
    import logging
    import sys
    import types

    USER = contextvars.ContextVar("USER", default="nobody")
    OTHER = contextvars.ContextVar("OTHER", default="nothing")

    def say():
        logging.getLogger("driver").debug("the password is secret")
        logging.getLogger("driver").info("connected")
        logging.getLogger("driver").error("broken")

    def fail():
        hidden = "secret"
        raise KeyError("no such key") from ValueError(hidden)

    def user():
        return USER.get(), OTHER.get()

    for name, place in (("email.library", email.__file__), ("gtask.library", "/srv/gtask/library.py")):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__file__ = place
        sys.modules[name].LEVEL = contextvars.ContextVar("LEVEL", default="as it was")

    def level():
        return [sys.modules[name].LEVEL.get() for name in ("email.library", "gtask.library")]

    def die():
        import os
        os.abort()
"""

encode = Encoder().encode


@pytest.fixture
def start(tmp_path, nothing_is_left_behind):
    """``start(*options)`` runs a daemon; gives it."""
    with contextlib.ExitStack() as stack:
        yield lambda *options: stack.enter_context(daemon(tmp_path, *options, source=SOURCE))


@pytest.fixture
def heard():
    """The messages of records that come from workers; all are wanted."""
    found = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())
    logger = logging.getLogger("driver")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        ((), ["connected", "broken"]),
        (("--peer-logs", "debug"), ["the password is secret", "connected", "broken"]),
        (("--peer-logs", "error"), ["broken"]),
        (("--peer-logs", "never"), []),
    ],
)
def test_log_records(start, connect, heard, options, messages):
    """A client that wants all of them gets those that the server lets it have."""
    connect(start(*options)).call("say")
    assert heard == messages


def test_the_text_of_an_error(start, connect):
    """Its type and message; the log has its cause and its lines."""
    server = start("--peer-errors", "text")
    client = connect(server)
    with pytest.raises(KeyError, match="no such key") as caught:
        client.call("fail")
    error = caught.value
    assert isinstance(error, gtask.RemoteError)
    assert (error.__cause__, error.__context__) == (None, None)
    frames = []
    traceback = error.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame.f_code.co_filename)
        traceback = traceback.tb_next
    assert f"{server.directory}/app.py" not in frames
    server.wait_for("ValueError: secret")
    server.wait_for('raise KeyError("no such key")')


def test_the_stacks_of_a_dead_worker(start, connect):
    """Where the worker was stays in the log."""
    for options, has_stacks in (((), True), (("--peer-errors", "text"), False)):
        with contextlib.ExitStack() as stack:
            server = start(*options)
            stack.callback(server.end)
            with pytest.raises(gtask.WorkerDied) as caught:
                connect(server).call("die")
            assert bool(caught.value.stacks) is has_stacks


def raw(server, context, method):
    """What a peer hears that sends any context with its call."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(PATIENCE)
        peer.connect(server.address.removeprefix("unix:"))
        body = msgpack.packb(["do", {"context": context}, method])
        peer.sendall(encode(Greeting()) + len(body).to_bytes(4, "big") + body)
        peer.shutdown(socket.SHUT_WR)
        said = b""
        while piece := peer.recv(65536):
            said += piece
    return said


def test_context_variables_of_the_application(start):
    """They can be set, as far as nothing else is said."""
    server = start()
    assert b"eve" in raw(server, {"app:USER": "eve"}, "user")
    server.end()


def test_context_variables_of_others(start):
    """Those of installed packages and of Python are none of a client's business: its call is told so."""
    server = start()
    for name in ("email.library:LEVEL", "gtask.library:LEVEL"):
        said = raw(server, {name: "eve"}, "level")
        assert b"PermissionError" in said
        assert f"--peer-context {name}".encode() in said
    assert b"as it was" in raw(server, {"app:NOBODY": "eve"}, "level")  # what nobody has is left out


def test_context_variables_that_are_named(start):
    """Then no others, be they the application's."""
    server = start("--peer-context", "app:OTHER")
    assert b"eve" in raw(server, {"app:OTHER": "eve"}, "user")
    said = raw(server, {"app:USER": "eve"}, "user")
    assert b"--peer-context app:USER" in said
    assert b"PermissionError" in said


def test_another_user_serves(start, connect):
    """The client sends nothing, and says at once who serves and who should."""
    server = start()
    assert connect(server, server_uid=os.getuid()).call("user") == ["nobody", "nothing"]
    client, began = connect(server, server_uid=os.getuid() + 1), monotonic()
    with pytest.raises(gtask.SetupError, match=rf"of user {os.getuid()}, and user {os.getuid() + 1} must .*server_uid"):
        client.call("user")
    assert monotonic() - began < SOON


def test_tcp_has_no_user():
    """So the option is refused there, and not ignored."""
    with pytest.raises(ValueError, match="TCP does not tell users apart"):
        gtask.Client("tcp://127.0.0.1:9", server_uid=0)


def test_a_server_that_lets_nobody_stay(connect, tmp_path):
    """Workers that ask to be retired before they were used are not replaced in a tight loop."""
    path, count = f"{tmp_path}/peer", 0
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1000)

        def serve():
            nonlocal count
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    count += 1
                    with sock:
                        sock.recv(1000)
                        sock.sendall(Encoder().encode_reply(Greeting(pid=7)) + Encoder().encode_reply(Retire("go")))
                        with contextlib.suppress(OSError):
                            sock.recv(1000)

        thread = threading.Thread(target=serve)
        thread.start()
        client = connect(f"unix:{path}", min_workers=1, max_workers=1)
        client.open()
        try:
            gevent.sleep(1)  # the length of the storm
            assert 1 < count < 30
        finally:
            client.close()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
