"""The point of this test is to ensure that every form of interface can be served, and every way of calling works on it.

Only what is public and registered can be called; no name is ever walked.
"""

import pytest

import gtask

SOURCE = """
    import gtask

    state = []

    def join(*words, sep=" "):
        return sep.join(words)

    def close():
        return "closed by name"

    def release():
        return "released by name"

    def submit():
        return "submitted by name"

    def _secret():
        return "secret"

    def setup():
        state.append("set up")

    def look():
        return state

    def function(*args, **kwargs):
        return [list(args), kwargs]

    mapping = {"join": join, "close": close, "release": release, "submit": submit, "look": look}

    class Class:
        secret = "secret"

        def __init__(self):
            self.state = ["set up"]

        def join(self, *words, sep=" "):
            return sep.join(words)

        @staticmethod
        def close():
            return "closed by name"

        @classmethod
        def release(cls):
            return "released by name"

        def submit(self):
            return "submitted by name"

        def look(self):
            return self.state

        def _secret(self):
            return "secret"

        def teardown(self):
            pass

    instance = Class()

    class Callable:
        def __init__(self):
            self.calls = 0

        def __call__(self, *args, **kwargs):
            self.calls += 1
            return [list(args), kwargs, self.calls]

    callable_instance = Callable()

    with_hooks = gtask.Interface(mapping, setup=setup)
"""

BY_METHOD = ["", "mapping", "Class", "instance", "with_hooks"]
BY_FUNCTION = ["function", "Callable", "callable_instance"]
SET_UP = {"": ["set up"], "mapping": [], "Class": ["set up"], "instance": ["set up"], "with_hooks": ["set up"]}


@pytest.mark.parametrize("attribute", BY_METHOD)
def test_by_method(serve, connect, attribute):
    """A module, a mapping, a class, an object, and an Interface: each way of calling, with keyword arguments."""
    client = connect(serve(SOURCE, attribute=attribute), refork_after_error=False)
    with client.checkout() as worker:
        assert worker.join("a", "b") == "a b"
        assert worker.join("a", "b", sep="-") == "a-b"
        assert worker.join.submit("a", "b", sep="-").get() == "a-b"
        assert worker.call("join", "a", "b", sep="-") == "a-b"
        assert worker("join", "a", "b", sep="-") == "a-b"
        assert worker.submit("join", "a", "b", sep="-").get() == "a-b"
        assert worker.call("close") == worker.close() == "closed by name"
        assert worker.call("release") == "released by name"
        assert worker.call("submit") == "submitted by name"
        assert worker.look() == SET_UP[attribute]
    assert client.call("join", "a", "b", sep="-") == "a-b"
    assert client.remote.join("a", "b", sep="-") == "a-b"
    assert client.remote.release() == "released by name"


@pytest.mark.parametrize("attribute", BY_FUNCTION)
def test_as_a_function(serve, connect, attribute):
    """A function, a class whose instances can be called, and such an instance: they get all that the caller sends."""
    client = connect(serve(SOURCE, attribute=attribute))
    with client.checkout() as worker:
        assert worker("a", "b", key=1)[:2] == [["a", "b"], {"key": 1}]
        assert worker.submit("a", "b", key=1).get()[:2] == [["a", "b"], {"key": 1}]
        assert worker()[:2] == [[], {}]
        assert worker.any_method("a", key=1)[:2] == [["any_method", "a"], {"key": 1}]
        assert worker.call("any method", "a", key=1)[:2] == [["any method", "a"], {"key": 1}]
        if attribute != "function":
            assert worker()[2] == 6
    assert client.call("any", key=1)[:2] == [["any"], {"key": 1}]
    assert client.remote.any("a")[:2] == [["any", "a"], {}]


@pytest.mark.parametrize("attribute", BY_METHOD)
def test_nothing_else_can_be_called(serve, connect, attribute):
    """Private functions, attributes of attributes, imported modules, the hooks: no such method."""
    with connect(serve(SOURCE, attribute=attribute)).checkout() as worker:
        for name in ("_secret", "secret", "join.__call__", "look.__globals__", "gtask", "", "setup", "__init__"):
            with pytest.raises(AttributeError, match="no method") as caught:
                worker.call(name)
            assert isinstance(caught.value, gtask.RemoteError)


def test_a_wrong_name_gets_a_hint(shared, connect):
    """The nearest name that there is."""
    with pytest.raises(AttributeError, match=r"did you mean join\?"):
        connect(shared(SOURCE)).call("jion")


def test_calling_without_a_method_says_what_there_is(shared, connect):
    """An interface of methods is called as a function, with nothing at all."""
    with connect(shared(SOURCE)).checkout() as worker, pytest.raises(AttributeError, match=r"by method.*join"):
        worker()
