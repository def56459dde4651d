"""What a server offers: from a callable, mapping, module, class or object to named functions and hooks.

An interface is looked at once, in the master, when it is loaded: the names that can be called are settled then, and a
name on the wire is only looked up among those. The interface's code runs in workers alone.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NoReturn

from gtask.server.worker import demands

__all__ = ["Interface"]

Hook = Callable[[], object]
HOOKS = ("setup", "checkout_done", "teardown")


class Interface:
    """A thing that can be called over the wire, with its hooks.

    Args:
        target: one of

            - a callable ``f(method, *args, **kwargs)``, which gets all arguments of the caller;
            - a mapping of names to callables;
            - a module: its public functions (those in ``__all__``, or else those that it defines under a name
              without a leading underscore); functions named as a hook are the hooks;
            - a class: each worker makes one instance, without arguments, which is its setup; then as an object;
            - an object: its public methods; methods named as a hook are the hooks. One that can be called
              serves as a callable.
        setup: called once in each worker before it serves. If it raises, the caller gets the error.
        checkout_done: called in the worker after each checkout.
        teardown: called in the worker before it exits.
        name: for messages; by default the target's own.

    Raises:
        TypeError: the target offers nothing, or a part of it cannot be called, or a class or hook wants arguments.
    """

    def __init__(
        self,
        target: Any,
        *,
        setup: Hook | None = None,
        checkout_done: Hook | None = None,
        teardown: Hook | None = None,
        name: str = "",
    ) -> None:
        self.name = name or _name_of(target)
        self._hooks: dict[str, Hook | None] = {"setup": setup, "checkout_done": checkout_done, "teardown": teardown}
        for hook, function in self._hooks.items():
            if function is not None and not callable(function):
                raise TypeError(f"{hook}={function!r} of the interface {self.name} cannot be called")
        self._make: Callable[[], Any] | None = None
        self._function: Callable[..., Any] | None = None
        self._methods: dict[str, Callable[..., Any]] = {}
        self._own_hooks: list[str] = []  # those of the instance
        self._resolve(target)
        demands.check(self.name, self._hooks, self._make, _OfInstance)

    def __repr__(self) -> str:
        return f"<Interface {self.name}: {'a callable' if self._function else ', '.join(self.methods)}>"

    @property
    def methods(self) -> list[str]:
        """The names that can be called; empty for a callable, which gets to see any."""
        return sorted(self._methods)

    @property
    def is_function(self) -> bool:
        """Whether the target is a callable, which gets all arguments: the first of them need not be a method's name."""
        return self._function is not None

    def functions(self) -> dict[str, Callable[..., Any]]:
        """The functions that can be called, by name; a callable has itself, under the name ``()``.

        Where workers are yet to make the instance of a class, they are the functions of the class."""
        if self._function is not None:
            made = self._make if self._function is self._make else None  # yet to be made
            return {"()": self._function if made is None else inspect.getattr_static(made, "__call__")}
        return {
            name: getattr(self._make, name) if isinstance(function, _OfInstance) else function
            for name, function in sorted(self._methods.items())
        }

    def is_method(self, name: str) -> bool:
        """Whether :meth:`functions` has under this name a function that is given the instance first."""
        if self._make is None or not (self._function is self._make or isinstance(self._methods.get(name), _OfInstance)):
            return False
        return inspect.isfunction(inspect.getattr_static(self._make, "__call__" if name == "()" else name))

    @property
    def hooks(self) -> list[str]:
        """The names of the hooks that there are."""
        return [name for name, hook in self._hooks.items() if hook is not None]

    @property
    def has_checkout_done(self) -> bool:
        """Whether there is a checkout_done hook."""
        return self._hooks["checkout_done"] is not None

    # --- in the worker ---------------------------------------------------------------------------------

    def setup(self) -> None:
        """Make the instance, if the target is a class, and run the setup hook. After an error it can be run again."""
        if self._make is not None:
            instance = self._make()
            if self._function is not None:
                self._function = instance
            self._methods = {name: getattr(instance, name) for name in self._methods}
            # Kept for a second setup, if this one fails.
            self._own_hooks = self._own_hooks or [
                hook for hook, function in self._hooks.items() if isinstance(function, _OfInstance)
            ]
            for hook in self._own_hooks:
                self._hooks[hook] = getattr(instance, hook)
        self._run_hook("setup")

    def find(self, name: Any) -> Callable[..., Any] | None:
        """The function behind a name: the callable itself for any name; None if there is no such method."""
        if self._function is not None:
            return self._function
        return self._methods.get(name) if type(name) is str else None

    def refuse(self, name: Any, *args: Any, **kwargs: Any) -> NoReturn:
        """What a call of a method runs that does not exist.

        Raises:
            AttributeError: always; the message says what there is.
        """
        raise AttributeError(self._unknown(name))

    def checkout_done(self) -> None:
        """Run the hook, if there is one."""
        self._run_hook("checkout_done")

    def teardown(self) -> None:
        """Run the hook, if there is one."""
        self._run_hook("teardown")

    # --- looking at the target -------------------------------------------------------------------------

    def _resolve(self, target: Any) -> None:
        if isinstance(target, ModuleType):
            self._take_module(target)
        elif isinstance(target, Mapping):
            self._take_mapping(target)
        elif isinstance(target, type):
            self._make = target
            self._take_class(target, _OfInstance)
            if any("__call__" in vars(base) for base in target.__mro__):
                self._function, self._methods = target, {}
        else:
            self._take_class(type(target), lambda name: getattr(target, name))
            if callable(target):
                self._function, self._methods = target, {}
        if self._function is None and not self._methods:
            raise TypeError(
                f"the interface {self.name} offers nothing to call: give it a public function or method, "
                "or serve a callable, mapping, module, class or object that has one"
            )

    def _take_module(self, module: ModuleType) -> None:
        listed = getattr(module, "__all__", None)
        for name, value in vars(module).items():
            if name in HOOKS and callable(value):
                self._hooks[name] = self._hooks[name] or value
            elif listed is not None:
                if name in listed and callable(value):
                    self._methods[name] = value
            elif not name.startswith("_") and inspect.isfunction(value) and value.__module__ == module.__name__:
                self._methods[name] = value

    def _take_mapping(self, mapping: Mapping[Any, Any]) -> None:
        for name, function in mapping.items():
            if not isinstance(name, str) or not callable(function):
                raise TypeError(f"the interface {self.name} maps {name!r} to {function!r}: map names to callables")
            self._methods[name] = function

    def _take_class(self, cls: type, get: Callable[[str], Callable[..., Any]]) -> None:
        for name in demands.methods_of(cls):
            if name in HOOKS:
                self._hooks[name] = self._hooks[name] or get(name)
            else:
                self._methods[name] = get(name)

    def _run_hook(self, name: str) -> None:
        hook = self._hooks[name]
        if hook is not None:
            hook()

    def _unknown(self, name: Any) -> str:
        if name is None:
            return (
                f"the interface {self.name} is called by method: checkout.name(...); it has {', '.join(self.methods)}"
            )
        close = difflib.get_close_matches(str(name), self.methods, 1)
        hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(self.methods)}"
        return f"the interface {self.name} has no method {name!r:.80}: {hint}"


class _OfInstance:
    """Stands for a method of the instance that each worker is yet to make."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError(f"{self.name} was called before setup")


def _name_of(target: Any) -> str:
    name = getattr(target, "__name__", None) or type(target).__name__
    return name if isinstance(name, str) else type(target).__name__
