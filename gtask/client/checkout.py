"""What the user holds of a worker: its methods by name, until the end of the ``with`` block.

Behind it stands a :class:`gtask.client.lease.Lease`, which the pool and the connection know; nobody but the user refers
to the Checkout, so that dropping it releases the worker.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from gtask.client.calls import Result
from gtask.client.lease import Lease

if TYPE_CHECKING:
    from gtask.client.pool.pool import Pool

__all__ = ["Checkout", "Method", "lease_of"]


class Method(partial[Any]):
    """A method of the worker's interface, by name: call it, or ``submit`` it.

    It refers to the Checkout: ``client.checkout().hash("x")`` drops the Checkout when the call is over.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        name, checkout = self.args
        return f"<Method {name} of {checkout!r}>"

    def submit(self, /, *args: Any, **kwargs: Any) -> Result:
        """Send the call behind those already made on this checkout, without waiting.

        Returns:
            a :class:`gevent.event.AsyncResult`; its ``get`` gives the value or raises, as the call would.

        Raises:
            EncodeError: an argument cannot travel. Nothing was sent.
            Overloaded: too many calls are queued on this checkout.
            Error: the sticky error of this checkout.
        """
        name, checkout = self.args
        return lease_of(checkout).submit(name, args, kwargs)


def _call(name: str, checkout: Checkout, /, *args: Any, **kwargs: Any) -> Any:
    return checkout._lease.call(name, args, kwargs)


NAMES = 1000
"""The most names that are kept."""

_known: set[str] = set()


class Checkout:
    """The exclusive use of one worker, from ``client.checkout()`` to the end of the ``with`` block.

    Any attribute that is not one of the few below is a method of the worker. Dropping the last reference
    releases the checkout, too. Calls that were submitted and are still under way then run to their end first.
    """

    __slots__ = ("__weakref__", "_client", "_lease", "_lender")

    _lender: Pool
    _lease: Lease
    _client: object  # kept alive until the end: dropping it closes the pool

    def __repr__(self) -> str:
        return f"<Checkout {self._lease!r}>"

    def __getattr__(self, name: str) -> Method:
        if name[:1] == "_":
            # Copying, pickling and the like ask for such names; no interface offers one.
            raise AttributeError(name)
        if len(_known) < NAMES:
            _known.add(name)
            setattr(Checkout, name, property(partial(Method, _call, name)))  # found faster than by __getattr__
        return Method(_call, name, self)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the worker with just these arguments, for an interface that is a function; else as :meth:`call`."""
        return self._lease.call(None, args, kwargs)

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method of any name, also one that Checkout itself has; blocks this greenlet.

        Args:
            name: the method.
            args, kwargs: values that can travel (section "values" of docs/protocol.rst).

        Returns:
            the worker's value.

        Raises:
            RemoteError: the worker's code raised; of the original class, too, where that is known here.
            CallTimeout: the worker took longer than the time-out.
            AcquireTimeout: no worker could be had within the time-out.
            WorkerDied: the worker ended before it replied.
            CallDropped: a call queued before this one raised.
            EncodeError: an argument cannot travel. Nothing was sent.
            Error: any other error of gtask; a sticky one is raised again by each later call.
        """
        return self._lease.call(name, args, kwargs)

    def submit(self, /, *args: Any, **kwargs: Any) -> Result:
        """As ``checkout(*args, **kwargs)``, but without waiting; see :meth:`Method.submit`."""
        return self._lease.submit(None, args, kwargs)

    def cancel(self, reason: str = "cancelled") -> None:
        """End the checkout and the call that runs in it, at once. The worker is not used again.

        Args:
            reason: what the calls of this checkout raise from now on, as ``Cancelled(reason)``.
        """
        self._lease.cancel(reason)

    def release(self) -> None:
        """End the checkout; never blocks. Releasing again does nothing."""
        self._lease.release()
        self._client = None

    def __enter__(self) -> Checkout:
        self._lender.blocks.enter(self._lease)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._lease.release()
        self._client = None

    def __del__(self) -> None:
        if getattr(self, "_client", None) is not None:  # or its making was interrupted
            self._lender.drop(self._lease)


def lease_of(checkout: Checkout) -> Lease:
    """The lease behind a checkout, for the client's own use: more names in Checkout would hide methods of workers."""
    return checkout._lease
