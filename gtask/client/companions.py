"""The companions of a call: what follows it beside its value, for its aspects. A plain call has none.

These are the methods of :class:`gtask.client.calls.Call` of the same names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gtask.wire.messages import RequestMeta

if TYPE_CHECKING:
    from gtask.aspects.aspect import CallerAspect
    from gtask.client.calls import Call
    from gtask.client.outcomes import Outcome
    from gtask.errors import Error
    from gtask.wire.messages import Message

__all__ = ["begin", "end", "hear", "needs_replay", "replay", "withholds_value"]


def begin(call: Call, aspects: tuple[CallerAspect, ...], meta: RequestMeta | None) -> RequestMeta | None:
    """Begin the aspects of the call.

    Args:
        call: the call.
        aspects: those of its checkout.
        meta: what the request carries beside; it is not changed.

    Returns:
        what the request carries together with what the aspects give it.
    """
    own = None if meta is None else RequestMeta(meta.timeout, meta.has_timeout)
    for aspect in aspects:
        begun = aspect.begin(call)
        if begun is not None:
            value, companion = begun
            if value is not None:
                own = own or RequestMeta()
                own.put(aspect.key, value)
            if companion is not None:
                call.companions = call.companions or {}
                call.companions[aspect] = companion
    return own


def hear(call: Call, aspects: tuple[CallerAspect, ...], message: Message, pid: int) -> None:
    """Something has come that is not simply the outcome: for the companions, or for one that there is from now on.

    Args:
        call: the call.
        aspects: the client's.
        message: what has come.
        pid: the worker's process id.
    """
    companions = call.companions = call.companions or {}
    for aspect in aspects:
        if aspect not in companions:
            companion = aspect.hear(call, message)
            if companion is not None:
                companions[aspect] = companion
    for companion in companions.values():
        companion.heard(message, pid)


def end(call: Call, outcome: Outcome | None, error: BaseException | None) -> None:
    """Let the companions know that the call has ended. Never blocks."""
    for companion in (call.companions or {}).values():
        companion.ended(call, outcome, error)


def needs_replay(call: Call) -> bool:
    """Whether a companion has something to do that needs a greenlet."""
    return call.companions is not None and any(one.needs_replay for one in call.companions.values())


def withholds_value(call: Call) -> bool:
    """Whether the value cannot be handed over, because its replay has not run to its end."""
    return call.companions is not None and any(one.withholds_value for one in call.companions.values())


def replay(call: Call) -> Error | None:
    """Have the companions do what needs a greenlet.

    Returns:
        the error that takes the place of the value, if there is one.
    """
    found: Error | None = None
    for companion in (call.companions or {}).values():
        if companion.needs_replay:
            found = companion.replay(call) or found
    return found
