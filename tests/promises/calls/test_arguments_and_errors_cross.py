"""The point of this test is to ensure that arguments, values and errors cross unharmed, in both directions.

Unicode and nesting included, and each caller gets its own answer, also when many ask at once.
"""

import gevent
import pytest

import gtask

SOURCE = """
    def echo(*args, **kwargs):
        return [list(args), kwargs]

    def fail(name, *args):
        raise {"KeyError": KeyError, "ValueError": ValueError}[name](*args)
"""

NESTED = {"list": [1, [2, [3, {"deep": [None, True, {"deeper": b"\x00\xff"}]}]]], "empty": [[], {}, "", b""]}

VALUES = [
    None,
    True,
    False,
    0,
    -1,
    2**63,
    -(2**100),
    1.5,
    float("inf"),
    "",
    "Grüße, Ελλάδα, 日本語, \U0001f4a3, e\u0301, \x00, \u2028",
    "\udcff",
    bytes(range(256)),
    [],
    {},
    {"ключ": "värde", 7: "int", b"\xfe": "bytes"},
    NESTED,
]


def test_values_come_back_as_they_went(shared, connect):
    """Each value alone, then all together, as positional and as keyword arguments."""
    client = connect(shared(SOURCE))
    with client.checkout() as worker:
        for value in VALUES:
            assert worker.echo(value) == [[value], {}]
            assert type(worker.echo(value)[0][0]) is type(value)
        keywords = {f"ключ_{place}": value for place, value in enumerate(VALUES)}
        assert worker.echo(*VALUES, **keywords) == [VALUES, keywords]


def test_deep_nesting_crosses(shared, connect):
    """A list in a list, 200 times over."""
    value = ["the bottom"]
    for _ in range(200):
        value = [value]
    assert connect(shared(SOURCE)).call("echo", value) == [[value], {}]


def test_keyword_arguments_may_have_any_name(shared, connect):
    """Also those that gtask's own functions have."""
    keywords = {"self": 1, "name": 2, "method": 3, "args": 4, "kwargs": 5, "timeout": 6}
    client = connect(shared(SOURCE))
    with client.checkout() as worker:
        assert worker.echo(**keywords) == [[], keywords]
        assert worker.call("echo", **keywords) == [[], keywords]
        assert worker.echo.submit(**keywords).get() == [[], keywords]
    assert client.call("echo", **keywords) == [[], keywords]
    assert client.remote.echo(**keywords) == [[], keywords]


def test_errors_keep_class_text_and_arguments(shared, connect):
    """They are caught as what they were and as a RemoteError, with unicode and nested arguments."""
    client = connect(shared(SOURCE), refork_after_error=False)
    with client.checkout() as worker:
        with pytest.raises(KeyError) as caught:
            worker.fail("KeyError", "schlüssel \U0001f511")
        assert caught.value.args == ("schlüssel \U0001f511",)
        assert isinstance(caught.value, gtask.RemoteError)
        with pytest.raises(gtask.RemoteError) as caught:
            worker.fail("ValueError", "naïve", NESTED, 2**100)
        assert isinstance(caught.value, ValueError)
        assert caught.value.args == ("naïve", NESTED, 2**100)
        assert str(caught.value) == str(ValueError("naïve", NESTED, 2**100))


def test_everybody_gets_his_own_answer(shared, connect):
    """200 greenlets over 4 workers, a part of whose calls raise."""
    client = connect(shared(SOURCE), max_workers=4, refork_after_error=False)

    def ask(number):
        if number % 5:
            return client.call("echo", number, text=f"№ {number}")
        with pytest.raises(KeyError) as caught:
            client.call("fail", "KeyError", number)
        return caught.value.args

    askers = [gevent.spawn(ask, number) for number in range(200)]
    for number, asker in enumerate(askers):
        assert asker.get() == ([[number], {"text": f"№ {number}"}] if number % 5 else (number,))
