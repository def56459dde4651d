"""Those who ask for metrics: how many at a time, and what happens when the system has nothing to give."""

from __future__ import annotations

import math
import select
import socket
from time import monotonic

import pytest

from gtask.address import UnixAddress
from gtask.server.config import ServerConfig
from gtask.server.listener import Listener
from gtask.server.metrics import scrapes
from gtask.server.metrics.scrapes import HELPERS, PAUSE, Scrapes
from gtask.server.metrics.status import Record


@pytest.fixture
def where(tmp_path):
    """The path of the socket."""
    return f"{tmp_path}/metrics"


@pytest.fixture
def poll():
    return select.poll()


@pytest.fixture
def asked(where, poll):
    """Scrapes that listen there, and the descriptor at which they do."""
    address = UnixAddress(where)
    listener = Listener(address, ServerConfig((UnixAddress("-"),), metrics=address), for_metrics=True)
    made = Scrapes([listener], poll, Record("name", 1, ["unix:-"], 0.0), list)
    made.listen()
    yield made, listener.fileno()
    made.unlisten()


@pytest.fixture
def connect(where):
    """``connect()`` connects there; all are closed at the end."""
    made = []

    def connect():
        made.append(socket.socket(socket.AF_UNIX))
        made[-1].connect(where)
        return made[-1]

    yield connect
    for sock in made:
        sock.close()


def refuse(*arguments):
    raise OSError(11, "Resource temporarily unavailable")


def looks_away(asked, poll):
    """Whether nothing is heard, and for how long."""
    scrapes, descriptor = asked
    assert not scrapes.hears(descriptor)
    assert poll.poll(0) == []
    return scrapes.resume_at - monotonic()


def test_no_process_for_it(asked, poll, connect, monkeypatch, caplog):
    """Whoever asked is hung up on, the log says why, and for a while nobody is accepted; then again."""
    monkeypatch.setattr(scrapes.process, "fork_child", refuse)
    first = connect()
    asked[0].accept(asked[1])
    assert first.recv(1) == b""
    connect()
    assert 0 < looks_away(asked, poll) <= PAUSE
    assert "metrics cannot be told now: resource temporarily unavailable" in caplog.text
    asked[0].listen()
    assert asked[0].resume_at == math.inf
    assert poll.poll(0) == [(asked[1], select.POLLIN)]


def test_no_descriptor_for_it(asked, poll, connect, monkeypatch, caplog):
    """It waits in the backlog."""
    monkeypatch.setattr(Listener, "accept", refuse)
    connect()
    asked[0].accept(asked[1])
    assert 0 < looks_away(asked, poll) <= PAUSE
    assert "metrics cannot be told now" in caplog.text


def test_a_connection_that_has_gone(asked):
    """Nothing is forked for nobody."""
    asked[0].accept(asked[1])
    assert asked[0].under_way == 0
    assert asked[0].hears(asked[1])


def test_a_few_at_a_time(asked, poll, connect, monkeypatch):
    """Without a word it listens again when one of its own has ended, and not when another child has."""
    pids = iter(range(100, 200))
    monkeypatch.setattr(scrapes.process, "fork_child", lambda act: next(pids))
    for number in range(HELPERS):
        assert asked[0].hears(asked[1])
        connect()
        asked[0].accept(asked[1])
        assert asked[0].under_way == number + 1
    connect()
    assert looks_away(asked, poll) == math.inf
    asked[0].ended(99)
    assert looks_away(asked, poll) == math.inf
    asked[0].ended(100)
    assert poll.poll(0) == [(asked[1], select.POLLIN)]


def test_the_end_of_one_does_not_end_a_pause(asked, poll, connect, monkeypatch):
    """There is still nothing to be had."""
    monkeypatch.setattr(scrapes.process, "fork_child", lambda act: 100)
    connect()
    asked[0].accept(asked[1])
    monkeypatch.setattr(Listener, "accept", refuse)
    asked[0].accept(asked[1])
    asked[0].ended(100)
    assert 0 < looks_away(asked, poll) <= PAUSE


def test_without_metrics(poll):
    """Nothing is listened at, and nothing is heard."""
    nothing = Scrapes([], poll, Record("name", 1, ["unix:-"], 0.0), list)
    nothing.listen()
    assert not nothing.hears(0)
    assert nothing.addresses == []
    nothing.ended(5)
    nothing.unlisten()
    nothing.cut_off()
    assert poll.poll(0) == []
