"""A call as part of a trace: the aspects that have spans made by :mod:`gtask.aspects.spans`.

Only a program that has loaded opentelemetry can trace. Until then no call pays for it, and the spans' module is not
imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gtask.aspects.aspect import CallerAspect, Companion, WorkerAspect

if TYPE_CHECKING:
    from gtask.client.calls import Call
    from gtask.server.worker.worker import Worker
    from gtask.wire.messages import Request

__all__ = ["BY_ENVIRONMENT", "OPENTELEMETRY", "ClientTracing", "ServerTracing", "spans"]

FLUSH = 1.0
"""Seconds that a worker's end may wait until its spans have left it."""

OPENTELEMETRY = "opentelemetry.trace"
BY_ENVIRONMENT = "OTEL_PYTHON_TRACER_PROVIDER" in os.environ
"""Whether a tracer provider is named there, which opentelemetry makes when it is first asked for one."""


def spans() -> Any:
    """The module that makes spans; None as long as this program has not loaded opentelemetry."""
    if OPENTELEMETRY not in sys.modules and not BY_ENVIRONMENT:
        return None
    module = import_module("gtask.aspects.spans")
    return module if module.INSTALLED else None


class ClientTracing(CallerAspect):
    """Each call is a span, a child of the current one.

    Args:
        module: as :func:`spans` gives it.
        peer: tells where the server is.
    """

    key = "headers"

    def __init__(self, module: Any, peer: Callable[[], str]) -> None:
        self._spans = module
        self._peer = peer

    def begin(self, call: Call) -> tuple[Any, Companion | None] | None:
        if not self._spans.is_wanted():
            return None
        span = self._spans.start_call(call.method, self._peer())
        return None if span is None else (span.headers or None, span)


class ServerTracing(WorkerAspect):
    """In the worker: a call whose caller is traced has a span."""

    def __init__(self, worker: Worker) -> None:
        self._server = worker.config.name

    def begin(self, request: Request, method: str) -> Any:
        meta = request.meta
        if meta is None or not meta.headers:
            return None
        module = spans()
        return None if module is None else module.serve_call(method, meta.headers, self._server)

    def close(self) -> None:
        module = spans()
        if module is not None:
            module.flush(FLUSH)
