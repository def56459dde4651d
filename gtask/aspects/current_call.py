"""In the worker: :func:`gtask.current_call`, by which code knows its call, and may ask for more time."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from gtask import running_call
from gtask.aspects.aspect import WorkerAspect
from gtask.wire.messages import Extend, RequestMeta

if TYPE_CHECKING:
    from gtask.server.worker.worker import Worker

__all__ = ["CurrentCallAspect"]

_NO_META = RequestMeta()


class CurrentCallAspect(WorkerAspect):
    """Tells what call runs. It is asked in any thread, and does nothing unless it is asked."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._extension = (0.0, 0.0)  # when the call began that has asked for more time, and until when
        running_call.provide(self._current_call)

    def _current_call(self) -> running_call.CurrentCall | None:
        worker = self._worker
        request = worker.request
        if request is None:
            return None
        meta = request.meta or _NO_META
        timeout = meta.timeout if meta.has_timeout else worker.timeout
        if worker.left is not None:
            timeout = worker.left
        deadline = None if timeout is None else max(worker.started + timeout, self._until())
        args = request.args  # once: the call may end meanwhile in its own thread
        method = args[0] if args and type(args[0]) is str else "()"
        return running_call.CurrentCall(method, worker.client, deadline, meta.headers, meta.context, self._extend)

    def _until(self) -> float:
        """When the time ends for which this call has asked; 0 if it has not asked."""
        began, until = self._extension
        return until if began == self._worker.started else 0.0

    def _extend(self, seconds: float) -> None:
        worker = self._worker
        if worker.request is None:
            return
        until = max(self._until(), monotonic() + seconds)
        self._extension = worker.started, until
        worker.board.extend(worker.started, until)
        if not worker.dialect.is_terse:
            worker.teller.tell(lambda: worker.replies.tell(worker.dialect.encode(Extend(seconds)), True))
