"""The point of this test is to ensure that a web page which calls nothing is answered while workers compute.

Four workers under ``--nice 10`` hold their interpreters' locks, and more calls wait in line. (How quick the page stays
depends on the machine: bench/ measures it.)
"""

from __future__ import annotations

import contextlib
import threading

from tests.support import web
from tests.support.waiting import wait_until


def test_quick_page_stays_quick(tmp_path):
    """Each of 200 connections is answered, again and again, and none of them has an error or waits for a call."""
    with web.site(tmp_path, "--nice", "10") as site:
        server = site.gunicorn("flask_app", FLASK_GTASK_MAX_WORKERS="2")
        with computing(site, server):
            load = server.wrk("/", 3, rest=400)()
            server.get("/")
        assert load.errors == {}
        assert load.requests >= 200


@contextlib.contextmanager
def computing(site, server):
    """Four workers, two of each process, compute for requests of the same application; more wait in line."""
    over = threading.Event()

    def ask():
        while not over.is_set():
            server.get("/spin/0.2")

    askers = [threading.Thread(target=ask) for _ in range(8)]
    for asker in askers:
        asker.start()
    try:
        wait_until(lambda: len(site.server.workers) == 4, "four workers")
        yield
    finally:
        over.set()
        for asker in askers:
            asker.join()
