"""A function that runs in a worker when it is called in a program, and in place when it is called in a worker."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from gtask import running_call as current
from gtask.function_names import name_of

__all__ = ["Client", "Task", "task"]

P = ParamSpec("P")
R = TypeVar("R", covariant=True)


class Client(Protocol):
    """What calls the workers: a :class:`gtask.Client`."""

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any: ...


class Task(Protocol[P, R]):
    """What :func:`task` makes of a function.

    Attributes:
        local: the function itself, which runs in place wherever it is called.
    """

    @property
    def local(self) -> Callable[P, R]: ...
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...


def task(client: Client | Callable[[], Client], *, name: str | None = None) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Decorate a function: a call is made in a worker, by ``client.call``; in any worker, it runs in place.

    ::

        @gtask.task(client)
        def render(page): ...

    Args:
        client: which calls the worker; or a function without arguments that gives it, asked at each call.
        name: under which the server has it; by default ``"module:qualname"``, as every server has those of its
            module.

    Raises:
        TypeError: it is a generator, a coroutine, a closure, a method, or cannot be found by a worker; or ``client`` is
            none. The message says what to do.
    """
    if not callable(client) and not hasattr(client, "call"):
        raise TypeError(
            f"gtask.task({client!r}): write @gtask.task(client), with a gtask.Client or a function that gives one"
        )

    give: Callable[[], Client] = client if callable(client) else lambda: client

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        _check(function)
        found = name_of(function, is_new=True) if name is None or "<" in function.__qualname__ else name

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if current.in_worker():
                return function(*args, **kwargs)
            return cast(R, give().call(found, *args, **kwargs))

        vars(call)["local"] = function
        return cast("Task[P, R]", call)

    return decorate


def _check(function: Any) -> None:
    """Refuse what cannot be called in another process as it would be here."""
    if not isinstance(function, FunctionType):
        raise TypeError(
            f"gtask.task decorates a function, and not {function!r:.200}: write @gtask.task(client) above a def, below "
            "@staticmethod if that is there"
        )
    shown = f"{function.__module__}.{function.__qualname__} cannot be a task: "
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{shown}it is a generator, whose values come one by one; return a list, or make each a call")
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"{shown}it is a coroutine, and a worker has no event loop; write def, and block")
    has_wrapped = hasattr(function, "__wrapped__")
    if function.__closure__ and not has_wrapped and "<lambda>" not in function.__qualname__:
        free = ", ".join(function.__code__.co_freevars)
        raise TypeError(
            f"{shown}it is a closure: it uses {free} of the function around it; give it that as an argument"
        )
    first = next(iter(inspect.signature(function).parameters), "")
    if "." in function.__qualname__ and first in ("self", "cls"):
        raise TypeError(f"{shown}it is a method, and {first} cannot travel; write a function, or a static method")
