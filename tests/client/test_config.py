"""The options of a client: what makes no sense is refused with the option's name and what is allowed."""

from __future__ import annotations

import dataclasses
import math

import pytest

import gtask
from gtask import errors
from gtask.client.config import ClientConfig, check_timeout
from gtask.wire.codec import DEFAULT_LIMIT


def test_defaults():
    """Those of the design."""
    assert ClientConfig() == ClientConfig(
        name="",
        timeout=30.0,
        setup_timeout=300.0,
        min_workers=2,
        max_workers=20,
        max_checkouts=None,
        max_queue=10_000,
        refork_after_error=True,
        raises=None,
        limit_message=DEFAULT_LIMIT,
    )


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": None}, {"timeout": 0.001}, {"timeout": 5}, {"timeout": math.inf}, {"min_workers": 0},
        {"min_workers": 3, "max_workers": 3}, {"min_workers": 0, "max_workers": 1}, {"max_checkouts": 1},
        {"max_queue": 1}, {"limit_message": 1024}, {"raises": []}, {"raises": [KeyError, errors]}, {"raises": {OSError}},
    ],
    ids=repr,
)  # fmt: skip
def test_what_makes_sense_is_accepted(options):
    """The least and other unusual values."""
    config = ClientConfig(**options)
    assert {name: getattr(config, name) for name in options} == options


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("timeout", 0), ("timeout", -1), ("timeout", math.nan), ("timeout", "5"), ("setup_timeout", 0),
        ("setup_timeout", math.nan), ("setup_timeout", None), ("setup_timeout", "5"), ("min_workers", -1),
        ("min_workers", 1.5), ("min_workers", "2"), ("min_workers", None), ("max_workers", 0), ("max_workers", 2.0),
        ("max_checkouts", 0), ("max_checkouts", "1"), ("max_queue", 0), ("max_queue", None), ("limit_message", 1023),
        ("limit_message", "64M"), ("raises", ["KeyError"]), ("raises", [KeyError()]), ("raises", KeyError), ("raises", 5),
    ],
    ids=repr,
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_name(option, value):
    """A ValueError or TypeError that shows the option with its value and says what to write."""
    with pytest.raises((ValueError, TypeError)) as caught:
        ClientConfig(**{option: value})
    assert str(caught.value).startswith(f"{option}=")
    assert any(word in str(caught.value) for word in ("write", "list"))


def test_more_in_stock_than_allowed():
    """min_workers over max_workers is refused with both."""
    with pytest.raises(ValueError, match="min_workers=5 is more than max_workers=4"):
        ClientConfig(min_workers=5, max_workers=4)


def test_the_timeout_of_one_checkout():
    """It is checked like the client's."""
    check_timeout(None)
    check_timeout(0.5)
    with pytest.raises(ValueError, match="timeout=-1"):
        check_timeout(-1)


def test_it_is_frozen():
    """Nobody changes the options of a client that runs."""
    config = ClientConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.timeout = 1


def test_the_client_refuses_them_when_it_is_made():
    """Not at its first use; and a client that was refused can be collected."""
    with pytest.raises(ValueError, match="max_workers=0"):
        gtask.Client("unix:/nowhere/x.sock", max_workers=0)
    for address in ("nowhere", "spawn:"):
        with pytest.raises(ValueError, match="write"):
            gtask.Client(address)
