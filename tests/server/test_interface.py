"""From whatever is served to what can be called: every form, the hooks, and what cannot be reached."""

from __future__ import annotations

import functools
import types

import pytest

from gtask.server.worker.interface import Interface
from gtask.server.worker.methods import Methods


def module(source, name="served"):
    """A module with this source."""
    made = types.ModuleType(name)
    exec(source, vars(made))
    return made


def call(interface, *args, **kwargs):
    """What a client's call does in the worker."""
    methods = Methods(interface)
    method = methods[args[0]] if args and type(args[0]) is str else methods.of(args)
    return method.function(*args[method.takes], **kwargs)


def refusal(interface, *args):
    """The text of the error of a call that names no method."""
    with pytest.raises(AttributeError) as caught:
        call(interface, *args)
    return str(caught.value)


# --- callables -------------------------------------------------------------------------------------------


def echo(*args, **kwargs):
    return (args, kwargs)


class CallableThing:
    """An object that can be called; its methods are its own affair."""

    def __init__(self):
        self.log = []

    def __call__(self, method, *args):
        self.log.append(method)
        return (method, args)

    def other(self):
        raise AssertionError("never called by name")

    def checkout_done(self):
        self.log.append("done")


class Echoing:
    def method(self, *args, **kwargs):
        return (args, kwargs)


@pytest.mark.parametrize(
    "target",
    [echo, lambda *args, **kwargs: (args, kwargs), functools.partial(echo), Echoing().method],
    ids=["function", "lambda", "partial", "method"],
)
def test_a_callable_gets_all_that_the_caller_sends(target):
    """The method's name first, if there is one; and no name is looked up."""
    interface = Interface(target)
    interface.setup()
    assert call(interface, "method", 1, key=2) == (("method", 1), {"key": 2})
    assert call(interface, [1], 2) == (([1], 2), {})
    assert call(interface) == ((), {})
    assert call(interface, "__class__") == (("__class__",), {})
    assert interface.methods == []
    assert not interface.has_checkout_done


def test_a_builtin_function_may_be_served():
    """Also a method of an object."""
    assert call(Interface(max), 3, 5) == 5
    assert call(Interface("a-{}".format), "b") == "a-b"


def test_an_object_that_can_be_called_serves_as_a_callable():
    """Its methods cannot be called by name; those named as a hook are the hooks."""
    thing = CallableThing()
    interface = Interface(thing)
    assert call(interface, "other", 1) == ("other", (1,))
    interface.checkout_done()
    assert thing.log == ["other", "done"]
    assert interface.methods == []


# --- mappings --------------------------------------------------------------------------------------------


def test_a_mapping_gives_names_to_callables():
    """Any names, also those that hooks have elsewhere; other mappings than dict, too."""
    for make in (dict, types.MappingProxyType):
        interface = Interface(make({"add": lambda a, b=0: a + b, "setup": lambda: "a method", "two words": len}))
        interface.setup()
        assert call(interface, "add", 1, b=2) == 3
        assert call(interface, "setup") == "a method"
        assert call(interface, "two words", "abc") == 3
        assert interface.methods == ["add", "setup", "two words"]


def test_a_mapping_is_looked_at_once():
    """What is put into it later cannot be called."""
    functions = {"a": len}
    interface = Interface(functions)
    functions["b"] = len
    assert "no method 'b'" in refusal(interface, "b", "x")


@pytest.mark.parametrize("mapping", [{"a": 1}, {1: len}, {b"a": len}, {"a": len, "b": None}], ids=str)
def test_a_mapping_of_other_things_is_refused(mapping):
    """The error shows the pair."""
    with pytest.raises(TypeError, match="map names to callables"):
        Interface(mapping)


# --- modules ---------------------------------------------------------------------------------------------

MODULE = """
from os.path import join
import os
def setup(): log.append("setup")
def checkout_done(): log.append("done")
def teardown(): log.append("teardown")
def hash(text, cost=1): return (text, cost)
def _private(): raise AssertionError
class Thing: pass
number = 5
text = "x"
log = []
"""


def test_a_module_serves_the_public_functions_that_it_defines():
    """Not what it imports, not its classes and data, not what has an underscore; hooks are hooks."""
    served = module(MODULE)
    interface = Interface(served)
    assert interface.methods == ["hash"]
    assert call(interface, "hash", "x", cost=2) == ("x", 2)
    for name in ("_private", "join", "os", "Thing", "number", "text", "log", "setup", "checkout_done", "__name__"):
        assert f"no method {name!r}" in refusal(interface, name)
    assert served.log == []
    interface.setup()
    interface.checkout_done()
    interface.teardown()
    assert served.log == ["setup", "done", "teardown"]


def test_a_module_says_what_it_offers_by_all():
    """Then just that: imported callables and classes, too, if it lists them; what it does not list is private."""
    interface = Interface(module(MODULE + "__all__ = ['join', 'Thing', '_private', 'number', 'missing']"))
    assert interface.methods == ["Thing", "_private", "join"]
    assert call(interface, "join", "a", "b") == "a/b"
    assert "no method 'hash'" in refusal(interface, "hash")
    assert interface.has_checkout_done


# --- classes and objects ---------------------------------------------------------------------------------


class Base:
    def inherited(self):
        return ("inherited", self.made)


class Account(Base):
    """Records what befalls its instances."""

    made = 0
    log: list = []  # noqa: RUF012
    attribute = 5

    class Nested:
        pass

    def __init__(self):
        Account.made += 1
        self.balance = 0
        self.function = lambda: "an attribute"

    def setup(self):
        self.log.append("setup")

    def checkout_done(self):
        self.log.append(("done", self.balance))

    def teardown(self):
        self.log.append("teardown")

    def add(self, amount, *, times=1):
        self.balance += amount * times
        return self.balance

    @staticmethod
    def static(value):
        return ("static", value)

    @classmethod
    def of_class(cls):
        return cls.__name__

    @property
    def trap(self):
        raise AssertionError("a property was run")

    def _private(self):
        raise AssertionError


@pytest.fixture(autouse=True)
def fresh_account():
    Account.made = 0
    Account.log.clear()


METHODS = ["add", "inherited", "of_class", "static"]


def test_a_class_makes_one_instance_per_worker():
    """In setup and not before; all calls and hooks are of that instance."""
    interface = Interface(Account)
    assert interface.methods == METHODS
    assert interface.has_checkout_done
    assert Account.made == 0
    interface.setup()
    assert Account.made == 1
    assert Account.log == ["setup"]
    assert call(interface, "add", 2, times=3) == 6
    assert call(interface, "add", 1) == 7
    assert call(interface, "inherited") == ("inherited", 1)
    assert call(interface, "static", 4) == ("static", 4)
    assert call(interface, "of_class") == "Account"
    interface.checkout_done()
    interface.teardown()
    assert Account.log == ["setup", ("done", 7), "teardown"]
    assert Account.made == 1


def test_an_object_serves_its_public_methods():
    """The same one in each worker; its methods named as a hook are the hooks."""
    account = Account()
    interface = Interface(account)
    assert interface.methods == METHODS
    interface.setup()
    assert call(interface, "add", 5) == 5
    interface.checkout_done()
    interface.teardown()
    assert account.balance == 5
    assert Account.made == 1
    assert Account.log == ["setup", ("done", 5), "teardown"]


@pytest.mark.parametrize("target", [Account, Account()], ids=["class", "object"])
@pytest.mark.parametrize(
    "name",
    [
        "_private", "__init__", "__class__", "__dict__", "attribute", "Nested", "trap", "balance", "function", "log",
        "setup", "checkout_done",
    ],
)  # fmt: skip
def test_only_public_methods_can_be_called(target, name):
    """No attribute, no property (which is not even looked at), nothing private, no hook, and no path to any."""
    interface = Interface(target)
    interface.setup()
    for hidden in (name, f"add.{name}", f"add.__self__.{name}"):
        assert f"no method {hidden!r}" in refusal(interface, hidden)


def test_the_error_of_a_class_that_cannot_be_made_is_that_of_setup():
    """Looking at it makes none; setup raises what the class raises. One that wants arguments is refused at once."""

    class Needy:
        def __init__(self, argument=None):
            raise TypeError("no such argument")

        def method(self):
            pass

    class Needier(Needy):
        def __init__(self, argument):
            pass

    with pytest.raises(TypeError, match="the constructor of the interface Needier wants arguments"):
        Interface(Needier)
    interface = Interface(Needy)
    with pytest.raises(TypeError, match="no such argument"):
        interface.setup()


def test_a_class_whose_instances_can_be_called_serves_as_a_callable():
    """One instance per worker, which gets all that the caller sends; also if only a base class has __call__."""

    class Derived(CallableThing):
        pass

    for cls in (CallableThing, Derived):
        interface = Interface(cls)
        assert interface.methods == []
        interface.setup()
        assert call(interface, "other", 1) == ("other", (1,))
        interface.checkout_done()
        assert call(interface, "again") == ("again", ())


def test_metaclasses_do_not_make_a_class_callable():
    """Every class can be called; what counts is whether its instances can."""

    class Meta(type):
        def __call__(cls, *args):
            return super().__call__(*args)

        def of_meta(cls):
            raise AssertionError

    class Served(metaclass=Meta):
        def method(self):
            return 5

    interface = Interface(Served)
    interface.setup()
    assert interface.methods == ["method"]
    assert call(interface, "method") == 5


# --- hooks that are given --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [echo, {"echo": echo}, module(MODULE), Account, Account()],
    ids=["callable", "mapping", "module", "class", "object"],
)
def test_hooks_that_are_given_come_before_those_of_the_target(target):
    """For every form, functions and methods alike; the target's own of these names are not run."""
    log = []
    before = list(Account.log)
    interface = Interface(
        target,
        setup=lambda: log.append("setup"),
        checkout_done=functools.partial(log.append, "done"),
        teardown=types.MethodType(lambda self: self.append("teardown"), log),
    )
    assert interface.has_checkout_done
    interface.setup()
    interface.checkout_done()
    interface.teardown()
    assert log == ["setup", "done", "teardown"]
    assert Account.log == before


def test_setup_runs_after_the_instance_is_made():
    """A setup that is given for a class finds it made."""
    made = []
    Interface(Account, setup=lambda: made.append(Account.made)).setup()
    assert made == [1]


def test_without_hooks_nothing_happens():
    """All three may be absent."""
    interface = Interface({"echo": echo})
    interface.setup()
    interface.checkout_done()
    interface.teardown()
    assert not interface.has_checkout_done


def test_what_a_hook_raises_is_passed_on():
    """It is the worker's to handle."""

    def fail():
        raise LookupError("on purpose")

    interface = Interface(echo, setup=fail, checkout_done=fail, teardown=fail)
    for hook in (interface.setup, interface.checkout_done, interface.teardown):
        with pytest.raises(LookupError, match="on purpose"):
            hook()


@pytest.mark.parametrize("hook", ["setup", "checkout_done", "teardown"])
@pytest.mark.parametrize("value", [5, "name", [], False], ids=repr)
def test_a_hook_that_cannot_be_called_is_refused(hook, value):
    """When it is given, by name."""
    with pytest.raises(TypeError, match=f"{hook}=.*cannot be called") as caught:
        Interface(echo, **{hook: value})
    assert repr(value) in str(caught.value)


# --- errors and names ------------------------------------------------------------------------------------


def test_an_unknown_method_is_told_with_a_suggestion():
    """The nearest name, or all there are; and the interface's name."""
    interface = Interface({"verify": echo, "hash": echo}, name="hasher")
    assert refusal(interface, "verfy") == "the interface hasher has no method 'verfy': did you mean verify?"
    assert refusal(interface, "xyz") == "the interface hasher has no method 'xyz': it has hash, verify"
    assert "hash, verify" in refusal(interface)


@pytest.mark.parametrize(
    "name", [5, None, ["hash"], {"hash": 1}, b"hash", 1.5, "x" * 100_000], ids=lambda name: str(name)[:9]
)
def test_what_is_no_name_of_a_method(name):
    """Any value may come over the wire in its place: the error is as short as ever."""
    assert len(refusal(Interface({"hash": echo}), name)) < 300


@pytest.mark.parametrize(
    "target",
    [
        module(""), module("from os.path import join"), module("x = 1"), module("def setup(): pass"),
        module("__all__ = ['x']"), {}, object(), type("Empty", (), {}), type("Empty", (), {"x": 1, "_f": echo})(), None,
    ],
    ids=repr,
)  # fmt: skip
def test_what_offers_nothing_is_refused(target):
    """When it is loaded: a mistake that no caller should find out."""
    with pytest.raises(TypeError, match="offers nothing to call"):
        Interface(target)


def test_its_name_is_the_targets_own_unless_it_is_given():
    """For messages."""
    assert Interface(echo).name == "echo"
    assert Interface(Account).name == "Account"
    assert Interface(Account()).name == "Account"
    assert Interface(module(MODULE, "hasher")).name == "hasher"
    assert Interface({"a": echo}).name == "dict"
    assert Interface({"a": echo}, name="mine").name == "mine"
    assert repr(Interface({"a": echo, "b": echo}, name="mine")) == "<Interface mine: a, b>"
    assert repr(Interface(echo)) == "<Interface echo: a callable>"
