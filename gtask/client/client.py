"""The client as its user sees it: options, checkouts, and calls without one."""

from __future__ import annotations

from collections.abc import Collection
from types import EllipsisType, ModuleType
from typing import Any

from gtask import address as addresses
from gtask.client.checkout import Checkout
from gtask.client.config import ClientConfig, check_timeout
from gtask.client.pool import Pool
from gtask.spawn import spawn_server
from gtask.wire.codec import DEFAULT_LIMIT

__all__ = ["Client", "Remote"]


class Client:
    """Calls the workers of one server. Made at import time or later, it does nothing until it is first used.

    Args:
        address: of the server: ``unix:/path``, ``tcp://host:port``, or ``spawn:module[:attribute]`` for a private
            server that is started at first use and ends with the client. The server may come later than the client.
        name: this client's, for errors and the server's log.
        timeout: seconds that a call may take, from when it is the first of its checkout's queue, waiting for a
            worker included; default 30, None for no limit.
        min_workers: how many workers are kept ready once the pool is open; default 2.
        max_workers: how many there are at most; default 20.
        max_checkouts: how often a worker is lent before a new one takes its place; default None, for no limit.
        refork_after_error: whether a worker that raised is replaced at the end of the checkout; default True.
        raises: exception classes, and modules of such, that may be raised here for a worker's exception, beside
            Python's own; by default all that this process has imported. Others become RemoteError.
        setup_timeout: seconds that a new worker's setup may take; default 300.
        max_queue: how many calls may be queued on one checkout; default 10,000.
        limit_message: bytes that a message may have, both ways; default 64 MiB.

    Raises:
        ValueError, TypeError: an argument makes no sense; the message says what is allowed.
    """

    def __init__(
        self,
        address: str | addresses.Address,
        *,
        name: str = "",
        timeout: float | None = 30.0,
        min_workers: int = 2,
        max_workers: int = 20,
        max_checkouts: int | None = None,
        refork_after_error: bool = True,
        raises: Collection[type | ModuleType] | None = None,
        setup_timeout: float = 300.0,
        max_queue: int = 10_000,
        limit_message: int = DEFAULT_LIMIT,
    ) -> None:
        self._config = ClientConfig(
            name=name,
            timeout=timeout,
            min_workers=min_workers,
            max_workers=max_workers,
            max_checkouts=max_checkouts,
            refork_after_error=refork_after_error,
            raises=raises,
            setup_timeout=setup_timeout,
            max_queue=max_queue,
            limit_message=limit_message,
        )
        if isinstance(address, str) and address.startswith("spawn:"):
            target = address[len("spawn:") :]
            if not target:
                raise ValueError("write spawn:module or spawn:module:attribute")
            self._pool = Pool(None, self._config, lambda: spawn_server(target, name=target))
        else:
            self._pool = Pool(addresses.parse(address), self._config)
        self._address = str(address)

    def __repr__(self) -> str:
        name = f" {self._config.name!r}" if self._config.name else ""
        return f"<Client{name} of {self._address}: {self._pool!r}>"

    def open(self) -> None:
        """Begin to connect min_workers now instead of at first use. Never blocks.

        Raises:
            ClientClosed: after close().
        """
        self._pool.open()

    def close(self) -> None:
        """Close all idle workers. Those that are lent finish their checkout first. Never blocks."""
        self._pool.close()

    def checkout(self, *, timeout: float | EllipsisType | None = ...) -> Checkout:
        """Take a place in the line for a worker of one's own; never blocks.

        Args:
            timeout: for the calls of this checkout; by default the client's.

        Returns:
            the checkout, to be used in a ``with`` block.

        Raises:
            ClientClosed: after close().
        """
        if isinstance(timeout, EllipsisType):
            return self._pool.checkout(self._config.timeout, self)
        check_timeout(timeout)
        return self._pool.checkout(timeout, self)

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Check out a worker, call it once, and release it; see :meth:`Checkout.call`."""
        with self._pool.checkout(self._config.timeout, self) as checkout:
            return checkout.call(name, *args, **kwargs)

    @property
    def remote(self) -> Remote:
        """An object whose methods are those of the workers, each called as by :meth:`call`."""
        return Remote(self)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        pool = getattr(self, "_pool", None)  # absent if the arguments were refused
        if pool is not None:
            pool.close_later()


class Remote:
    """Stands for the interface of the workers, to be passed around; made by ``client.remote``."""

    __slots__ = ("_client",)

    def __init__(self, client: Client) -> None:
        self._client = client

    def __repr__(self) -> str:
        return f"<Remote of {self._client!r}>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        client = self._client

        def method(*args: Any, **kwargs: Any) -> Any:
            return client.call(name, *args, **kwargs)

        method.__name__ = method.__qualname__ = name
        return method
