"""The point of this test is to ensure that a task runs in a worker, and in place if it is called in one."""

from __future__ import annotations

import functools
import inspect
import os
import subprocess
import sys

import pytest

import gtask
from tests.support.process import ROOT

SOURCE = '''
    import functools
    import os

    import gtask

    CLIENTS = []
    AT_SETUP = []

    def client():
        return CLIENTS[0]

    def loud(function):
        @functools.wraps(function)
        def wrapper(*args):
            return [*function(*args), "loud"]
        return wrapper

    @gtask.task(client)
    def pid(*args, **kwargs):
        """Where it runs."""
        return [os.getpid(), list(args), kwargs]

    @gtask.task(client)
    @loud
    def decorated(number):
        return [os.getpid(), number]

    @gtask.task(client)
    def outer(number):
        return [os.getpid(), pid(number), pid.local()]

    @gtask.task(client)
    def fail():
        raise LookupError("on purpose")

    class Report:
        @staticmethod
        @gtask.task(client)
        def render(number):
            return [os.getpid(), number]

    def setup():
        AT_SETUP.append(pid())

    def at_setup():
        return [os.getpid(), *AT_SETUP]
'''


@pytest.fixture
def jobs(allow, connect):
    """A module with tasks, whose client is connected to a server of its functions."""
    server, module = allow(SOURCE)
    module.CLIENTS.append(connect(server, max_workers=1))
    return module


def test_it_runs_in_a_worker(jobs):
    """With all its arguments; it looks like the function that it was."""
    where, args, kwargs = jobs.pid(1, "two", three=3)
    assert where != os.getpid()
    assert (args, kwargs) == ([1, "two"], {"three": 3})
    assert (jobs.pid.__name__, jobs.pid.__doc__) == ("pid", "Where it runs.")
    assert str(inspect.signature(jobs.pid)) == "(*args, **kwargs)"


def test_the_function_itself(jobs):
    """Is there, too, and runs here."""
    assert jobs.pid.local(1) == [os.getpid(), [1], {}]


def test_it_runs_in_place_in_a_worker(jobs):
    """Called by another task, too: the client may have a single worker, which is busy with that one."""
    where, inner, local = jobs.outer(4)
    assert inner == [where, [4], {}]
    assert local[0] == where


def test_below_and_above_other_decorators(jobs):
    """A decorator that uses functools.wraps, and staticmethod."""
    where, number, loud = jobs.decorated(3)
    assert where != os.getpid()
    assert (number, loud) == (3, "loud")
    assert jobs.Report.render(5)[0] == where


def test_what_it_raises(jobs):
    """Arrives, as with every call."""
    with pytest.raises(LookupError, match="on purpose") as caught:
        jobs.fail()
    assert isinstance(caught.value, gtask.RemoteError)


def test_an_executor_and_a_map_take_it(jobs):
    """As any function."""
    client = jobs.CLIENTS[0]
    assert client.executor().submit(jobs.pid, 1).result()[1] == [1]
    assert [value[1] for value in client.map_unordered(jobs.Report.render, [7])] == [7]


def test_a_plain_server_of_the_module(serve, connect):
    """It can be given the name under which any server has it; setup runs it in place as well."""
    server = serve(SOURCE.replace("@gtask.task(client)", "@gtask.task(client, name='pid')", 1))
    client = connect(server)
    task = gtask.task(client, name="pid")(sample)
    assert task(3)[1] == [3]
    where, at_setup = client.call("at_setup")
    assert at_setup == [where, [], {}]


# --- what cannot be one ---------------------------------------------------------------------------------


def sample(number):
    return number


def generator():
    yield 1


async def coroutine():
    return 1


async def asynchronous_generator():
    yield 1


def closure():
    factor = 3

    def inner(number):
        return factor * number

    return inner


def nested():
    def inner(number):
        return number

    return inner


class Report:
    def render(self):
        return None

    def named(cls):
        return None


@pytest.mark.parametrize("options", [{}, {"name": "render"}])
@pytest.mark.parametrize(
    ("function", "says"),
    [
        (generator, "generator cannot be a task: it is a generator"),
        (coroutine, "coroutine cannot be a task: it is a coroutine"),
        (asynchronous_generator, "it is a generator"),
        (closure(), "it is a closure: it uses factor of the function around it"),
        (nested(), "move it to the top level of a module"),
        (lambda: None, "write it with def"),
        (Report.render, "it is a method, and self cannot travel"),
        (Report.named, "it is a method, and cls cannot travel"),
        (Report().render, "write @gtask.task(client) above a def"),
        (staticmethod(sample), "below @staticmethod"),
        (functools.partial(sample, 1), "decorates a function, and not functools.partial"),
        (Report, "decorates a function"),
        (len, "decorates a function"),
        (3, "decorates a function, and not 3"),
    ],
)
def test_refused_when_decorated(function, says, options):
    """Each with what to do, and before the client is asked for anything."""
    with pytest.raises(TypeError) as caught:
        gtask.task(lambda: pytest.fail("the client was wanted"), **options)(function)
    assert says in str(caught.value)


def test_what_is_no_client():
    """It is told when it is given."""
    with pytest.raises(TypeError, match="write @gtask"):
        gtask.task("unix:/run/x.sock")


def test_without_parentheses():
    """The function is taken for one that gives the client; its first call tells."""
    task = gtask.task(sample)
    with pytest.raises(TypeError, match="decorates a function, and not 3"):
        task(3)


PROGRAM = """
import gtask

client = gtask.Client("spawn:nothing")

try:
    @gtask.task(client)
    def render(number):
        return 2 * number
except TypeError as error:
    print(error)
else:
    server = gtask.spawn_server("gtask.server.functions", allow=["script"])
    with server, gtask.Client(server.address) as client:
        print(gtask.task(client)(render.local)(4))
"""


@pytest.mark.parametrize(("how", "says"), [(["script.py"], "move it into a module"), (["-m", "script"], "8")])
def test_functions_of_the_program_itself(tmp_path, how, says):
    """No worker has them, if the program was started by its file; if by its module's name, they are known by that."""
    (tmp_path / "script.py").write_text(PROGRAM + "\n" if how[0] != "-m" else guarded(PROGRAM))
    done = subprocess.run(
        [sys.executable, *how],
        capture_output=True, text=True, timeout=60, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert says in done.stdout


def guarded(program):
    """The server loads the module as well, and must not start a server in turn."""
    return program.replace("else:\n", "if __name__ == '__main__':\n")


def test_a_worker_needs_no_gevent(unmeasured, allow, connect):
    """A task whose client is made late does not bring the client's side into the server."""
    server, module = allow(
        """
        import sys
        import gtask

        CLIENTS = []

        @gtask.task(lambda: CLIENTS[0])
        def loaded():
            return [name for name in sys.modules if name.split(".")[0] in ("gevent", "greenlet")]
        """
    )
    module.CLIENTS.append(connect(server))
    assert module.loaded() == []
