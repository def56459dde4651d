"""Why a call cannot be made on a lease: its errors before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gtask.client import outcomes
from gtask.client.forks import look
from gtask.errors import CheckoutReleased, EncodeError, Error, Overloaded

if TYPE_CHECKING:
    from gtask.client.calls import Call
    from gtask.client.lease import Lease

__all__ = ["no_more", "overload", "unsendable"]


def no_more(lease: Lease) -> Error:
    """No call can be made on it any more, or not here."""
    look()
    if isinstance(lease.error, Overloaded):
        return Overloaded(*lease.error.args)
    if lease.error is not None:
        return outcomes.copy_to_raise(lease.error, lease.traceback)
    if lease.released:
        return CheckoutReleased("this checkout is over: make a new one with client.checkout()")
    return lease.lender.wrong_thread()


def overload(lease: Lease, call: Call, waiting: int) -> Overloaded:
    """As many calls wait as may: the lease ends with this one."""
    lease.error = error = outcomes.overloaded(call.method, lease.lender.terms.remark, waiting)
    lease.thread = 0
    # A copy is raised: the frames that it passes know the checkout, which could never be dropped then.
    return Overloaded(*error.args)


def unsendable(lease: Lease, call: Call, why: str) -> EncodeError:
    """The call, whose aspects have begun, cannot travel."""
    error = outcomes.not_sent(call.method, lease.lender.terms.remark, why)
    call.end(None, error)
    return error
