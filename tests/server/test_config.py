"""The options of a server: what makes no sense is refused with the option's name and what is allowed."""

from __future__ import annotations

import dataclasses
import math

import pytest

from gtask.address import parse
from gtask.server.config import ServerConfig

HERE = (parse("unix:/tmp/x.sock"),)


def test_defaults():
    """A unix socket is for its user alone unless told otherwise."""
    config = ServerConfig(HERE)
    assert config.socket_mode == 0o600
    assert config.limit_message == 64 * 1024 * 1024
    assert not config.private


def test_it_needs_an_address():
    """A server that listens nowhere is refused, with how to write an address."""
    with pytest.raises(ValueError, match="needs an address to listen at: write unix:/path"):
        ServerConfig(())


@pytest.mark.parametrize(
    "options",
    [
        {"backlog": 1}, {"limit_message": 1024}, {"stop_timeout": 0.1}, {"stop_timeout": math.inf},
        {"greeting_timeout": 0.1}, {"socket_mode": 0}, {"socket_mode": 0o777}, {"private": True},
    ],
    ids=repr,
)  # fmt: skip
def test_what_makes_sense_is_accepted(options):
    """The least and other unusual values."""
    config = ServerConfig(HERE, **options)
    assert {name: getattr(config, name) for name in options} == options


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("backlog", 0), ("backlog", -1), ("limit_message", 1023), ("stop_timeout", 0), ("stop_timeout", -1),
        ("stop_timeout", math.nan), ("greeting_timeout", 0), ("greeting_timeout", math.nan), ("socket_mode", -1),
        ("socket_mode", 0o1000), ("socket_mode", 0o4600),
    ],
    ids=repr,
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_name(option, value):
    """A ValueError that shows the option with its value and says what to write."""
    with pytest.raises(ValueError, match=rf"^{option}=.*: write ") as caught:
        ServerConfig(HERE, **{option: value})
    assert (oct(value) if option == "socket_mode" else repr(value)) in str(caught.value)


def test_it_is_frozen():
    """Nobody changes the options of a server that runs."""
    config = ServerConfig(HERE)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.backlog = 1
