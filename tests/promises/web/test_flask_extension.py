"""The point of this test is to ensure that the Flask extension gives each application the client that its configuration
describes, says what is wrong with one, and can be used as Flask's users are used to.
"""

from __future__ import annotations

import socket

import flask
import pytest

import gtask
from gtask.integrations.flask import GTask

SOURCE = """
    import os, time

    def double(number):
        return 2 * number

    def pid():
        return os.getpid()

    def hang():
        time.sleep(300)
"""


def application(**configuration):
    app = flask.Flask("site")
    app.config.from_mapping(configuration)
    return app


@pytest.fixture
def address(shared):
    return str(shared(SOURCE).address)


def test_client_of_the_application(address):
    """It has the options that the configuration says, and does nothing before it is used."""
    app = application(GTASK_URL=address, GTASK_TIMEOUT=7, GTASK_MAX_WORKERS=3, GTASK_MIN_WORKERS=0, GTASK_NAME="site")
    jobs = GTask(app)
    client = app.extensions["gtask"]
    assert isinstance(client, gtask.Client)
    assert (client.address, client.name, client.stats().max_workers) == (address, "site", 3)
    assert client.stats().connects == 0

    @app.get("/double/<int:number>")
    def double(number):
        with jobs.checkout() as worker, jobs.checkout(timeout=5) as other:
            assert worker.pid() != other.pid()
        assert jobs.client is client
        return [jobs.checkout().double(number), jobs.call("double", number), jobs.remote.double(number)]

    assert app.test_client().get("/double/21").json == [42, 42, 42]
    assert client.stats().checkouts == 5
    client.close()


def test_configuration_from_the_environment(monkeypatch):
    """Flask reads numbers and the like from it by itself."""
    monkeypatch.setenv("FLASK_GTASK_URL", "tcp://localhost:7000")
    monkeypatch.setenv("FLASK_GTASK_MAX_WORKERS", "5")
    monkeypatch.setenv("FLASK_GTASK_TIMEOUT", "null")
    app = application()
    app.config.from_prefixed_env()
    GTask(app)
    assert app.extensions["gtask"].stats().max_workers == 5


def test_factories(address):
    """One object for applications that are made later: each uses its own client."""
    jobs = GTask()
    apps = [application(GTASK_URL=address, GTASK_NAME=name, GTASK_MIN_WORKERS=0) for name in ("one", "two")]
    for app in apps:
        jobs.init_app(app)
    for app in apps:
        with app.app_context():
            assert jobs.client.name == app.config["GTASK_NAME"]
            assert jobs.call("double", 4) == 8
        assert app.extensions["gtask"].stats().checkouts == 1
        app.extensions["gtask"].close()


def test_a_client_that_goes_away(address):
    """``cancel_on_disconnect=True`` watches the current request's socket, for as long as the checkout lasts."""
    app = application(GTASK_URL=address, GTASK_MIN_WORKERS=0)
    jobs = GTask(app)
    ours, theirs = socket.socketpair()
    with ours, app.test_request_context("/", environ_overrides={"gunicorn.socket": ours}):
        with jobs.checkout(cancel_on_disconnect=True) as worker:
            assert worker.double(4) == 8
        with pytest.raises(gtask.CheckoutReleased):
            worker.double(4)
        theirs.close()
        with (
            jobs.checkout(cancel_on_disconnect=True) as worker,
            pytest.raises(gtask.Cancelled, match="client has gone"),
        ):
            worker.hang()
        jobs.client.close()


@pytest.mark.parametrize(
    ("configuration", "says"),
    [
        ({}, "^GTASK_URL is not set: write the server's address"),
        ({"GTASK_URL": 7000}, "^GTASK_URL is 7000: write the server's address"),
        ({"GTASK_URL": "localhost:7000"}, r"localhost:7000.* \(from GTASK_URL\)$"),
        ({"GTASK_URL": "unix:x", "GTASK_TIMOUT": 1}, "^GTASK_TIMOUT is no option .*there are .*GTASK_TIMEOUT"),
        ({"GTASK_URL": "unix:x", "GTASK_TIMEOUT": -1}, r"^timeout=-1: write .*\(from GTASK_URL, GTASK_TIMEOUT\)$"),
        (
            {"GTASK_URL": "unix:x", "GTASK_MAX_WORKERS": "8"},
            r"^max_workers='8': write a whole number .*GTASK_MAX_WORKERS",
        ),
    ],
)
def test_mistakes_in_the_configuration(configuration, says):
    """Are told at once, by the names that they have there."""
    with pytest.raises((ValueError, TypeError), match=says):
        GTask(application(**configuration))


def test_mistakes_in_the_program():
    """Twice for one application, never for one, and outside of any."""
    jobs = GTask(application(GTASK_URL="unix:x"))
    app = application(GTASK_URL="unix:x")
    with app.app_context(), pytest.raises(RuntimeError, match=r"^site has no gtask client: call init_app\(app\)"):
        jobs.call("double", 4)
    jobs.init_app(app)
    with pytest.raises(RuntimeError, match="has a gtask client already"):
        jobs.init_app(app)
    with pytest.raises(RuntimeError, match="application context"):
        jobs.call("double", 4)
