"""The point of this test is to ensure that gtask serves real web applications under load: Flask, Django and Bottle
under gunicorn's gevent workers, with and without ``--preload``, and a plain one under gevent.pywsgi, without an error.
"""

from __future__ import annotations

import http.client
import json
import sys
from urllib.parse import urlsplit

import pytest

from tests.support.process import is_gone
from tests.support.waiting import text_once_written, wait_until

SERVERS = {
    "flask": ("flask_app",),
    "flask --preload": ("flask_app", "--preload"),
    "django --preload": ("django_app", "--preload"),
    "bottle": ("bottle_app",),
    "pywsgi": (),
}


@pytest.mark.parametrize("which", SERVERS)
def test_application(site, which):
    """200 connections get their answers, each process has a client of its own, and a client that hangs up ends its
    call."""
    server = site.gunicorn(*SERVERS[which]) if SERVERS[which] else site.web(sys.executable, "-m", "pywsgi_app")
    assert server.get("/double/21") == "42"
    load = server.wrk("/double/4", 1)()
    assert load.errors == {}
    assert load.requests > 0

    hang_up_while_it_hangs(server, site)

    processes = set()
    wait_until(lambda: processes.add(json.loads(server.get("/pids"))[0]) or processes == expected(server))
    assert "Traceback" not in server.log


def expected(server):
    """The processes that answer requests."""
    return set(server.workers) or {server.pid}


def hang_up_while_it_hangs(server, site):
    """The worker is ended, long before its call would be over, and others answer."""
    browser = http.client.HTTPConnection(urlsplit(server.url).netloc)
    browser.request("GET", "/hang")
    worker = int(text_once_written(site.marks / "hanging"))
    browser.close()
    wait_until(lambda: is_gone(worker), "the worker's end")
    assert server.get("/double/4") == "8"
