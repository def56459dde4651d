"""The spans of a call, by opentelemetry-api: a client span at the caller, a server span in the worker, joined by W3C
trace context in the call's headers. Imported by programs that have loaded opentelemetry, and by no others.

Nothing here raises, whatever an exporter does: a trace must not break what it watches.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gtask.aspects.aspect import Companion

try:
    from opentelemetry import context as otel_context
    from opentelemetry import trace
    from opentelemetry.environment_variables import OTEL_PYTHON_TRACER_PROVIDER
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    INSTALLED = True
except ImportError:
    INSTALLED = False

if TYPE_CHECKING:
    from gtask.client.calls import Call
    from gtask.client.outcomes import Outcome

__all__ = [
    "INSTALLED",
    "ClientSpan",
    "ServerSpan",
    "flush",
    "is_wanted",
    "serve_call",
    "start_call",
]

log = logging.getLogger("gtask.tracing")

SYSTEM = "gtask"

_configured = False
_BY_ENVIRONMENT = INSTALLED and OTEL_PYTHON_TRACER_PROVIDER in os.environ
"""Whether a provider is named there, which is made when it is first asked for."""


def _is_configured() -> bool:
    """Whether the program has set a tracer provider; once it has, it cannot take it back."""
    global _configured
    if not _configured:
        # To ask properly takes longer than all else that a call does for this.
        if getattr(trace, "_TRACER_PROVIDER", trace) is None and not _BY_ENVIRONMENT:
            return False
        _configured = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    return _configured


class _Span:
    def __init__(self, span: Any) -> None:
        self._span: Any = span

    def end(self, error: BaseException | None) -> None:
        """The call has ended, with this error if it is not None. Ending again does nothing."""
        span, self._span = self._span, None
        if span is None:
            return
        try:
            if error is not None:
                span.record_exception(error)
                span.set_status(trace.Status(trace.StatusCode.ERROR, f"{type(error).__name__}: {error}"))
                span.set_attribute("error.type", getattr(error, "remote_type", "") or type(error).__qualname__)
            span.end()
        except Exception:  # of an exporter or a span processor
            log.exception("a span could not be ended")


class ClientSpan(_Span, Companion):
    """The span of a call at its caller.

    Attributes:
        headers: the values by which the worker joins the trace.
    """

    def __init__(self, span: Any, headers: dict[str, str]) -> None:
        super().__init__(span)
        self.headers = headers

    def ended(self, call: Call, outcome: Outcome | None, error: BaseException | None) -> None:
        self.end(error)


class ServerSpan(_Span):
    """The span of a call in its worker; the current span until its end. It comes along with the call."""

    def __init__(self, span: Any, token: Any) -> None:
        super().__init__(span)
        self._token = token

    def enter(self) -> None:
        """It is the current span already."""

    def leave(self, error: BaseException | None) -> None:
        """The call has ended, with this error if it is not None."""
        otel_context.detach(self._token)
        self.end(error)


def is_wanted() -> bool:
    """Whether there is a tracer provider, or a current span. Every call asks this first."""
    # A span that is current without a provider has come from elsewhere, and is handed on.
    return INSTALLED and (_configured or bool(otel_context.get_current()) or _is_configured())


def start_call(method: str, peer: str) -> ClientSpan | None:
    """A call begins: its span, a child of the current one.

    Args:
        method: its name.
        peer: where the server is.

    Returns:
        None if nobody traces here.
    """
    if not is_wanted():
        return None
    try:
        attributes = {"rpc.system": SYSTEM, "rpc.method": method, "server.address": peer}
        tracer = trace.get_tracer(SYSTEM)
        span = tracer.start_span(f"{SYSTEM}/{method}", kind=trace.SpanKind.CLIENT, attributes=attributes)
        headers: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(headers, trace.set_span_in_context(span))
        return ClientSpan(span, headers)
    except Exception:  # of a sampler or a span processor
        log.exception("a span could not be started")
        return None


def serve_call(method: str, headers: Mapping[str, str], server: str) -> ServerSpan | None:
    """In the worker, a call begins: its span, a child of its caller's, which is the current one from now on.

    Args:
        method: its name.
        headers: those that have come with it.
        server: the name of the server.

    Returns:
        None if nobody traces here.
    """
    if not INSTALLED:
        return None
    try:
        if not _is_configured():
            return None
        parent = TraceContextTextMapPropagator().extract(headers)
        attributes = {"rpc.system": SYSTEM, "rpc.method": method, "rpc.service": server}
        tracer = trace.get_tracer(SYSTEM)
        kind = trace.SpanKind.SERVER
        span = tracer.start_span(f"{SYSTEM}/{method}", context=parent, kind=kind, attributes=attributes)
        return ServerSpan(span, otel_context.attach(trace.set_span_in_context(span, parent)))
    except Exception:  # of a sampler or a span processor
        log.exception("a span could not be started")
        return None


def flush(seconds: float) -> None:
    """Let the spans of this process leave it; for a worker that ends without running the exit functions of others.

    Args:
        seconds: how long that may take.
    """
    if not INSTALLED or not _configured:
        return
    force_flush = getattr(trace.get_tracer_provider(), "force_flush", None)
    if force_flush is not None:
        try:
            force_flush(int(seconds * 1000))
        except Exception:  # of an exporter
            log.exception("spans could not be sent off")
