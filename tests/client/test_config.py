"""The options of a client: what makes no sense is refused with the option's name and what is allowed."""

from __future__ import annotations

import contextvars
import dataclasses
import inspect
import math
import re

import pytest

import gtask
from gtask import errors
from gtask.client.config import ClientConfig, check_size, check_timeout
from gtask.wire.limits import DEFAULTS


def test_defaults():
    """Those of the design."""
    assert ClientConfig() == ClientConfig(
        name="",
        timeout=30.0,
        setup_timeout=300.0,
        min_workers=2,
        max_workers=20,
        max_checkouts=None,
        max_lifetime=None,
        max_idle=600.0,
        lifo=True,
        max_waiting=None,
        shed_target=None,
        shed_interval=1.0,
        max_connecting=8,
        reconnect_timeout=300.0,
        on_reconnect_failed=None,
        leak_after=None,
        max_queue=10_000,
        refork_after_error=True,
        raises=None,
        limit_message=DEFAULTS.message,
        codec="msgpack",
    )


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": None}, {"timeout": 0.001}, {"timeout": 5}, {"timeout": math.inf}, {"min_workers": 0},
        {"min_workers": 3, "max_workers": 3}, {"min_workers": 0, "max_workers": 1}, {"max_checkouts": 1},
        {"max_queue": 1}, {"limit_message": 1024}, {"raises": []}, {"raises": [KeyError, errors]},
        {"raises": {OSError}}, {"max_lifetime": 0.5}, {"max_idle": None}, {"max_idle": math.inf}, {"lifo": False},
        {"max_waiting": 0}, {"shed_target": 0.01, "shed_interval": 1}, {"max_connecting": 1},
        {"reconnect_timeout": 0.1}, {"reconnect_timeout": math.inf}, {"on_reconnect_failed": print},
        {"leak_after": 5}, {"codec": "json"},
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
        ("limit_message", "64M"), ("raises", ["KeyError"]), ("raises", [KeyError()]), ("raises", KeyError),
        ("raises", 5), ("lifo", "fifo"), ("lifo", None), ("lifo", 1), ("max_waiting", -1), ("max_waiting", 1.5),
        ("max_waiting", "none"), ("max_connecting", 0), ("max_connecting", None), ("max_connecting", 1.0),
        ("on_reconnect_failed", 5), ("on_reconnect_failed", "print"),
        *[(name, value)
          for name in ("max_lifetime", "max_idle", "shed_target", "leak_after", "shed_interval", "reconnect_timeout")
          for value in (0, -1.5, math.nan, "5", [1])],
        ("shed_interval", None), ("reconnect_timeout", None), ("codec", None), ("codec", []),
    ],
    ids=repr,
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_name(option, value):
    """A ValueError or TypeError that shows the option with its value and says what to write."""
    with pytest.raises((ValueError, TypeError)) as caught:
        ClientConfig(**{option: value})
    assert str(caught.value).startswith(f"{option}={value!r}: ")
    assert any(word in str(caught.value) for word in ("write", "list"))


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("max_lifetime", 0, "a number of seconds over 0, or None for no limit"),
        ("max_idle", 0, "a number of seconds over 0, or None for no limit"),
        ("shed_target", 0, "a number of seconds over 0, or None for no limit"),
        ("leak_after", 0, "a number of seconds over 0, or None for no limit"),
        ("shed_interval", 0, "a number of seconds over 0"),
        ("reconnect_timeout", 0, "a number of seconds over 0"),
        ("max_waiting", -1, "a number of at least 0"),
        ("max_waiting", 0.5, "a whole number"),
        ("max_connecting", 0, "a number of at least 1"),
        ("lifo", "fifo", "True or False"),
        ("on_reconnect_failed", 5, "a function that takes the client, or None"),
    ],
)
def test_the_error_says_what_is_allowed(option, value, allowed):
    """After the option and its value; and None is offered only where it is allowed."""
    with pytest.raises((ValueError, TypeError)) as caught:
        ClientConfig(**{option: value})
    assert str(caught.value) == f"{option}={value!r}: write {allowed}"


def test_more_in_stock_than_allowed():
    """min_workers over max_workers is refused with both; a resize, in the same way."""
    with pytest.raises(ValueError, match="min_workers=5 is more than max_workers=4"):
        ClientConfig(min_workers=5, max_workers=4)
    with pytest.raises(ValueError, match="min_workers=5 is more than max_workers=4"):
        check_size(5, 4)


@pytest.mark.parametrize(
    ("written", "sizes"),
    [
        ({"max_workers": 1}, (1, 1)), ({"max_workers": 2}, (2, 2)), ({"min_workers": 30}, (30, 30)),
        ({"min_workers": 20}, (20, 20)), ({"min_workers": 0}, (0, 20)), ({}, (2, 20)),
    ],
    ids=repr,
)  # fmt: skip
def test_a_default_gives_way(written, sizes):
    """A number that nobody wrote is no reason to refuse one that somebody did; the pool has both as plain numbers."""
    config = gtask.Client("unix:/nowhere/x.sock", **written)._config
    assert (config.min_workers, config.max_workers) == sizes
    assert config == ClientConfig(**written)


@pytest.mark.parametrize("sizes", [(2, 1), (21, 20)])
def test_a_number_that_is_written_does_not_give_way(sizes):
    """Not even if it is the default."""
    with pytest.raises(ValueError, match=f"min_workers={sizes[0]} is more than max_workers={sizes[1]}"):
        gtask.Client("unix:/nowhere/x.sock", min_workers=sizes[0], max_workers=sizes[1])


@pytest.mark.parametrize(("sizes", "option"), [((-1, 4), "min_workers=-1"), ((0, 0), "max_workers=0")])
def test_the_sizes_of_a_resize(sizes, option):
    """They are checked like the client's."""
    check_size(0, 1)
    with pytest.raises(ValueError, match=option):
        check_size(*sizes)


def test_the_timeout_of_one_checkout():
    """It is checked like the client's."""
    check_timeout(None)
    check_timeout(0.5)
    with pytest.raises(ValueError, match="timeout=-1"):
        check_timeout(-1)
    with pytest.raises(ValueError, match="patience=-1"):
        check_timeout(-1, "patience")


def test_it_is_frozen():
    """Nobody changes the options of a client that runs."""
    config = ClientConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.timeout = 1


def test_the_client_refuses_them_when_it_is_made():
    """Not at its first use; and a client that was refused can be collected."""
    with pytest.raises(ValueError, match="max_workers=0"):
        gtask.Client("unix:/nowhere/x.sock", max_workers=0)
    for options in ({"lifo": 0}, {"max_waiting": -1}, {"shed_target": 0}, {"leak_after": "1"}):
        with pytest.raises((ValueError, TypeError), match=next(iter(options))):
            gtask.Client("unix:/nowhere/x.sock", **options)
    for address in ("nowhere", "spawn:"):
        with pytest.raises(ValueError, match="write"):
            gtask.Client(address)


def test_the_signature_of_the_client():
    """It has the options of the configuration, with their defaults and in their order, and no other."""
    parameters = list(inspect.signature(gtask.Client).parameters.values())[1:]
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters)
    signature = [(parameter.name, parameter.default) for parameter in parameters]
    assert signature == [(option.name, option.default) for option in dataclasses.fields(ClientConfig)]


def test_the_docstring_of_the_client():
    """It describes each option, and the description begins with the option's sentence."""
    told = dict(re.findall(r"^    (\w+): (.*(?:\n     .*)*)", inspect.getdoc(gtask.Client), re.MULTILINE))
    described = {name: " ".join(text.split()) for name, text in told.items() if name != "address"}
    sentences = {option.name: option.metadata["sentence"] for option in dataclasses.fields(ClientConfig)}
    assert [name for name in described if name in sentences] == list(sentences)
    for name, sentence in sentences.items():
        assert described[name].startswith(sentence), f"{name}: {described[name]}"


def test_every_option_reaches_the_configuration():
    """Not one is forgotten between the client and the pool."""
    variable = contextvars.ContextVar("variable")
    others = {
        "name": "x", "timeout": 1.0, "min_workers": 1, "max_workers": 3, "max_checkouts": 4, "max_lifetime": 5.0,
        "max_idle": 6.0, "lifo": False, "max_waiting": 7, "shed_target": 8.0, "shed_interval": 9.0,
        "max_connecting": 10, "reconnect_timeout": 11.0, "on_reconnect_failed": print, "leak_after": 12.0,
        "refork_after_error": False, "raises": [KeyError], "setup_timeout": 13.0, "max_queue": 14,
        "limit_message": 2048, "logs": False, "context": [variable], "codec": "msgpack", "pickle": True,
        "insecure": True, "limit_items": 4096, "limit_shared": 0, "max_extension": 15.0, "server_uid": 16,
    }  # fmt: skip
    config = gtask.Client("unix:/nowhere/x.sock", **others)._config
    assert set(others) == {option.name for option in dataclasses.fields(ClientConfig)}
    for name, value in others.items():
        if name == "context":
            assert [named[-1] for named in config.context] == [variable]
        else:
            assert getattr(config, name) == value


@pytest.mark.parametrize("codec", ["xml", "JSON", ""])
def test_an_unknown_codec_is_refused(codec):
    """By the client; the error has the option, its value and the known ones."""
    with pytest.raises(ValueError, match=f"codec={codec!r}: write 'msgpack' or 'json'"):
        gtask.Client("unix:/x", codec=codec)
