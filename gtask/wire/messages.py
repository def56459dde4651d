"""The whole vocabulary of the wire: each message as a class. Its place on the wire is in :mod:`gtask.wire.forms`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "NOTHING", "NOTHING_USED", "NOT_PLAIN", "OFFERS", "OF_ASPECTS", "SERVED", "VERSION", "Done",
    "Extend", "Failure", "Fields", "Greeting", "LastWords", "LogRecords", "Message", "Preamble", "Request",
    "RequestMeta", "Retire", "Skipped", "Value",
]  # fmt: skip

VERSION = 1
"""The version of the protocol, told in both greetings."""

OFFERS = ("pickle", "numpy", "shared")
"""The keys in a greeting by which a side offers kinds of values that both must want: it consents to pickles, both ways;
it has numpy; it has one end of a channel for shared memory."""

Fields = dict[str, Any]


@dataclass(slots=True)
class Greeting:
    """The greeting. From the client: who calls. From the worker: who serves, once ``setup`` has run."""

    version: int = VERSION
    name: str = ""
    pid: int = 0
    done: bool = False
    """Worker: there is a checkout_done hook, so the end of a checkout is answered."""
    exc: Fields | None = None
    """Worker: setup failed with this exception (section "exceptions" of the protocol)."""
    text: str = ""
    """Worker: the same for a peer that cannot rebuild it."""
    about: bool = False
    """Client: it asks about the server, and does not want the application."""
    timeout: float | None = None
    """Client: seconds that its calls may take, unless they say otherwise; None for no limit."""
    offers: frozenset[str] = frozenset()
    """The offers of :data:`OFFERS` that it makes."""


@dataclass(slots=True)
class Preamble:
    """From the client: what the worker must know before the next call."""

    levels: dict[str, int] | None = None
    """Which log records are wanted from now on: the level of each logger that differs from that of its parent, the root
    logger's under ""; an empty map for none at all. None: as before."""
    left: float | None = None
    """Seconds that the next call has left, if it has waited for the worker already."""


OF_ASPECTS = frozenset({"ld", "headers", "context"})
"""The fields of a request's meta that aspects have, under their keys on the wire."""


NOTHING: dict[str, Any] = {}
"""An empty map, which is never changed."""

NOTHING_USED: frozenset[str] = frozenset()

NOT_PLAIN: Any = type("NotPlain", (), {"__slots__": ()})()
"""Stands for a value where no plain one has come."""


@dataclass(slots=True)
class RequestMeta:
    """What few calls have."""

    timeout: float | None = None
    """Seconds that it may take, if ``has_timeout``; None for no limit."""
    has_timeout: bool = False
    ld: bool = False
    """Whether what the worker writes into its deferred log is wanted."""
    headers: dict[str, str] = field(default_factory=lambda: NOTHING)
    """Of the request to which the call belongs, such as ``traceparent``."""
    context: dict[str, Any] = field(default_factory=lambda: NOTHING)
    """The values of context variables, by ``module:name``."""
    others: dict[str, Any] = field(default_factory=lambda: NOTHING)
    """The values of further aspects, by their keys."""
    concerns_aspects: bool = field(init=False, compare=False, repr=False)
    """Whether there is more in it than a time-out."""
    packed: bytes = field(default=b"", init=False, compare=False, repr=False)
    """The time-out as it travels, once it has been packed."""

    def __post_init__(self) -> None:
        self.concerns_aspects = bool(self.ld or self.headers or self.context or self.others)

    def put(self, key: str, value: Any) -> None:
        """Set the value of an aspect."""
        if key in OF_ASPECTS:
            setattr(self, key, value)
        else:
            self.others = {**self.others, key: value}
        self.__post_init__()


SERVED: Sequence[Any] = []
"""The arguments of a request that nobody needs any more."""


@dataclass(slots=True)
class Request:
    """A call. By convention the first of its arguments names the method."""

    args: Sequence[Any]
    kwargs: dict[str, Any] = field(default_factory=dict)
    epoch: int = 0
    """Which of the client's queues it belongs to (see :mod:`gtask.wire.conversation`); 0 for none."""
    meta: RequestMeta | None = None
    used: frozenset[str] = NOTHING_USED
    """The offers under which parts of the call have come that are to be opened before it runs."""


@dataclass(slots=True)
class Value:
    """The value of a call."""

    value: Any
    ld: Fields | None = None
    """What the worker has written into its deferred log, for a peer that knows no :class:`LogRecords`."""
    used: frozenset[str] = NOTHING_USED
    """The offers under which parts of it have come that are to be opened before its caller gets it."""


@dataclass(slots=True)
class Failure:
    """The exception of a call: ``text`` for any peer, ``exc`` for one that can rebuild it."""

    text: str
    exc: Fields | None = None
    ld: Fields | None = None
    """As in :class:`Value`."""


@dataclass(slots=True)
class Skipped:
    """A call that was not executed, because an earlier one of its epoch failed."""


@dataclass(slots=True)
class LogRecords:
    """From the worker, before its reply: what the call has logged since the last."""

    records: Sequence[Any] = ()
    """As :mod:`gtask.aspects.logs.record` makes them."""
    ld: Fields | None = None
    """What it has written into its deferred log (:mod:`gtask.logdefer`)."""
    dropped: int = 0
    """How many records were left out, because the call had logged too much; ``size``, about how many bytes they had."""
    size: int = 0


@dataclass(slots=True)
class Extend:
    """From the worker, before its reply: the call wants so many more seconds, from now on."""

    seconds: float


@dataclass(slots=True)
class Done:
    """From the client: the checkout is over. From the worker: checkout_done has run."""


@dataclass(slots=True)
class Retire:
    """From the worker: retire me, for this reason.

    Attributes:
        end: whether this is its last message: what the client has sent since the last reply was not begun.
    """

    why: str
    end: bool = False


@dataclass(slots=True)
class LastWords:
    """From the master: the last words for a worker that died."""

    pid: int = 0
    exitcode: int | None = None
    signal: str = ""
    method: str = ""
    elapsed: float = 0.0
    maxrss: int = 0
    """The most memory that it used, in KiB."""
    stacks: str = ""
    """Where its threads were, as faulthandler wrote it down."""
    why: str = ""
    """Why its master has ended it, if it has."""


Message = Greeting | Preamble | Request | Value | Failure | Skipped | LogRecords | Extend | Done | Retire | LastWords
