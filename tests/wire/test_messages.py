"""Every message has one plain form, and nothing else is a message."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gtask.errors import ProtocolError
from gtask.wire import messages
from gtask.wire.forms import MOST, from_plain, to_plain
from gtask.wire.messages import (
    OFFERS,
    VERSION,
    Done,
    Extend,
    Failure,
    Greeting,
    LastWords,
    LogRecords,
    Preamble,
    Request,
    RequestMeta,
    Retire,
    Skipped,
    Value,
)

EXC = {"type": "KeyError", "args": ["x"]}

PLAIN = [
    (Greeting(), ["hi", {"v": VERSION}]),
    (Greeting(name="web"), ["hi", {"v": VERSION, "name": "web"}]),
    (Greeting(name="hasher", pid=7, done=True), ["hi", {"v": VERSION, "name": "hasher", "pid": 7, "done": True}]),
    (Greeting(exc=EXC, text="KeyError: 'x'"), ["hi", {"v": VERSION, "text": "KeyError: 'x'", "exc": EXC}]),
    (Greeting(timeout=2.5), ["hi", {"v": VERSION, "t": 2.5}]),
    (Greeting(offers=frozenset(OFFERS)), ["hi", {"v": VERSION, "pickle": True, "numpy": True, "shared": True}]),
    (Preamble(), ["be", {}]),
    (Preamble(levels={}), ["be", {"levels": {}}]),
    (Preamble(levels={"": 30, "app": 10}, left=0.25), ["be", {"levels": {"": 30, "app": 10}, "left": 0.25}]),
    (Request([]), ["do", None]),
    (Request(["hash", 1, [2]]), ["do", None, "hash", 1, [2]]),
    (Request(["hash"], {"cost": 3}), ["do", {"kw": {"cost": 3}}, "hash"]),
    (Request(["hash"], {}, 4), ["do", {"q": 4}, "hash"]),
    (Request([None], {"cost": 3}, 4), ["do", {"kw": {"cost": 3}, "q": 4}, None]),
    (Request(["hash"], {}, 4, RequestMeta(ld=True)), ["do", {"q": 4, "ld": True}, "hash"]),
    (Request([], meta=RequestMeta(None, True)), ["do", {"t": None}]),
    (
        Request([1], {"a": 2}, 3, RequestMeta(1.5, True, False, {"traceparent": "00"}, {"app:who": [1]})),
        ["do", {"kw": {"a": 2}, "q": 3, "headers": {"traceparent": "00"}, "context": {"app:who": [1]}, "t": 1.5}, 1],
    ),
    (Value(None), ["ok", None, None]),
    (Value([1, {"a": 2}]), ["ok", None, [1, {"a": 2}]]),
    (Failure("KeyError: 'x'"), ["er", None, "KeyError: 'x'"]),
    (Failure("KeyError: 'x'", EXC), ["er", {"exc": EXC}, "KeyError: 'x'"]),
    (Value(3, {"logs": []}), ["ok", {"ld": {"logs": []}}, 3]),
    (Failure("KeyError", EXC, {"logs": []}), ["er", {"exc": EXC, "ld": {"logs": []}}, "KeyError"]),
    (Skipped(), ["sk", None]),
    (LogRecords([]), ["lg", None]),
    (
        LogRecords([{"msg": "x"}], {"logs": []}, 2, 100),
        ["lg", {"ld": {"logs": []}, "dropped": 2, "size": 100}, {"msg": "x"}],
    ),
    (Extend(2.0), ["ex", {"t": 2.0}]),
    (Done(), ["dn", None]),
    (Retire("memory"), ["by", {"why": "memory"}]),
    (
        LastWords(pid=7, exitcode=3, method="hash", elapsed=0.5, maxrss=9),
        ["rip", {"pid": 7, "exitcode": 3, "method": "hash", "elapsed": 0.5, "maxrss": 9}],
    ),
]


@pytest.mark.parametrize(("message", "plain"), PLAIN, ids=[repr(message) for message, _ in PLAIN])
def test_each_message_has_its_plain_form(message, plain):
    """Written, it is the array of the protocol's table; read, that array is the message again."""
    assert to_plain(message) == plain
    assert from_plain(plain) == message


def test_every_kind_is_tried_above():
    """No message is left out of this file."""
    assert {type(message) for message, _ in PLAIN} == set(messages.Message.__args__)


META = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3)
TEXTS = st.text(max_size=20)
NUMBERS = st.integers(-MOST, MOST)
SHOWN = TEXTS.filter(str.isprintable)
"""Of names and reasons, which are shown: other characters come as escapes."""
MESSAGES = st.one_of(
    st.builds(Greeting, st.just(VERSION), SHOWN, NUMBERS, st.booleans(), st.none() | META, TEXTS),
    st.builds(Preamble, st.none() | st.dictionaries(TEXTS, st.integers(), max_size=3), st.none() | st.floats(0, 9)),
    st.builds(
        Request,
        st.lists(st.integers() | META),
        st.dictionaries(TEXTS, st.integers(), max_size=3),
        st.integers(0),
        st.none()
        | st.builds(
            RequestMeta, st.none() | st.floats(0, 9), st.just(True), st.booleans(),
            st.dictionaries(TEXTS, TEXTS, max_size=3), META,
        ),
    ),
    st.builds(Value, st.integers() | META, st.none() | META),
    st.builds(Failure, TEXTS, st.none() | META, st.none() | META),
    st.builds(LogRecords, st.lists(META), st.none() | META, st.just(0)),
    st.builds(Extend, st.floats(0, 9)),
    st.just(Skipped()),
    st.just(Done()),
    st.builds(Retire, SHOWN),
    st.builds(
        LastWords, NUMBERS, st.none() | NUMBERS, SHOWN, SHOWN, st.floats(0, 9), NUMBERS, SHOWN
    ),
)  # fmt: skip


@settings(deadline=None)
@given(MESSAGES)
def test_any_message_survives(message):
    """from_plain(to_plain(message)) is the message, whatever its fields."""
    assert from_plain(to_plain(message)) == message


EXTENSIBLE = [pair for pair in PLAIN if not isinstance(pair[0], LastWords)]  # the last words are handed on whole


@pytest.mark.parametrize(("message", "plain"), EXTENSIBLE, ids=[repr(message) for message, _ in EXTENSIBLE])
def test_unknown_keys_of_meta_do_no_harm(message, plain):
    """A newer peer may say more; what it does not concern stays as it was. Only a request keeps them, for aspects, if
    they are names."""
    kind, meta, *rest = plain
    more = {**(meta or {}), "x-new": [1], 7: None, b"k": 2}
    read = from_plain([kind, more, *rest])
    if isinstance(message, Request):
        known = message.meta or RequestMeta()
        assert read.meta == replace_others(known, {**known.others, "x-new": [1]})
        read.meta = message.meta
    assert read == message


def replace_others(meta, others):
    """These fields of a request, with other values for further aspects."""
    return RequestMeta(meta.timeout, meta.has_timeout, meta.ld, meta.headers, meta.context, others)


@pytest.mark.parametrize(
    "plain",
    [
        ["ok", None, 1, "more"], ["ok", {}, 1], ["er", {}, "text", 2], ["er", {"exc": None}, "text"], ["sk", {}, 3],
        ["dn", {}, 3],
    ],
    ids=repr,
)  # fmt: skip
def test_items_that_a_newer_peer_adds_are_ignored(plain):
    """So is an empty meta in the place of nil, and an ``exc`` that is nil."""
    assert to_plain(from_plain(plain))[0] == plain[0]


@pytest.mark.parametrize(
    "plain",
    [
        None, 1, "ok", {}, {"ok": 1}, (), ("ok", None, 1), [], ["ok"], [["ok"], None], [None, None], [b"ok", None, 1],
        ["OK", None, 1], ["", None], ["ok", 1, 2], ["ok", [], 2], ["ok", "", 2], ["sk", False], ["ok", None],
        ["er", None], ["er", None, None], ["er", None, b"text"], ["er", {"exc": "KeyError"}, "text"],
        ["er", {"exc": []}, "text"], ["do", {"kw": []}], ["do", {"kw": {1: 2}}], ["do", {"kw": {b"a": 2}}],
        ["do", {"q": "1"}], ["do", {"q": True}], ["do", {"q": 1.0}], ["do", {"q": None}], ["by", {"why": 1}],
        ["hi", {"v": VERSION, "name": b"x"}],
        ["hi", {"v": VERSION, "pid": "7"}], ["hi", {"v": VERSION, "done": 1}], ["hi", {"v": VERSION, "exc": "x"}],
        ["hi", {"v": VERSION, "text": 1}], ["hi", {"v": VERSION, "t": "1"}], ["hi", {"v": VERSION, "t": -1}],
        ["be", {"levels": 1}], ["be", {"levels": {1: 2}}], ["be", {"levels": {"a": "b"}}], ["be", {"left": True}],
        ["do", {"t": "1"}], ["do", {"t": float("nan")}], ["do", {"ld": 1}], ["do", {"headers": []}],
        ["do", {"headers": {"a": 1}}], ["do", {"headers": {b"a": "b"}}], ["do", {"context": {1: 2}}],
        ["ok", {"ld": 1}, 1], ["er", {"ld": []}, "x"], ["lg", {"ld": []}], ["lg", {"dropped": "1"}],
        ["lg", {"dropped": 1, "size": 0.5}], ["ex", {}], ["ex", {"t": "1"}],
        ["hi", {"v": True}], ["hi", {"v": "1"}],
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_message_is_a_protocol_error(plain):
    """Wrong containers, kinds, metas and items are refused."""
    with pytest.raises(ProtocolError):
        from_plain(plain)


@pytest.mark.parametrize("plain", [["no", None], [7, None], [[["x"]], {}], ["no", 3]], ids=repr)
def test_an_unknown_kind_is_named(plain):
    """The error shows what kind it was, also if the rest is wrong, too."""
    with pytest.raises(ProtocolError, match="unknown kind of message") as caught:
        from_plain(plain)
    assert repr(plain[0]) in str(caught.value)


@pytest.mark.parametrize("meta", [{"v": 2}, {"v": 0}, {"v": -1}, {}, None], ids=repr)
def test_another_version_is_refused_with_both_numbers(meta):
    """A greeting of another version, or of none, says which version each side speaks."""
    version = (meta or {}).get("v", 0)
    with pytest.raises(ProtocolError, match=f"speaks version {version} of the protocol, this side version {VERSION}"):
        from_plain(["hi", meta])


def nested(depth):
    value = None
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [10**6000, -(10**6000), nested(100_000), "x" * 10_000_000], ids=["int", "negative", "list", "text"]
)
def test_an_error_can_be_told_whatever_the_value(value):
    """Ints with too many digits for str(), lists too deep for repr() and long texts are told in a short error."""
    for plain in (
        [value, None], ["hi", {"v": value}], ["hi", {"v": VERSION, "name": [value]}],
        ["hi", {"v": VERSION, "pid": [value]}], ["by", {"why": [value]}], ["do", {"q": [value]}],
        ["er", {"exc": value}, "text"],
    ):  # fmt: skip
        with pytest.raises(ProtocolError) as caught:
            from_plain(plain)
        assert len(str(caught.value)) < 300


META_KEYS = st.sampled_from(["v", "name", "pid", "done", "exc", "text", "kw", "q", "why", 1, b"v"])
ITEMS = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.binary(max_size=3)
    | st.sampled_from(["hi", "do", "ok", "er", "sk", "dn", "by", "rip", "no"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(META_KEYS, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
HEADS = st.sampled_from(["hi", "do", "ok", "er", "sk", "dn", "by", "rip"])


@settings(deadline=None)
@example(["do", {1: None}])
@example(["do", {"ld": False}])
@given(ITEMS | st.builds(lambda kind, meta, rest: [kind, meta, *rest], HEADS, ITEMS, st.lists(ITEMS, max_size=3)))
def test_anything_plain_is_a_message_or_a_protocol_error(plain):
    """And what was read as a message is the same message when it is written and read again."""
    try:
        message = from_plain(plain)
    except ProtocolError:
        return
    again = from_plain(to_plain(message))
    assert repr(again) == repr(message)


@pytest.mark.parametrize("number", [10**400, -(10**400), 1 << 63], ids=["huge", "negative", "just over"])
@pytest.mark.parametrize(
    "plain",
    [
        ["rip", {"maxrss": 0}], ["rip", {"pid": 0}], ["rip", {"exitcode": 0}], ["lg", {"dropped": 0}],
        ["lg", {"size": 0}], ["hi", {"v": VERSION, "pid": 0}],
    ],
    ids=str,
)  # fmt: skip
def test_numbers_of_too_many_digits(number, plain):
    """They are refused where they are read, before anybody computes with them or shows them."""
    kind, fields = plain
    for key in set(fields) - {"v"}:
        assert from_plain([kind, fields])
        with pytest.raises(ProtocolError, match=f"'{key}' in the meta of a message"):
            from_plain([kind, {**fields, key: number}])


@pytest.mark.parametrize("seconds", [math.inf, math.nan, -1.0, None, "1"])
def test_an_extension_without_end(seconds):
    """A call can be extended by a number of seconds, and not for ever."""
    with pytest.raises(ProtocolError):
        from_plain(["ex", {"t": seconds}])
