"""The point of this test is to ensure that a client that was used before uWSGI forks is right in each of its workers.

uWSGI forks in C and tells Python nothing of it. The client has a private server, idle connections and a checkout by
then. Each worker of uWSGI gets answers to its own requests, with gevent and without it, and what belongs to the parent
says so.
"""

import concurrent.futures
import os
import re
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.support.needs import fail_or_skip
from tests.support.waiting import PATIENCE, wait_until
from tests.support.web import Server

UWSGI = Path(sys.executable).with_name("uwsgi")

JOBS = """
def echo(text):
    return text
"""

APPLICATION = """
import os
import gtask

client = gtask.Client("spawn:jobs", timeout=30, max_workers=2)
held = client.checkout()
assert held.echo("at import") == "at import"
assert client.call("echo", "at import") == "at import"
PARENT = os.getpid()


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    text = environ["PATH_INFO"]
    assert os.getpid() != PARENT
    if text == "/held":
        try:
            return [held.echo(text).encode()]
        except gtask.ClientClosed as error:
            return [str(error).encode()]
    return [f"{os.getpid()} {client.call('echo', text)}".encode()]
"""

GEVENT = ["--gevent", "20", "--gevent-monkey-patch"]


@pytest.fixture(params=[[], GEVENT], ids=["plain", "gevent"])
def get(request, tmp_path, nothing_is_left_behind):
    """``get(page)`` asks one of three workers of uWSGI for a page."""
    if not UWSGI.exists():
        fail_or_skip("uWSGI (pip install pyuwsgi)")
    (tmp_path / "jobs.py").write_text(JOBS)
    (tmp_path / "application.py").write_text(APPLICATION)
    command = [
        *(str(UWSGI), "--http-socket", "127.0.0.1:0", "--master", "--processes", "3", "--enable-threads"),
        *("--wsgi-file", "application.py", "--home", sys.prefix, "--die-on-term", "--worker-reload-mercy", "5"),
        *request.param,
    ]
    env = {"TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    server = Server(tmp_path, command, env, say="spawned uWSGI worker 3")
    try:
        port = re.search(r"bound to TCP address 127\.0\.0\.1:(\d+)", server.log)[1]

        def get(page):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=PATIENCE) as reply:
                return reply.read().decode()

        yield get
        assert server.end() == 0
    finally:
        server.kill()


def test_each_request_gets_its_own_answer(get):
    """In whatever worker it is served; each worker has connections of its own."""
    workers = set()

    def ask(number):
        pid, text = get(number).split()
        workers.add(pid)
        return text == f"/{number}"

    def all_workers_have_served():
        with concurrent.futures.ThreadPoolExecutor(12) as threads:
            assert all(threads.map(ask, range(60)))
        return len(workers) > 1

    wait_until(all_workers_have_served, "an answer of another worker")
    assert "was forked" in get("held")
