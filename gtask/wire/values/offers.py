"""The offers: kinds of values that both sides of a connection must want before one travels.

Each side says in its greeting what it offers. Only offers of both sides are agreed upon; for each other one the
agreement says which side lacks it, and what to do about it. To add an offer is to add a row to :data:`OFFERS`, and its
key to those of a greeting (:data:`gtask.wire.messages.OFFERS`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gtask.wire.messages import Greeting
from gtask.wire.shared import word
from gtask.wire.values import arrays, pickles
from gtask.wire.values.agreement import Agreement, Fallback
from gtask.wire.values.kinds import ARRAY, NATIVE, PICKLE, SCALAR, SHARED, Kind, Kinds

if TYPE_CHECKING:
    from gtask.wire.shared.channel import Channel

__all__ = ["NOTHING", "OFFERS", "Offer", "agree", "at_client", "at_worker", "consented", "hoped_for", "offered"]


@dataclass(frozen=True, slots=True)
class Offer:
    """What both sides must want.

    Attributes:
        name: its key in a greeting.
        rows: the kinds that travel under it.
        is_here: whether this process could take part; None if that is a matter of consent, or of the connection.
        no_server: the client's words for an error when the server does not offer it.
        no_client: the server's words when the client does not.
        not_here: the words when this client does not, before a worker has greeted.
        not_at_server: the server's words when the client offers it, and the server does not.
        fallback: makes what stands for a value that is of no kind, as of
            :class:`~gtask.wire.values.agreement.Fallback`.
    """

    name: str
    rows: tuple[Kind, ...]
    is_here: Callable[[], bool] | None
    no_server: str
    no_client: str
    not_here: str = ""
    not_at_server: str = ""
    fallback: Callable[[Any], Any] | None = None


_CONSENT = "It may be pickled if both sides consent"
_SERVER = "start gtask-server with --pickle, or gtask.Server with pickle=True"
_CLIENT = "write Client(..., pickle=True)"

OFFERS = (
    Offer(
        "pickle",
        (Kind(PICKLE, (), lambda value, _: value, pickles.seal, "pickle", "a pickle"),),
        is_here=None,
        no_server=f"{_CONSENT}, and the server does not: {_SERVER}",
        no_client=f"{_CONSENT}, and the client does not: {_CLIENT}",
        not_here=f"{_CONSENT}, and this client does not: {_CLIENT}; the server needs --pickle",
        not_at_server=f"{_CONSENT}, and this server does not: {_SERVER}",
        fallback=pickles.stand_in,
    ),
    Offer(
        "numpy",
        (
            Kind(
                ARRAY,
                arrays.array_types,
                arrays.pack_array,
                arrays.unpack_array,
                "numpy",
                "an array",
                arrays.lay_out_array,
                arrays.build_array,
            ),
            Kind(SCALAR, arrays.scalar_types, arrays.pack_scalar, arrays.unpack_scalar, "numpy", "an array"),
        ),
        is_here=arrays.is_installed,
        no_server="the server has no numpy: install it there",
        no_client="the client has no numpy: install it there",
    ),
    Offer(
        "shared",
        (Kind(SHARED, (), word.never, word.value_of, "shared", "a value in shared memory"),),
        is_here=None,
        no_server="",  # for without it the value travels another way
        no_client="",
    ),
)

_KINDS = Kinds((*NATIVE, *(row for offer in OFFERS for row in offer.rows)))


def agree(
    names: Collection[str], reasons: Mapping[str, str] | None = None, channel: Channel | None = None
) -> Agreement:
    """An agreement upon these offers.

    Args:
        names: of the offers.
        reasons: why others are not agreed upon, by their names.
        channel: for shared memory, if that is among them.
    """
    reasons = reasons or {}
    fallback, why = None, ""
    for offer in OFFERS:
        if offer.fallback is not None:
            is_agreed = offer.name in names
            fallback = Fallback(offer.name, offer.fallback) if is_agreed else fallback
            why = "" if is_agreed else reasons.get(offer.name, "")
    return Agreement(_KINDS, frozenset(names), reasons, fallback, why, channel if "shared" in names else None)


NOTHING = agree(())
"""Between peers of which nothing is known."""


def consented(pickle: bool, channel: Channel | None = None) -> frozenset[str]:
    """The offers that wait for consent, or for something that a connection has, and may be made.

    Args:
        pickle: whether this side consents to pickles.
        channel: for shared memory, if the connection has one.
    """
    wanted = {"pickle": pickle, "shared": channel is not None}
    return frozenset(name for name, is_wanted in wanted.items() if is_wanted)


def offered(consent: Collection[str]) -> frozenset[str]:
    """What this side offers in its greeting.

    Args:
        consent: the names of the offers to which it consents.
    """
    return frozenset(
        offer.name for offer in OFFERS if (offer.name in consent if offer.is_here is None else offer.is_here())
    )


def hoped_for(consent: Collection[str]) -> Agreement:
    """What a client writes before it knows by which worker it will be read.

    Args:
        consent: the names of the offers to which it consents.
    """
    names = [offer.name for offer in OFFERS if offer.is_here is not None or offer.name in consent]
    return agree(names, {offer.name: offer.not_here for offer in OFFERS})


def at_client(mine: Collection[str], hi: Greeting, channel: Channel | None = None) -> Agreement:
    """What a client and a worker have agreed upon, as the client knows it.

    Args:
        mine: what the client offers.
        hi: the worker's greeting.
        channel: the client's end, if there is a channel.
    """
    mine = mine if channel is None else {*mine, "shared"}
    return agree(hi.offers.intersection(mine), {offer.name: offer.no_server for offer in OFFERS}, channel)


def at_worker(mine: Collection[str], hi: Greeting, channel: Channel | None = None) -> Agreement:
    """The same, as the worker knows it.

    Args:
        mine: what the server offers.
        hi: the client's greeting.
        channel: the worker's end, if one has come.
    """
    reasons = {
        offer.name: offer.no_client if offer.name in mine else offer.not_at_server if offer.name in hi.offers else ""
        for offer in OFFERS
    }
    return agree(hi.offers.intersection(mine), reasons, channel)
