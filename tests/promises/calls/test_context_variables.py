"""The point of this test is to ensure that chosen context variables have their caller's values in the worker."""

from __future__ import annotations

import contextvars
import decimal
import importlib
import importlib.machinery
import sys
import textwrap
import types

import gevent
import pytest

import gtask
from gtask.aspects.context import name

SOURCE = """
    import contextvars
    import gtask

    request = contextvars.ContextVar("request", default="nobody")
    user = contextvars.ContextVar("user", default=None)

    def values():
        return [request.get(), user.get(), dict(gtask.current_call().context)]

    def fail():
        raise KeyError(request.get())

    def set_it(value):
        request.set(value)

    def checkout_done():
        assert request.get() == "nobody"
"""


@pytest.fixture
def shared():
    """A module with two variables, as the caller's program has it."""
    module = types.ModuleType("tests_shared")
    module.request, module.user = contextvars.ContextVar("request"), contextvars.ContextVar("user")
    sys.modules["tests_shared"] = module
    yield module
    del sys.modules["tests_shared"]


def test_the_worker_has_the_callers_values(serve, connect, shared):
    """Those of the greenlet that calls; a variable without a value is left alone, and afterwards all is as before."""
    client = connect(serve(SOURCE), context=[shared.request, shared.user], min_workers=1, max_workers=1)

    def call(number):
        shared.request.set(number)
        return client.call("values")

    calls = [gevent.spawn(call, number) for number in range(20)]
    gevent.joinall(calls, raise_error=True)
    assert [one.value for one in calls] == [[n, None, {"tests_shared:request": n}] for n in range(20)]
    assert client.call("values") == ["nobody", None, {}]


def test_submit_sends_those_of_its_time(serve, connect, shared):
    """The values are read when submit is called."""
    client = connect(serve(SOURCE), context=[shared.request])

    def calls():
        with client.checkout() as checkout:
            results = []
            for number in range(5):
                shared.request.set(number)
                results.append(checkout.values.submit())
            shared.request.set("later")
            return [result.get()[0] for result in results]

    assert contextvars.copy_context().run(calls) == [0, 1, 2, 3, 4]


def test_errors_and_changes_leave_nothing_behind(serve, connect, shared):
    """After an exception, and after the worker has set the variable itself, the next call finds it as it was."""
    client = connect(serve(SOURCE), context=[shared.request], refork_after_error=False, min_workers=1, max_workers=1)

    def calls():
        shared.request.set("mine")
        with pytest.raises(KeyError, match="mine"):
            client.call("fail")
        client.call("set_it", "other")

    contextvars.copy_context().run(calls)
    assert client.call("values")[0] == "nobody"


def test_a_value_that_cannot_travel(serve, connect, shared):
    """Is an EncodeError that names the variable; nothing was sent."""
    client = connect(serve(SOURCE), context=[shared.request])

    def call():
        shared.request.set(object())
        with pytest.raises(gtask.EncodeError, match="context variable tests_shared:request is of type object"):
            client.call("values")
        shared.request.set({"amount": decimal.Decimal("1.5")})
        assert client.call("values")[0] == {"amount": decimal.Decimal("1.5")}

    contextvars.copy_context().run(call)


def test_wrong_arguments():
    """What is no context variable, and two of one name, are told when the client is made."""
    with pytest.raises(TypeError, match="list context variables"):
        gtask.Client("unix:/x", context=["request"])
    same = [contextvars.ContextVar("same"), contextvars.ContextVar("same")]
    with pytest.raises(ValueError, match="two variables are named ':same'"):
        gtask.Client("unix:/x", context=same)


HOME = """
    import contextvars

    tenant = contextvars.ContextVar("tenant", default=None)
    region: contextvars.ContextVar = contextvars.ContextVar("region", default=None)

    import tests_first, tests_second, tests_third
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The module that makes two variables, and is loaded only after others have imported them from there."""
    sources = {
        "tests_home": HOME,
        "tests_first": "from tests_home import tenant, region",
        "tests_second": "import tests_home\nfrom contextvars import ContextVar\nrenamed = tests_home.tenant",
        "tests_third": "from tests_home import *",
    }
    monkeypatch.syspath_prepend(str(tmp_path))
    for module, source in sources.items():
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
    yield importlib.import_module("tests_home")
    for module in sources:
        del sys.modules[module]


def test_a_variable_is_named_after_the_module_that_makes_it(home, serve, connect):
    """Not after one that has imported it from there, though that is the first of the two to be loaded."""
    loaded = [module for module in sys.modules if module.startswith("tests_")]
    assert loaded.index("tests_first") < loaded.index("tests_home")
    source = """
        import contextvars, sys, types
        import gtask
        import tests_home

        other = contextvars.ContextVar("tenant", default=None)
        also = sys.modules["tests_first"] = types.ModuleType("tests_first")
        also.tenant = also.region = contextvars.ContextVar("tenant", default=None)

        def values():
            found = [tests_home.tenant.get(), tests_home.region.get(), other.get(), also.tenant.get()]
            return [found, sorted(gtask.current_call().context)]
    """
    client = connect(serve(source), context=[home.tenant, home.region])

    def call():
        home.tenant.set("acme")
        home.region.set("north")
        return client.call("values")

    assert contextvars.copy_context().run(call) == [
        ["acme", "north", None, None],
        ["tests_home:region", "tests_home:tenant"],
    ]


def test_a_variable_of_the_main_module(serve, connect, monkeypatch):
    """A script's has its own name alone, also in a process that multiprocessing has started; one of ``python -m`` that
    of the module."""
    main = types.ModuleType("__mp_main__")
    main.request = contextvars.ContextVar("request")
    monkeypatch.setitem(sys.modules, "__mp_main__", main)
    assert [full for full, _ in name([main.request])] == [":request"]
    main.__spec__ = importlib.machinery.ModuleSpec("app.worker", None)
    assert [full for full, _ in name([main.request])] == ["app.worker:request"]
    client = connect(serve(SOURCE), context=[main.request])
    assert contextvars.copy_context().run(lambda: (main.request.set(1), client.call("values"))[1])[0] == 1


def test_a_variable_that_may_be_one_of_several(serve, connect, shared, caplog):
    """It is left out, and a warning says so, once, to the caller, too."""
    source = """
        import contextvars, sys, types

        request = contextvars.ContextVar("request", default=None)
        other = sys.modules["other"] = types.ModuleType("other")
        other.request = contextvars.ContextVar("request", default=None)

        def values():
            return [request.get(), other.request.get()]
    """
    client = connect(serve(source), context=[shared.request], min_workers=1, max_workers=1)

    def call():
        shared.request.set(5)
        return [client.call("values") for _ in range(3)]

    with caplog.at_level("WARNING"):
        assert contextvars.copy_context().run(call) == [[None, None]] * 3
    told = [record.getMessage() for record in caplog.records if "context variable" in record.getMessage()]
    assert len(told) == 1
    assert "tests_shared:request is left out: the worker has 2 variables of that name, in " in told[0]
    assert "other" in told[0]


def test_modules_that_are_none(monkeypatch, shared):
    """What else lies in sys.modules does no harm, and is not asked."""

    class Odd:
        __slots__ = ()

        def __getattribute__(self, name):
            raise SystemExit

    monkeypatch.setitem(sys.modules, "tests_odd", Odd())
    monkeypatch.setitem(sys.modules, "tests_none", None)
    assert [full for full, _ in name([shared.request])] == ["tests_shared:request"]
