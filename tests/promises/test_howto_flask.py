"""The point of this test is to ensure that the program of docs/howto/flask.rst does what the page says, with gunicorn
and with Flask's own server.
"""

from __future__ import annotations

import json
import urllib.error

import pytest

from gtask import testing
from tests import web


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


def test_development(page):
    """One command; when a file changes, the application and the workers' code are new."""
    server = page.start("development", 0, "--port", "0", say="Running on")
    check(server)
    (page.directory / "jobs.py").write_text("def count_primes(limit):\n    return 'many'\n")
    application = (page.directory / "app.py").read_text()
    (page.directory / "app.py").write_text(application.replace("I count primes", "I count"))
    server.wait_for("Restarting with", 2)
    testing.wait_until(lambda: newly(server) == "I count.\n", 30)
    assert json.loads(server.get("/primes/1000"))["primes"] == "many"


def newly(server):
    try:
        return server.get("/")
    except OSError:  # it has not started again yet
        return ""
