"""The point of this test is to ensure that a program of one file that serves itself is no endless chain of processes.

Its private server imports the file. Without ``if __name__ == "__main__":`` it would start the next server, and so on.
The first of them refuses, and says what to write.
"""

import os
import signal
import subprocess
import textwrap

import pytest

import gtask
from gtask import loading
from tests.support.daemon import COMMAND
from tests.support.process import environment, is_gone, processes
from tests.support.program import run_program
from tests.support.waiting import wait_until

IDIOM = 'if __name__ == "__main__":'

USES = {
    "call": 'client.call("work", 1)',
    "open": "client.open(wait=True)",
    "checkout": "client.checkout().work(1)",
    "submit": 'client.checkout().submit("work", 1)',
    "executor": "client.executor().submit(work, 1).result()",
    "map": "list(client.map_unordered('work', [1]))",
    "remote": "client.remote.work(1)",
    "thread": "threading.Thread(target=lambda: outcomes.append(client.call('work', 1))).start()",
    "spawn_server": 'gtask.spawn_server("order")',
    "fork_server": 'gtask.fork_server({"work": work})',
    "Server": 'gtask.Server("unix:other.sock", {"work": work}).run()',
}


def source(use):
    return textwrap.dedent(
        f"""
        import threading
        import gtask

        client = gtask.Client("spawn:order", timeout=20)
        outcomes = []

        def work(x):
            return 2 * x

        {use}
        """
    )


@pytest.mark.parametrize(
    "use", [name for name in USES if name not in ("thread", "Server", "fork_server", "map", "executor")]
)
def test_the_private_server_says_what_to_write(tmp_path, use):
    """On the program's stderr; the program gets an error, and no process is left."""
    (tmp_path / "order.py").write_text(source(USES[use]))
    ran = run_program("order.py", directory=tmp_path, options=(), status=None)
    if use not in ("spawn_server", "submit"):
        assert ran.status != 0
        assert IDIOM in ran.stderr
    wait_until(lambda: processes(tmp_path) == [], "the end of all")
    assert ran.stderr.count("UsedWhileLoading:") <= 2  # said by the server, and in the error of the program
    assert [name for name in os.listdir(tmp_path) if name.startswith("gtask-")] == []


@pytest.mark.parametrize("use", [name for name in USES if name != "thread"])
def test_a_daemon_says_what_to_write(tmp_path, use):
    """It ends with status 1, whatever the module does, and serves nothing."""
    (tmp_path / "order.py").write_text(source(USES[use]))
    command = [*COMMAND, "order", "--listen", "unix:order.sock"]
    ran = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert IDIOM in ran.stderr
    assert "UsedWhileLoading" in ran.stderr
    wait_until(lambda: processes(tmp_path) == [], "the end of all")
    assert "order.sock" not in os.listdir(tmp_path)


def test_a_guarded_program_works(tmp_path):
    """As it is to be written."""
    text = source('if __name__ == "__main__":\n            print(client.call("work", 21))')
    (tmp_path / "order.py").write_text(text)
    assert run_program("order.py", directory=tmp_path).stdout == "42\n"


def test_a_worker_may_be_a_client(tmp_path, serve, connect):
    """Of another server; it is no part of loading."""
    client = connect(
        serve(
            """
            import gtask

            other = gtask.Client("spawn:other", timeout=20)

            def ask():
                return other.call("answer")
            """
        )
    )
    (tmp_path / "other.py").write_text("def answer():\n    return 42\n")
    assert client.call("ask") == 42


def test_a_thread_of_the_application_is_refused_as_well(tmp_path, serve, connect):
    """It would go on in the master when that has loaded all."""
    client = connect(
        serve(
            """
            import threading
            import time
            import gtask

            other = gtask.Client("spawn:other", timeout=20)
            outcomes = []

            def use():
                time.sleep(0.2)
                try:
                    other.call("answer")
                except BaseException as error:
                    outcomes.append(type(error).__name__)

            thread = threading.Thread(target=use)
            thread.start()
            thread.join()

            def seen():
                return outcomes
            """
        )
    )
    assert client.call("seen") == ["UsedWhileLoading"]


@pytest.mark.parametrize("how", ["kill", "exit"])
def test_a_server_that_loads_notices_that_its_program_is_gone(tmp_path, how):
    """However long the application takes to load, and though a sibling holds the other end of the pipe."""
    os.mkfifo(tmp_path / "begun")
    (tmp_path / "slow.py").write_text("import time\nopen('begun', 'w').close()\ntime.sleep(600)\n")
    program = f"""
        import os, signal, sys, time
        import gtask
        server = gtask.spawn_server("slow")
        open("begun").read()
        sibling = os.fork()
        if not sibling:
            time.sleep(600)
            os._exit(0)
        print(server.pid, sibling, flush=True)
        {"os.kill(os.getpid(), signal.SIGKILL)" if how == "kill" else "os._exit(0)"}
    """
    ran = run_program(program, directory=tmp_path, status=-signal.SIGKILL if how == "kill" else 0)
    server, sibling = map(int, ran.stdout.split())
    try:
        wait_until(lambda: is_gone(server), "the end of the server")
    finally:
        os.kill(sibling, signal.SIGKILL)
    assert [name for name in os.listdir(tmp_path) if name.startswith("gtask-")] == []


def test_the_environment_counts(monkeypatch):
    """A chain that does not go through the loading of a module ends, too."""
    monkeypatch.setenv(loading.DEPTH, "5")
    with pytest.raises(gtask.UsedWhileLoading, match="GTASK_SPAWN_DEPTH=5"):
        gtask.spawn_server("order")
    assert loading.deeper({})[loading.DEPTH] == "1"
    assert loading.deeper({loading.DEPTH: "nonsense"})[loading.DEPTH] == "1"
