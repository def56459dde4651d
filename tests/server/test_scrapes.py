"""Those who ask for metrics: how many at a time, and what happens when the system has nothing to give."""

from __future__ import annotations

import math
import socket

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
def asked(where):
    """Scrapes that listen there, and the descriptor at which they do."""
    address = UnixAddress(where)
    listener = Listener(address, ServerConfig((UnixAddress("-"),), metrics=address), for_metrics=True)
    made = Scrapes([listener], Record("name", 1, ["unix:-"], 0.0), list)
    yield made, listener.fileno()
    made.unlisten()


@pytest.fixture
def connect(where):
    """``connect()`` connects there; all are closed at the end."""
    made = []

    def connect():
        made.append(socket.socket(socket.AF_UNIX))
        made[-1].connect(where)
        made[-1].sendall(b"G")
        return made[-1]

    yield connect
    for sock in made:
        sock.close()


def refuse(*arguments):
    raise OSError(11, "Resource temporarily unavailable")


def hears(asked):
    """Whether it is listened at."""
    scrapes, descriptor = asked
    return descriptor in scrapes.descriptors


def accept(asked, now=0.0):
    """A turn of the loop, in which somebody connects."""
    scrapes, descriptor = asked
    scrapes.turn(now, [descriptor])


def test_no_process_for_it(asked, connect, monkeypatch, caplog):
    """Whoever asked is hung up on, the log says why, and for a while nobody is accepted; then again."""
    monkeypatch.setattr(scrapes.process, "fork_child", refuse)
    first = connect()
    accept(asked)
    with pytest.raises(ConnectionResetError):
        first.recv(1)
    connect()
    assert not hears(asked)
    assert asked[0].next_due(0.0) == PAUSE
    assert "metrics cannot be told now: resource temporarily unavailable" in caplog.text
    asked[0].turn(PAUSE - 0.1, ())
    assert not hears(asked)
    asked[0].turn(PAUSE, ())
    assert asked[0].next_due(PAUSE) == math.inf
    assert hears(asked)


def test_no_descriptor_for_it(asked, connect, monkeypatch, caplog):
    """It waits in the backlog."""
    monkeypatch.setattr(Listener, "accept", refuse)
    connect()
    accept(asked, now=5.0)
    assert not hears(asked)
    assert asked[0].next_due(5.0) == 5.0 + PAUSE
    assert "metrics cannot be told now" in caplog.text


def test_a_connection_that_has_gone(asked):
    """Nothing is forked for nobody."""
    accept(asked)
    assert not asked[0].under_way
    assert hears(asked)


def test_a_few_at_a_time(asked, connect, monkeypatch):
    """Without a word it listens again when one of its own has ended, and not when another child has."""
    pids = iter(range(100, 200))
    monkeypatch.setattr(scrapes.process, "fork_child", lambda act: next(pids))
    for _ in range(HELPERS):
        assert hears(asked)
        connect()
        accept(asked)
        assert asked[0].under_way
    assert next(pids) == 100 + HELPERS
    connect()
    assert not hears(asked)
    assert asked[0].next_due(0.0) == math.inf
    asked[0].reaped(99)
    assert not hears(asked)
    asked[0].reaped(100)
    assert hears(asked)


def test_the_end_of_one_does_not_end_a_pause(asked, connect, monkeypatch):
    """There is still nothing to be had."""
    monkeypatch.setattr(scrapes.process, "fork_child", lambda act: 100)
    connect()
    accept(asked)
    monkeypatch.setattr(Listener, "accept", refuse)
    accept(asked)
    asked[0].reaped(100)
    assert not hears(asked)
    assert asked[0].next_due(0.0) == PAUSE


def test_without_metrics():
    """Nothing is listened at, and nothing is heard."""
    nothing = Scrapes([], Record("name", 1, ["unix:-"], 0.0), list)
    nothing.begin(0.0)
    nothing.turn(0.0, ())
    assert list(nothing.descriptors) == []
    nothing.reaped(5)
    nothing.close()
