"""The point of this test is to ensure that a server works whose application has monkey-patched Python, and says so.

A package that the application imports may do so in its ``__init__``, as gevent advises, for all or for a part, before
the server loads it, meanwhile, or in a worker. What hangs is stopped all the same, SIGTERM is quick, and a program that
ends takes its private server along.
"""

import signal
import subprocess

import pytest

import gtask
from tests.support.daemon import COMMAND, daemon
from tests.support.process import ROOT, environment, is_gone
from tests.support.program import run_program
from tests.support.waiting import wait_until

JOBS = """
    import os
    import socket
    import subprocess
    import time

    def pids():
        return os.getpid(), os.getppid()

    def hang():
        time.sleep(600)

    def hang_in_socket():
        one, other = socket.socketpair()
        one.recv(1)

    def spin():
        while True:
            pass

    def run(*command):
        return subprocess.run(command, capture_output=True, text=True).stdout

    def die():
        os._exit(7)
"""

PATCHES = {
    "gevent": "import gevent.monkey; gevent.monkey.patch_all()",
    "gevent, a part": "import gevent.monkey; gevent.monkey.patch_select(); gevent.monkey.patch_os()",
    "gevent, without select": "import gevent.monkey; gevent.monkey.patch_all(thread=False, select=False)",
    "gevent, with a hub": "import gevent.monkey; gevent.monkey.patch_all(); import time; time.sleep(0.01)",
    "gevent, with children": "import gevent.monkey; gevent.monkey.patch_all(); import subprocess; "
    "subprocess.run(['true'])",
    "grequests": "import grequests",
    "by hand": "import os, signal; os.fork = None; signal.signal = lambda *_: None",
}


@pytest.fixture(params=PATCHES, ids=lambda name: name.replace(", ", "-").replace(" ", "-"))
def package(request, tmp_path):
    """A directory with a package ``app`` whose ``__init__`` patches, and the name of the module that is to blame."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text(PATCHES[request.param] + "\nfrom app.jobs import *\n")
    (tmp_path / "app" / "jobs.py").write_text("\n".join(line[4:] for line in JOBS.splitlines()))
    return tmp_path, "grequests" if request.param == "grequests" else "app"


def test_a_server_serves_stops_what_hangs_and_ends(package, connect):
    """As any server: a call that takes too long ends its worker, a dead worker is noticed, SIGTERM ends all.

    One warning names the module and the remedy.
    """
    directory, blamed = package
    with daemon(directory, target="app.jobs", source="") as server:
        client = connect(server)
        worker, master = client.call("pids")
        assert client.call("run", "echo", "done") == "done\n"
        for hang in ("hang", "hang_in_socket", "spin"):
            with client.checkout(timeout=1) as checkout:
                stopped = checkout.pids()[0]
                with pytest.raises(gtask.CallTimeout):
                    checkout.call(hang)
            wait_until(lambda pid=stopped: is_gone(pid), "the end of the worker")
        with pytest.raises(gtask.WorkerDied):
            client.call("die")
        with client.checkout() as checkout:
            held = checkout.pids()
            server.send(signal.SIGTERM)
            assert checkout.pids() == held
        assert server.wait() == 0
        assert is_gone(master)
        assert is_gone(worker)
    (line,) = [line for line in server.log.splitlines() if "monkey-patched" in line]
    assert " WARNING " in line
    assert f": {blamed} (" in line
    assert "leave patching to the programs that call them" in line


def test_checking_the_configuration_shows_the_warning(package):
    """It says what the log will say."""
    directory, blamed = package
    command = [*COMMAND, "--check-config", "app.jobs", "--listen", "unix:sock"]
    ran = subprocess.run(command, cwd=directory, env=environment(), capture_output=True, text=True, check=True)
    assert f"warning: {blamed} (" in ran.stdout


def test_a_program_that_ends_takes_its_server_along(package):
    """Nothing is left behind for ever."""
    directory, _ = package
    program = """
        import gtask

        client = gtask.Client("spawn:app.jobs", timeout=20)
        print(*client.call("pids"))
    """
    ran = run_program(program, directory=directory)
    for pid in map(int, ran.stdout.split()):
        wait_until(lambda pid=pid: is_gone(pid), "the end of the private server")


WORKERS_PATCH = """
    import os
    import select
    import time

    def setup():
        import gevent.monkey
        gevent.monkey.patch_all()

    def hang():
        time.sleep(600)

    def pid():
        return os.getpid()
"""


def test_a_worker_that_patches(serve, connect):
    """In ``setup``, say: its master does not even know."""
    client = connect(serve(WORKERS_PATCH))
    assert client.call("pid")  # there is a worker from now on
    with client.checkout(timeout=1) as checkout:
        stopped = checkout.pid()
        with pytest.raises(gtask.CallTimeout):
            checkout.hang()
    wait_until(lambda: is_gone(stopped), "the end of the worker")
    assert client.call("pid") != stopped


def test_what_was_patched_before(tmp_path, connect):
    """By sitecustomize, before there is any server; nobody knows who it was."""
    (tmp_path / "sitecustomize.py").write_text("import gevent.monkey\ngevent.monkey.patch_all()\n")
    with daemon(tmp_path, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"}) as server:
        assert connect(server).call("pid")
        assert server.end(signal.SIGTERM) == 0
    assert "something that was imported before the application has monkey-patched" in server.log


def test_a_patched_program_serves(tmp_path):
    """gtask.Server in a program that has patched itself."""
    program = f"""
        import gevent.monkey
        gevent.monkey.patch_all()
        import os, select, signal, time
        import gtask

        def hang():
            time.sleep(600)

        pid = os.fork()
        if not pid:
            gtask.Server("unix:{tmp_path}/sock", {{"hang": hang, "pid": os.getpid}}).run()
            os._exit(0)
        with gtask.Client("unix:{tmp_path}/sock", min_workers=0, timeout=20) as client:
            try:
                with client.checkout(timeout=2) as checkout:
                    end_of_worker = os.pidfd_open(checkout.pid())
                    checkout.hang()
            except gtask.CallTimeout:
                pass
            print(select.select([end_of_worker], [], [], 20)[0] == [end_of_worker])
        os.kill(pid, signal.SIGTERM)
        print(os.waitpid(pid, 0)[1])
    """
    assert run_program(program, directory=tmp_path).stdout == "True\n0\n"
