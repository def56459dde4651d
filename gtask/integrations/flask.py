"""gtask for Flask, which the extra ``flask`` installs.

::

    app = Flask(__name__)
    app.config["GTASK_URL"] = "unix:/run/jobs.sock"
    jobs = GTask(app)  # or GTask(), and init_app(app) later

    @app.get("/report")
    def report():
        return jobs.call("report")

``docs/howto/flask.rst`` has a whole program.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import EllipsisType
from typing import Any, Literal, overload

from flask import Flask, current_app, request

import gtask
from gtask.integrations.configured import make_client
from gtask.integrations.wsgi import watched
from gtask.logdefer import RequestLog

__all__ = ["GTask"]

_PREFIX = "GTASK_"


class GTask:
    """Gives each application a :class:`gtask.Client`, made from the application's configuration.

    ``GTASK_URL`` is the server's address (``unix:``, ``tcp://`` or ``spawn:``), and ``GTASK_TIMEOUT``,
    ``GTASK_MAX_WORKERS`` and so on are the client's options in capitals. The client connects at its first use, so the
    application may be made before a fork. One object serves any number of applications; each has a client of its own,
    which is also ``app.extensions["gtask"]``.

    Args:
        app: as for :meth:`init_app`, which may be called later instead.

    Raises:
        as :meth:`init_app` does.
    """

    def __init__(self, app: Flask | None = None) -> None:
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Make the client of an application, from the configuration that the application has when this is called.

        Raises:
            ValueError, TypeError: the configuration makes no sense; the message names the key.
            RuntimeError: the application has its client already.
        """
        if "gtask" in app.extensions:
            raise RuntimeError(f"{app!r} has a gtask client already: call init_app once for each application")
        options = {key[len(_PREFIX) :].lower(): value for key, value in app.config.items() if key.startswith(_PREFIX)}
        app.extensions["gtask"] = make_client(options.pop("url", None), "GTASK_URL", options, _written)

    @property
    def client(self) -> gtask.Client:
        """The current application's client; for all that is not offered here, like ``stats()``.

        Raises:
            RuntimeError: there is no application context, or the application was never given to :meth:`init_app`.
        """
        client: gtask.Client | None = current_app.extensions.get("gtask")
        if client is None:
            raise RuntimeError(f"{current_app.name} has no gtask client: call init_app(app) where it is made")
        return client

    @overload
    def checkout(
        self,
        *,
        timeout: float | EllipsisType | None = ...,
        log: RequestLog | None = None,
        cancel_on_disconnect: Literal[False] = False,
    ) -> gtask.Checkout: ...

    @overload
    def checkout(
        self,
        *,
        timeout: float | EllipsisType | None = ...,
        log: RequestLog | None = None,
        cancel_on_disconnect: bool,
    ) -> AbstractContextManager[gtask.Checkout]: ...

    def checkout(
        self,
        *,
        timeout: float | EllipsisType | None = ...,
        log: RequestLog | None = None,
        cancel_on_disconnect: bool = False,
    ) -> AbstractContextManager[gtask.Checkout]:
        """Check out a worker of the current application's client, for a ``with`` block.

        Args:
            timeout: for its calls; see :meth:`gtask.Client.checkout`.
            log: see there.
            cancel_on_disconnect: whether to cancel it if the client of the current request hangs up; default False.
                See :func:`gtask.integrations.wsgi.cancel_on_disconnect`.

        Raises:
            as :meth:`gtask.Client.checkout` does.
        """
        checkout = self.client.checkout(timeout=timeout, log=log)
        return watched(request.environ, checkout) if cancel_on_disconnect else checkout

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Check out a worker, call it once, and release it; see :meth:`gtask.Client.call`."""
        return self.client.call(name, *args, **kwargs)

    @property
    def remote(self) -> Any:
        """An object whose methods are those of the workers; see :attr:`gtask.Client.remote`."""
        return self.client.remote


def _written(option: str) -> str:
    return _PREFIX + option.upper()
