"""The point of this test is to ensure that a call is a client span at its caller and a server span in its worker.

They are of the same trace, where OpenTelemetry is in use; where it is not, there is nothing.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import gevent
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import gtask
from gtask.aspects import spans as tracing

SOURCE = """
    import json

    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, BatchSpanProcessor, SpanExporter
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    import gtask

    class ToFile(SpanExporter):
        def export(self, spans):
            with open(DIR + "/spans", "a") as file:
                for span in spans:
                    file.write(span.to_json(indent=None) + "\\n")

        def shutdown(self):
            pass

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)

    def setup():
        provider.add_span_processor(BatchSpanProcessor(ToFile()))

    def work(number):
        with trace.get_tracer("app").start_as_current_span("inner"):
            return dict(gtask.current_call().headers)

    def fail():
        raise KeyError("x")

    def finished():
        found = [json.loads(span.to_json()) for span in exporter.get_finished_spans()]
        exporter.clear()
        return found

    class Callable:
        def __call__(self, *args):
            return [json.loads(span.to_json())["name"] for span in exporter.get_finished_spans()]

    def current():
        return trace.get_current_span().get_span_context().span_id
"""


@pytest.fixture(scope="module")
def exporter():
    """Where the spans of this process go."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    before = trace._TRACER_PROVIDER
    trace._TRACER_PROVIDER, tracing._configured = provider, True
    yield exporter
    trace._TRACER_PROVIDER, tracing._configured = before, False


@pytest.fixture
def finished(exporter):
    exporter.clear()
    return exporter.get_finished_spans


def test_one_trace(shared, connect, finished):
    """The program's span, the call at its caller, the call in the worker, its own span: each the next's parent."""
    client = connect(shared(SOURCE), max_workers=1)
    with trace.get_tracer("web").start_as_current_span("request") as request:
        headers = client.call("work", 1)
    trace_id = f"{request.get_span_context().trace_id:032x}"
    call, own = finished()
    assert (call.name, call.kind, own.name) == ("gtask/work", trace.SpanKind.CLIENT, "request")
    assert call.parent.span_id == request.get_span_context().span_id
    assert call.attributes["rpc.method"] == "work"
    assert call.attributes["server.address"].startswith("unix:")
    assert headers["traceparent"].startswith(f"00-{trace_id}-{call.get_span_context().span_id:016x}-0")
    inner, served = client.call("finished")[:2]
    assert (inner["name"], served["name"], served["kind"]) == ("inner", "gtask/work", "SpanKind.SERVER")
    assert served["parent_id"] == f"0x{call.get_span_context().span_id:016x}"
    assert inner["parent_id"] == served["context"]["span_id"]
    assert {span["context"]["trace_id"] for span in (inner, served)} == {f"0x{trace_id}"}
    assert client.call("current") != 0


def test_a_call_as_a_function(serve, connect, finished):
    """Is named so at both ends: what is sent first may be anything, and does not belong into names."""
    client = connect(serve(SOURCE, attribute="Callable"), max_workers=1)
    with client.checkout() as checkout:
        checkout("secret")
        assert checkout("secret") == ["gtask/()"]
    assert [span.name for span in finished()] == ["gtask/()"] * 2


def test_errors_are_recorded(shared, connect, finished):
    """In both spans, as an event and as the status; time-outs in the caller's."""
    client = connect(shared(SOURCE), max_workers=1, refork_after_error=False)
    with pytest.raises(KeyError):
        client.call("fail")
    (call,) = finished()
    assert call.status.status_code is trace.StatusCode.ERROR
    assert [event.name for event in call.events] == ["exception"]
    assert call.attributes["error.type"] == "KeyError"
    (served,) = client.call("finished")
    assert served["status"]["status_code"] == "ERROR"
    assert served["events"][0]["attributes"]["exception.type"] == "KeyError"


def test_submit_and_interrupted_calls(shared, connect, finished):
    """A submitted call's span ends with its result, that of an interrupted one with the interruption."""
    client = connect(shared(SOURCE), max_workers=1)
    with client.checkout() as checkout, trace.get_tracer("web").start_as_current_span("request") as request:
        results = [checkout.work.submit(number) for number in range(3)]
        gevent.wait(results)
    assert [span.name for span in finished()] == ["gtask/work"] * 3 + ["request"]
    assert {span.parent.span_id for span in finished()[:3]} == {request.get_span_context().span_id}
    with pytest.raises(gtask.EncodeError):
        client.call("work", object())
    assert finished()[-1].status.status_code is trace.StatusCode.ERROR


def test_spans_leave_a_worker_that_ends(serve, connect, finished, tmp_path):
    """Also those that a batch holds back: the worker ends without running what others want to do at its exit."""
    server = serve(SOURCE)
    with connect(server, max_workers=1) as client:
        client.call("work", 1)
    server.stop()
    assert "gtask/work" in (tmp_path / "spans").read_text()


def test_an_exporter_that_fails_breaks_nothing(shared, connect, finished, exporter, monkeypatch):
    """The call goes on, and the log says what was wrong."""

    class Bad:
        def __getattr__(self, name):
            raise RuntimeError("no such span")

    monkeypatch.setattr(trace, "get_tracer", lambda *_: Bad())
    assert connect(shared(SOURCE)).call("work", 1) == {}


def test_where_it_is_not_in_use():
    """Without a provider and a span there is none for the call; without the package neither."""
    program = textwrap.dedent("""
        import sys
        if "without" in sys.argv:
            sys.modules["opentelemetry"] = None
        from gtask.aspects import spans as tracing
        assert tracing.INSTALLED == ("without" not in sys.argv)
        assert tracing.start_call("work", "x") is None
        assert tracing.serve_call("work", {"traceparent": "x"}, "x") is None
        tracing.flush(1.0)
    """)
    for arguments in ([], ["without"]):
        root = str(Path(gtask.__file__).parents[1])
        subprocess.run([sys.executable, "-c", program, *arguments], check=True, cwd=root)
