"""One conversation seen from both ends: two exchanges, joined by a link with delay, agree in the end."""

from __future__ import annotations

import itertools
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gtask.errors import ProtocolError
from gtask.wire.conversation import CLIENT, TABLE, WORKER, Conversation
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

MESSAGES = {
    type(message): message
    for message in (
        Greeting(), Preamble(), Request([]), Value(1), Failure("x"), Skipped(), LogRecords(), Extend(1.0), Done(),
        Retire("x"), LastWords(),
    )
}  # fmt: skip
STATES = {"new", "greeting", "idle", "busy", "settling", "failed"}


def conversation(*said, done=True):
    """An exchange in which this has been said after the greetings: messages, those of the worker in a tuple."""
    exchange = Conversation()
    exchange.client_says(Greeting())
    exchange.worker_says(Greeting(done=done))
    for message in said:
        if isinstance(message, tuple):
            exchange.worker_says(*message)
        else:
            exchange.client_says(message)
    return exchange


IN_STATE = {
    "new": Conversation,
    "greeting": lambda: speak(Conversation(), CLIENT, Greeting()),
    "idle": conversation,
    "busy": lambda: conversation(Request([])),
    "settling": lambda: conversation(Done()),
    "failed": lambda: speak(speak(Conversation(), CLIENT, Greeting()), WORKER, Greeting(exc={}, text="KeyError")),
}


def speak(exchange, speaker, message):
    (exchange.client_says if speaker == CLIENT else exchange.worker_says)(message)
    return exchange


@pytest.mark.parametrize("state", IN_STATE)
def test_what_is_not_in_the_table_is_a_protocol_error(state):
    """In every state each side may say exactly what the table lists; anything else changes nothing."""
    for speaker, kind in itertools.product((CLIENT, WORKER), MESSAGES):
        exchange = IN_STATE[state]()
        assert exchange.state == state
        if (state, speaker, kind) in TABLE:
            speak(exchange, speaker, MESSAGES[kind])
            assert exchange.state == TABLE[state, speaker, kind]
            continue
        before = repr(exchange)
        with pytest.raises(ProtocolError, match=f"the {speaker} said") as caught:
            speak(exchange, speaker, MESSAGES[kind])
        assert state in str(caught.value)
        assert repr(exchange) == before


def test_the_table_is_closed():
    """It knows only the states of its description, and each can be reached."""
    assert {state for state, _, _ in TABLE} | set(TABLE.values()) == STATES - {"failed"}
    assert set(IN_STATE) == STATES


def test_replies_are_owed_in_number():
    """It is busy until as many replies have come as there were calls; one more is a protocol error."""
    exchange = conversation(Request([]), Request([]), Request([]))
    for owed, reply in ((3, Value(1)), (2, Failure("x")), (1, Skipped())):
        assert (exchange.state, exchange.owed) == ("busy", owed)
        exchange.worker_says(reply)
    assert (exchange.state, exchange.owed) == ("idle", 0)
    for reply in (Value(1), Failure("x"), Skipped()):
        with pytest.raises(ProtocolError):
            exchange.worker_says(reply)
    exchange.client_says(Request([]))
    assert exchange.state == "busy"


def test_the_end_of_a_checkout_is_answered_only_with_a_hook():
    """Without checkout_done the next call may follow at once; with it, only after the worker's answer."""
    exchange = conversation(Done(), done=False)
    assert (exchange.state, exchange.settles) == ("idle", False)
    with pytest.raises(ProtocolError):
        exchange.worker_says(Done())
    exchange.client_says(Request([]))

    exchange = conversation(Done(), done=True)
    assert (exchange.state, exchange.settles) == ("settling", True)
    with pytest.raises(ProtocolError):
        exchange.client_says(Request([]))
    exchange.worker_says(Done())
    assert exchange.state == "idle"


def test_a_checkout_does_not_end_while_replies_are_owed():
    """The client says so only when it has all its replies."""
    with pytest.raises(ProtocolError):
        conversation(Request([]), Done())


def test_requests_may_not_overtake_the_greeting():
    """The client's side does not send a call before the worker has greeted."""
    exchange = Conversation()
    with pytest.raises(ProtocolError):
        exchange.client_says(Request([]))
    exchange.client_says(Greeting())
    with pytest.raises(ProtocolError):
        exchange.client_says(Greeting())


@pytest.mark.parametrize(
    "hi", [Greeting(exc={"type": "E"}), Greeting(text="KeyError"), Greeting(exc={}, text="KeyError")], ids=repr
)
def test_a_failed_setup_ends_the_conversation(hi):
    """After a greeting with an exception, or its text alone, nobody says anything."""
    exchange = Conversation()
    exchange.client_says(Greeting())
    exchange.worker_says(hi)
    assert exchange.state == "failed"
    for speaker in (CLIENT, WORKER):
        for message in MESSAGES.values():
            with pytest.raises(ProtocolError):
                speak(exchange, speaker, message)


def test_its_repr_tells_where_it_stands():
    """For logs and the messages of failed tests."""
    assert repr(conversation(Request([]), Request([]))) == "<Conversation busy, 2 owed>"


# --- epochs ----------------------------------------------------------------------------------------------


def test_a_failure_skips_the_rest_of_its_epoch():
    """Calls of the epoch that failed are skipped, for as long as they come; those of the next are not."""
    exchange = conversation()
    assert not exchange.must_skip(Request([], {}, 4))
    exchange.failed(Request([], {}, 4))
    assert exchange.must_skip(Request([], {}, 4))
    assert exchange.must_skip(Request([], {}, 4))
    assert not exchange.must_skip(Request([], {}, 5))
    assert not exchange.must_skip(Request([], {}, 3))
    exchange.failed(Request([], {}, 5))
    assert exchange.must_skip(Request([], {}, 5))
    assert not exchange.must_skip(Request([], {}, 6))


def test_a_call_of_no_epoch_is_never_skipped():
    """Epoch 0 is that of clients that do not queue."""
    exchange = conversation()
    for _ in range(2):
        exchange.failed(Request([], {}, 0))
        assert not exchange.must_skip(Request([], {}, 0))
        exchange.failed(Request([], {}, 4))
        assert not exchange.must_skip(Request([], {}, 0))


def test_a_failure_of_no_epoch_does_not_forgive_another():
    """Everything else of a failed epoch is skipped, also when a call of no epoch fails in between."""
    exchange = conversation()
    exchange.failed(Request([], {}, 4))
    exchange.failed(Request([], {}, 0))
    assert exchange.must_skip(Request([], {}, 4))


# --- both ends -------------------------------------------------------------------------------------------


class BothEnds(RuleBasedStateMachine):
    """A client and a worker that each keep an exchange, and a link in which messages of each side wait."""

    @initialize(hook=st.booleans())
    def greet(self, hook):
        self.client, self.worker = Conversation(), Conversation()
        self.to_worker, self.to_client = deque(), deque()
        self.inbox = deque()  # calls that the worker has read and not yet run
        self.epoch = 1
        self.sent, self.ran, self.skipped, self.answered = 0, [], [], []
        self.client.client_says(hello := Greeting())
        self.to_worker.append(hello)
        self.hello = Greeting(done=hook)

    @rule()
    @precondition(lambda self: self.to_worker)
    def worker_hears(self):
        message = self.to_worker.popleft()
        self.worker.client_says(message)
        if isinstance(message, Greeting):
            self.worker_speaks(self.hello)
        elif isinstance(message, Request) or self.worker.settles:
            self.inbox.append(message)

    @rule(fails=st.booleans())
    @precondition(lambda self: self.inbox)
    def worker_answers(self, fails):
        message = self.inbox.popleft()
        if isinstance(message, Done):
            self.worker_speaks(Done())
            return
        (number,) = message.args
        if self.worker.must_skip(message):
            self.skipped.append(number)
            self.worker_speaks(Skipped())
            return
        self.ran.append((number, message.epoch, fails))
        if fails:
            self.worker.failed(message)
        self.worker_speaks(Failure(str(number)) if fails else Value(number))

    @rule()
    @precondition(lambda self: self.worker.state in ("idle", "busy", "settling"))
    def worker_asks_to_be_retired(self):
        self.worker_speaks(Retire("memory"))

    def worker_speaks(self, message):
        self.worker.worker_says(message)
        self.to_client.append(message)

    @rule()
    @precondition(lambda self: self.to_client)
    def client_hears(self):
        message = self.to_client.popleft()
        self.client.worker_says(message)
        if isinstance(message, (Value, Failure, Skipped)):
            self.answered.append(message)
        if isinstance(message, Failure):
            self.epoch += 1

    @rule()
    @precondition(lambda self: self.client.state in ("idle", "busy"))
    def client_calls(self):
        self.client_speaks(Request([self.sent], {}, self.epoch))
        self.sent += 1

    @rule()
    @precondition(lambda self: self.client.state == "idle")
    def client_ends_the_checkout(self):
        self.client_speaks(Done())
        self.epoch += 1

    def client_speaks(self, message):
        self.client.client_says(message)
        self.to_worker.append(message)

    @invariant()
    def the_client_is_owed_what_is_under_way(self):
        on_their_way = sum(isinstance(m, Request) for m in (*self.to_worker, *self.inbox))
        on_their_way += sum(isinstance(m, (Value, Failure, Skipped)) for m in self.to_client)
        assert self.client.owed == on_their_way

    @invariant()
    def nothing_of_a_failed_epoch_runs(self):
        failed = set()
        for _, epoch, fails in self.ran:
            assert epoch not in failed
            if fails:
                failed.add(epoch)

    def teardown(self):
        if not hasattr(self, "client"):
            return
        while self.to_worker or self.inbox or self.to_client:
            if self.to_worker:
                self.worker_hears()
            elif self.inbox:
                self.worker_answers(False)
            else:
                self.client_hears()
        assert (self.client.state, self.client.owed) == (self.worker.state, self.worker.owed) == ("idle", 0)
        assert self.client.settles == self.worker.settles == self.hello.done
        assert sorted([*self.skipped, *(number for number, _, _ in self.ran)]) == list(range(self.sent))
        assert len(self.answered) == self.sent


BothEnds.TestCase.settings = settings(deadline=None, stateful_step_count=60)
TestBothEnds = BothEnds.TestCase
TestBothEnds.__doc__ = """Whatever the delays, every call is answered once and in order, and both ends agree."""


def outcome(exchange, speaker, message):
    """The text of the error, or None."""
    try:
        speak(exchange, speaker, message)
    except ProtocolError as error:
        return str(error)
    return None


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([CLIENT, WORKER]), st.sampled_from(list(MESSAGES.values()))), max_size=30))
def test_any_two_exchanges_agree(said):
    """Told the same messages, right or wrong, both ends accept and refuse the same and are in the same state."""
    one, other = Conversation(), Conversation()
    for speaker, message in said:
        assert outcome(one, speaker, message) == outcome(other, speaker, message)
        assert repr(one) == repr(other)
        assert one.state in STATES
        assert (one.owed > 0) == (one.state == "busy")
