"""The point of this test is to ensure that ``gtask call`` calls a method from a shell, and says in JSON what it gave.

Arguments and value are JSON; a worker's traceback goes to stderr; the exit status tells what kind of end it was.
"""

import json
import os
import re
import socket
import subprocess
import sys

import gevent.socket
import pytest

from tests.support.waiting import wait_until

SOURCE = """
    import ctypes, datetime, decimal, os, time, uuid

    def echo(*args, **kwargs):
        return [list(args), kwargs]

    def value(name):
        return {
            "none": None, "big": 2**70, "bytes": b"caf\\xc3\\xa9 \\xff", "set": {1}, "tuple": (1, (2,)),
            "decimal": decimal.Decimal("1.50"), "date": datetime.date(2024, 2, 29), "complex": 1 + 2j,
            "keys": {1: "one", b"two": 2}, "text": "h\\xe9llo \\u2713", "surrogate": "\\udc80",
        }[name]

    def fail(text):
        raise LookupError(text)

    def leave():
        raise SystemExit(7)

    def segfault():
        ctypes.string_at(0)

    def exit(status):
        os._exit(status)

    def hang():
        time.sleep(60)  # hangs here
"""

TOOL = [sys.executable, "-c", "import sys; from gtask.tool.cli import main; sys.exit(main())"]


def tool(*arguments, env=None, **options):
    """What the command did: exit status, stdout and stderr."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [*TOOL, *map(str, arguments)],
        env={**environment, **(env or {})},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        encoding="utf-8",
        timeout=60,
        **options,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def server(shared, connect):
    server = shared(SOURCE)
    connect(server).call("echo")  # so it is there
    return server.address


def gives(address, *arguments, **options):
    """The value that a call prints, in one line, with nothing on stderr and status 0."""
    status, out, err = tool("call", address, *arguments, **options)
    assert (status, err) == (0, "")
    assert out.count("\n") == 1
    return json.loads(out)


def test_arguments_are_json(server):
    """What is no JSON is a string; numbers may be negative; keywords may stand anywhere."""
    texts = ["1", "-2", "-1e3", "true", "null", '"5"', '{"a": [1]}', "plain", "", "[not json"]
    assert gives(server, "echo", *texts) == [
        [1, -2, -1000.0, True, None, "5", {"a": [1]}, "plain", "", "[not json"],
        {},
    ]
    assert gives(server, "echo", "--kw", "rounds=5", "a", "--kw", "text=b=c", "2") == [
        ["a", 2],
        {"rounds": 5, "text": "b=c"},
    ]
    assert gives(server, "echo", "--", "--kw", "x") == [["--kw", "x"], {}]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("none", None), ("big", 2**70), ("bytes", "café \\xff"), ("set", [1]), ("tuple", [1, [2]]),
        ("decimal", "1.50"), ("date", "2024-02-29"), ("complex", "(1+2j)"), ("keys", {"1": "one", "two": 2}),
        ("text", "héllo ✓"), ("surrogate", "\udc80"),
    ],
)  # fmt: skip
def test_the_value_is_json(server, name, value):
    """Whatever it is: what JSON does not have becomes a list or text."""
    assert gives(server, "value", name) == value


def test_a_terminal_that_knows_no_other_letters(server):
    """Then the JSON is plain ASCII, and means the same."""
    assert gives(server, "value", "text", env={"PYTHONIOENCODING": "ascii"}) == "héllo ✓"


def test_an_error_of_the_worker(server):
    """Its traceback is on stderr, with the line that raised and no line of gtask; stdout is empty; the status is 1."""
    status, out, err = tool("call", server, "fail", "dreadful")
    assert (status, out) == (1, "")
    assert "LookupError: dreadful" in err
    assert "    raise LookupError(text)" in err
    assert "fail raised this in a worker at " in err
    assert not re.search(r'File ".*gtask/(tool|server|wire)/', err)


def test_an_unknown_method(server):
    """The message says what there is."""
    status, out, err = tool("call", server, "segfold")
    assert (status, out) == (1, "")
    assert "has no method 'segfold': did you mean segfault?" in err


def test_a_worker_that_is_left(server):
    """SystemExit in the method: an error like others, although the worker asks first to be retired."""
    status, _, err = tool("call", server, "leave")
    assert status == 1
    assert "SystemExit: 7" in err
    assert "raise SystemExit(7)" in err


def test_a_worker_that_dies(server):
    """How, and where it was if it can be known."""
    status, _, err = tool("call", server, "segfault")
    assert status == 1
    assert "was ended by SIGSEGV in segfault after " in err
    assert re.search(r"served_\d+\.py\", line \d+ in segfault", err)
    status, _, err = tool("call", server, "exit", "3")
    assert status == 1
    assert "exited with status 3 in exit" in err


def test_a_call_that_takes_too_long(server):
    """After ``--timeout`` the worker is interrupted, and the traceback shows the line that hung."""
    status, out, err = tool("call", server, "hang", "--timeout", "0.5")
    assert (status, out) == (1, "")
    assert "hang took longer than 0.5 s at " in err
    assert "time.sleep(60)  # hangs here" in err


def test_setup_that_fails(shared, connect):
    """Is shown as what it is."""
    address = shared("def echo(): pass\ndef setup(): raise OSError('no database')").address
    wait_until(lambda: os.path.exists(address.path))
    status, _, err = tool("call", address, "echo")
    assert status == 1
    assert "no database" in err
    assert "setup raised this in worker " in err


def test_nobody_there(tmp_path):
    """Status 3, and one line that says why."""
    for address in (f"unix:{tmp_path}/missing", "tcp://127.0.0.1:1"):
        status, out, err = tool("call", address, "echo")
        assert (status, out) == (3, "")
        assert err.startswith("gtask: server unreachable: ")
        assert err.count("\n") == 1


def test_somebody_else_there(tmp_path):
    """Who says nothing, hangs up, or speaks another language: status 3 and one line."""
    with gevent.socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{tmp_path}/other")
        sock.listen()
        address = f"unix:{tmp_path}/other"
        status, _, err = tool("call", address, "echo", "--timeout", "0.2")
        assert (status, err.count("\n")) == (3, 1)
        assert "nobody greeted" in err
        sock.accept()[0].close()
        for answer, why in ((b"", "without a greeting"), (b"HTTP/1.1 400 Bad\r\n\r\n", "is it a gtask peer")):
            with subprocess.Popen([*TOOL, "call", address, "echo"], stderr=subprocess.PIPE, text=True) as process:
                peer, _ = sock.accept()
                with peer:
                    peer.recv(65536)
                    peer.sendall(answer)
                err = process.stderr.read()
            assert (process.returncode, err.count("\n")) == (3, 1)
            assert why in err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["call"], "ADDRESS"),
        (["call", "nowhere", "echo"], "'nowhere' is no address: write unix:/path/to/the.sock"),
        (["call", "unix:/a", "echo", "--kw", "novalue"], "'novalue': write NAME=VALUE"),
        (["call", "unix:/a", "echo", "--timeout", "0"], "'0': write a number of seconds over 0"),
        (["call", "unix:/a", "echo", "--unknown"], "--unknown"),
        (["ping", "unix:/a", "more"], "more"),
        (["tap", "unix:/a"], "tap"),
    ],
)
def test_wrong_arguments(arguments, why):
    """Status 2, and what to write; no server is asked."""
    status, out, err = tool(*arguments)
    assert (status, out) == (2, "")
    assert why in err
    assert "Traceback" not in err


def test_an_argument_that_cannot_travel(server):
    """It is wrong usage, too: lists in lists in lists, deeper than JSON can be read here."""
    depth = 50_000
    status, out, err = tool("call", server, "echo", "[" * depth + "]" * depth)
    assert (status, out, err) == (2, "", "gtask: this is nested too deeply for JSON\n")


def test_whoever_reads_may_have_had_enough(server):
    """A closed pipe is no reason for a traceback."""
    with subprocess.Popen(
        [*TOOL, "call", str(server), "echo", "a"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        err = process.stderr.read()
    assert err == ""
    assert process.returncode == 1
