"""What the two sides of a connection have agreed upon beyond what any msgpack peer can read: pickles, and numpy arrays.

Each says in its greeting what it consents to and what it has. Only what both have said goes over the connection; where
one has not, the text says which, and what to do about it.
"""

from __future__ import annotations

from dataclasses import dataclass

from gtask.wire.messages import Hi

__all__ = ["NOTHING", "Agreement", "Never", "at_client", "at_worker", "hoped_for"]

_SERVER = "start gtask-server with --pickle, or gtask.Server with pickle=True"
_CLIENT = "write Client(..., pickle=True)"


class Never(TypeError):
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
        why_no_pickle="It could be pickled if both sides consented, and this client has not: "
        f"{_CLIENT}; for the server, {_SERVER}",
    )


def at_client(pickle: bool, numpy: bool, hi: Hi) -> Agreement:
    """What a client and a worker have agreed upon, as the client knows it.

    Args:
        pickle: whether the client consents to pickles.
        numpy: whether it has numpy.
        hi: the worker's greeting.
    """
    return Agreement(
        pickle=pickle and hi.pickle,
        arrays=numpy and hi.numpy,
        why_no_pickle=f"It could be pickled, but the server has not consented: {_SERVER}",
        why_no_arrays="the server has no numpy: install it there",
    )


def at_worker(pickle: bool, numpy: bool, hi: Hi) -> Agreement:
    """The same, as the worker knows it.

    Args:
        pickle: whether the server consents to pickles.
        numpy: whether it has numpy.
        hi: the client's greeting.
    """
    why = ""
    if pickle:
        why = f"It could be pickled, but the client has not consented: {_CLIENT}"
    elif hi.pickle:
        why = f"The client would take it pickled, but this server has not consented: {_SERVER}"
    return Agreement(
        pickle=pickle and hi.pickle,
        arrays=numpy and hi.numpy,
        why_no_pickle=why,
        why_no_arrays="the client has no numpy: install it there",
    )
