"""The seams of a worker: the module of an application adds an aspect or a language, and touches no other file."""

from __future__ import annotations

import socket

import pytest

from gtask.errors import ProtocolError
from gtask.wire import conversation
from gtask.wire.json import conversation as json_conversation
from gtask.wire.messages import Greeting, Request, Value

ASPECT = """
    from gtask.aspects.aspect import WorkerAspect
    from gtask.server.worker.parts import ASPECTS

    seen = []

    class Diary(WorkerAspect):
        every_call = True

        def __init__(self, worker):
            self.worker = worker

        def begin(self, request, method):
            seen.append(f"{method} of {self.worker.client} begins")
            return self

        def enter(self):
            if "refuse" in self.worker.request.kwargs:
                raise ValueError("refused")

        def leave(self, error):
            seen.append(f"ends with {error!r}")

    ASPECTS.append(Diary)

    def look(**kwargs):
        return seen
"""


def test_an_aspect(serve, connect):
    """It begins with each call, may make it fail before it runs, and sees each end."""
    with connect(serve(ASPECT), name="toy").checkout() as checkout:
        assert checkout.look() == ["look of toy begins"]
        with pytest.raises(ValueError, match="refused"):
            checkout.look(refuse=True)
        assert checkout.look()[1:4] == [
            "ends with None",
            "look of toy begins",
            "ends with ValueError('refused')",
        ]


DIALECT = """
    from gtask.server.worker.json import JsonDialect
    from gtask.server.worker.parts import DIALECTS
    from gtask.wire.messages import Request

    class Lines(JsonDialect):
        # "?method argument argument" and a newline; a line for each reply. The conversation is that of JSON peers.
        opening = b"?"

        def __init__(self, sock, config):
            super().__init__(sock, config)
            self.decoder = self
            self.space = memoryview(bytearray(4096))
            self.midway = b""

        def received(self, count):
            *lines, self.midway = (self.midway + bytes(self.space[:count])).split(b"\\n")
            return [Request(line[1:].decode().split()) for line in lines]

        def encode(self, failure):
            return f"! {failure.text}\\n".encode()

        def encode_value(self, value):
            return f"{value}\\n".encode()

    DIALECTS.insert(0, Lines)

    def add(*numbers):
        return sum(map(int, numbers))
"""


def test_a_language(serve, connect):
    """It is recognised by its first byte, beside the others."""
    server = serve(DIALECT)
    assert connect(server).call("add", 2, 2) == 4
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(server.address.path)
        sock.settimeout(30)
        sock.sendall(b"?add 1 2\n?ad")
        replies = sock.makefile("r")
        assert replies.readline() == "3\n"
        sock.sendall(b"d 3 4\n?add x\n?add 5\n")
        assert replies.readline() == "7\n"
        assert replies.readline().startswith("! ValueError: invalid literal")
        assert replies.readline() == "5\n"


@pytest.mark.parametrize("make", [conversation.Conversation, json_conversation.JsonConversation])
def test_a_call_leaves_a_conversation_where_it_was(make):
    """A worker replies to a request before it hears the next: in the state idle it need not ask the table."""
    talk = make()
    if talk.state != "idle":
        with pytest.raises(ProtocolError):
            talk.client_says(Request(()))
        talk.client_says(Greeting())
        with pytest.raises(ProtocolError):
            talk.client_says(Request(()))
        talk.worker_says(Greeting())
    assert (talk.state, talk.owed) == ("idle", 0)
    talk.client_says(Request(()))
    talk.worker_says(Value(None))
    assert (talk.state, talk.owed) == ("idle", 0)
