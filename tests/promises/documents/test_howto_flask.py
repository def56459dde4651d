"""The point of this test is to ensure that the program of docs/howto/flask.rst does what the page says, with gunicorn
and with Flask's own server.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
from urllib.parse import urlsplit

import pytest

from tests.support import web
from tests.support.waiting import wait_until


@pytest.fixture
def page(tmp_path, nothing_is_left_behind):
    with web.page("flask.rst", tmp_path) as page:
        yield page


def check(server):
    """All pages of the program."""
    assert server.get("/") == "I count primes.\n"
    assert json.loads(server.get("/primes/1000")) == {"limit": 1000, "primes": 168}
    assert json.loads(server.get("/health")) == {"primes": 4}
    with pytest.raises(urllib.error.HTTPError, match="400") as caught:
        server.get("/primes/30000000")
    assert "30000000 is too much work" in caught.value.read().decode()


def test_production(page):
    """The two servers of the page."""
    page.start("production", 0, say=" serves")
    check(page.start("production", 1, "-b", "127.0.0.1:0", say="Listening at: "))


NEW = """
import time

def count_primes(limit):
    if limit == 10:
        return "few"
    try:
        open("hanging", "w").close()
        time.sleep(300)
    finally:
        open("interrupted", "w").close()
"""


def test_development(page):
    """One command; when a file changes, the application and the workers' code are new; who hangs up ends the call."""
    server = page.start("development", 0, "--port", "0", say="Running on")
    check(server)
    (page.directory / "jobs.py").write_text(NEW)
    application = page.directory / "app.py"
    application.write_text(application.read_text().replace("I count primes", "I count"))
    wait_until(lambda: is_new(server, application))
    assert json.loads(server.get("/health")) == {"primes": "few"}
    browser = http.client.HTTPConnection(urlsplit(server.url).netloc)
    browser.request("GET", "/primes/1000")
    wait_until((page.directory / "hanging").exists)
    browser.close()
    wait_until((page.directory / "interrupted").exists)
    server.wait_for(" 499 ")


def is_new(server, application):
    try:
        said = server.get("/")
    except (OSError, http.client.HTTPException):  # it has not started again yet, or ends amid the reply
        return False
    if said == "I count primes.\n":
        application.touch()  # Flask overlooks what is written after it is imported and before it is first looked at
    return said == "I count.\n"
