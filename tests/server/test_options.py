"""From command line, environment and file to one configuration: who wins, and how a mistake is told."""

from __future__ import annotations

import dataclasses
import math

import pytest

from gtask.address import parse as address
from gtask.server.config import OpenSocket, ServerConfig
from gtask.server.daemon import options

HERE = "unix:/tmp/x.sock"


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    """Nobody else's gtask.conf.py is read."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(*arguments, environment="", file=None, inherited=()):
    """What these say together; the file is gtask.conf.py."""
    if file is not None:
        with open(options.DEFAULT_FILE, "w", encoding="utf-8") as conf:
            conf.write(file)
    return options.parse(arguments, {options.ARGUMENTS: environment} if environment else {}, inherited)


def config(*arguments, **others):
    """The configuration of a server of ``hasher`` at HERE."""
    return told("hasher", "--listen", HERE, *arguments, **others).config


def refusal(*arguments, **others):
    """The message about arguments that make no sense."""
    with pytest.raises(options.BadOptions) as caught:
        told(*arguments, **others)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what is the same wherever it is said --------------------------------------------------------------

SAID = [
    # command line, field, value, file
    ("--name night", "name", "night", "name = 'night'"),
    ("--reload", "reload", True, "reload = True"),
    ("--backlog 5", "backlog", 5, "backlog = 5"),
    ("--socket-mode 660", "socket_mode", 0o660, "socket_mode = 0o660"),
    ("--allow-uid 7 --allow-uid 8", "allow_uid", (7, 8), "allow_uid = [7, 8]"),
    ("--insecure", "insecure", True, "insecure = True"),
    ("--pickle", "pickle", True, "pickle = True"),
    ("--metrics tcp://127.0.0.1:9", "metrics", address("tcp://127.0.0.1:9"), "metrics = 'tcp://127.0.0.1:9'"),
    ("--limit-message 2M", "limit_message", 2 << 20, "limit_message = 2 * 1024 * 1024"),
    ("--limit-shared 0", "limit_shared", 0, "limit_shared = 0"),
    ("--limit-items 5000", "limit_items", 5000, "limit_items = 5_000"),
    ("--limit-strangers 3", "limit_strangers", 3, "limit_strangers = 3"),
    ("--limit-per-uid 3", "limit_per_uid", 3, "limit_per_uid = 3"),
    ("--idle-timeout 60", "idle_timeout", 60.0, "idle_timeout = 60"),
    ("--peer-logs never", "peer_logs", "never", "peer_logs = 'never'"),
    ("--peer-errors text", "peer_errors", "text", "peer_errors = 'text'"),
    ("--peer-context a:B --peer-context c:D", "peer_context", ("a:B", "c:D"), "peer_context = ['a:B', 'c:D']"),
    ("--max-workers 3", "max_workers", 3, "max_workers = 3"),
    ("--limit-memory 500M", "limit_memory", 500 << 20, "limit_memory = '500M'"),
    ("--max-memory 500M", "max_memory", 500 << 20, "max_memory = '500M'"),
    ("--hung-worker-timeout 2.5", "hung_worker_timeout", 2.5, "hung_worker_timeout = 2.5"),
    ("--hung-worker-timeout 0", "hung_worker_timeout", None, "hung_worker_timeout = None"),
    ("--stop-timeout 2", "stop_timeout", 2.0, "stop_timeout = 2"),
    ("--graceful-timeout 60", "graceful_timeout", 60.0, "graceful_timeout = 60.0"),
    ("--greeting-timeout .5", "greeting_timeout", 0.5, "greeting_timeout = 0.5"),
    ("--nice 10", "nice", 10, "nice = 10"),
    ("--no-freeze", "freeze", False, "no_freeze = True"),
    ("--chdir /srv", "chdir", "/srv", "chdir = '/srv'"),
    ("--pythonpath a --pythonpath b", "pythonpath", ("a", "b"), "pythonpath = ('a', 'b')"),
    ("--env A=1 --env B=x=y", "env", {"A": "1", "B": "x=y"}, "env = ['A=1', 'B=x=y']"),
    ("--user nobody", "user", "nobody", "user = 'nobody'"),
    ("--group 100", "group", "100", "group = 100"),
    ("--umask 027", "umask", 0o27, "umask = 0o27"),
    ("--orphan-timeout 9", "orphan_timeout", 9.0, "orphan_timeout = 9"),
    ("--pid /run/x.pid", "pid", "/run/x.pid", "pid = '/run/x.pid'"),
    ("--daemon", "daemon", True, "daemon = True"),
    ("--log-file /tmp/x.log", "log_file", "/tmp/x.log", "log_file = '/tmp/x.log'"),
    ("--log-level debug", "log_level", "debug", "log_level = 'debug'"),
    ("--log-json", "log_json", True, "log_json = True"),
    ("--listen unix:@b", "addresses", (address(HERE), address("unix:@b")), "listen = ['unix:/tmp/x.sock', 'unix:@b']"),
]
BY_LINE = pytest.mark.parametrize(("line", "field", "value", "file"), SAID, ids=[said[0] for said in SAID])


@BY_LINE
def test_on_the_command_line(line, field, value, file):
    """Each option has its field."""
    assert getattr(config(*line.split()), field) == value


@BY_LINE
def test_in_the_environment(line, field, value, file):
    """The environment variable holds arguments as the command line does, the target among them."""
    there = told(environment=f"hasher --listen {HERE} {line}")
    assert getattr(there.config, field) == value
    assert there.target == "hasher"


@BY_LINE
def test_in_the_file(line, field, value, file):
    """The file is Python, and has each option as a variable, the target among them."""
    there = told(file=f"target = 'hasher'\nlisten = {HERE!r}\n{file}\n")
    assert getattr(there.config, field) == value
    assert there.target == "hasher"


def test_every_field_can_be_told():
    """No field of the configuration is without an option, but the one that only gtask itself sets."""
    assert {field for _, field, _, _ in SAID} == {field.name for field in dataclasses.fields(ServerConfig)} - {
        "private"
    }


def test_what_is_not_said_has_its_default():
    """The defaults are those of ServerConfig; the name is the target's."""
    assert config() == ServerConfig((address(HERE),), name="hasher")


def test_what_may_be_called():
    """It is no option of the server, but of the one interface that needs it, which needs it."""
    ready = ("gtask.server.functions", "--listen", HERE)
    assert told(*ready, "--allow", "a.b", "--allow", "c").allow == ("a.b", "c")
    assert told(*ready, environment="--allow a").allow == ("a",)
    assert told(*ready, environment="--allow a", file="allow = ['b', 'c']").allow == ("a",)
    assert told(*ready, file="allow = ['b', 'c']").allow == ("b", "c")
    assert told("hasher", "--listen", HERE, file="").allow == ()
    assert refusal(*ready).startswith("allow=(): gtask.server.functions must know whose functions")
    assert refusal("hasher", "--listen", HERE, "--allow", "a").startswith(
        "allow='a': that is for gtask.server.functions"
    )
    assert refusal("hasher", "--listen", HERE, environment="--allow a").startswith("GTASK_SERVER_ARGS: allow='a': ")
    assert refusal("hasher", "--listen", HERE, file="allow = 'a'").startswith("gtask.conf.py: allow='a': ")


# --- who wins ------------------------------------------------------------------------------------------


def test_the_command_line_wins_over_the_environment_and_that_over_the_file():
    """Each option is taken from the highest source that has it."""
    chosen = config(
        "--backlog", "1", environment="--backlog 2 --nice 2", file="backlog = 3\nnice = 3\nmax_workers = 3\n"
    )
    assert (chosen.backlog, chosen.nice, chosen.max_workers) == (1, 2, 3)


@pytest.mark.parametrize(
    ("line", "field", "low", "high"),
    [
        ("--listen", "addresses", "unix:/a", "unix:/b"),
        ("--allow-uid", "allow_uid", "1", "2"),
        ("--pythonpath", "pythonpath", "a", "b"),
        ("--env", "env", "A=1", "B=2"),
    ],
)
def test_a_list_is_replaced_and_not_appended_to(line, field, low, high):
    """An option that may be given several times is taken whole from the highest source that has it."""
    file = f"target = 'hasher'\nlisten = 'unix:/x'\n{line[2:].replace('-', '_')} = ['{low}']\n"
    over_file = getattr(told(line, high, file=file).config, field)
    over_environment = getattr(told(line, high, environment=f"{line} {low}", file=file).config, field)
    environment_over_file = getattr(told(environment=f"{line} {high}", file=file).config, field)
    alone = getattr(told("hasher", "--listen", high if line == "--listen" else "unix:/x", line, high).config, field)
    assert over_file == over_environment == environment_over_file == alone
    assert len(alone) == 1


def test_the_target_is_taken_from_the_highest_source():
    """So is what is served."""
    file = "target = 'one'\nlisten = 'unix:/x'\n"
    assert told(file=file).target == "one"
    assert told(environment="two", file=file).target == "two"
    assert told("three:x", environment="two", file=file).target == "three:x"


def test_another_file(directory):
    """``--config`` names the file, on the command line or in the environment; the usual one is then not read."""
    (directory / "other.py").write_text("nice = 5\n")
    assert config("--config", "other.py", file="nice = 1\nbacklog = 1\n") == config("--nice", "5", file="")
    assert config(environment="--config other.py").nice == 5
    (directory / "third.py").write_text("nice = 7\n")
    assert config("--config", "third.py", environment="--config other.py").nice == 7


def test_the_file_is_code():
    """Imports, functions, classes and private names are not options, and None leaves the default."""
    file = (
        "import os\nfrom pathlib import Path\n_n = 3\ndef f(): pass\nnice = _n * 2\nname = None\nmax_workers = None\n"
    )
    chosen = config(file=file)
    assert (chosen.nice, chosen.name, chosen.max_workers) == (6, "hasher", None)


def test_false_in_the_file_is_not_saying_it():
    """A switch that is False is off."""
    assert config(file="reload = False\nno_freeze = False\ninsecure = False\n") == config(file="")


def test_quotes_in_the_environment():
    """It is split as a shell would."""
    assert config(environment="--name 'night shift' --env A='1 2'").env == {"A": "1 2"}


def test_check_config_from_anywhere():
    """``--check-config`` is an option as any other."""
    assert told("hasher", "--listen", HERE, "--check-config").check
    assert told("hasher", "--listen", HERE, environment="--check-config").check
    assert not told("hasher", "--listen", HERE).check


@pytest.mark.parametrize(
    "order", [["hasher", "--listen", HERE, "--nice", "1"], ["--nice", "1", "hasher", "--listen", HERE],
              ["--nice", "1", "--listen", HERE, "hasher"]]
)  # fmt: skip
def test_the_target_may_stand_anywhere(order):
    """Before, between and after the options."""
    assert told(*order).target == "hasher"


def test_inherited_sockets_make_listen_unnecessary():
    """What the service manager has handed over comes first; the same address twice is one."""
    assert told("hasher", inherited=[address("unix:/a")]).config.addresses == (address("unix:/a"),)
    both = told("hasher", "--listen", "unix:/b", "--listen", "unix:/a", inherited=[address("unix:/a")])
    assert both.config.addresses == (address("unix:/a"), address("unix:/b"))


def test_an_open_socket():
    """``fd:N`` stands for a socket that is open already."""
    assert told("hasher", "--listen", "fd:3").config.addresses == (OpenSocket(3),)


def test_the_log_file_stays_where_it_is(directory):
    """Its path is made absolute, for the working directory may change before it is opened anew."""
    assert config("--log-file", "x.log", "--chdir", "/").log_file == str(directory / "x.log")


def test_completion():
    """``--print-completion`` is answered before anything else is looked at, the file above all."""
    with pytest.raises(options.Completion, match="zsh"):
        told("--print-completion", "zsh", file="1 / 0")
    with pytest.raises(options.Completion, match="fish"):
        told(environment="--print-completion fish")


# --- values --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        ("1048576", 1 << 20), ("1024K", 1 << 20), ("1024k", 1 << 20), ("1M", 1 << 20), ("1.5G", 3 << 29),
        ("1e7", 10**7),
    ],
)  # fmt: skip
def test_sizes(text, bytes_):
    """Bytes, or K, M and G of them."""
    assert config("--max-memory", text).max_memory == bytes_


@pytest.mark.parametrize("text", ["600", "0600", "0o600"])
def test_permissions(text):
    """They are octal, however they are written."""
    assert config("--socket-mode", text, "--umask", text) == config("--socket-mode", "600", "--umask", "600")
    assert config("--umask", text).umask == 0o600


@pytest.mark.parametrize("value", ["0o640", "'640'"])
def test_permissions_in_the_file(value):
    """A number is taken for what it is, a text as on the command line."""
    chosen = config(file=f"umask = {value}\nsocket_mode = {value}\n")
    assert (chosen.umask, chosen.socket_mode) == (0o640, 0o640)


def test_seconds():
    """Whole, broken or endless; 0 is no limit where there may be none."""
    assert config("--stop-timeout", "1e-1").stop_timeout == 0.1
    assert config("--graceful-timeout", "inf").graceful_timeout == math.inf
    assert config("--hung-worker-timeout", "0").hung_worker_timeout is None
    assert config(file="hung_worker_timeout = 0\n").hung_worker_timeout is None


# --- mistakes ------------------------------------------------------------------------------------------

MISTAKES = [
    # what is said, the same in a file, what the message has
    (["--nice", "very"], "nice = 'very'", "--nice: 'very': write a whole number"),
    (["--nice", "20"], "nice = 20", "nice=20: write a number from 0 to 19"),
    (["--stop-timeout", "soon"], "stop_timeout = 'soon'", "--stop-timeout: 'soon': write a number of seconds"),
    (["--stop-timeout", "0"], "stop_timeout = 0", "stop_timeout=0.0: write a number of seconds over 0"),
    (["--max-memory", "much"], "max_memory = 'much'", "--max-memory: 'much': write a number of bytes, such as 500M"),
    (["--max-memory", "infG"], "max_memory = 'infG'", "--max-memory: 'infG': write a number of bytes"),
    (["--max-memory", "5"], "max_memory = 5", "max_memory=5: write a number of at least 1048576"),
    (["--max-workers", "0"], "max_workers = 0", "max_workers=0: write a number of at least 1"),
    (["--socket-mode", "888"], "socket_mode = '888'", "--socket-mode: '888': write permissions in octal"),
    (["--umask", "7777"], "umask = 0o7777", "umask=0o7777: write permissions such as 0o600"),
    (["--env", "A"], "env = ['A']", "--env: 'A': write NAME=VALUE"),
    (["--env", "=A"], "env = '=A'", "--env: '=A': write NAME=VALUE"),
    (["--listen", "x.sock"], "listen = 'x.sock'", "--listen: 'x.sock' is no address: write unix:/path/to/the.sock"),
    (["--listen", "fd:x"], "listen = 'fd:x'", "--listen: 'x': write a whole number"),
    (["--listen", "tcp://0.0.0.0:1"], "listen = 'tcp://0.0.0.0:1'", "tcp://0.0.0.0:1: other machines could connect"),
    (["--log-level", "loud"], "log_level = 'loud'", "--log-level: invalid choice: 'loud' (choose from "),
    (["--daemon=yes"], "daemon = 'yes'", "--daemon: it takes no value, not 'yes'"),
    (["--max-worker", "3"], "max_worker = 3", "unknown option --max-worker; did you mean --max-workers?"),
    (["--grateful-timeout=3"], "grateful_timeout = 3", "--grateful-timeout; did you mean --graceful-timeout?"),
    (["--zzz"], "zzz = 1", "unknown option --zzz; --help lists all"),
]
BY_MISTAKE = pytest.mark.parametrize(
    ("arguments", "file", "message"), MISTAKES, ids=[" ".join(mistake[0]) for mistake in MISTAKES]
)
ENOUGH = f"target = 'hasher'\nlisten = '{HERE}'\n"


@BY_MISTAKE
def test_a_mistake_on_the_command_line(arguments, file, message):
    """The option is named, with its value and what is allowed."""
    said = refusal(*arguments, file=ENOUGH)
    assert message in said
    assert not said.startswith(("gtask.conf.py", "GTASK_SERVER_ARGS"))


@BY_MISTAKE
def test_a_mistake_in_the_environment(arguments, file, message):
    """The same, with the variable's name in front."""
    said = refusal(environment=" ".join(arguments), file=ENOUGH)
    assert said.startswith("GTASK_SERVER_ARGS: ")
    assert message in said


@BY_MISTAKE
def test_a_mistake_in_the_file(arguments, file, message):
    """The same, with the file's name in front."""
    said = refusal(file=ENOUGH + file)
    assert said.startswith("gtask.conf.py: ")
    assert message in said


def test_a_mistake_that_is_overruled():
    """What the command line replaces is not looked at for its range, but must be well written all the same."""
    assert config("--nice", "1", file="nice = 50\n").nice == 1
    assert refusal("hasher", "--listen", HERE, "--nice", "1", file="nice = 'x'\n").startswith("gtask.conf.py: --nice")


def test_nothing_to_serve():
    """The target and an address must be told, and the message says how."""
    assert "MODULE:ATTRIBUTE" in refusal("--listen", HERE)
    assert "--listen unix:/path" in refusal("hasher")


def test_two_targets():
    """Only one thing is served."""
    assert refusal("one", "two", "--listen", HERE).startswith("unexpected argument 'two': write one MODULE")


def test_abbreviations_are_not_guessed():
    """An option is written in full, for tomorrow there may be another that begins so."""
    assert "unknown option --back" in refusal("hasher", "--listen", HERE, "--back", "3")


def test_a_missing_value():
    """The option is named."""
    assert refusal("hasher", "--listen").startswith("--listen: expected one argument")


def test_an_unclosed_quote():
    """The variable is shown."""
    assert refusal(environment="--name 'night").startswith('GTASK_SERVER_ARGS="--name \'night": No closing quot')


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("1 / 0\n", "the configuration 'gtask.conf.py' raised ZeroDivisionError: division by zero"),
        ("nice =\n", "the configuration 'gtask.conf.py' raised SyntaxError: "),
        ("import no_such_thing\n", "raised ModuleNotFoundError: No module named 'no_such_thing'"),
        ("env = {'A': 'b'}\n", "gtask.conf.py: env={'A': 'b'}: write a list of 'NAME=VALUE'"),
        ("config = 'x'\n", "gtask.conf.py: config='x': only for the command line"),
        ("help = True\n", "gtask.conf.py: help=True: only for the command line"),
        ("version = '2'\n", "gtask.conf.py: version='2': only for the command line"),
        ("print_completion = 'zsh'\n", "gtask.conf.py: print_completion='zsh': only for the command line"),
    ],
)
def test_a_file_that_makes_no_sense(source, message):
    """It is named, with what is wrong in it."""
    assert message in refusal("hasher", "--listen", HERE, file=source)


def test_a_file_that_is_not_there():
    """One that was asked for must be; the usual one need not."""
    assert refusal("--config", "no.py") == "the configuration 'no.py' cannot be read: No such file or directory"
    assert config().nice == 0


def test_every_option_tells_what_it_is_for():
    """None is without its help, and all but ``--help`` itself are in a group of their own."""
    parser = options.parser()
    assert [action.dest for action in parser._actions if not action.help] == []
    groups = {group.title: [action.dest for action in group._group_actions] for group in parser._action_groups}
    assert (groups.pop("positional arguments"), groups.pop("options")) == (["target"], ["help"])
    assert list(groups) == ["what and how", "sockets", "workers", "process", "log"]
