"""The point of this test is to ensure that the README and docs/failures.rst do not lie: what they show is what happens.

The README's two synopses are run as a reader would: the modules are written into a folder, the server is started there
by the command of the README, and the programs are run beside it. Each error message of docs/failures.rst is produced by
the module that stands there, on a real server.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import pickle
import re
import shlex
import subprocess
import sys
import textwrap
import traceback
from importlib.util import find_spec
from pathlib import Path

import gevent
import pytest

import gtask
from gtask import errors
from gtask.client import overtime
from gtask.client.config import ClientConfig
from gtask.server.config import ServerConfig
from gtask.server.master import children
from tests.support.documents import named_blocks
from tests.support.program import run_program
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.rst").read_text(encoding="utf-8")
FAILURES = (ROOT / "docs" / "failures.rst").read_text(encoding="utf-8")


BLOCKS = named_blocks(README)
FAILURE_BLOCKS = named_blocks(FAILURES)
REPORTS = FAILURE_BLOCKS["reports.py"].partition("\n")[2]  # whose first line the fixture serve puts there anew
MESSAGES = {name: " ".join(text.split()) for name, text in FAILURE_BLOCKS.items() if not name.endswith(".py")}
COMMANDS = re.findall(r"^    \$ (.+)$", README, re.MULTILINE)
SECTIONS = [
    "gtask",
    "Two commands",
    "Install",
    "Hash passwords",
    "A transaction",
    "When to use it, and when not",
    "Concepts",
    "Compared with",
    "Read on",
]

PATH = os.pathsep.join([str(Path(sys.executable).parent), str(ROOT / "bin"), os.environ.get("PATH", os.defpath)])
PYTHONPATH = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
ENVIRONMENT = {**os.environ, "PATH": PATH, "PYTHONPATH": PYTHONPATH}


@pytest.fixture
def run_command(tmp_path):
    """``run_command(line)`` starts a program in the test's folder; at the end it is asked to stop, and must."""
    processes = []

    def start(line):
        process = subprocess.Popen(shlex.split(line), cwd=tmp_path, env=ENVIRONMENT)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("server", "program", "first_call"),
    [("hasher", "sign_in", ("hash", "x")), ("bank", "transfer", ("execute", "SELECT 1"))],
)
def test_synopsis_runs(server, program, first_call, run_command, connect, tmp_path):
    """A synopsis, typed in as it stands, prints what the README says."""
    for name in (f"{server}.py", f"{program}.py"):
        (tmp_path / name).write_text(BLOCKS[name], encoding="utf-8")
    (command,) = (line for line in COMMANDS if line.startswith(f"gtask-server {server}"))
    run_command(command)
    connect(f"unix:{tmp_path}/{server}.sock", timeout=30).call(*first_call)  # waits for the server
    ran = run_program(f"{program}.py", directory=tmp_path, options=())
    assert (ran.stdout, ran.stderr) == (BLOCKS[f"{program}.out"], "")


def test_examples_are_those_of_the_readme():
    """The programs of the README are in docs/examples as they stand, to be copied from there."""
    shown = {name: text for name, text in BLOCKS.items() if name.endswith(".py")}
    assert set(shown) == {"hasher.py", "sign_in.py", "bank.py", "transfer.py"}
    assert {name: (ROOT / "docs/examples" / name).read_text(encoding="utf-8") for name in shown} == shown


def test_sections_are_in_order():
    """What it is comes first, then the commands, the synopses, when to use it, the concepts, the comparison, links."""
    assert re.findall(r"^(\S.*)\n(?:=+|-+)$", README, re.MULTILINE) == SECTIONS


def test_commands_and_links_lead_somewhere():
    """The two commands, and each link, are files of this project; test_newcomer.py types in the other commands."""
    commands = {line for line in COMMANDS if line.startswith("bin/")}
    assert commands == {"bin/demo", "bin/test"}
    assert {name for name in commands if not os.access(ROOT / name, os.X_OK)} == set()
    links = re.findall(r"`[^`<]+\s<([^>]+)>`_", README)
    assert len(links) == 24
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_names_and_numbers_are_those_of_the_code():
    """Every ``gtask.name`` of the README exists, and the defaults that it tells are the client's."""
    names = set(re.findall(r"\bgtask\.([A-Za-z_]+)", README))
    assert {"Client", "Server", "fork_server", "spawn_server", "RemoteError", "Error"} <= names
    assert [name for name in names if not hasattr(gtask, name) and find_spec(f"gtask.{name}") is None] == []
    assert all(name in README and hasattr(gtask, name) for name in ("CallTimeout", "WorkerDied", "Cancelled"))
    options = inspect.signature(gtask.Client).parameters
    told = dict(re.findall(r"``(m\w+_workers)`` \((\d+)\)", README))
    hung = re.search(r"``hung_worker_timeout`` \((\d+) seconds\)", README)[1]
    assert hung == f"{ServerConfig((gtask.address.parse('unix:x'),)).hung_worker_timeout:g}"
    assert told == {name: str(options[name].default) for name in ("min_workers", "max_workers")}
    assert f"A call has {options['timeout'].default:g} seconds" in " ".join(README.split())


# --- docs/failures.rst ---------------------------------------------------------------------------------


def plain(text, address="unix:/run/reports.sock"):
    """A message without what differs each time: process ids, times, sizes, and where the server is."""
    text = " ".join(text.replace(str(address), "unix:/run/reports.sock").split())
    for varies in (
        r"(?<=worker )\d+",
        r"(?<=process )\d+",
        r"(?<=process, )\d+",
        r"(?<=thread )\d+",
        r"[\d.e-]+(?= s after)",
        r"(?<=after )[\d.]+(?= s (in|\())",
        r"(?<=used )\d+(?= MiB)",
        r"(?<=the first for )[\d.e-]+(?= s[ ;])",
        r"(?<=unreachable since )[\d.]+(?= s:)",
    ):
        text = re.sub(varies, "N", text)
    return text


@pytest.fixture
def tells(serve, connect):
    """``tells(name, function, source=..., arguments=(), **options)`` checks that an error is as the document says.

    The function gets a client of a server of the document's module. The error is given back.
    """

    def check(name, function, *arguments, source=REPORTS, **options):
        server = serve(source, "--name", "reports", *arguments)
        client = connect(server, **{"name": "web", "max_workers": 1, **options})
        with contextlib.suppress(gtask.SetupError):
            connect(server, timeout=30).call("total", "january")  # the server is there
        with pytest.raises((gtask.Error, gtask.RemoteError)) as caught:
            function(client)
        error = caught.value
        assert isinstance(error, getattr(gtask, name.partition("-")[0]))
        shown = f"{type(error).__qualname__}: {error}"
        if type(error).__module__ == "gtask.errors":
            shown = f"gtask.{shown}"
        assert plain(shown, server.address) == plain(MESSAGES[name])
        return error

    return check


def test_what_the_worker_raised(tells):
    """An exception of the worker's code arrives as itself."""
    error = tells("RemoteError", lambda client: client.call("total", "march"))
    assert isinstance(error, KeyError)


def test_failed_setup(tells):
    """What setup raised, too."""
    source = """
        def setup():
            raise OSError("no disk")

        def total(month):
            pass
    """
    error = tells("SetupError", lambda client: client.call("total", "march"), source=source)
    assert isinstance(error, OSError)


def test_call_timeout_of_python_code(tells):
    """A call that can be interrupted shows the line that the document shows."""
    error = tells("CallTimeout", lambda client: client.call("render", "march"), timeout=1)
    shown = traceback.format_exception(error)[-2]
    where, line = re.search(r'^    File "reports.py", (line .*)\n      (.*)$', FAILURES, re.MULTILINE).groups()
    assert shown.split("\n")[0].endswith(where)
    assert shown.split("\n")[1].strip() == line
    assert error.stacks == ""


def test_call_timeout_of_c_code(tells):
    """A call that cannot be interrupted has faulthandler's stacks, in a note, as the document shows."""
    source = REPORTS.replace("def render(", "def _(").replace("def count(", "def render(_=None, ")
    error = tells("CallTimeout", lambda client: client.call("render"), source=source, timeout=1)
    (note,) = error.__notes__
    shown = textwrap.dedent(re.search(r"^    Where the worker was:\n(?:    .*\n|\n)+", FAILURES, re.MULTILINE)[0])
    first, second, _, thread, line = shown.rstrip().split("\n")
    assert note.startswith(f"{first}\n{second}\n")
    assert re.sub("0x[0-9a-f]+", "", thread) in re.sub("0x[0-9a-f]+", "", note)
    assert line.partition(",")[2].replace("count", "render") in note
    assert error.stacks in note


def test_call_timeout_of_the_server(tells):
    """A call over the server's own limit is stopped by the server."""
    tells("CallTimeout-of-the-server", lambda client: client.call("render", "march"), "--hung-worker-timeout", "0.5")


def test_acquire_timeout(tells, connect, tmp_path):
    """Without a worker in time the message tells whether all are busy or there is no server."""

    def one_too_many(client):
        held = client.checkout()
        held.total("january")
        try:
            client.call("total", "january")
        finally:
            held.release()

    tells("AcquireTimeout", one_too_many, timeout=1)
    nobody = f"unix:{tmp_path}/nobody.sock"
    client = connect(nobody, name="web", min_workers=2, timeout=1)
    with pytest.raises(gtask.AcquireTimeout) as caught:
        client.call("total", "january")
    assert plain(f"gtask.AcquireTimeout: {caught.value}", nobody) == plain(MESSAGES["AcquireTimeout-unreachable"])
    with pytest.raises(gtask.AcquireTimeout) as caught:
        client.open(wait=True, timeout=1)
    assert plain(f"gtask.AcquireTimeout: {caught.value}", nobody) == plain(MESSAGES["AcquireTimeout-open"])


def test_worker_died(tells):
    """Last words tell the signal or the status; the stacks of a segmentation fault come with them."""
    error = tells("WorkerDied", lambda client: client.call("crash"))
    assert (error.signal, error.exitcode, error.method, error.executed) == ("SIGSEGV", None, "crash", None)
    assert error.maxrss > 1000
    assert "in crash" in error.stacks
    error = tells("WorkerDied-exit", lambda client: client.call("leave"))
    assert (error.signal, error.exitcode, error.stacks) == ("", 7, "")


def test_server_stopped_between_calls(tells, serve):
    """A checkout whose server was stopped between its calls loses its worker, which has no last words."""

    def between_calls(client):
        with client.checkout() as checkout:
            checkout.total("january")
            os.kill(parent_of(client), 3)  # at once; SIGTERM would drain
            wait_until(lambda: "ended by" in repr(checkout))
            checkout.total("january")

    def parent_of(client):
        (slot,) = client._pool._ledger.slots
        status = Path(f"/proc/{slot.worker.pid}/status").read_text(encoding="ascii")
        return int(re.search(r"PPid:\t(\d+)", status)[1])

    error = tells("WorkerDied-between-calls", between_calls)
    assert (error.exitcode, error.method) == (None, None)


def test_cancelled(tells):
    """A cancelled call says why; after an interrupted one the checkout says which."""

    def cancelled(client):
        with client.checkout() as checkout:
            result = checkout.render.submit("march")
            gevent.spawn(checkout.cancel, "the user pressed stop")
            result.get()

    def interrupted(client):
        with client.checkout() as checkout:
            with gevent.Timeout(0.1, False):
                checkout.render("march")
            checkout.total("january")

    tells("Cancelled", cancelled)
    tells("Cancelled-interrupted", interrupted)


def test_errors_of_a_queue(tells):
    """A call behind one that raised, and one too many."""

    def behind(client):
        with client.checkout() as checkout:
            checkout.total.submit("march")
            checkout.total.submit("january").get()

    def too_many(client):
        with client.checkout() as checkout:
            for _ in range(3):
                checkout.total.submit("january")

    tells("CallDropped", behind)
    tells("Overloaded", too_many, max_queue=2)


def test_errors_of_the_caller(tells):
    """What cannot travel, and what is over."""

    def after_its_end(client):
        checkout = client.checkout()
        checkout.release()
        checkout.total("january")

    def after_close(client):
        client.close()
        client.call("total", "january")

    tells("EncodeError", lambda client: client.call("total", object()))
    tells("CheckoutReleased", after_its_end)
    tells("ClientClosed", after_close)


def test_checkout_within_a_checkout(tells):
    """Who holds the only worker in a with block, and wants another, is told at once."""

    def nested(client):
        with client.checkout() as first:
            first.total("january")
            client.call("total", "january")

    tells("NestedCheckout", nested)


def test_long_line(tells):
    """One too many in line, and one that has waited too long."""

    def one_too_many(client):
        with client.checkout() as checkout:
            checkout.total("january")
            waiting = client.checkout()
            try:
                client.checkout()
            finally:
                waiting.release()

    def shed(client):
        with client.checkout() as checkout:
            checkout.total("january")
            client.checkout().total.submit("january").get()

    tells("Overloaded-max_waiting", one_too_many, max_waiting=1)
    tells("Overloaded-shed", shed, shed_target=0.5, shed_interval=1)


def test_checkout_that_outlives_its_client(tells):
    """close(timeout) ends what does not end by itself."""

    def cut_off(client):
        checkout = client.checkout()
        checkout.total("january")
        result = checkout.render.submit("march")
        client.close(timeout=0.5)
        result.get()

    tells("ClientClosed-cut-off", cut_off)


def test_wrong_process_and_wrong_thread(tells):
    """A checkout does not survive a fork in the child, and a client is of use in its own thread alone."""

    def forked(client):
        with client.checkout() as checkout:
            checkout.total("january")
            reading, writing = os.pipe()
            pid = os.fork()
            if not pid:
                try:
                    checkout.total("january")
                except BaseException as error:
                    os.write(writing, pickle.dumps(error))
                finally:
                    os._exit(0)
            os.close(writing)
            os.waitpid(pid, 0)
            with open(reading, "rb") as pipe:
                raise pickle.load(pipe)

    def in_a_thread(client):
        client.call("total", "january")
        gevent.get_hub().threadpool.apply(client.call, ("total", "january"))

    tells("ClientClosed-inherited", forked)
    tells("WrongThread", in_a_thread)


def test_every_message_is_produced():
    """No message of docs/failures.rst is without its test."""
    source = Path(__file__).read_text(encoding="utf-8")
    tested = set(re.findall(r'(?:tells\(\s*|MESSAGES\[)"([\w-]+)"', source))
    assert tested == set(MESSAGES)


def test_every_error_is_described():
    """There is a section for each class, which tells whether it sticks and which attributes it has."""
    classes = set(errors.__all__) - {"Error", "FatalError", "Interrupted"}
    sections = dict(re.findall(r"^(\w+)\n~+\n\n=+ =+\n(when .*?)\n=+ =+\n", FAILURES, re.MULTILINE | re.DOTALL))
    assert set(sections) == classes
    in_short = dict(re.findall(r"^``(\w+)`` .*  (yes|no)  .*$", FAILURES, re.MULTILINE))
    assert set(in_short) == classes
    for name, table in sections.items():
        cls = getattr(gtask, name)
        sticks = "yes" if cls.sticky else "no"
        assert (re.search(r"^sticks +(\w+)$", table, re.MULTILINE)[1], in_short[name]) == (sticks, sticks)
        told = re.search(r"^attributes +(.*?)^what to do", table, re.MULTILINE | re.DOTALL)[1]
        options = [
            option
            for option in inspect.signature(cls.__init__).parameters.values()
            if option.kind is option.KEYWORD_ONLY
        ]
        expected = {option.name for option in options} | (
            {"remote_type"} if issubclass(cls, gtask.RemoteError) else set()
        )
        assert set(re.findall(r"``(\w+)``", told)) == expected, name


def test_numbers_of_the_ladder():
    """The times that docs/failures.rst tells are those of the code."""
    rows = re.findall(r"^(\d[\d.]*)  +(\S.*\n(?:  +.*\n)*)", FAILURES, re.MULTILINE)
    rungs = {name: float(seconds) for seconds, text in rows for name in re.findall(r"\*\*(\w+)\*\*", text)}
    assert rungs == {
        "SIGALRM": 0,
        "SIGABRT": children.GRACE,
        "SIGKILL": children.GRACE + children.LAST_GRACE,
    }
    text = " ".join(FAILURES.split())
    assert f"{overtime.LAST_WORDS:g} seconds after the deadline at the latest" in text
    server, client = ServerConfig((gtask.address.parse("unix:x"),)), ClientConfig()
    assert f"``stop_timeout`` ({server.stop_timeout:g} seconds)" in text
    assert f"``hung_worker_timeout`` ({server.hung_worker_timeout:g} seconds;" in text
    assert f"``setup_timeout`` ({client.setup_timeout:g} seconds)" in text
    assert f"``max_queue`` ({client.max_queue:,})" in text
    assert f"``reconnect_timeout`` ({client.reconnect_timeout:g} seconds)" in text


def test_interrupted_export(serve, connect, tmp_path):
    """The example for gtask.Interrupted cleans up when its caller gives up, and writes the file when not."""
    client = connect(serve(FAILURE_BLOCKS["exports.py"]))
    client.call("export", str(tmp_path / "good"), [0, 0])
    assert (tmp_path / "good").read_text() == "0\n0\n"
    with pytest.raises(gtask.CallTimeout), client.checkout(timeout=0.5) as checkout:
        checkout.export(str(tmp_path / "bad"), [0, 60])
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(("good", "bad"))] == ["good"]
