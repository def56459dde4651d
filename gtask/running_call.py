"""What a worker's code may know of the call that it runs: :func:`current_call`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

__all__ = ["CurrentCall", "current_call", "in_worker", "provide"]


class CurrentCall:
    """The call that this worker runs; what :func:`gtask.current_call` gives.

    Attributes:
        method: its name; ``()`` for a call without one.
        client: the name of the client that made it, or "".
        headers: of the request to which it belongs, such as ``traceparent``.
        context: the values of the context variables that the client sends, by ``module:name``.
    """

    __slots__ = ("_deadline", "_extend", "client", "context", "headers", "method")

    def __init__(
        self,
        method: str,
        client: str,
        deadline: float | None,
        headers: Mapping[str, str],
        context: Mapping[str, Any],
        extend: Callable[[float], None],
    ) -> None:
        self.method = method
        self.client = client
        self.headers = headers
        self.context = context
        self._deadline = deadline
        self._extend = extend

    def __repr__(self) -> str:
        left = self.left
        return f"<call of {self.method}, {'no deadline' if left is None else f'{left:.3g} s left'}>"

    @property
    def left(self) -> float | None:
        """Seconds until its caller gives it up, below 0 if that is over; None if there is no limit."""
        return None if self._deadline is None else self._deadline - monotonic()

    def extend(self, seconds: float) -> None:
        """Let it run for at least this number of seconds from now, whatever its time-out is and the server's
        hung_worker_timeout. For code that knows that it is getting on, as often as it does.

        Args:
            seconds: from now on.

        Raises:
            ValueError, TypeError: that is no number of seconds over 0.
        """
        advice = f"extend({seconds!r}): write a number of seconds over 0"
        if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
            raise TypeError(advice)
        if not 0 < seconds < math.inf:
            raise ValueError(advice)
        self._extend(float(seconds))
        if self._deadline is not None:
            self._deadline = max(self._deadline, monotonic() + seconds)


def _none() -> CurrentCall | None:
    return None


_provider: Callable[[], CurrentCall | None] = _none


def provide(provider: Callable[[], CurrentCall | None]) -> None:
    """In a worker: from now on this tells which call it runs."""
    global _provider
    _provider = provider


def current_call() -> CurrentCall | None:
    """The call that this worker runs, asked in any of its threads; None outside of a call, and in any other process."""
    return _provider()


def in_worker() -> bool:
    """Whether this process is a worker, or was forked from one; also in setup and the other hooks."""
    return _provider is not _none
