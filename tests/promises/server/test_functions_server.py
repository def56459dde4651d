"""The point of this test is to ensure that gtask.server.functions calls what the operator allows, and nothing else.

What may be called and what not is in tests/server/test_functions.py; here are real servers, their start, and what a
refusal costs.
"""

from __future__ import annotations

import os

import pytest

import gtask
from tests.support.program import run_program
from tests.support.waiting import wait_until

TARGET = "gtask.server.functions"

SOURCE = """
    import os
    from os import system

    LOADED_IN = os.getpid()

    def double(number, *, times=1):
        return 2 * number * times

    def processes():
        return [LOADED_IN, os.getppid(), os.getpid()]

    def called():
        import gtask
        return gtask.current_call().method

    def fail():
        raise LookupError("on purpose")
"""


def test_functions_by_their_names(allow, connect):
    """Of each allowed module, with keyword arguments; what they raise arrives; the call knows its name."""
    server, jobs = allow(SOURCE, "hashlib")
    client = connect(server)
    name = jobs.__name__
    assert client.call(f"{name}:double", 4, times=3) == 24
    assert len(client.call("hashlib:pbkdf2_hmac", "sha256", b"secret", b"salt", 10)) == 32
    assert client.call(f"{name}:called") == f"{name}:called"
    with client.checkout() as worker, pytest.raises(LookupError, match="on purpose"):
        worker(f"{name}:fail")


def test_modules_are_loaded_once_by_the_master(allow, connect):
    """So that all workers share them."""
    server, jobs = allow(SOURCE)
    loaded_in, master, worker = connect(server).call(f"{jobs.__name__}:processes")
    assert loaded_in == master != worker


def test_modules_under_them_are_loaded_by_the_worker(allow, connect, tmp_path):
    """At their first call; not before."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "inner.py").write_text(
        "import os\nLOADED_IN = os.getpid()\ndef processes():\n    return [LOADED_IN, os.getpid()]\n"
    )
    server, _ = allow(SOURCE, "package")
    loaded_in, worker = connect(server).call("package.inner:processes")
    assert loaded_in == worker


def test_a_refusal_says_what_to_try_and_costs_nothing_else(allow, connect):
    """It names the function and what is allowed. The calls of others go on, and so does the checkout."""
    server, jobs = allow(SOURCE)
    client = connect(server)
    name = jobs.__name__
    with client.checkout() as other, client.checkout() as worker:
        assert other(f"{name}:double", 1) == 2
        pid = worker(f"{name}:processes")[2]
        for refused in (f"{name}:system", "os:system", "json:loads"):
            with pytest.raises(PermissionError) as caught:
                worker(refused, "touch should-not-exist")
            assert f"{refused} may not be called" in str(caught.value)
            assert f"call a function that is defined in {name}, or have the server started with another --allow" in str(
                caught.value
            )
        assert worker(f"{name}:processes")[2] == pid
        assert other(f"{name}:double", 2) == 4
    assert not os.path.exists("should-not-exist")


# --- its start ------------------------------------------------------------------------------------------


def test_without_each_other_they_are_refused(operator):
    """--allow for another interface, and this interface without --allow: status 2, and the line says what to write."""
    done = operator.run(TARGET, "--listen", "unix:a.sock")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"gtask-server: allow=(): {TARGET} must know whose functions may be called: write --allow myapp.jobs\n"
    )
    done = operator.run("app", "--listen", "unix:a.sock", "--allow", "app")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"gtask-server: allow='app': that is for {TARGET} alone, and app is to be served")
    operator.write("gtask.conf.py", "allow = ['app']\n")
    done = operator.run("app", "--listen", "unix:a.sock")
    assert done.returncode == 2
    assert done.stderr.startswith("gtask-server: gtask.conf.py: allow='app': ")


@pytest.mark.parametrize("arguments", [(), ("--check-config",)])
def test_a_module_that_is_not_there(operator, arguments):
    """Status 1, and its name."""
    done = operator.run(TARGET, "--listen", "unix:a.sock", "--allow", "nowhere", *arguments)
    assert done.returncode == 1
    assert "allow 'nowhere': there is no such module along the Python path" in done.stderr


def test_the_operator_sees_what_is_allowed(operator):
    """By --check-config, wherever it was said."""
    operator.write("gtask.conf.py", f"target = '{TARGET}'\nallow = ['app', 'hashlib']\nlisten = 'unix:a.sock'\n")
    done = operator.run("--check-config")
    assert done.stdout.splitlines() == [
        f"serves {TARGET} as {TARGET}: a callable",
        "allows app",
        "allows hashlib",
        "listens at unix:a.sock",
    ]


def test_a_reload_heeds_what_is_allowed_now(operator, connect):
    """The new master reads the file anew."""
    operator.write("gtask.conf.py", "allow = ['app']\n")
    server = operator.start(target=TARGET)
    client = connect(operator.address)
    with pytest.raises(PermissionError):
        client.call("json:loads", "1")
    operator.write("gtask.conf.py", "allow = ['app', 'json']\n")
    server.process.send_signal(1)
    server.wait_for(" serves", 2)

    def is_allowed():
        client.drain()
        try:
            return client.call("json:loads", "1") == 1
        except PermissionError:
            return False  # the old master may have had that connection

    wait_until(is_allowed, "a worker of the new master")


# --- from programs --------------------------------------------------------------------------------------


def test_in_a_module_of_ones_own(serve, connect):
    """As an attribute, with hooks if there are to be some."""
    source = """
        import gtask
        from gtask.server.functions import Functions

        ready = []
        functions = Functions(["math"])
        hooked = gtask.Interface(Functions(["math", "json"]), setup=lambda: ready.append(1))
    """
    assert connect(serve(source, attribute="functions")).call("math:sqrt", 9) == 3
    assert connect(serve(source, attribute="hooked")).call("json:loads", "2") == 2


def test_a_private_server(connect):
    """Of spawn_server; what it allows is given to it."""
    with gtask.spawn_server(TARGET, allow=["math", "json"]) as server:
        client = connect(server)
        assert client.call("math:sqrt", 9) == 3
        assert client.call("json:loads", "2") == 2
        with pytest.raises(PermissionError):
            client.call("os:getpid")


PROGRAM = """
import gtask
from gtask.server.functions import Functions

server = gtask.fork_server(Functions(allow=["math"]))
with server, gtask.Client(server.address) as client:
    print(client.call("math:sqrt", 9))
"""


def test_a_forked_server(tmp_path):
    """Of fork_server."""
    ran = run_program(PROGRAM, directory=tmp_path, options=())
    assert (ran.stdout, ran.stderr) == ("3.0\n", "")
