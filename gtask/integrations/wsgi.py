"""A call for nobody: what a request asked of a worker is cancelled when the client of the request has gone.

::

    with client.checkout() as worker, cancel_on_disconnect(environ, worker):
        report = worker.report("2026")

The WSGI server must show the request's socket, as gunicorn, gevent.pywsgi and Werkzeug do.
"""

from __future__ import annotations

import select
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gevent import get_hub
from gevent.monkey import get_original

import gtask

__all__ = ["cancel_on_disconnect", "watched"]

_RDHUP = getattr(select, "EPOLLRDHUP", 0)


@contextmanager
def cancel_on_disconnect(environ: Mapping[str, Any], checkout: gtask.Checkout) -> Iterator[gtask.Checkout]:
    """Cancel the checkout if the request's client hangs up within this ``with`` block.

    The call that runs then, or waits for a worker, raises :class:`gtask.Cancelled`, ``the client has gone``; the worker
    is interrupted and replaced, as by :meth:`gtask.Checkout.cancel`. A client that closes only its own direction and
    would still read is taken for gone, too: TCP does not tell the two apart. What the client sends meanwhile, such as
    its next request, is neither read nor taken for anything.

    Behind a proxy the client is the proxy; most hang up when theirs does.

    Args:
        environ: the request's WSGI environment: Flask's ``request.environ``, Django's and Bottle's as well.
        checkout: made by this thread's client; still to be released by its own ``with`` block.

    Returns:
        a context manager that gives the checkout.

    Raises:
        RuntimeError: the server does not show the socket, or this is not Linux.
    """
    notice = _notice(environ)
    loop = get_hub().loop
    watcher = loop.io(notice.fileno(), 1)

    def gone() -> None:
        watcher.stop()  # the notice is never taken back
        checkout.cancel("the client has gone")

    watcher.start(gone)
    try:
        yield checkout
    finally:
        watcher.close()
        loop.run_callback(notice.close)  # the loop may still have to let go of it


@contextmanager
def watched(environ: Mapping[str, Any], checkout: gtask.Checkout) -> Iterator[gtask.Checkout]:
    """The same for the whole of a checkout, which is released at the end of the ``with`` block.

    Args:
        environ: see :func:`cancel_on_disconnect`.
        checkout: made for this.

    Raises:
        RuntimeError: see :func:`cancel_on_disconnect`.
    """
    with checkout, cancel_on_disconnect(environ, checkout):
        yield checkout


def _notice(environ: Mapping[str, Any]) -> Any:
    """An epoll object, itself a descriptor, that is readable from when the request's peer has hung up."""
    try:
        # Under monkey-patching select has none. It is asked for hang-ups alone: unread bytes do not wake it.
        notice = get_original("select", "epoll")()
    except AttributeError:
        raise RuntimeError("this system has no epoll: cancel_on_disconnect works on Linux only") from None
    try:
        notice.register(_descriptor(environ), _RDHUP)
    except BaseException:  # whatever it was, it is not watched
        notice.close()
        raise
    return notice


def _descriptor(environ: Mapping[str, Any]) -> int:
    """The number of the request's socket."""
    for key in ("gunicorn.socket", "gunicorn.sock", "werkzeug.socket"):
        if key in environ:
            return int(environ[key].fileno())
    reader = getattr(environ.get("wsgi.input"), "rfile", None)  # gevent.pywsgi's
    if reader is None:
        raise RuntimeError(
            f"{environ.get('SERVER_SOFTWARE') or 'this WSGI server'} does not show the request's socket, so nobody can "
            "see when the client has gone: run it under gunicorn or gevent.pywsgi, or leave out cancel_on_disconnect"
        )
    return int(reader.fileno())
