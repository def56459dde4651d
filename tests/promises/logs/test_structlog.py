"""The point of this test is to ensure that worker logs are told under structlog, too, at both ends."""

from __future__ import annotations

import io
import json
import logging

import gevent
import pytest
import structlog

SOURCE = """
    import logging

    import structlog

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    log = structlog.get_logger("app.db")
    plain = logging.getLogger("app.plain")

    def work(number):
        log.debug("not wanted")
        log.info("query", number=number, table="users")
        plain.warning("plain %d", number)
        return number
"""


@pytest.fixture
def written():
    """What structlog's formatter for logging writes, with the caller's context in each record."""
    stream = io.StringIO()
    shared = [structlog.contextvars.merge_contextvars, structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    logger = logging.getLogger("app")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)
    structlog.reset_defaults()


def test_the_callers_context_is_in_the_workers_events(shared, connect, written):
    """Each event has its own fields, and what its caller's greenlet has bound; in order with the caller's own."""
    client = connect(shared(SOURCE))
    mine = structlog.get_logger("app.web")

    def request(number):
        structlog.contextvars.bind_contextvars(request_id=f"r{number}")
        mine.info("begin")
        assert client.call("work", number) == number
        mine.info("end")

    gevent.joinall([gevent.spawn(request, number) for number in range(10)], raise_error=True)
    for number in range(10):
        story = [event for event in written() if event["request_id"] == f"r{number}"]
        assert [event["event"] for event in story] == ["begin", "query", f"plain {number}", "end"]
        assert story[1] == {
            "event": "query", "number": number, "table": "users", "level": "info", "logger": "app.db",
            "request_id": f"r{number}",
        }  # fmt: skip
        assert (story[2]["level"], story[2]["logger"]) == ("warning", "app.plain")
    assert len(written()) == 40
