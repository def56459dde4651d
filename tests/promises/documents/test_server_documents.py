"""The point of this test is to ensure that docs/server.rst and docs/deploy.rst tell what there is, and all of it."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import gtask
from gtask.server.config import SIGNALS, ServerConfig
from gtask.server.daemon import options
from gtask.tool import cli as tool
from tests.support.daemon import COMMAND
from tests.support.documents import named_blocks
from tests.support.process import environment

ROOT = Path(gtask.__file__).parents[1]
DOCS = ROOT / "docs"
SERVER = (DOCS / "server.rst").read_text(encoding="utf-8")
DEPLOY = (DOCS / "deploy.rst").read_text(encoding="utf-8")
NAMES = ("server", "signals", "deploy")
DEFAULTS = ServerConfig((gtask.address.parse("unix:x"),))


def described():
    """Each option of docs/server.rst: how it is written, and its text."""
    found = re.findall(r"^``(--[\w-]+)((?: [A-Z=]+)?)``\n((?:    .*\n|\n(?=    ))+)", SERVER, re.MULTILINE)
    return {name: (value.strip(), " ".join(text.split())) for name, value, text in found}


def test_every_option_is_described():
    """And no other; with the same name for its value, in the same groups and the same order as in --help."""
    groups = [
        group for group in options.parser()._action_groups if group.title not in ("positional arguments", "options")
    ]
    actions = [action for group in groups for action in group._group_actions]
    there = {action.option_strings[-1]: action.metavar or "" for action in actions} | {"--help": ""}
    assert {name: value for name, (value, _) in described().items()} == there
    headings = re.findall(r"^(\w[\w ]*)\n~+$", SERVER, re.MULTILINE)
    assert [heading.lower() for heading in headings] == [group.title for group in groups]
    assert [name for name in described() if name != "--help"] == [action.option_strings[-1] for action in actions]


def test_defaults_are_those_of_the_code():
    """Where one is told."""
    told = {name: re.search(r"Default: ([\w.]*\w)", text) for name, (_, text) in described().items()}
    numbers = {name: found[1] for name, found in told.items() if found and found[1][0].isdigit()}
    assert {"--backlog", "--hung-worker-timeout", "--limit-message", "--socket-mode"} <= set(numbers)
    for name, default in numbers.items():
        actual = getattr(DEFAULTS, name[2:].replace("-", "_"))
        assert default == (f"{actual:o}" if name == "--socket-mode" else f"{actual:.10g}"), name
    assert told["--log-level"][1] == DEFAULTS.log_level
    assert {name for name, found in told.items() if found and found[1] == "no"} == {
        "--idle-timeout",
        "--limit-memory",
        "--max-memory",
        "--limit-per-uid",
    }
    assert (DEFAULTS.idle_timeout, DEFAULTS.limit_memory, DEFAULTS.max_memory, DEFAULTS.limit_per_uid) == (None,) * 4
    assert told["--max-workers"][1] == "what"
    assert DEFAULTS.max_workers is None


def test_what_is_not_for_a_file_is_told():
    """Those options say so, and no other."""
    told = {name[2:].replace("-", "_") for name, (_, text) in described().items() if "Not in a file." in text}
    assert told == options._NOT_IN_FILE


def test_the_file_of_the_document_is_one(operator, monkeypatch):
    """It is read as it stands, and means what it says."""
    monkeypatch.chdir(operator.directory)
    operator.write("gtask.conf.py", named_blocks(SERVER)["gtask.conf.py"])
    asked = options.parse([], {})
    assert asked.target == "hasher"
    assert asked.config.max_memory == 500 << 20
    assert asked.config.socket_mode == 0o660
    assert asked.config.env == {"TZ": "UTC"}
    assert len(asked.config.addresses) == 2


def test_the_commands_of_the_documents_are_understood(monkeypatch):
    """Each gtask-server and gtask that is shown has options that exist."""
    commands = [line for document in (SERVER, DEPLOY) for line in re.findall(r"^    \$ (.*gtask.*)$", document, re.M)]
    for line in commands:
        words = shlex.split(line)
        environ = dict([words.pop(0).split("=", 1)]) if "=" in words[0] else {}
        if words[0] == "gtask-server":
            assert options.parse(words[1:], environ).target
        elif words[0] == "gtask":
            assert tool.parser().parse_args(words[1:])
    assert len(commands) >= 6
    commands = re.findall(r"(?:command=|ExecStart=)\S*gtask-server (.*)$", DEPLOY, re.MULTILINE)
    assert len(commands) == 2
    for arguments in commands:
        assert options.parse(shlex.split(arguments), {}, [gtask.address.parse("unix:handed-over")])


def test_exit_statuses_and_environment_are_all_there():
    """The table has the three, and each variable that the code reads is told."""
    table = SERVER.partition("\nExit status\n")[2].partition("\nFiles\n")[0]
    assert re.findall(r"^(\d) ", table, re.MULTILINE) == ["0", "1", "2"]
    told = SERVER.partition("\nEnvironment\n")[2].partition("\nsystemd\n")[0]
    read = set()
    for path in (ROOT / "gtask" / "server").rglob("*.py"):
        read |= set(re.findall(r'"((?:[A-Z]+_)+[A-Z]+)"', path.read_text(encoding="utf-8")))
    assert options.ARGUMENTS in read
    assert (
        read - {"SC_PAGE_SIZE", "DEFAULT_FILE", "METHOD_BYTES", "IN_A_ROW"} - set(re.findall(r"``([A-Z_]+)``", told))
        == set()
    )


def test_every_signal_is_told():
    """Also on the manual page, in short."""
    section = SERVER.partition("\nSignals\n")[2].partition("\nExit status\n")[0]
    assert set(re.findall(r"\b([A-Z]{2,}\d?)\b", section)) == {number.name.removeprefix("SIG") for number in SIGNALS}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    """Each link of the three pages is a file, and the README leads to them."""
    text = (DOCS / f"{name}.rst").read_text(encoding="utf-8")
    links = re.findall(r"`[^`<]+\s<([^>]+)>`_", text)
    assert links
    assert [link for link in links if not (DOCS / link).exists()] == []
    assert f"<docs/{name}.rst>" in (ROOT / "README.rst").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["server", "signals", "deploy"])
def test_lines_are_as_long_as_elsewhere(name):
    """No line is longer than 120 characters."""
    lines = (DOCS / f"{name}.rst").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > 120] == []


# --- what can be copied --------------------------------------------------------------------------------


def units():
    """The sample units, parsed."""
    found = {}
    for kind in ("service", "socket"):
        found[kind] = configparser.ConfigParser(interpolation=None, delimiters="=")
        found[kind].optionxform = str
        found[kind].read(DOCS / "examples" / f"gtask.{kind}")
    return found["service"], found["socket"]


@pytest.mark.parametrize("name", ["gtask.service", "gtask.socket"])
def test_the_units_are_those_of_the_document(name):
    """They stand in docs/examples as they are shown, to be copied from there."""
    assert (DOCS / "examples" / name).read_text(encoding="utf-8") == named_blocks(DEPLOY)[name]


def test_the_service_fits_the_daemon():
    """It waits for READY, reloads by HUP, asks the keeper alone to stop, and does not kill before the drain is over."""
    service = units()[0]["Service"]
    assert service["Type"] == "notify"
    assert service["ExecReload"].split()[1:] == ["-HUP", "$MAINPID"]
    assert service["KillMode"] == "mixed"
    asked = options.parse(shlex.split(service["ExecStart"])[1:], {}, [gtask.address.parse("unix:handed-over")])
    assert float(service["TimeoutStopSec"]) > asked.config.graceful_timeout + asked.config.stop_timeout
    assert not asked.config.daemon
    assert not asked.config.pid


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze")
def test_systemd_accepts_the_units(tmp_path):
    """Its own check finds nothing to say, once their program and user exist."""
    for kind in ("service", "socket"):
        text = (DOCS / "examples" / f"gtask.{kind}").read_text(encoding="utf-8")
        text = re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", text)
        text = re.sub(r"^(User|SocketUser|SocketGroup)=.*$", r"\1=root", text, flags=re.MULTILINE)
        (tmp_path / f"gtask.{kind}").write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "gtask.service"), str(tmp_path / "gtask.socket")],
        capture_output=True, text=True, timeout=30, env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
    )  # fmt: skip
    assert [line for line in done.stderr.splitlines() if "gtask." in line] == []


def test_the_container_runs_it_as_the_first_process():
    """CMD is a list, so that no shell stands between the signals and the keeper; its arguments exist."""
    (line,) = re.findall(r"^CMD (.*)$", named_blocks(DEPLOY)["Dockerfile"], re.MULTILINE)
    words = re.findall(r'"([^"]*)"', line)
    assert line == "[" + ", ".join(f'"{word}"' for word in words) + "]"
    assert words[0] == "gtask-server"
    assert options.parse(words[1:], {}).target == "hasher"


def test_the_container_has_what_it_needs(tmp_path):
    """What is copied into it is made by the page's command or stands in the README; the socket's directory is its
    user's; and hasher.py needs nothing that is not installed."""
    lines = [line.split(maxsplit=1) for line in named_blocks(DEPLOY)["Dockerfile"].splitlines()]
    copied = {rest.split()[0] for kind, rest in lines if kind == "COPY"}
    assert copied == {"gtask-*.whl", "hasher.py"}
    assert "$ pip wheel --no-deps --wheel-dir . /path/to/gtask\n" in DEPLOY
    (user,) = (rest for kind, rest in lines if kind == "USER")
    before = [rest for kind, rest in lines[: lines.index(["USER", user])] if kind == "RUN"]
    assert "pip install /tmp/gtask-*.whl setproctitle" in before
    listens = next(rest for kind, rest in lines if kind == "CMD").partition("unix:")[2].partition('"')[0]
    assert any(f"useradd {user}" in run and f"install -d -o {user} {os.path.dirname(listens)}" in run for run in before)
    shutil.copy(DOCS / "examples" / "hasher.py", tmp_path)
    done = subprocess.run(
        [*COMMAND, "hasher", "--check-config", "--listen", f"unix:{tmp_path}/sock"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_web_application_calls(shared, connect, monkeypatch):
    """The example beside gunicorn does what it says, whatever WSGI server runs it."""
    server = shared("def hash(password):\n    return 'crypted ' + password\n")
    source = named_blocks(DEPLOY)["web.py"]
    assert source.count("unix:/run/hasher/hasher.sock") == 1
    namespace = {}
    code = source.replace("unix:/run/hasher/hasher.sock", str(server.address))
    exec(compile(code, "web.py", "exec"), namespace)
    started = []
    try:
        body = namespace["application"]({"QUERY_STRING": "s3cret"}, lambda *head: started.append(head))
    finally:
        namespace["hasher"].close()
    assert (started[0][0], body) == ("200 OK", [b"crypted s3cret"])
