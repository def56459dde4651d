"""How a socket without a path goes from a master without a keeper to the next daemon."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from gtask.address import parse
from gtask.server import estate as estates
from gtask.server.estate import Estate, claim

USERS = {os.geteuid()}


@pytest.fixture
def listener():
    """A socket that listens, and its address."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock, parse(f"tcp://127.0.0.1:{sock.getsockname()[1]}")


@pytest.fixture
def estate(listener):
    estate = Estate(listener[1], listener[0].fileno())
    yield estate
    estate.close()


def claimed(estate, address, users=USERS):
    """What a daemon gets, while the master turns."""
    got = []
    thread = threading.Thread(target=lambda: got.append(claim(address, users)))
    thread.start()
    while thread.is_alive():
        assert not estate.turn(estate.descriptors)
        thread.join(0.01)
    return got[0]


def test_both_have_the_socket_until_the_heir_serves(listener, estate):
    """It is the very same: who has connected before is accepted by either."""
    sock, address = listener
    with socket.create_connection(sock.getsockname()) as early:
        inheritance = claimed(estate, address)
        served, _ = inheritance.socket.accept()
        with served:
            assert served.getpeername() == early.getsockname()
    assert not os.get_inheritable(inheritance.socket.fileno())
    assert not estate.turn(estate.descriptors)
    inheritance.release()
    assert estate.turn(estate.descriptors)
    inheritance.socket.close()


def test_an_heir_that_ends_before_it_serves(listener, estate):
    """The master serves on, and the next may ask."""
    for _ in range(2):
        inheritance = claimed(estate, listener[1])
        inheritance.close()
        inheritance.socket.close()
        assert not estate.turn(estate.descriptors)
        assert len(estate.descriptors) == 1


def test_an_asker_that_is_gone(listener, estate):
    """It gets nothing, and its connection is closed (one that is left to the collector is a warning, thus an error)."""
    with socket.socket(socket.AF_UNIX) as asker:
        asker.connect(estates._name_of(listener[1]))
    assert not estate.turn(estate.descriptors)
    assert len(estate.descriptors) == 1


def test_strangers_get_and_give_nothing(listener, estate, monkeypatch):
    """Another user's daemon is not served, and another user's master not believed."""
    assert claimed(estate, listener[1], users={os.geteuid() + 1}) is None
    monkeypatch.setattr(estates, "_user_of", lambda connection: 4711)
    assert claimed(estate, listener[1], users={4711}) is None
    estate.turn(estate.descriptors)
    assert len(estate.descriptors) == 1


def test_nobody_has_left_anything(listener):
    """The address is another's, who lives."""
    assert claim(listener[1], USERS) is None


def test_a_name_that_is_taken(listener, estate):
    """Then nobody can ask, and the master must not wait for that."""
    second = Estate(listener[1], listener[0].fileno())
    assert (second.can_be_claimed, list(second.descriptors)) == (False, [])
    assert estate.can_be_claimed
    assert not second.turn(())
    second.close()
