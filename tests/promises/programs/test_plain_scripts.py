"""The point of this test is to ensure that a plain script can use a client: it waits in each call, and that is all.

It imports no gevent and knows no greenlets. Ctrl-C ends a call at once, and the end of the script ends all that it has
started, whether it closes its clients or not, in silence. Each test is a program of its own.
"""

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.waiting import wait_until

APPLICATION = """
import os
import time

def double(number):
    return 2 * number

def pids():
    return [os.getpid(), os.getppid()]

def fail(key):
    return {}[key]

def hang(mark):
    open(mark, "w").close()
    time.sleep(3600)
"""

BEGINNING = """
import json, os, sys, time
import gtask

address = sys.argv[1]

def tell(*pids):
    "For the test, which looks whether they end."
    with open("pids", "w") as file:
        json.dump(pids, file)
"""

USE = """
client = gtask.Client(address, min_workers=1, max_workers=2, timeout=20)
assert [client.call("double", number) for number in range(5)] == [0, 2, 4, 6, 8]
assert client.remote.double("x") == "xx"
with client.checkout() as worker:
    first, second = worker.pids(), [worker.double.submit(number) for number in range(5)]
    assert worker.pids() == first
    assert [result.get() for result in second] == [0, 2, 4, 6, 8]
try:
    client.call("fail", "k")
except KeyError:
    pass
else:
    raise AssertionError("it did not raise")
try:
    with client.checkout(timeout=0.3) as worker:
        worker.hang(os.path.abspath("hangs"))
except gtask.CallTimeout as error:
    assert error.method == "hang"
else:
    raise AssertionError("it did not time out")
tell(*client.call("pids"))
print("done")
"""


@pytest.fixture
def script(tmp_path, unmeasured):
    """``script(source, *options)`` starts a script, by default with warnings as errors; gives the process.

    ``.finish(status)`` waits for its end, and checks that it was clean and has left nothing behind.
    """
    (tmp_path / "application.py").write_text(APPLICATION)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    started = []

    def start(source, *options, address="spawn:application"):
        source = BEGINNING + textwrap.dedent(source)
        (tmp_path / "script.py").write_text(source)
        how = [*(options or ["-W", "error"]), "script.py"] if "-c" not in options else ["-W", "error", "-c", source]
        with open(tmp_path / "stderr", "w") as stderr:
            process = subprocess.Popen(
                [sys.executable, *how, str(address)],
                cwd=tmp_path,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        process.finish = lambda status=0: finish(process, status)
        started.append(process)
        return process

    def finish(process, status):
        printed, _ = process.communicate(timeout=60)
        said = re.sub(r".* (INFO|WARNING) .* gtask.server: .*\n", "", (tmp_path / "stderr").read_text())
        assert process.returncode == status, said
        for pid in re.findall(r"\d+", (tmp_path / "pids").read_text()):
            wait_until(lambda pid=pid: is_gone(pid), f"the end of process {pid}")
        wait_until(lambda: not list(tmp_path.glob("gtask-*")), "the end of the private directory")
        return printed, said

    yield start
    for process in started:
        process.kill()
        process.communicate()


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize(
    "options",
    [["-W", "error"], ["-X", "dev", "-W", "error"], ["-c"]],
    ids=["-W error", "-X dev", "-c"],
)
def test_all_uses(script, options):
    """Calls, checkouts, errors and time-outs; it ends by itself, without a close, and says nothing."""
    assert script(USE, *options).finish() == ("done\n", "")


def test_a_server_of_its_own(script, serve):
    """The same with a server that others have started, and which goes on."""
    source = USE.replace('tell(*client.call("pids"))', 'tell(client.call("pids")[0])')
    server = serve(APPLICATION)
    assert script(source, address=server.address).finish() == ("done\n", "")
    assert server.obituary() == ""


@pytest.mark.parametrize(
    "source",
    [
        "with gtask.Client(address) as client: tell(*client.call('pids'))",
        "client = gtask.Client(address)\ntell(*client.call('pids'))\nclient.close(timeout=30)",
        "client = gtask.Client(address)\nworker = client.checkout()\ntell(*worker.pids())\nworker.hang.submit('hangs')",
        "def main():\n    client = gtask.Client(address)\n    tell(*client.call('pids'))\nmain()",
        "with gtask.spawn_server('application') as server, gtask.Client(server.address) as client:\n"
        "    tell(*client.call('pids'))",
    ],
    ids=["with", "close and wait", "a call under way", "dropped", "a spawned server"],
)
def test_its_end(script, source):
    """However it leaves its client: nothing hangs, nothing is left, and there is no warning of a resource."""
    assert script(source, "-X", "dev", "-W", "error").finish() == ("", "")


@pytest.mark.parametrize("where", ["a call", "the line", "nowhere"])
def test_ctrl_c_while_it_waits(script, tmp_path, where):
    """A call, or the wait for a worker, ends at once with KeyboardInterrupt there; the work is stopped, too."""
    hold = {
        "a call": "worker.hang('hangs')",
        "the line": "worker.hang.submit('hangs'); client.checkout().double(1)",
        "nowhere": "worker.hang.submit('hangs'); worker.double.submit(1).get()",
    }[where]
    process = script(
        f"""
        client = gtask.Client(address, min_workers=0, max_workers=1, timeout=None)
        worker = client.checkout()
        tell(*worker.pids())
        try:
            {hold}
        except KeyboardInterrupt:
            print("interrupted")
            raise
        """
    )
    wait_until((tmp_path / "hangs").exists)
    process.send_signal(signal.SIGINT)
    printed, said = process.finish(-signal.SIGINT)
    assert printed == "interrupted\n"
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert said.count("Traceback") == 1


def test_it_goes_on_after_ctrl_c(script, tmp_path):
    """If it wants to: the checkout is lost, as after any interruption, and the client is not."""
    process = script(
        """
        client = gtask.Client(address, min_workers=0, max_workers=1, timeout=20)
        try:
            with client.checkout() as worker:
                worker.double(1)  # so that the next request is sent here, not by the greenlet that has connected
                worker.hang("hangs")
        except KeyboardInterrupt:
            pass
        tell(*client.call("pids"))
        print(client.call("double", 21))
        """
    )
    wait_until((tmp_path / "hangs").exists)
    process.send_signal(signal.SIGINT)
    printed, said = process.finish()
    assert printed == "42\n"
    assert "Traceback" not in said  # gevent itself notes that there was a KeyboardInterrupt


def test_it_may_be_slow(script):
    """A script that does something else for a while finds its client as it was; nothing ran meanwhile but workers."""
    assert script(
        """
        client = gtask.Client(address, min_workers=2, timeout=20)
        with client.checkout() as worker:
            tell(*worker.pids())
            result = worker.double.submit(4)
            time.sleep(0.5)  # the hub does not turn
            assert not result.ready()
            assert result.get() == 8
        client.close()
        time.sleep(0.2)  # nor here, which makes no difference
        """
    ).finish() == ("", "")
