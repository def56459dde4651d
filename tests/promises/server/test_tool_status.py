"""The point of this test is to ensure that ``gtask ping``, ``methods`` and ``status`` say what a server is and does.

A worker that is forked for the purpose answers: it sees what the others do, counts for nothing, and runs no setup. The
master reads nothing of what a client says.
"""

import ast
import inspect
import json
import os
import re
import signal

import pytest

import gtask
from gtask import address
from gtask.server import listener
from gtask.server.master import attendants, children, deaths, master, workers
from gtask.server.metrics import status
from gtask.tool.conversation import Session
from tests.promises.server.test_tool_call import tool
from tests.support.daemon import daemon
from tests.support.process import state_of
from tests.support.waiting import wait_until

SOURCE = '''
    import ctypes, os, time

    def setup():
        with open(os.path.join(os.path.dirname(__file__), "setups"), "a") as file:
            file.write(f"{os.getpid()}\\n")

    def pids():
        return [os.getpid(), os.getppid()]

    def hash(password: str, rounds: int = ...) -> str:
        """Hash a password.

        Slowly.
        """

    def busy(seconds):
        """Busy for a while."""
        time.sleep(seconds)

    def wait_for(path):
        with open(path) as gate:
            return gate.read()

    def segfault():
        ctypes.string_at(0)
'''


@pytest.fixture
def server(tmp_path, nothing_is_left_behind):
    with daemon(tmp_path, "--name", "hasher", "--max-workers", "9", source=SOURCE) as server:
        yield server


def asks(server, *arguments):
    """What the command says, which must end well."""
    status, out, err = tool(arguments[0], server.address, *arguments[1:])
    assert (status, err) == (0, "")
    return out


def status_of(server):
    return json.loads(asks(server, "status", "--json"))


def test_ping(server):
    """The name of the server, its master, and how long it took."""
    out = asks(server, "ping")
    assert re.fullmatch(
        rf"hasher at {server.address}: master {server.master}; "
        r"a worker after [0-9.]+ ms, its answer after [0-9.]+ ms\n",
        out,
    )


@pytest.mark.parametrize("command", ["ping", "methods", "status"])
def test_nobody_there(tmp_path, command):
    """Status 3 and one line."""
    status, out, err = tool(command, f"unix:{tmp_path}/missing")
    assert (status, out) == (3, "")
    assert err == f"gtask: server unreachable: no such file or directory at unix:{tmp_path}/missing\n"


def test_methods(server):
    """Names, signatures and docstrings of what can be called; hooks are not among it."""
    out = asks(server, "methods")
    assert "hash(password: str, rounds: int = ...) -> str\n    Hash a password.\n\n    Slowly.\n" in out
    assert "busy(seconds)\n    Busy for a while.\n" in out
    told = json.loads(asks(server, "methods", "--json"))
    assert [one["name"] for one in told] == ["busy", "hash", "pids", "segfault", "wait_for"]
    assert told[1] == {
        "name": "hash",
        "signature": "(password: str, rounds: int = ...) -> str",
        "doc": "Hash a password.\n\nSlowly.",
    }


@pytest.mark.parametrize(
    ("source", "attribute", "line"),
    [
        ("class Hasher:\n    def hash(self, x=1): 'Of a class.'\n", "Hasher", "hash(x=...)\n    Of a class."),
        ("def call(method, *args): 'Anything.'\n", "call", "()(method, *args)\n    Anything."),
        ("import math\nmapping = {'hypot': math.hypot, 'print': print}\n", "mapping", "hypot("),
    ],
    ids=["class", "callable", "mapping"],
)
def test_methods_of_every_kind_of_interface(serve, connect, source, attribute, line):
    """Also those of a class that no worker has made yet, of a callable, and of what is written in C."""
    server = serve(source, attribute=attribute)
    wait_until(lambda: os.path.exists(server.address.path))
    assert line in asks(server, "methods")


def test_the_status_of_an_idle_server(server):
    """There is nobody but who answers, and that one is not told of."""
    said = status_of(server)
    assert said["name"] == "hasher"
    assert said["addresses"] == [server.address]
    assert said["master"] == server.master
    assert said["max_workers"] == 9
    assert (said["workers"], said["states"], said["deaths"], said["reloads"]) == ([], {}, [], 0)
    assert 0 < said["uptime"] < 60
    assert said["totals"]["calls"] == 0


def test_the_status_of_a_busy_server(server, connect, tmp_path):
    """What each worker does, since when, in which method; and totals, also of those that are gone."""
    os.mkfifo(tmp_path / "gate")
    client, other = connect(server.address), connect(server.address)
    client.call("busy", 0)
    with client.checkout() as one, client.checkout() as two, other.checkout() as three:
        waiting = two.wait_for.submit(str(tmp_path / "gate"))
        pids = [worker.pids()[0] for worker in (one, three)]
        one.busy(0.3)
        with open(tmp_path / "gate", "w"):  # opens when the call runs
            said = status_of(server)
            table = asks(server, "status")
        waiting.get()
        (calling,) = [worker for worker in said["workers"] if worker["state"] == "call"]
        others = {worker["pid"]: worker for worker in said["workers"] if worker is not calling}
        assert said["states"] == {"call": 1, "lent": 2}
        assert calling["method"] == "wait_for"
        assert calling["calls"] == 1
        assert set(others) == set(pids)
        assert {worker["state"] for worker in others.values()} == {"lent"}
        assert others[pids[0]]["busy"] >= 0.3 > others[pids[1]]["busy"]
        assert calling["busy"] >= calling["for"] > 0
        for worker in said["workers"]:
            assert worker["memory"] > 1 << 20
            assert worker["age"] >= worker["for"]
            assert 0 <= worker["busy"] <= worker["age"]
        assert said["totals"]["calls"] == sum(worker["calls"] for worker in said["workers"]) == 5
        assert re.search(rf"^ *{calling['pid']} call +\S+ wait_for +1 ", table, re.M)
    client.close()
    other.close()
    wait_until(lambda: not server.workers, what="the end of the workers")
    said = status_of(server)
    assert said["totals"]["calls"] == 5
    assert said["totals"]["forked"] == said["totals"]["ended"] > 3


def test_recent_deaths(server, connect):
    """Each with its cause and the last line of its stack, the latest last; twenty are remembered."""
    client = connect(server.address, max_workers=1)
    with pytest.raises(gtask.WorkerDied):
        client.call("segfault")
    with client.checkout() as worker:
        os.kill(pid := worker.pids()[0], signal.SIGKILL)
        with pytest.raises(gtask.WorkerDied):
            worker.pids()
    first, second = status_of(server)["deaths"]
    assert re.fullmatch(
        r'worker \d+ was ended by SIGSEGV in segfault after \S+ s, at File ".*", line \d+ in string_at', first["line"]
    )
    assert second["line"].startswith(f"worker {pid} was ended by SIGKILL")
    assert 0 < second["ago"] <= first["ago"] < 60
    assert f" ago: {first['line']}\n" in asks(server, "status")


def test_the_last_line_of_the_thread_that_was_hit():
    """Where there are several threads, that of the one that died is told."""
    record = status.Record("hasher", 1, [], 0.0)
    stacks = (
        "Fatal Python error: Segmentation fault\n\nThread 0x1 (most recent call first):\n"
        '  File "other.py", line 1 in wait\n\nCurrent thread 0x2 (most recent call first):\n'
        '  File "guilty.py", line 2 in crash\n  File "guilty.py", line 9 in main\n'
    )
    record.died(1.0, "worker 2 was ended by SIGSEGV", stacks)
    assert record.deaths[0] == (1.0, 'worker 2 was ended by SIGSEGV, at File "guilty.py", line 2 in crash')


def test_reloads_are_counted(server):
    """By how many masters there have been before."""
    server.process.send_signal(signal.SIGHUP)
    server.wait_for(", and 1 drain")
    assert status_of(server)["reloads"] == 1


def test_who_asks_gets_no_setup(server, tmp_path):
    """The application's code does not run for it, so that it answers also where setup fails or hangs."""
    for command in ("ping", "methods", "status"):
        asks(server, command)
    assert not (tmp_path / "setups").exists()


def test_a_server_whose_setup_fails_answers(serve):
    """Which is when somebody wants to look at it."""
    server = serve("def setup(): raise OSError('no database')\ndef f(): pass")
    wait_until(lambda: os.path.exists(server.address.path))
    assert "0 workers: none" in asks(server, "status")


def test_the_master_is_not_asked(server, connect):
    """Once a worker is there the master may stand still: all that is said is said by the worker."""
    with connect(server.address).checkout() as busy:
        pid, master_pid = busy.pids()
        with Session(address.parse(server.address), 10, about=True) as asked:
            os.kill(master_pid, signal.SIGSTOP)
            wait_until(lambda: state_of(master_pid) == "T", what="the master's stop")
            assert [worker["pid"] for worker in asked.call("status")["workers"]] == [pid]
            answer = asked.call("ping")
            assert (answer["name"], answer["master"]) == ("hasher", master_pid)
            assert answer["worker"] not in (pid, master_pid)


def test_the_master_reads_no_byte_of_a_client():
    """In its source, nothing is done with what a ``recv`` gives, whatever that is; and it has no decoder."""
    modules = (attendants, children, deaths, listener, master, workers)
    nodes = [node for module in modules for node in ast.walk(ast.parse(inspect.getsource(module)))]
    receiving = {node for node in nodes if isinstance(node, ast.Call) and ".recv" in ast.unparse(node.func)}
    dropped = {node.value for node in nodes if isinstance(node, ast.Expr)}
    dropped |= {node.test for node in nodes if isinstance(node, ast.While) and isinstance(node.body[0], ast.Pass)}
    assert receiving
    assert receiving <= dropped
    for module in modules:
        assert not {"Decoder", "decode_body", "ReplyDecoder"} & set(vars(module))
