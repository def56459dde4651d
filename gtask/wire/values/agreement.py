"""What the two sides of a connection have agreed upon beyond what any msgpack peer can read: pickles, and numpy arrays.

Each says in its greeting what it consents to and what it has. Only what both have said goes over the connection; where
one has not, the text says which, and what to do about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from gtask.wire.messages import Greeting

__all__ = ["NOTHING", "Agreement", "ConditionalFrame", "NotTransferable", "at_client", "at_worker", "hoped_for"]

_BOTH = "It may be pickled if both sides consent"
_SERVER = "start gtask-server with --pickle, or gtask.Server with pickle=True"
_CLIENT = "write Client(..., pickle=True)"


class NotTransferable(TypeError):
    """A value is refused, also where pickles are agreed upon."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of one connection.

    Attributes:
        pickle: whether what cannot travel otherwise may be pickled.
        arrays: whether numpy's arrays and scalars may travel.
        why_no_pickle: for the error of a value that would have to be pickled, if nothing may be; "" if nobody wants to.
        why_no_arrays: for the error of an array, if none may travel.
    """

    pickle: bool = False
    arrays: bool = False
    why_no_pickle: str = ""
    why_no_arrays: str = "the other side did not say that it has numpy"


NOTHING = Agreement()
"""Between peers of which nothing is known."""


def hoped_for(pickle: bool) -> Agreement:
    """What a client writes before it knows by whom it will be read.

    Args:
        pickle: whether it consents to pickles.
    """
    if pickle:
        return Agreement(pickle=True, arrays=True)
    return Agreement(
        arrays=True,
        why_no_pickle=f"{_BOTH}, and this client does not: {_CLIENT}; the server needs --pickle",
    )


def at_client(pickle: bool, numpy: bool, hi: Greeting) -> Agreement:
    """What a client and a worker have agreed upon, as the client knows it.

    Args:
        pickle: whether the client consents to pickles.
        numpy: whether it has numpy.
        hi: the worker's greeting.
    """
    return Agreement(
        pickle=pickle and hi.pickle,
        arrays=numpy and hi.numpy,
        why_no_pickle=f"{_BOTH}, and the server does not: {_SERVER}",
        why_no_arrays="the server has no numpy: install it there",
    )


def at_worker(pickle: bool, numpy: bool, hi: Greeting) -> Agreement:
    """The same, as the worker knows it.

    Args:
        pickle: whether the server consents to pickles.
        numpy: whether it has numpy.
        hi: the client's greeting.
    """
    why = ""
    if pickle:
        why = f"{_BOTH}, and the client does not: {_CLIENT}"
    elif hi.pickle:
        why = f"{_BOTH}, and this server does not: {_SERVER}"
    return Agreement(
        pickle=pickle and hi.pickle,
        arrays=numpy and hi.numpy,
        why_no_pickle=why,
        why_no_arrays="the client has no numpy: install it there",
    )


@final
class ConditionalFrame:
    """The frame of a call that not every worker can read.

    Attributes:
        data: the frame.
        needs: what it has that needs an agreement, ``pickle`` or ``arrays``, and a phrase for that.
    """

    __slots__ = ("data", "needs")

    def __init__(self, data: bytes, needs: dict[str, str]) -> None:
        self.data = data
        self.needs = needs

    def refusal(self, agreement: Agreement) -> str:
        """Why it must not be sent where this was agreed upon, for an EncodeError; "" if it may be."""
        for allowed, what, why in (
            (agreement.arrays, "arrays", agreement.why_no_arrays),
            (agreement.pickle, "pickle", agreement.why_no_pickle),
        ):
            if what in self.needs and not allowed:
                return f"cannot travel: {self.needs[what]}. {why[:1].upper()}{why[1:]}"
        return ""
