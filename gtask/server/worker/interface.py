"""What a server offers: named functions and hooks, which its workers call.

An interface is looked at once, in the master, when it is loaded: the names that can be called are settled then, and a
name on the wire is only looked up among those. The interface's code runs in workers alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gtask.server.worker.discovery import Hook, discover, name_of

__all__ = ["Interface"]


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
        self.name = name or name_of(target)
        self._found = discover(
            self.name, target, {"setup": setup, "checkout_done": checkout_done, "teardown": teardown}
        )
        self._offered = self._found  # in the worker it is what the instance offers, if the target is a class

    def __repr__(self) -> str:
        return f"<Interface {self.name}: {'a callable' if self.is_function else ', '.join(self.methods)}>"

    @property
    def methods(self) -> list[str]:
        """The names that can be called; empty for a callable, which gets to see any."""
        return sorted(self._found.methods)

    @property
    def is_function(self) -> bool:
        """Whether the target is a callable, which gets all arguments: the first of them need not be a method's name."""
        return self._found.function is not None

    @property
    def hooks(self) -> list[str]:
        """The names of the hooks that there are."""
        return [name for name, hook in self._found.hooks.items() if hook is not None]

    @property
    def has_checkout_done(self) -> bool:
        """Whether there is a checkout_done hook."""
        return self._found.hooks["checkout_done"] is not None

    def functions(self) -> dict[str, Callable[..., Any]]:
        """The functions that can be called, by name; a callable has itself, under the name ``()``.

        Where workers are yet to make the instance of a class, they are the functions of the class."""
        return self._offered.functions()

    def is_method(self, name: str) -> bool:
        """Whether :meth:`functions` has under this name a function that is given the instance first."""
        return self._offered.is_method(name)

    # --- in the worker ---------------------------------------------------------------------------------

    def setup(self) -> None:
        """Make the instance, if the target is a class, and run the setup hook. After an error it can be run again."""
        if self._found.make is not None:
            self._offered = self._found.of(self._found.make())
        self._run_hook("setup")

    def find(self, name: Any) -> Callable[..., Any] | None:
        """The function behind a name: the callable itself for any name; None if there is no such method."""
        if self.is_function:
            return self._offered.function
        return self._offered.methods.get(name) if type(name) is str else None

    def checkout_done(self) -> None:
        """Run the hook, if there is one."""
        self._run_hook("checkout_done")

    def teardown(self) -> None:
        """Run the hook, if there is one."""
        self._run_hook("teardown")

    def _run_hook(self, name: str) -> None:
        hook = self._offered.hooks[name]
        if hook is not None:
            hook()
