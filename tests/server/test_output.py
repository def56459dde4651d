"""What is written, what is dropped, and what is counted."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys

import pytest

from gtask.server import output
from gtask.server.output import Output


@pytest.fixture
def pipe():
    """A pipe: its reading end, not blocking, and its writing end."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    yield reading, writing
    for descriptor in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def fill(writing):
    """Fill a pipe to the last byte."""
    os.set_blocking(writing, False)
    for size in (65536, 4096, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, b"." * size)
    os.set_blocking(writing, True)


def test_lines_are_written(pipe):
    """As they are."""
    out = Output(pipe[1])
    assert out.write(b"one\n") == 4
    assert out.write(memoryview(b"two\n")) == 4
    assert (os.read(pipe[0], 100), out.lost) == (b"one\ntwo\n", 0)


def test_what_has_no_room_is_counted_in_lines(pipe):
    """A text without a line's end counts as one."""
    out = Output(pipe[1])
    fill(pipe[1])
    assert out.write(b"a\nb\nc\n") == 6
    assert out.write(b"d") == 1
    assert (out.take_lost(), out.lost) == (4, 0)


def test_a_line_that_is_torn_does_not_run_into_the_next(pipe):
    """Of a long one only the beginning may have room."""
    out = Output(pipe[1])
    out.write(b"x" * 200_000 + b"\n")
    assert out.lost == 1
    with contextlib.suppress(BlockingIOError):
        while True:
            os.read(pipe[0], 1 << 20)
    out.write(b"next\n")
    assert os.read(pipe[0], 100) == b"\nnext\n"


@pytest.mark.parametrize("end", ["reading", "writing"])
def test_a_broken_or_closed_descriptor_raises_nothing(pipe, end):
    """All is lost, and counted."""
    out = Output(pipe[1])
    os.close(pipe[end == "writing"])
    assert out.write(b"a\n") == 2
    assert out.lost == 1


def test_a_full_disk():
    """As the device that plays it."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    out = Output(descriptor)
    out.write(b"a\n")
    assert out.lost == 1
    os.close(descriptor)


def test_losses_are_told_once_somebody_reads(pipe, monkeypatch):
    """A word about the loss that is lost itself does not count."""
    out = Output(pipe[1])
    monkeypatch.setattr(output, "_outputs", [out])
    handler = logging.StreamHandler(io.TextIOWrapper(out, "utf-8", line_buffering=True))
    monkeypatch.setattr(output.log, "handlers", [handler])
    monkeypatch.setattr(output.log, "propagate", False)
    fill(pipe[1])
    out.write(b"a\nb\n")
    output.tell_losses()
    assert out.lost == 2
    with contextlib.suppress(BlockingIOError):
        while True:
            os.read(pipe[0], 1 << 16)
    output.tell_losses()
    assert (os.read(pipe[0], 1000), out.lost) == (
        b"2 lines of the output were lost: nobody read them, or there was no room\n",
        0,
    )
    handler.stream.detach()


def test_a_stream_that_is_missing_is_made(monkeypatch):
    """Python has None where a descriptor is closed."""
    monkeypatch.setattr(output, "_outputs", [])
    monkeypatch.setattr(sys, "stderr", None)
    output.guard("stderr")
    assert (sys.stderr.fileno(), sys.stderr.encoding, sys.stderr.errors) == (2, "utf-8", "backslashreplace")


def test_what_a_program_has_put_in_place_of_a_stream_stays(monkeypatch):
    """A test's capture, say."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with output.guarded():
        assert sys.stderr is stream
