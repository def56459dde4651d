"""In the worker: pickled arguments are loaded as part of their call, which loading may end by an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gtask.aspects.aspect import WorkerAspect
from gtask.wire.values.pickles import unseal

if TYPE_CHECKING:
    from gtask.server.worker.worker import Worker
    from gtask.wire.messages import Request

__all__ = ["Unpickling"]


class Unpickling(WorkerAspect):
    """Loads pickled arguments and context variables."""

    def __init__(self, worker: Worker) -> None:
        pass

    def begin(self, request: Request, method: str) -> _Load | None:
        return _Load(request) if request.used else None


class _Load:
    """Of one call."""

    __slots__ = ("_request",)

    def __init__(self, request: Request) -> None:
        self._request = request

    def enter(self) -> None:
        request = self._request
        unseal(request.args, lambda index: f"argument {index}")
        unseal(request.kwargs, lambda name: f"argument {name}")
        if request.meta is not None:
            unseal(request.meta.context, lambda name: f"the context variable {name}")

    def leave(self, error: BaseException | None) -> None:
        """Nothing is left."""
