"""The client as a ``concurrent.futures.Executor``: each submitted function is a checkout, a call and a release.

Nothing here has a greenlet or a thread: futures are settled in the hub, as soon as their calls have ended.
"""

from __future__ import annotations

import concurrent.futures
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from time import monotonic
from types import EllipsisType
from typing import TYPE_CHECKING, Any

from gtask.client import elsewhere
from gtask.client.calls import Result
from gtask.client.checkout import lease_of
from gtask.client.lease import Lease
from gtask.client.loop import Event, thread_ident
from gtask.client.many.items import called_with, noting
from gtask.function_names import name_of

if TYPE_CHECKING:
    from gtask.client.client import Client

__all__ = ["Executor", "Future"]


class Future(concurrent.futures.Future[Any]):
    """What :meth:`Executor.submit` returns: a ``concurrent.futures.Future`` that never blocks more than a greenlet.

    It is also one of gevent's own kind: ``gevent.wait`` and ``gevent.iwait`` take it. What is given to
    ``add_done_callback`` and ``rawlink`` runs in the hub, and so must not block. It belongs to the client's thread; in
    others one can wait for it, which blocks them.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._thread = thread_ident()
        self._waiters: list[Any] = _Waiters(self._thread)
        self._name = name
        self._lease: Lease | None = None
        self._client: Client | None = None  # kept alive until the end: dropping it closes the pool
        self._frames: Any = None
        self._over = Event()
        self._links: list[tuple[Callable[[Future], object], Callable[[object], object]]] = []
        self.add_done_callback(_end)

    def __repr__(self) -> str:
        state = (
            "cancelled" if self.cancelled() else "done" if self.done() else "running" if self.running() else "in line"
        )
        return f"<Future of {self._name}, {state}>"

    def running(self) -> bool:
        """Whether it has been sent to a worker, and has not ended yet."""
        lease = self._lease
        return lease is not None and not lease.wants and not self.done()

    def cancel(self) -> bool:
        """Give up its place in line, unless it has been sent to a worker.

        Returns:
            whether it is cancelled now. A call that runs is not: it ends by itself, or by its time-out.

        Raises:
            WrongThread: it is in line, and this is not the client's thread.
        """
        lease = self._lease
        if lease is None or not lease.wants:
            return self.cancelled()
        lease.cancel("its future was cancelled")
        super().cancel()
        self.set_running_or_notify_cancel()  # tells concurrent.futures.wait
        return True

    def result(self, timeout: float | None = None) -> Any:
        """The value, as soon as it is there; blocks this greenlet only.

        Args:
            timeout: seconds to wait; None for as long as the call may take.

        Raises:
            concurrent.futures.TimeoutError: it has not come in time. The call goes on.
            concurrent.futures.CancelledError: it was cancelled.
            Error: whatever the call has raised.
        """
        error = self.exception(timeout)
        if error is None:
            return super().result(0)
        try:
            raise error.with_traceback(self._frames)
        finally:
            del error, self  # which know this frame

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the call has raised, or None, as soon as it has ended; else as :meth:`result`."""
        self.wait(timeout)
        return super().exception(0)

    def wait(self, timeout: float | None = None) -> bool:
        """Block this greenlet until it is done.

        Args:
            timeout: seconds to wait; None for as long as the call may take.

        Returns:
            whether it is done.
        """
        if not self.done():
            if thread_ident() == self._thread:
                self._over.wait(timeout)
            else:
                elsewhere.wait(self, timeout, exception=False)
        return self.done()

    def ready(self) -> bool:
        """The same as ``done()``, under gevent's name."""
        return self.done()

    def rawlink(self, callback: Callable[[Future], object]) -> None:
        """Have a callback called with this future when it is done, soon if it is: in the hub of this thread; where
        there is none, in that of the client."""
        if thread_ident() != self._thread and elsewhere.link(self, callback, self._over.rawlink):
            return

        def link(_: object) -> None:
            callback(self)

        self._links.append((callback, link))
        self._over.rawlink(link)

    def unlink(self, callback: Callable[[Future], object]) -> None:
        """Do not call it any more."""
        made_elsewhere = elsewhere.unlink(self, callback)
        if made_elsewhere is not None:
            self._over.unlink(made_elsewhere)
            return
        found = next((pair for pair in self._links if pair[0] == callback), None)
        if found is not None:
            self._links.remove(found)
            self._over.unlink(found[1])

    def await_result(self, client: Client, lease: Lease, result: Result) -> None:
        """From now on it waits for this."""
        self._client, self._lease = client, lease
        result.rawlink(self._settle)
        result.heir = self._orphaned

    def _settle(self, result: Result) -> None:
        if self.done():
            return
        if result.exception is None:
            self.set_result(result.value)
        else:
            self._frames = result.exception.__traceback__
            self.set_exception(result.exception)

    def _orphaned(self, result: Result) -> None:
        self._settle(result)
        elsewhere.wake(self)

    def cancel_later(self) -> None:
        """The same as :meth:`cancel` from a finaliser, which may run anywhere."""
        lease = self._lease
        if lease is not None:
            lease.lender.later(self.cancel)

    def end(self) -> None:
        """It is done or cancelled: let go of everything, and wake who waits."""
        self._client = self._lease = None
        self._over.set()


class _Waiters(list[Any]):
    """Those that ``concurrent.futures.wait`` and ``as_completed`` have left at a future.

    Each has an event. If threading is not patched, to wait for that would stop the thread and its hub, for good. So
    in the future's own thread they get one of gevent's.
    """

    def __init__(self, thread: int) -> None:
        super().__init__()
        self._thread = thread

    def append(self, waiter: Any) -> None:
        if thread_ident() == self._thread and not isinstance(waiter.event, Event):
            waiter.event = Event()
        super().append(waiter)


class Executor(concurrent.futures.Executor):
    """Runs functions in the workers of a client, whose server serves their module; see ``client.executor()``.

    Args:
        client: whose workers run them.
        timeout: of each call, in seconds.
    """

    def __init__(self, client: Client, timeout: float | EllipsisType | None = ...) -> None:
        self._client = client
        self._timeout = timeout
        self._pending: set[Future] = set()
        self._is_shut = False

    def __repr__(self) -> str:
        return f"<Executor{', shut down' if self._is_shut else ''} of {self._client!r}: {len(self._pending)} pending>"

    def submit(self, fn: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> Future:
        """Have a worker call a function; never blocks.

        Args:
            fn: a function at the top level of a module that the server allows, or its name, ``"module:qualname"``.
            args, kwargs: values that can travel (section "values" of docs/protocol.rst).

        Raises:
            TypeError, ValueError: a worker cannot find this function; the message says why.
            EncodeError: an argument cannot travel. Nothing was sent.
            Overloaded: max_waiting others wait already.
            RuntimeError: after shutdown().
            ClientClosed, WrongThread: as for ``client.checkout``.
        """
        return self._submit(name_of(fn), args, kwargs)

    def map(
        self,
        fn: Callable[..., Any] | str,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """As ``map(fn, *iterables)``, but in the workers; gives the values in order.

        Args:
            timeout: seconds from now for all of them; default None, for no limit.
            chunksize: how many items a worker gets at a time, as one call. If one raises, its chunk has no values.
            buffersize: how many calls may be ahead of what has been taken; default None: all are submitted at once.

        Raises:
            ValueError, TypeError: an argument makes no sense.
            concurrent.futures.TimeoutError: from the iterator, when the time is over.
            Error: from the iterator, in place of a value; and at once, as :meth:`submit`.
        """
        for name, number in (("chunksize", chunksize), ("buffersize", buffersize)):
            if number is not None and number < 1:
                raise ValueError(f"{name}={number!r}: write a number of at least 1")
        function = name_of(fn)
        function, calls = called_with(function, zip(*iterables, strict=False), chunksize)
        deadline = None if timeout is None else monotonic() + timeout
        ahead: deque[Future] = deque()
        try:
            for call in itertools.islice(calls, buffersize):
                ahead.append(self._submit(function, call, {}))
        except BaseException:  # whatever it was, nobody will ask for what has been submitted so far
            _cancel(ahead)
            raise
        results = self._results(function, calls, ahead, deadline, chunksize)
        return itertools.chain.from_iterable(results) if chunksize > 1 else results

    def _results(
        self,
        function: str,
        calls: Iterator[tuple[Any, ...]],
        ahead: deque[Future],
        deadline: float | None,
        chunksize: int,
    ) -> Iterator[Any]:
        numbers = itertools.count(0, chunksize)
        try:
            while ahead:
                left = None if deadline is None else max(0.0, deadline - monotonic())
                # Not kept in a variable: the value is the caller's alone.
                yield noting(partial(_take, ahead, left), next(numbers), chunksize)
                ahead.extend(self._submit(function, call, {}) for call in itertools.islice(calls, 1))
        finally:
            for future in ahead:
                future.cancel_later()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept nothing more. The client stays open.

        Args:
            wait: whether to block this greenlet until all that was submitted has ended.
            cancel_futures: whether to cancel what has not been sent to a worker.
        """
        self._is_shut = True
        if cancel_futures:
            _cancel(list(self._pending))
        while wait and self._pending:
            next(iter(self._pending)).wait()

    def _submit(self, name: str, args: Iterable[Any], kwargs: dict[str, Any]) -> Future:
        if self._is_shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        checkout, future = self._client.checkout(timeout=self._timeout), Future(name)
        try:
            lease = lease_of(checkout)
            lease.lender.announce_end(lease)
            future.await_result(self._client, lease, lease.submit(name, (*args,), kwargs))
        finally:
            checkout.release()
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future


def _end(future: Any) -> None:
    future.end()


def _take(ahead: deque[Future], timeout: float | None) -> Any:
    future = ahead.popleft()
    try:
        return future.result(timeout)
    finally:
        future.cancel()
        del future  # which has the value, and so may have this frame


def _cancel(futures: Iterable[Future]) -> None:
    for future in futures:
        future.cancel()
