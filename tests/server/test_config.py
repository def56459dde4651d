"""The options of a server: what makes no sense is refused with the option's name and what is allowed."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from pathlib import Path
from typing import get_type_hints

import pytest

import gtask
from gtask.address import parse
from gtask.server.config import DEFAULTS, OPTIONS, OpenSocket, ServerConfig, ServerOptions
from gtask.server.embed import HOOKS, EmbeddedOptions, Server, fork_server
from gtask.server.option import Kind

HERE = (parse("unix:/tmp/x.sock"),)


def test_defaults():
    """A unix socket is for its user alone unless told otherwise."""
    config = ServerConfig(HERE)
    assert config.socket_mode == 0o600
    assert config.limit_message == 64 * 1024 * 1024
    assert not config.private
    assert not config.insecure
    assert (config.hung_worker_timeout, config.stop_timeout, config.graceful_timeout) == (300, 5, 30)
    assert (config.max_workers, config.max_memory, config.umask) == (None, None, None)
    assert (config.nice, config.freeze, config.log_level) == (0, True, "info")


def test_it_needs_an_address():
    """A server that listens nowhere is refused, with how to write an address."""
    with pytest.raises(ValueError, match="needs an address to listen at: write unix:/path"):
        ServerConfig(())


@pytest.mark.parametrize(
    "options",
    [
        {"backlog": 1}, {"limit_message": 1024}, {"stop_timeout": 0.1}, {"stop_timeout": math.inf},
        {"greeting_timeout": 0.1}, {"socket_mode": 0}, {"socket_mode": 0o777}, {"private": True},
        {"graceful_timeout": 0.1}, {"graceful_timeout": math.inf}, {"hung_worker_timeout": None},
        {"hung_worker_timeout": math.inf}, {"max_workers": 1}, {"max_workers": None}, {"max_memory": 1 << 20},
        {"max_memory": None}, {"nice": 0}, {"nice": 19}, {"umask": 0}, {"umask": 0o777}, {"umask": None},
        {"log_level": "debug"}, {"log_level": "info"}, {"log_level": "warning"}, {"log_level": "error"},
        {"allow_uid": (0, 1000)}, {"env": {"A": "1"}}, {"pythonpath": ("a", "b")},
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
        ("socket_mode", 0o1000), ("socket_mode", 0o4600), ("graceful_timeout", 0), ("graceful_timeout", math.nan),
        ("hung_worker_timeout", 0), ("hung_worker_timeout", -1), ("hung_worker_timeout", math.nan), ("max_workers", 0),
        ("max_memory", (1 << 20) - 1), ("nice", -1), ("nice", 20), ("umask", -1), ("umask", 0o1000),
        ("log_level", "loud"), ("log_level", "INFO"),
    ],
    ids=repr,
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_name(option, value):
    """A ValueError that shows the option with its value and says what to write."""
    with pytest.raises(ValueError, match=rf"^{option}=.*: write ") as caught:
        ServerConfig(HERE, **{option: value})
    assert (oct(value) if option in ("socket_mode", "umask") else repr(value)) in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "127.1", "localhost", "[::1]"])
def test_only_this_machine_may_connect(host):
    """TCP is for the loopback interface."""
    assert ServerConfig((parse(f"tcp://{host}:80"),))


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "[::]", "10.0.0.1", "example.org", "127.example.org", "127.0.0.1.example.org", "localhost.org"]
)
def test_other_machines_may_connect_only_if_that_is_said(host):
    """Anything else is refused, whatever it looks like, with what to write; unless it is said to be insecure."""
    where = (parse(f"tcp://{host}:80"),)
    with pytest.raises(ValueError, match=r"^tcp://.*: other machines could connect.*--insecure"):
        ServerConfig(where)
    with pytest.raises(ValueError, match="other machines"):
        ServerConfig((*HERE, *where))
    assert ServerConfig(where, insecure=True).addresses == where


def test_metrics_where_other_machines_can_look():
    """The same holds for the metrics."""
    where = parse("tcp://0.0.0.0:9000")
    with pytest.raises(ValueError, match=r"^metrics=tcp://0\.0\.0\.0:9000: other machines.*--insecure"):
        ServerConfig(HERE, metrics=where)
    assert ServerConfig(HERE, metrics=where, insecure=True).metrics == where
    assert ServerConfig(HERE, metrics=parse("unix:@metrics")).metrics == parse("unix:@metrics")


def test_metrics_have_an_address_of_their_own():
    """Clients connect elsewhere; but two ports that the kernel chooses are two."""
    with pytest.raises(ValueError, match=r"^metrics=.*that is where clients connect"):
        ServerConfig(HERE, metrics=HERE[0])
    any_port = parse("tcp://127.0.0.1:0")
    assert ServerConfig((any_port,), metrics=any_port).metrics == any_port


def test_an_open_socket_has_no_address_yet():
    """It is shown as it is written."""
    config = ServerConfig((OpenSocket(3),))
    assert str(config.addresses[0]) == "fd:3"


def test_it_is_frozen():
    """Nobody changes the options of a server that runs."""
    config = ServerConfig(HERE)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.backlog = 1


# --- one fact in one place -------------------------------------------------------------------------------

EMBEDDED = [name for name, option in OPTIONS.items() if option.group in ("sockets", "workers") and name != "addresses"]
"""The options of a server that a program embeds, beside its name and its hooks."""


def test_every_field_carries_its_option():
    """With a sentence; with a word for its value, unless it is a switch; and with a check that accepts the default."""
    assert set(OPTIONS) == {field.name for field in dataclasses.fields(ServerConfig)}
    for name, option in OPTIONS.items():
        assert option.sentence, name
        assert bool(option.metavar) == (option.kind is not Kind.SWITCH), name
        assert option.group or name == "private"
    assert dataclasses.replace(DEFAULTS, name="x").name == "x"


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.kind is not Kind.TEXT])
def test_a_value_of_another_type_is_refused(name):
    """By the option's name; a list of whatever is checked where its parts are used."""
    if OPTIONS[name].several or OPTIONS[name].kind is Kind.ADDRESS:
        return
    with pytest.raises(TypeError, match=rf"^{name}=\[\]: write "):
        ServerConfig(HERE, **{name: []})


def test_type_checkers_see_the_same_options():
    """The typed keywords of gtask.Server and gtask.fork_server are the fields, with their types."""
    hints = get_type_hints(ServerConfig)
    seen = get_type_hints(ServerOptions)
    assert set(seen) == {"name", *EMBEDDED}
    assert seen.pop("metrics") == str | hints["metrics"]  # which may be written as text
    assert seen == {name: hints[name] for name in seen}
    assert set(get_type_hints(EmbeddedOptions)) - set(get_type_hints(ServerOptions)) == set(HOOKS)
    for function in (Server.__init__, fork_server):
        assert inspect.signature(function).parameters["options"].annotation == "Unpack[EmbeddedOptions]"


def test_the_docstring_names_every_option_and_its_default():
    """In the order of the fields."""
    text = inspect.getdoc(Server)
    told = dict(re.findall(r"^ {8}(\w+): ((?:.*\n)(?: {12}.*\n)*)", text, re.MULTILINE))
    assert list(told) == ["name", *EMBEDDED]
    for name in EMBEDDED:
        (default,) = re.findall(r"[Dd]efault\s+([\w()]+)", told[name])
        value = getattr(DEFAULTS, name)
        assert default == (f"{value:#o}" if OPTIONS[name].kind is Kind.MODE else OPTIONS[name].written(value)), name


WRONG = """
import gtask

gtask.Server("unix:x", len, backlog=5, metrics="tcp://127.0.0.1:1", setup=lambda: 1, max_workers=None)
gtask.fork_server(len, max_workers=3, name="x", pickle=True).stop()
gtask.Server("unix:x", len, backlog="5")
gtask.Server("unix:x", len, chdir="/")
gtask.fork_server(len, nice=1.5)
gtask.fork_server(len, stop_time=1)
gtask.spawn_server("json", pickle=1)
"""


def test_a_type_checker_sees_wrong_options(tmp_path):
    """Each wrong line is found, and no other."""
    api = pytest.importorskip("mypy.api")
    root = Path(gtask.__file__).parents[1]
    (tmp_path / "program.py").write_text(WRONG)
    settings = ["--config-file", str(root / "setup.cfg"), "--cache-dir", str(root / ".mypy_cache")]
    out, err, _ = api.run([*settings, str(tmp_path / "program.py")])
    assert err == ""
    assert sorted(int(line) for line in re.findall(r"program\.py:(\d+): error", out)) == [6, 7, 8, 9, 10], out
