"""The point of this test is to ensure that chosen context variables have their caller's values in the worker."""

from __future__ import annotations

import contextvars
import decimal
import sys
import types

import gevent
import pytest

import gtask

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
