"""How a worker begins: it recognises its client's language, hears the greeting, runs setup, and answers.

Where nobody greets setup runs before the first call.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from gtask.errors import EncodeError
from gtask.server.worker import failures
from gtask.server.worker.dialect import recognise
from gtask.wire.bodies import LENGTH
from gtask.wire.exceptions import failure
from gtask.wire.messages import Greeting, Request
from gtask.wire.reading import check_first

if TYPE_CHECKING:
    import socket

    from gtask.server.worker.dialect import DialectFactory
    from gtask.server.worker.interface import Interface
    from gtask.server.worker.worker import Worker
    from gtask.wire.messages import Message

__all__ = ["greet"]


def greet(
    worker: Worker, sock: socket.socket, dialects: Sequence[DialectFactory], status_interface: Interface
) -> list[Message] | None:
    """Hear the client's first message; answer a greeting once setup has run.

    Args:
        worker: has heard and said nothing yet.
        sock: its connection, blocking.
        dialects: the languages of clients.
        status_interface: what to call if the client asks about the server.

    Returns:
        the messages that are to be heard next; None if there is nobody to serve, or setup has failed.
    """
    # A peer that says nothing, or little by little, must not keep a worker.
    deadline = monotonic() + worker.config.greeting_timeout
    dialect = recognise(sock, deadline, worker.config, dialects)
    worker.speak(dialect)
    messages = _receive(worker, sock, deadline)
    if not messages:
        return None
    if not dialect.greets:
        worker.hearers[Request] = partial(_first_call, worker, worker.hearers[Request])
        return messages
    hello = messages.pop(0)
    dialect.conversation.client_says(hello)
    assert isinstance(hello, Greeting)  # the client's turn to say nothing else
    return messages if _answer(worker, hello, status_interface) else None


def _receive(worker: Worker, sock: socket.socket, deadline: float) -> list[Message]:
    """The client's first messages; none when it has hung up, or at the deadline."""
    dialect, decoder = worker.dialect, worker.dialect.decoder
    head, has_begun = b"", False
    while True:
        sock.settimeout(max(1e-3, deadline - monotonic()))
        count = sock.recv_into(decoder.space) if has_begun else dialect.begin_reading()
        has_begun = True
        if not count:
            return []
        worker.board.begin_reading(monotonic())
        if dialect.greets and len(head) < LENGTH.size:
            head += bytes(decoder.space[: min(count, LENGTH.size - len(head))])
            check_first(head, worker.config.limits)
        messages: list[Message] = decoder.received(count)
        if messages or monotonic() > deadline:
            sock.settimeout(None)
            return messages


def _answer(worker: Worker, hello: Greeting, status_interface: Interface) -> bool:
    """Run setup and answer; gives whether setup has succeeded."""
    worker.client, worker.timeout = hello.name, hello.timeout
    worker.board.name_client(hello.name)
    if hello.about:
        worker.offer(status_interface)
        worker.board.call_weight = 0.0
    reply = Greeting(name=worker.config.name, pid=os.getpid(), done=worker.has_checkout_done)
    worker.dialect.agree(hello, reply)
    error = worker.hooks.set_up()
    if error is not None:
        reply.text, reply.exc = failure.text(error), failures.described(error, worker)
    worker.board.end(monotonic())
    try:
        worker.say(reply)
    except EncodeError:  # over a small limit_message
        reply.text, reply.exc = reply.text[: failures.SHORT], None
        worker.say(reply)
    if reply.text:
        return False
    worker.retirement.ask()
    return True


def _first_call(worker: Worker, call: Callable[[Request], float], request: Request) -> float:
    """Where nobody greets, each call tries setup until it succeeds, and may be told the error."""
    error = worker.hooks.set_up()
    if worker.interruption.error is None:
        if error is None:
            worker.hearers[Request] = call
            return call(request)
        worker.dialect.conversation.client_says(request)
        failures.tell(worker, error, worker.dialect.setup_failed)
    return monotonic()
