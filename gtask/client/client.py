"""The client as its user sees it: options, checkouts, and calls without one."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import fields
from functools import partial
from types import EllipsisType, ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from gtask import address as addresses
from gtask.aspects import context as context_aspect
from gtask.aspects.caller import RequestLog
from gtask.client.checkout import Checkout, lease_of
from gtask.client.config import MAX_WORKERS, MIN_WORKERS, ClientConfig, check_count, check_size, check_timeout
from gtask.client.many.executor import Executor
from gtask.client.many.unordered import map_unordered
from gtask.client.pool.connector import Connector
from gtask.client.pool.pool import Pool
from gtask.client.pool.who_serves import check_address
from gtask.function_names import name_of
from gtask.spawn import SpawnedServer, spawn_server
from gtask.stats import ClientStats
from gtask.target import Private, private
from gtask.wire.limits import DEFAULTS

__all__ = ["Client", "Remote"]


class Client:
    """Calls the workers of one server. Made at import time or later, it does nothing until it is first used.

    It belongs to the OS thread that uses it first. A process that is forked from this one finds it unused.

    Args:
        address: of the server: ``unix:/path``, ``tcp://host:port``, or ``spawn:module[:attribute]`` for a private
            server that is started at first use and ends with the client. The server may come later than the client.
            ``spawn:`` takes options: ``?reload`` loads new code when a file of the application changes,
            ``?allow=MODULE`` is for ``gtask.server.functions``, ``?log_level=info`` shows the server's own log; several
            are joined by ``&``.
        name: this client's, for errors and the server's log; default "".
        timeout: seconds that a call may take, the time in line for a worker included; default 30, None for no limit.
            The time runs from when the call is the first of its checkout's queue.
        min_workers: the number of workers that are kept ready once the pool is open; default 2, or max_workers if that
            is less.
        max_workers: the most workers that there may be; default 20, or min_workers if that is more.
        max_checkouts: how often a worker is lent before a new one takes its place, or up to a tenth less, so that
            workers do not end together; default None, for no limit.
        max_lifetime: seconds after which a worker is replaced, or up to a tenth less; default None, for no limit. A
            checkout is never cut short for it.
        max_idle: seconds in which one worker was never needed, after which one ends; default 600, None to keep all.
            min_workers stay.
        lifo: whether the worker that was used last is lent next; default True: its caches are warm, and the others may
            end. False lends the worker that has been idle for longest.
        max_waiting: the most checkouts that may wait in line, beyond those for which there is room for a worker. Others
            get Overloaded at once. Default None, for no limit.
        shed_target: seconds that a wait in line may last. If nobody was served faster for shed_interval seconds,
            checkouts that have waited longer get Overloaded. Default None: none does.
        shed_interval: seconds that a burst may last before checkouts are shed; default 1. See shed_target.
        max_connecting: the most workers that may be starting at a time; default 8.
        reconnect_timeout: seconds without any worker to be had, after which on_reconnect_failed is called, once;
            default 300. The attempts go on.
        on_reconnect_failed: a function that takes the client, and is called in a greenlet of its own; default None. See
            reconnect_timeout.
        leak_after: seconds after which a checkout that is still held is logged (logger ``gtask.client``), with the
            stack where it was made; default None: none is. To know the stack costs some 10 us per checkout.
        refork_after_error: whether a worker in which a call raised is replaced at the end of the checkout; default
            True.
        raises: exception classes, and modules of such, that may be raised for a worker's exception, beside Python's
            own; default None, for all that this process has imported. Others become RemoteError.
        setup_timeout: seconds that a new worker's setup may take; default 300.
        max_queue: the most calls that may be queued on one checkout; default 10,000.
        limit_message: bytes that a message may have, both ways; default 64 MiB.
        limit_shared: bytes that a message may have in shared memory, both ways; 0 for none. Default 1 GiB. Large values
            travel so at unix sockets, if the server allows it, too.
        limit_items: lists, maps and other composed values that a message of a worker may have; default 2,000,000. An
            empty list is one byte on its way and 60 in memory.
        max_extension: seconds by which a call may be extended beyond its time-out, all together
            (``gtask.current_call().extend`` in the worker); default 86,400, a day.
        logs: whether records that workers log during a call are replayed here, by the loggers of the same names, as far
            as their levels here want it; default True.
        context: context variables whose values travel with each call. Each must be at the top level of a module, and
            its value must be able to travel. Default: none.
        codec: how messages are written: ``"msgpack"`` (the default), or ``"json"`` for a server of AnyEvent::Task in
            Perl. With JSON fewer types can travel, calls are sent one at a time, and errors are RemoteError; see
            docs/protocol.rst.
        pickle: whether values that cannot travel otherwise are pickled, if the server consents as well
            (``gtask-server --pickle``). Default False. A pickle can have its reader run any code: both sides must trust
            each other. Only at a unix socket, unless ``insecure``.
        server_uid: the number of the user who must serve at the unix socket, and so have opened it; another's server is
            told nothing, and checkouts raise SetupError at once. Default None, for any user.
        insecure: whether pickle is allowed over TCP and at abstract names, where any user of the machine can listen;
            default False.

    Raises:
        ValueError, TypeError: an argument makes no sense; the message says what is allowed.
    """

    def __init__(
        self,
        address: str | addresses.Address,
        *,
        name: str = "",
        timeout: float | None = 30.0,
        min_workers: int = MIN_WORKERS,
        max_workers: int = MAX_WORKERS,
        max_checkouts: int | None = None,
        max_lifetime: float | None = None,
        max_idle: float | None = 600.0,
        lifo: bool = True,
        max_waiting: int | None = None,
        shed_target: float | None = None,
        shed_interval: float = 1.0,
        max_connecting: int = 8,
        reconnect_timeout: float = 300.0,
        on_reconnect_failed: Callable[[Client], object] | None = None,
        leak_after: float | None = None,
        refork_after_error: bool = True,
        raises: Collection[type | ModuleType] | None = None,
        setup_timeout: float = 300.0,
        max_queue: int = 10_000,
        limit_message: int = DEFAULTS.message,
        limit_shared: int = DEFAULTS.shared,
        limit_items: int = DEFAULTS.items,
        max_extension: float = DEFAULTS.extension,
        logs: bool = True,
        context: Sequence[ContextVar[Any]] = (),
        codec: str = "msgpack",
        pickle: bool = False,
        server_uid: int | None = None,
        insecure: bool = False,
    ) -> None:
        given = locals()
        options = {option.name: given[option.name] for option in fields(ClientConfig)}
        self._config = config = ClientConfig(**options | {"context": context_aspect.name(context)})
        self._address = str(address)
        reconnect_failed = partial(_reconnect_failed, weakref.ref(self))  # the pool must not keep its client alive
        self._pool = Pool(config, _connector(address, config), on_reconnect_failed=reconnect_failed)

    def __repr__(self) -> str:
        name = f" {self._config.name!r}" if self._config.name else ""
        return f"<Client{name} of {self._address}: {self._pool!r}>"

    @property
    def name(self) -> str:
        """The client's name, as it was given; "" for none."""
        return self._config.name

    @property
    def address(self) -> str:
        """The address of the server, as it was given."""
        return self._address

    def open(self, *, wait: bool = False, timeout: float | None = 30.0) -> None:
        """Begin to connect min_workers now instead of at first use.

        Args:
            wait: whether to block this greenlet until all of them are there; otherwise it never blocks.
            timeout: seconds to wait for them; None for no limit.

        Raises:
            AcquireTimeout: they did not come in time; the message says why. The client stays open, and goes on trying.
            SetupError: the setup of one raised.
            ClientClosed: after close().
            WrongThread: the client belongs to another thread.
        """
        check_timeout(timeout)
        self._pool.open()
        if wait:
            self._pool.wait_until_ready(timeout)

    def close(self, timeout: float | None = None) -> None:
        """Close all idle workers and turn away who waits in line. Workers that are lent finish their checkout first.

        Args:
            timeout: seconds to wait for those that are lent, blocking this greenlet. A checkout that still holds one
                then is cut off, and gets ClientClosed. By default it does not wait, and cuts nobody off.
        """
        check_timeout(timeout)
        self._pool.close()
        if timeout is not None:
            self._pool.wait_until_empty(timeout)

    def drain(self) -> None:
        """Replace all workers: idle ones now, the others when they come back. Never blocks.

        For a server whose code or data has changed behind the same address.

        Raises:
            ClientClosed: after close().
        """
        self._pool.drain()

    def resize(self, min_workers: int, max_workers: int) -> None:
        """Keep at least min_workers and at most max_workers from now on. Never blocks.

        If there are too many, idle ones end now, and others when they come back.

        Raises:
            ValueError, TypeError: the numbers make no sense.
            ClientClosed: after close().
        """
        check_size(min_workers, max_workers)
        self._pool.resize(min_workers, max_workers)

    def stats(self) -> ClientStats:
        """How many workers there are and what they do, and what was counted so far; see
        :class:`gtask.stats.ClientStats`."""
        return self._pool.stats()

    def pop_stats(self) -> ClientStats:
        """The same, after which all counters begin at 0 again."""
        return self._pool.stats(reset=True)

    def checkout(self, *, timeout: float | EllipsisType | None = ..., log: RequestLog | None = None) -> Checkout:
        """Take a place in the line for a worker that serves this checkout alone; never blocks.

        Args:
            timeout: for the calls of this checkout; by default the client's.
            log: the log of the request for which it is made, a :class:`gtask.logdefer.RequestLog`: it gets the times of
                the calls, and what the worker writes by :func:`gtask.logdefer.current`.

        Returns:
            the checkout, to be used in a ``with`` block.

        Raises:
            Overloaded: max_waiting others wait already.
            ClientClosed: after close().
            WrongThread: the client belongs to another thread.
        """
        if timeout is ...:
            return self._pool.checkout(self._config.timeout, self, log)
        check_timeout(timeout)
        return self._pool.checkout(timeout, self, log)

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Check out a worker, call it once, and release it; see :meth:`Checkout.call`."""
        checkout = self._pool.checkout(self._config.timeout, self)
        try:
            lease = lease_of(checkout)
            self._pool.announce_end(lease)
            return lease.call(name, args, kwargs)
        finally:
            checkout.release()

    def executor(self, *, timeout: float | EllipsisType | None = ...) -> Executor:
        """A ``concurrent.futures.Executor`` whose functions run in the workers, each in a checkout of its own.

        The functions are those of the module that the server serves; ``gtask.server.functions`` serves those of
        several. docs/executor.rst has more.

        Args:
            timeout: of each call, the time in line included; by default the client's.
        """
        if not isinstance(timeout, EllipsisType):
            check_timeout(timeout)
        return Executor(self, timeout)

    def map_unordered(
        self,
        method: Callable[..., Any] | str,
        iterable: Iterable[Any],
        *,
        chunksize: int = 1,
        max_ahead: int | None = None,
    ) -> Generator[Any, None, None]:
        """Call a method with each item, in many workers at once, and give the values as they come.

        While calls take less than a millisecond some are sent ahead to each worker. An exception ends it: that of a
        call, in place of its value and with a note that has the item's number, or the iterable's own. At the end,
        whichever it is (also when the generator is closed or dropped), what is still under way is cancelled, and
        nothing more is taken from the iterable.

        Args:
            method: its name; or a function of the module that the server serves.
            iterable: its items are taken as there is room for them, each is the one argument of a call.
            chunksize: how many items a worker gets at a time, as one call: with one time-out, and run at most once. If
                one raises, those before it in its chunk have no values. Default 1.
            max_ahead: how many items may have been taken whose values have not, at least a chunk; by default as many
                chunks as there may be workers, and the same again in line, or max_waiting if that is less.

        Raises:
            ValueError, TypeError: an argument makes no sense.
            Error: from the generator, as for :meth:`call`.
        """
        name = method if isinstance(method, str) else name_of(method)
        check_count("chunksize", chunksize, 1)
        most, waiting = self._pool.stats().max_workers, self._config.max_waiting
        ahead = most + (most if waiting is None else min(most, waiting))
        if max_ahead is not None:
            check_count("max_ahead", max_ahead, 1)
            ahead = max(1, max_ahead // chunksize)
        return map_unordered(self, name, iterable, chunksize, ahead, most)

    @property
    def remote(self) -> Remote:
        """An object whose methods are those of the workers, each called as by :meth:`call`."""
        return Remote(self)

    if not TYPE_CHECKING:  # which finds out by itself

        def __getattr__(self, name: str) -> NoReturn:
            """There is no such attribute.

            Raises:
                AttributeError: always; the message says how a method of the workers is called.
            """
            if name.startswith("_"):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            raise AttributeError(
                f"a client has no attribute {name!r}. A method of the workers is called by client.remote.{name}(...), "
                f"by client.call({name!r}, ...), or in a checkout"
            )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        pool = getattr(self, "_pool", None)  # absent if the arguments were refused
        if pool is not None and not is_finalizing():  # or the process does the rest, and names are gone
            pool.close_later()


def _connector(address: str | addresses.Address, config: ClientConfig) -> Connector:
    """What connects to this address, or to a private server."""
    if isinstance(address, str) and address.startswith("spawn:"):
        return Connector(None, config, partial(_spawn, private(address[len("spawn:") :]), config.pickle))
    server = addresses.parse(address)
    check_address(server, config.server_uid)
    if config.pickle:
        addresses.check_pickle(
            server, config.insecure, "any process that answers at {} could have this one run any code"
        )
    return Connector(server, config)


def _spawn(wanted: Private, pickle: bool) -> SpawnedServer:
    """Start the private server that is wanted."""
    return spawn_server(
        wanted.target,
        name=wanted.target,
        allow=wanted.allow,
        pickle=pickle,
        reload=wanted.reload,
        log_level=wanted.log_level,
    )


def _reconnect_failed(this: Callable[[], Client | None]) -> None:
    client = this()
    if client is not None and client._config.on_reconnect_failed is not None:
        client._config.on_reconnect_failed(client)


class RemoteMethod(partial[Any]):
    """A method of the workers, each call of which is a checkout."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            method = self.args[0]
            hint = (
                f". In a checkout there is: with client.checkout() as worker: worker.{method}.submit(...); and "
                "client.executor() has futures"
                if name == "submit"
                else ""
            )
            raise AttributeError(f"client.remote.{method} has no attribute {name!r}{hint}")


class Remote:
    """Stands for the interface of the workers, to be passed around; made by ``client.remote``."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __repr__(self) -> str:
        return f"<Remote of {self._client!r}>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        method: Any = RemoteMethod(self._client.call, name)
        method.__name__ = method.__qualname__ = name
        vars(self)[name] = method  # the next use finds it without this function
        return method
