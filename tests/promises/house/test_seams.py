"""The point of this test is to ensure that the seams of a call at its caller hold: a toy of each is added here.

A toy has at most 30 lines and touches no other file. The seams of workers, values and masters have their toys in
tests/server/test_worker_parts.py, tests/wire/test_kinds.py and tests/server/test_attendants.py.
"""

from __future__ import annotations

import inspect
import socket
import threading

import pytest

from gtask.aspects import caller
from gtask.aspects.aspect import CallerAspect, Companion
from gtask.client import dialects
from gtask.client.dialects.dialect import Dialect
from gtask.wire.json.conversation import JsonConversation
from gtask.wire.json.text import ReplyDecoder
from gtask.wire.messages import Value

# --- a toy aspect: the worker's code learns which user a call is for, and the caller how each call ended ----------


class Audit(Companion):
    """Notes how a call ended."""

    __slots__ = ("_diary",)

    def __init__(self, diary):
        self._diary = diary

    def ended(self, call, outcome, error):
        self._diary.append((call.method, type(error).__name__ if error else "value"))


class User(CallerAspect):
    """Tells the worker which user a call is for."""

    key = "user"

    def __init__(self):
        self.diary = []

    def begin(self, call):
        return "ann", Audit(self.diary)


IN_WORKER = """
    from gtask.aspects.aspect import WorkerAspect
    from gtask.server.worker.parts import ASPECTS

    users = []

    class User(WorkerAspect):
        def __init__(self, worker):
            pass

        def begin(self, request, method):
            users.append(request.meta.others.get("user"))

    ASPECTS.append(User)

    def seen():
        return users

    def fail():
        raise LookupError("no")
"""


def test_a_call_aspect(serve, connect, monkeypatch):
    """Its value travels in the meta of each request, and its companion sees how each call ended."""
    user = User()
    monkeypatch.setattr(caller, "ASPECTS", [*caller.ASPECTS, lambda config, peer: user])
    client = connect(serve(IN_WORKER))
    with client.checkout() as checkout:
        assert checkout.seen() == ["ann"]
        with pytest.raises(LookupError):
            checkout.fail()
        assert checkout.seen.submit().get() == ["ann"] * 3
        assert user.diary == [("seen", "value"), ("fail", "LookupError"), ("seen", "value")]


# --- a toy dialect: a line for each call, and a line for its value -------------------------------------------------


class LineReader(ReplyDecoder):
    """A line is a value."""

    def received(self, count):
        *lines, rest = (bytes(self._partial) + bytes(self.space[:count])).split(b"\n")
        self._partial = bytearray(rest)
        return [Value(line.decode()) for line in lines]


def lines(config):
    """A dialect: words in, a line out, one request at a time."""
    return Dialect(
        encode_request=lambda args, kwargs, epoch, meta, name: " ".join([name, *args]).encode() + b"\n",
        encode=lambda message: b"",  # it has no other messages
        make_reader=LineReader,
        make_conversation=JsonConversation,
        at_once=1,
    )


def test_a_dialect(tmp_path, connect, monkeypatch):
    """A peer of another language is called as any other, by an option of the client."""
    monkeypatch.setitem(dialects.DIALECTS, "lines", lines)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "peer"))
        listener.listen()

        def peer():
            with listener.accept()[0] as sock, sock.makefile("rw") as file:
                for line in file:
                    file.write(line.upper())
                    file.flush()

        thread = threading.Thread(target=peer)
        thread.start()
        client = connect(f"unix:{tmp_path}/peer", codec="lines", max_workers=1)
        with client.checkout() as checkout:
            assert checkout.say("hello", "world") == "SAY HELLO WORLD"
            results = [checkout.say.submit(word) for word in ("one", "two", "three")]
            assert [result.get() for result in results] == ["SAY ONE", "SAY TWO", "SAY THREE"]
        client.close()
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.parametrize("toy", [(Audit, User), (LineReader, lines)])
def test_a_toy_is_short(toy):
    """At most 30 lines."""
    assert sum(len(inspect.getsource(part).splitlines()) for part in toy) <= 30
