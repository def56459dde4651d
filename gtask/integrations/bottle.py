"""gtask for Bottle, which the extra ``bottle`` installs: a plugin.

::

    app = Bottle()
    app.config["gtask.url"] = "unix:/run/jobs.sock"
    app.install(GTaskPlugin())

    @app.get("/report")
    def report(worker):  # a checkout, for as long as this runs
        return worker.report()

    @app.get("/busy")
    def busy(gtask):  # the client
        return str(gtask.stats().busy)

``docs/howto/flask.rst`` says what else to think of; it is the same for Bottle.
"""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Callable
from typing import Any

from bottle import Bottle, PluginError, Route, request

import gtask
from gtask.integrations.configured import make_client
from gtask.integrations.wsgi import watched

__all__ = ["GTaskPlugin"]

_PREFIX = "gtask."
_TEXTS = {"name", "codec"}
"""The options that are texts. Others that come as texts, from a file, are read as Python writes them."""


class GTaskPlugin:
    """Passes a :class:`gtask.Client` or a checkout of it to callbacks that ask for it by an argument's name.

    The application's configuration says how the client is made, when the plugin is installed: ``gtask.url`` is the
    server's address (``unix:``, ``tcp://`` or ``spawn:``), ``gtask.timeout``, ``gtask.max_workers`` and so on are the
    client's options. It connects at its first use, so the application may be made before a fork. A plugin that is
    installed in several applications gives each a client of its own.

    Args:
        keyword: the name of the argument that gets the client.
        checkout_keyword: the name of the argument that gets a checkout, which is released when the callback returns.
            What a generator yields comes later than that: let it make its own checkouts.
        cancel_on_disconnect: whether checkouts are cancelled if the client of their request hangs up; default False.
            A route says otherwise by ``gtask_cancel_on_disconnect=True`` or ``False``.
    """

    api = 2

    def __init__(
        self, *, keyword: str = "gtask", checkout_keyword: str = "worker", cancel_on_disconnect: bool = False
    ) -> None:
        self.name = keyword  # of plugins of the same name Bottle would apply only one
        self._keyword = keyword
        self._checkout_keyword = checkout_keyword
        self._cancel_on_disconnect = cancel_on_disconnect
        self._clients: dict[Bottle, gtask.Client] = {}

    def setup(self, app: Bottle) -> None:
        """Bottle calls it when the plugin is installed.

        Raises:
            ValueError, TypeError: the configuration makes no sense; the message names the key.
            PluginError: another plugin of the application passes an argument of the same name.
        """
        for other in app.plugins:
            if isinstance(other, GTaskPlugin) and not self._names.isdisjoint(other._names):
                raise PluginError("two plugins for gtask with the same keyword: give one another keyword")
        options = {key[len(_PREFIX) :]: value for key, value in app.config.items() if key.startswith(_PREFIX)}
        address = options.pop("url", None)
        options = {key: _read(key, value) for key, value in options.items()}
        self._clients[app] = make_client(address, _PREFIX + "url", options, _PREFIX.__add__)

    def apply(self, callback: Callable[..., Any], route: Route) -> Callable[..., Any]:
        """Bottle calls it for each route; gives the callback, or what passes the arguments to it."""
        # Not route.get_callback_args(), which loses its way in a callback that is a closure.
        asked = self._names.intersection(inspect.signature(route.callback).parameters)
        if not asked:
            return callback
        client = self._clients[route.app]
        watches = route.config.get("gtask_cancel_on_disconnect", self._cancel_on_disconnect)

        @functools.wraps(callback)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if self._keyword in asked:
                kwargs[self._keyword] = client
            if self._checkout_keyword not in asked:
                return callback(*args, **kwargs)
            checkout = client.checkout()
            with watched(request.environ, checkout) if watches else checkout:
                kwargs[self._checkout_keyword] = checkout
                return callback(*args, **kwargs)

        return wrapper

    def close(self) -> None:
        """Bottle calls it when the plugin is uninstalled or the application closed: the clients close."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    @property
    def _names(self) -> set[str]:
        return {self._keyword, self._checkout_keyword}


def _read(option: str, value: Any) -> Any:
    if not isinstance(value, str) or option in _TEXTS:
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value  # the client says what is wrong with it
