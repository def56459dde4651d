"""The point of this test is to ensure that every usual tool shows a worker's exception with the worker's lines.

The traceback module, logging, pdb and Sentry's SDK show the worker's frames, with their source lines, behind the
caller's own; also when the caller's machine does not have the worker's source file.
"""

import io
import logging
import pdb
import sys
import textwrap
import traceback
from pathlib import Path

import pytest
import sentry_sdk
from sentry_sdk.transport import Transport

import gtask

SOURCE = """
    def verify(name):
        return look_up(name)  # the outer line, größer

    def look_up(name):
        try:
            return {}[name]  # the first cause
        except KeyError as error:
            raise PermissionError(f"no user {name}") from error  # the inner line
"""


@pytest.fixture(params=["the caller has the source", "the caller has no source"])
def failing(request, serve, connect, tmp_path, monkeypatch):
    """A function that makes a call which raises."""
    if request.param == "the caller has the source":
        server = serve(SOURCE)
        client = connect(server)
        yield lambda: client.call("verify", "ada")
        return
    # To each process this is its own working directory, so only the server finds the file under this name.
    source = Path("/proc/self/cwd/elsewhere.py")
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    (directory / source.name).write_text(textwrap.dedent(SOURCE))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", [str(source.parent), *sys.path, str(directory)])
        patch.chdir(directory)
        server = gtask.spawn_server("elsewhere")
    with server:
        assert not source.exists()
        client = connect(server)
        yield lambda: client.call("verify", "ada")


def caught(call):
    with pytest.raises(PermissionError) as info:
        call()
    return info.value


def lines(text):
    return [line.strip() for line in text.splitlines()]


def test_format_exc(failing):
    """traceback.format_exc() shows the caller's frames, then the worker's, and the cause with its own."""
    try:
        failing()
    except PermissionError:
        shown = lines(traceback.format_exc())
    outer = shown.index("return look_up(name)  # the outer line, größer")
    inner = shown.index('raise PermissionError(f"no user {name}") from error  # the inner line')
    assert outer < inner
    assert shown[inner + 1] == "PermissionError: no user ada"
    assert shown[outer - 1].endswith(", in verify")
    assert shown[inner - 1].endswith(", in look_up")
    cause = shown.index("return {}[name]  # the first cause")
    assert shown[cause + 1] == "KeyError: 'ada'"
    assert any(line.endswith("in test_format_exc") for line in shown[:outer])
    assert cause < shown.index("The above exception was the direct cause of the following exception:") < outer


def test_logging(failing):
    """logging.exception shows the worker's lines."""
    stream = io.StringIO()
    logger = logging.Logger("application")
    logger.addHandler(logging.StreamHandler(stream))
    try:
        failing()
    except PermissionError:
        logger.exception("cannot verify")
    shown = lines(stream.getvalue())
    assert shown[0] == "cannot verify"
    assert "return look_up(name)  # the outer line, größer" in shown
    assert shown[shown.index("PermissionError: no user ada") - 1].endswith("# the inner line")


def test_pdb_post_mortem(failing, monkeypatch, tmp_path):
    """pdb begins in the worker's innermost frame, lists the worker's source, and walks up to the caller."""
    error = caught(failing)
    monkeypatch.setenv("HOME", str(tmp_path))  # where pdb would look for a .pdbrc
    output = io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.StringIO("list\nup\nlist\nwhere\nquit\n"))
    monkeypatch.setattr(sys, "stdout", output)
    pdb.post_mortem(error.__traceback__)
    shown = output.getvalue()
    assert '->\t        raise PermissionError(f"no user {name}") from error  # the inner line' in shown
    assert "->\t    return look_up(name)  # the outer line, größer" in shown
    where = shown[shown.rindex("(Pdb)", 0, shown.rindex("(Pdb)")) :]
    assert where.index("caught()") < where.index("verify()") < where.index("look_up()")


def test_sentry(failing):
    """Sentry's client sends an event whose frames are the worker's, with their lines, functions and modules."""
    events = []

    class Captured(Transport):
        def capture_envelope(self, envelope):
            events.append(envelope.get_event())

    client = sentry_sdk.Client(
        dsn="http://key@localhost:9/1",
        transport=Captured,
        default_integrations=False,
        auto_enabling_integrations=False,
    )
    with sentry_sdk.new_scope() as scope:
        scope.set_client(client)
        try:
            failing()
        except PermissionError as error:
            scope.capture_exception(error)
    client.close()
    cause, error = events[0]["exception"]["values"]
    assert (cause["type"], cause["value"]) == ("KeyError", "'ada'")
    assert cause["stacktrace"]["frames"][-1]["context_line"].strip() == "return {}[name]  # the first cause"
    text, _, note = error["value"].partition("\n")
    assert (error["type"], text) == ("PermissionError", "no user ada")
    assert note.startswith("verify raised this in worker ")
    frames = error["stacktrace"]["frames"]
    assert [frame["function"] for frame in frames[-2:]] == ["verify", "look_up"]
    assert frames[-2]["context_line"].strip() == "return look_up(name)  # the outer line, größer"
    assert frames[-1]["context_line"].strip().endswith("# the inner line")
    assert any(frame["function"] == "test_sentry" for frame in frames[:-2])


def test_functions_and_line_numbers(failing):
    """The frames have the worker's functions, line numbers and lines."""
    summary = traceback.extract_tb(caught(failing).__traceback__)[-2:]
    assert [(entry.name, entry.line.rpartition("# ")[2]) for entry in summary] == [
        ("verify", "the outer line, größer"),
        ("look_up", "the inner line"),
    ]
    assert summary[1].lineno - summary[0].lineno == 6
