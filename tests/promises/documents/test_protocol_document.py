"""The point of this test is to ensure that a client can be written from docs/protocol.rst alone.

Its examples are encoded and decoded, its tables are compared with the code, and the client that it ends with is run
against a real server.
"""

from __future__ import annotations

import datetime
import decimal
import json
import os
import re
import socket
import textwrap
import uuid
from pathlib import Path

import pytest

from gtask.address import UnixAddress
from gtask.client import overtime
from gtask.errors import ProtocolError
from gtask.server import scoreboard
from gtask.server.config import ServerConfig
from gtask.server.master import children
from gtask.tool.conversation import Session
from gtask.wire import conversation as exchange
from gtask.wire import forms, limits, mark, messages
from gtask.wire.exceptions import failure
from gtask.wire.frames import Decoder, Encoder
from gtask.wire.json import conversation as jsonexchange
from gtask.wire.json import text as jsontext
from gtask.wire.lastwords import ReplyDecoder, last_words
from gtask.wire.shared import word
from gtask.wire.values import arrays
from gtask.wire.values import kinds as extensions
from gtask.wire.values import pickles as pickled
from gtask.wire.values.holes import Part
from gtask.wire.values.offers import agree
from gtask.wire.values.pickles import unseal
from tests.support.program import run_program
from tests.support.waiting import wait_until

try:
    import numpy
except ImportError:
    numpy = None

DOCUMENT = (Path(__file__).parents[3] / "docs" / "protocol.rst").read_text(encoding="utf-8")
KINDS = {
    "hi": messages.Greeting,
    "be": messages.Preamble,
    "do": messages.Request,
    "ok": messages.Value,
    "er": messages.Failure,
    "sk": messages.Skipped,
    "lg": messages.LogRecords,
    "ex": messages.Extend,
    "dn": messages.Done,
    "by": messages.Retire,
    "rip": messages.LastWords,
}
HEX = "(?:[0-9a-f]{2}(?: [0-9a-f]{2})*)"
NAMES = {"datetime": datetime, "decimal": decimal, "uuid": uuid, "numpy": numpy}
EXAMPLES = [
    (eval(text, dict(NAMES)), bytes.fromhex(written))
    for text, written in re.findall(rf"^    (?!{HEX}$)(\S.*)\n((?:    {HEX}$\n)+)", DOCUMENT, re.MULTILINE)
    if numpy is not None or "numpy." not in text
]
MESSAGES = [(plain, frame) for plain, frame in EXAMPLES if isinstance(plain, list)]
VALUES = [(value, packed) for value, packed in EXAMPLES if not isinstance(value, list)]
DUMP = [(who, bytes.fromhex(data)) for who, data in re.findall(rf"^    ([<>]) ({HEX})$", DOCUMENT, re.MULTILINE)]
JSON_TEXTS = [(who, text.encode()) for who, text in re.findall(r"^    ([<>]) (\[.*\])$", DOCUMENT, re.MULTILINE)]
VALUE_HEAD = bytes.fromhex("93 a2 6f 6b c0")  # ["ok", nil, value]

SERVED = """
    import os

    marks = []

    def echo(*args, **kwargs):
        return [list(args), kwargs]

    def fail(text):
        raise LookupError(text)

    def leave():
        raise SystemExit("enough")

    def die():
        os._exit(7)

    def mark(text):
        marks.append(text)
        return list(marks)

    def checkout_done():
        marks.append("done")
"""


def rows(heading):
    """The cells of the table whose first row begins with this word."""
    table = re.search(rf"^(=+ .*)\n{heading} .*\n\1\n(.*?)\n\1$", DOCUMENT, re.MULTILINE | re.DOTALL)
    starts = [match.start() for match in re.finditer(r"(?<!\S)=+", table[1])]
    cells = [slice(start, end) for start, end in zip(starts, [*starts[1:], None], strict=True)]
    return [[line[cell].strip() for cell in cells] for line in table[2].split("\n") if line[0] != " "]


def decode(frame, step):
    """What a decoder makes of a frame that arrives in two pieces, the first of so many bytes."""
    decoder = Decoder()
    return feed(decoder, frame[:step]) + feed(decoder, frame[step:])


def feed(decoder, piece):
    """What a decoder makes of the next bytes, if there are any."""
    decoder.space[: len(piece)] = piece
    return decoder.received(len(piece)) if piece else []


@pytest.mark.parametrize(("plain", "frame"), MESSAGES, ids=[plain[0] for plain, _ in MESSAGES])
def test_messages(plain, frame):
    """The bytes of each example are what gtask writes for it, and are read as it, wherever they are split."""
    message = forms.from_plain(plain)
    assert bytes(Encoder().encode(message)) == frame
    for step in range(1, len(frame) + 1):
        assert decode(frame, step) == [message]


@pytest.mark.parametrize(("value", "packed"), VALUES, ids=[type(value).__name__ for value, _ in VALUES])
def test_values(value, packed):
    """The bytes of each value are what gtask writes for it where all is agreed upon, and are read as it, of the same
    type."""
    body = VALUE_HEAD + packed
    frame = len(body).to_bytes(4, "big") + body
    agreement = agree({"pickle", "numpy"})
    assert bytes(Encoder(agreement=agreement).encode(messages.Value(value))) == frame
    decoder = Decoder()
    decoder.agree(agreement)
    (read,) = feed(decoder, frame)
    holder = [read.value]
    unseal(holder, str)
    assert type(holder[0]) is type(value)
    assert repr(holder[0]) == repr(value)
    needs_agreement = extension_code(packed) in (extensions.PICKLE, extensions.ARRAY, extensions.SCALAR)
    assert needs_agreement or read == messages.Value(value) == decode(frame, len(frame))[0]
    if needs_agreement:
        with pytest.raises(ProtocolError):
            decode(frame, len(frame))


def test_examples_are_complete():
    """There is an example of each kind of message, of each key of meta, and of each extension type."""
    assert {plain[0] for plain, _ in MESSAGES} == set(KINDS)
    keys = {name.strip("`") for heading in ("key         type", "key of rip") for name, *_ in rows(heading)}
    assert {key for plain, _ in MESSAGES for key in plain[1] or ()} == keys
    codes = {
        type(value).__name__: int(code)
        for code, *_ in rows("code")
        for value, packed in VALUES
        if int(code) == extension_code(packed)
    }
    assert codes == {
        "int": extensions.BIGINT,
        "datetime": extensions.DATETIME,
        "date": extensions.DATE,
        "time": extensions.TIME,
        "timedelta": extensions.TIMEDELTA,
        "Decimal": extensions.DECIMAL,
        "UUID": extensions.UUID,
        "set": extensions.SET,
        "frozenset": extensions.FROZENSET,
        "complex": extensions.COMPLEX,
        "range": extensions.PICKLE,
    } | ({"ndarray": extensions.ARRAY, "int16": extensions.SCALAR} if numpy is not None else {})
    assert [int(code) for code, *_ in rows("code")] == list(range(extensions.BIGINT, extensions.SHARED + 1))


def test_the_word_about_shared_memory():
    """Its bytes are those of the example."""
    told = re.search(r"1 MiB of bytes in the memory of number 1::\n\n    ([0-9a-f ]+)\n", DOCUMENT)[1]
    part = Part(bytes(1 << 20), memoryview(bytes(1 << 20)))
    assert word.packed(1, part, 0, is_frozen=False) == bytes.fromhex(told)


def extension_code(packed):
    """The code of a packed msgpack extension; None if it is something else."""
    if 0xD4 <= packed[0] <= 0xD8:
        return packed[1]
    return packed[2] if packed[0] == 0xC7 else None


def test_trailer():
    """A trailer is the mark and the frame of a rip, as the document's bytes show."""
    plain, frame = [(plain, frame) for plain, frame in MESSAGES if plain[0] == "rip"][-1]
    (told,) = re.findall(rf"the trailer with the second begins with::\n\n    ({HEX})$", DOCUMENT, re.MULTILINE)
    rip = forms.from_plain(plain)
    assert last_words(rip) == b"\xc1" * 16 + frame
    assert last_words(rip).startswith(bytes.fromhex(told))
    decoder = ReplyDecoder()
    feed(decoder, last_words(rip))
    assert decoder.ended() == rip


def test_half_a_reply_before_the_trailer():
    """Wherever a worker dies in a reply, the trailer behind it completes nothing."""
    rip = forms.from_plain(next(plain for plain, _ in MESSAGES if plain[0] == "rip"))
    reply = Encoder().encode(messages.Value(b"x" * 60))
    for sent in range(len(reply) + 1):
        decoder = ReplyDecoder()
        found = feed(decoder, reply[:sent] + last_words(rip))
        assert (found, decoder.ended()) == ([messages.Value(b"x" * 60)] if sent == len(reply) else [], rip)


def test_the_other_form():
    """A frame that ends in the mark's byte has the bytes of the document, and is read as it would have been."""
    (told,) = re.findall(rf"plain frame, and stuffed::\n\n    ({HEX})\n    ({HEX})$", DOCUMENT, re.MULTILINE)
    plain, sent = map(bytes.fromhex, told)
    assert plain == (len(plain) - 4).to_bytes(4, "big") + VALUE_HEAD + b"\xc4\x01\xc1"
    assert Encoder().encode_value(b"\xc1") == sent
    assert feed(ReplyDecoder(), sent) == [messages.Value(b"\xc1")]


def test_table_of_states():
    """The table of who may speak when is the one that both sides walk through."""
    told = {(state, who, KINDS[kind]): then for state, who, kind, then in rows("state")}
    assert told == exchange.TABLE


def test_table_of_states_with_json():
    """So is the smaller one of JSON peers."""
    told = {(state, who, KINDS[kind]): then for state, who, kind, then in rows("when")}
    assert told == jsonexchange.TABLE
    assert jsonexchange.JsonConversation().state == next(state for state, *_ in rows("when"))


def with_parts():
    """An exception with each kind of part among its arguments."""
    return ValueError(1, {"a": object()}, [object()], KeyError("k"), object())


def test_keys_of_exceptions():
    """The map that tells an exception has the keys that the document lists."""
    told = [name.strip("`") for name, *_ in rows("key          type") if name]
    assert sorted(told) == sorted(failure.describe(ValueError()))
    error = json.JSONDecodeError("m", "d", 0)
    error.args, error.itself, error.stream = (object(), [error, KeyError(object())]), error, socket
    data = failure.describe(error, pickle=lambda value: b"pickled")
    assert {name.strip("`") for name, *_ in rows("further key") if name} == data.keys() - set(told)
    parts = [
        *data["parts"],
        *data["parts"][1]["list"],
        *data["others"].values(),
        *failure.describe(with_parts())["parts"],
    ]
    assert {name.strip("`") for name, *_ in rows("key of part") if name} | {"pickle"} == {
        key for part in parts for key in part
    }


def test_numbers():
    """The version and the limits that the document names are those of the code."""
    text = " ".join(DOCUMENT.split())
    assert f"This is version {messages.VERSION} of" in text
    assert f"at most {limits.DEFAULTS.message:,} bytes" in text
    assert f"Sets may lie in sets {extensions.NESTED_EXT} deep" in text
    assert f"at most {arrays.FIELDS:,} fields, and structures lie in structures {arrays.NESTED} deep" in text
    assert f"an array of at most {arrays.DIMENSIONS} whole numbers" in text
    assert f"What stands before them has at most {arrays.HEAD:,} bytes" in text
    assert f"of Python's protocol {pickled.PROTOCOL}" in text
    assert f"{children.GRACE:g} seconds later by SIGABRT, another second later by SIGKILL" in text
    assert children.LAST_GRACE == 1
    assert f"closes {overtime.LAST_WORDS:g} seconds later" in text
    assert f"A trailer has at most {mark.LONGEST:,} bytes" in text
    assert f"waits for at most {mark.LONGEST:,} bytes" in text
    assert f"Cut at {scoreboard.METHOD_BYTES} bytes" in text
    assert f"A whole number has at most {jsontext.DIGITS:,} digits" in text
    assert f"lie in each other {jsontext.DEPTH} deep" in text
    assert f"begins with ``{jsonexchange.SETUP_EXCEPTION.strip()}`` and a space" in text
    assert f"which is ``{jsontext.OPENING.decode()}``" in text
    assert f"says nothing for {ServerConfig((UnixAddress('x'),)).greeting_timeout:g} seconds" in text


@pytest.mark.parametrize(("depth", "good"), [(1024, True), (1025, False)])
def test_depth(depth, good):
    """Arrays may lie in each other 1,024 deep, the message counted, and no deeper."""
    assert "lie in each other 1,024 deep" in " ".join(DOCUMENT.split())
    body = VALUE_HEAD + b"\x91" * (depth - 2) + b"\x90"
    frame = len(body).to_bytes(4, "big") + body
    if good:
        assert len(decode(frame, len(frame))) == 1
    else:
        with pytest.raises(ProtocolError):
            decode(frame, len(frame))


def test_asking_about_the_server(serve):
    """With ``about`` the three methods of the document, and no other, are there, and setup does not run."""
    server = serve(textwrap.dedent(SERVED) + "\ndef setup():\n    raise AssertionError('it was not to run')\n")
    told = re.findall(r"``(\w+)``", re.search(r"knows three methods only(.*?)The command", DOCUMENT, re.DOTALL)[1])
    wait_until(lambda: os.path.exists(server.address.path), "the server")
    with Session(server.address, 20, about=True) as conversation:
        assert set(conversation.call("ping")) == {"name", "master", "worker"}
        assert {key for method in conversation.call("methods") for key in method} == set(told[2:5])
        assert conversation.call("status")["name"] == conversation.call("ping")["name"]
        with pytest.raises(AttributeError, match="has no method"):
            conversation.call("hash", "s3cret")
    assert told == ["ping", "methods", "name", "signature", "doc", "status"]


def talk(server, said, size_of):
    """Send a server what stands behind ``>``; gives what it has answered, each with the size that is asked for it."""
    answers = []
    with socket.socket(socket.AF_UNIX) as sock:
        wait_until(lambda: sock.connect_ex(server.address.path) == 0, "the server")
        for who, data in said:
            if who == ">":
                sock.sendall(data)
            else:
                answers.append(sock.recv(size_of(sock, data), socket.MSG_WAITALL))
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    return answers


def test_conversation(serve):
    """The bytes of the whole conversation are those that a real server without numpy sends, but for the process id."""
    frames = [(who, data) for who, data in DUMP if not data.startswith(jsontext.OPENING)]
    told = [data for who, data in frames if who == "<"]

    def size_of(sock, _):
        return 4 + int.from_bytes(sock.recv(4, socket.MSG_PEEK | socket.MSG_WAITALL), "big")

    hi, *answers = talk(serve(SERVED, "--name", "hasher"), frames, size_of)
    assert answers == told[1:]
    (greeting,) = decode(hi, len(hi))
    greeting.pid, greeting.offers = 4711, frozenset()
    assert Encoder().encode(greeting) == told[0]


def test_conversation_in_json(serve):
    """So are those of the one in JSON; the document shows the first texts as bytes, too."""
    answers = talk(serve(SERVED), JSON_TEXTS, lambda _, expected: len(expected))
    assert answers == [text for who, text in JSON_TEXTS if who == "<"]
    assert [line for line in DUMP if line[1].startswith(jsontext.OPENING)] == JSON_TEXTS[:2]


def test_complete_client(shared, connect, tmp_path):
    """The client at the end of the document, of 40 lines at most, calls a real server without gtask's help."""
    source = textwrap.dedent(DOCUMENT.split(":name: minimal.py\n\n")[1])
    assert len(source.rstrip().split("\n")) <= 40
    assert set(re.findall(r"^import (\w+)", source, re.MULTILINE)) <= {"socket", "struct", "msgpack"}
    (tmp_path / "minimal.py").write_text(source, encoding="utf-8")
    server = shared(SERVED)
    with connect(server) as client:
        client.call("echo")  # waits for the server
    ran = run_program(PROGRAM, server.address.path, directory=tmp_path, options=())
    assert (ran.stderr, ran.stdout) == ("", "all is well\n")


PROGRAM = """
    import socket
    import sys

    from minimal import Worker

    path = sys.argv[1]


    def error_of(worker, *args):
        try:
            worker.call(*args)
        except RuntimeError as error:
            return str(error)


    worker = Worker(path)
    assert worker.hi["v"] == 1 and worker.hi["pid"] > 0 and worker.hi["done"] is True, worker.hi
    things = ["h\\u00e4sh", {1: [None, b"x"]}]
    assert worker.call("echo", *things, key=2.5) == [things, {"key": 2.5}]
    assert len(worker.call("echo", "x" * 300_000)[0][0]) == 300_000
    assert error_of(worker, "fail", "on purpose") == "LookupError: on purpose"
    assert error_of(worker, "ecko").startswith("AttributeError: ")
    worker.end_checkout()
    assert worker.call("mark", "second checkout") == ["done", "second checkout"]
    assert error_of(worker, "leave") == "SystemExit: enough"  # behind a "by", which it skips
    worker.socket.close()

    # A worker that dies has last words.
    worker = Worker(path)
    told = error_of(worker, "die")
    assert told.startswith("('rip', {") and "'exitcode': 7" in told and "'method': 'die'" in told, told
    worker.socket.close()

    # Everything at once, ahead of the conversation.
    worker = Worker.__new__(Worker)
    worker.socket = socket.socket(socket.AF_UNIX)
    worker.socket.connect(path)
    worker.send("hi", {"v": 1})
    for epoch, *call in [(1, "mark", "before"), (1, "fail", "bad"), (1, "mark", "never"), (2, "mark", "ahead")]:
        worker.send("do", {"q": epoch}, *call)
    worker.send("dn", None)
    worker.send("do", None, "mark", "next")
    answers = [worker.receive() for _ in range(7)]
    assert [kind for kind, *_ in answers] == ["hi", "ok", "er", "sk", "ok", "dn", "ok"], answers
    assert answers[-1][2] == ["before", "ahead", "done", "next"], answers

    # What breaks the rules is answered by the end of the connection.
    worker.send("hello", None)
    try:
        worker.receive()
    except ConnectionError:
        pass
    else:
        raise AssertionError("an unknown kind was answered")

    assert not any(name.partition(".")[0] == "gtask" for name in sys.modules)
    print("all is well")
"""
