"""A conversation with a JSON peer: what is not in its small table is a ProtocolError, and changes nothing."""

from __future__ import annotations

import pytest

from gtask.errors import ProtocolError
from gtask.wire.conversation import CLIENT, WORKER
from gtask.wire.json.conversation import TABLE, JsonConversation
from gtask.wire.messages import (
    Done,
    Extend,
    Failure,
    Greeting,
    LastWords,
    LogRecords,
    Preamble,
    Request,
    Retire,
    Skipped,
    Value,
)

MESSAGES = [
    Greeting(),
    Preamble(),
    Request([]),
    Value(1),
    Failure("x"),
    Skipped(),
    LogRecords(),
    Extend(1.0),
    Done(),
    Retire("x"),
    LastWords(),
]


def speak(exchange, speaker, message):
    (exchange.client_says if speaker == CLIENT else exchange.worker_says)(message)


def exchange_in(state):
    exchange = JsonConversation()
    if state == "busy":
        exchange.client_says(Request([]))
    return exchange


@pytest.mark.parametrize("state", ["idle", "busy"])
@pytest.mark.parametrize("speaker", [CLIENT, WORKER])
@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_what_is_not_in_the_table(state, speaker, message):
    """Each side may say exactly what the table lists."""
    exchange = exchange_in(state)
    following = TABLE.get((state, speaker, type(message)))
    if following is None:
        with pytest.raises(ProtocolError, match="in the state"):
            speak(exchange, speaker, message)
        following = state
    else:
        speak(exchange, speaker, message)
    assert exchange.state == following


def test_replies_are_counted():
    """It is idle when no reply is owed, and the end of a checkout is not answered."""
    exchange = JsonConversation()
    for _ in range(2):
        exchange.client_says(Request([]))
    exchange.worker_says(Value(1))
    assert (exchange.state, exchange.owed) == ("busy", 1)
    with pytest.raises(ProtocolError):
        exchange.client_says(Done())
    exchange.worker_says(Failure("x"))
    exchange.client_says(Done())
    assert (exchange.state, exchange.owed, exchange.settles) == ("idle", 0, False)


def test_there_are_no_epochs():
    """Also where a call tells one."""
    exchange = JsonConversation()
    failed = Request([], epoch=3)
    exchange.client_says(failed)
    exchange.failed(failed)
    exchange.worker_says(Failure("x"))
    assert not exchange.must_skip(Request([], epoch=3))
