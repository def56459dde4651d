"""What a worker remembers of each method, from its first call on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gtask.server.scoreboard import label
from gtask.server.worker.misfits import function_of
from gtask.server.worker.replies import QUICK

if TYPE_CHECKING:
    from gtask.server.worker.interface import Interface

__all__ = ["Method", "Methods"]

MOST = 1000
"""How many methods are remembered: a callable may get anything as its first argument."""


class Method:
    """One method.

    Attributes:
        function: is called; an unknown method's raises AttributeError.
        takes: the arguments of the function among those of a request.
        name: ``()`` if the interface is a callable.
        label: the name as the scoreboard shows it: also of a callable it is the first argument, if that is a str.
        usual: seconds that its calls take; the slowest counts, but halves with each quicker call.
    """

    __slots__ = ("function", "label", "name", "takes", "usual")

    def __init__(self, interface: Interface, first: Any) -> None:
        called = first if type(first) is str else "()"
        self.function = function_of(interface, first)
        self.takes = slice(0 if interface.is_function else 1, None)
        self.name = "()" if interface.is_function else called
        self.label = label(called)
        self.usual = 2 * QUICK  # until the first call has ended it counts as slow


class Methods(dict[str, Method]):
    """The methods of an interface, by the first argument of a request; each is made when it is first looked up."""

    def __init__(self, interface: Interface) -> None:
        self._interface = interface

    def __missing__(self, first: Any) -> Method:
        method = Method(self._interface, first)
        if type(first) is str and len(self) < MOST:
            self[first] = method
        return method

    def of(self, args: Sequence[Any]) -> Method:
        """The method of a request whose first argument is no key, or that has no arguments."""
        return Method(self._interface, args[0] if args else None)
