"""The point of this test is to ensure that the Bottle plugin passes clients and checkouts to the callbacks that ask for
them, made as the application's configuration says, and says what is wrong with it.
"""

from __future__ import annotations

import socket
from wsgiref.util import setup_testing_defaults

import bottle
import pytest

import gtask
from gtask.integrations.bottle import GTaskPlugin

SOURCE = """
    import os, time

    def double(number):
        return 2 * number

    def pid():
        return os.getpid()

    def hang():
        time.sleep(300)
"""


@pytest.fixture
def application(shared):
    """``application(**configuration)``: a Bottle with the address of a server in its configuration."""
    address = str(shared(SOURCE).address)
    made = []

    def make(**configuration):
        app = bottle.Bottle()
        app.config.update({"catchall": False, "gtask.url": address, "gtask.min_workers": 0})
        app.config.update({f"gtask.{name}": value for name, value in configuration.items()})
        made.append(app)
        return app

    yield make
    for app in made:
        app.close()


def get(app, path, **environ):
    """The body of a page."""
    setup_testing_defaults(environ)
    return b"".join(app({**environ, "PATH_INFO": path}, lambda *status: None)).decode()


def test_what_callbacks_get(application):
    """The client, a checkout that is released at the end, or both, by name; who asks for nothing gets nothing."""
    app = application(max_workers=3, name="site")
    app.install(GTaskPlugin())
    seen = []

    @app.get("/client")
    def with_client(gtask):
        seen.append(gtask)
        return str(gtask.call("double", 21))

    @app.get("/checkout/<number:int>")
    def with_checkout(number, worker):
        seen.append(worker)
        return str(worker.double(number))

    @app.get("/both")
    def with_both(gtask, worker):
        return str(worker.pid() != gtask.call("pid"))

    @app.get("/neither")
    def with_neither(**names):
        return str(names)

    assert [get(app, path) for path in ("/client", "/checkout/4", "/both", "/neither")] == ["42", "8", "True", "{}"]
    client, checkout = seen
    assert isinstance(client, gtask.Client)
    assert (client.name, client.stats().max_workers, client.stats().busy) == ("site", 3, 0)
    with pytest.raises(gtask.CheckoutReleased):
        checkout.double(1)
    app.close()
    with pytest.raises(gtask.ClientClosed):
        client.call("double", 1)


def test_two_servers_and_two_applications(application):
    """A plugin of other keywords for another server; one plugin in two applications, which have a client each."""
    plugin = GTaskPlugin()
    apps = [application(name="one"), application(name="two")]
    for app in apps:
        app.install(plugin)
        app.get("/name")(lambda gtask: gtask.name)
    assert [get(app, "/name") for app in apps] == ["one", "two"]
    apps[0].install(GTaskPlugin(keyword="reports", checkout_keyword="reporter"))
    apps[0].get("/both")(lambda gtask, reports, reporter: str(gtask is not reports and reporter.double(2)))
    assert get(apps[0], "/both") == "4"
    with pytest.raises(bottle.PluginError, match="two plugins for gtask with the same keyword"):
        apps[0].install(GTaskPlugin(keyword="other"))


def test_a_client_that_goes_away(application):
    """Cancels the call where the route, or else the plugin, says so."""
    app = application()
    app.install(GTaskPlugin(cancel_on_disconnect=True))

    @app.get("/hang")
    def hang(worker):
        return worker.hang()

    @app.get("/double", gtask_cancel_on_disconnect=False)
    def double(worker):
        return str(worker.double(2))

    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        with pytest.raises(gtask.Cancelled, match="the client has gone"):
            get(app, "/hang", **{"gunicorn.socket": ours})
        assert get(app, "/double", **{"gunicorn.socket": ours}) == "4"


def test_configuration_from_a_file(application, tmp_path):
    """Where all values are texts, they are read as what they stand for."""
    (tmp_path / "site.ini").write_text(
        "[gtask]\nmax_workers = 3\ntimeout = None\nlifo = False\nname = 0x7\nshed_target = 0.5\n"
    )
    app = application()
    app.config.load_config(str(tmp_path / "site.ini"))
    app.install(GTaskPlugin())
    app.get("/")(lambda gtask: f"{gtask.name} {gtask.stats().max_workers}")
    assert get(app, "/") == "0x7 3"


@pytest.mark.parametrize(
    ("configuration", "says"),
    [
        ({"url": None}, "^gtask.url is not set"),
        ({"url": "x"}, r"'x'.* \(from gtask.url, gtask.min_workers\)$"),
        ({"timout": 5}, "^gtask.timout is no option .* gtask.timeout"),
        ({"timeout": "soon"}, r"^timeout='soon': write a number of seconds over 0.* gtask.timeout\)$"),
        ({"timeout": "-1"}, "^timeout=-1: write a number of seconds over 0"),
    ],
)
def test_mistakes(application, configuration, says):
    """Are told when the plugin is installed, by the names that they have in the configuration."""
    app = application(**configuration)
    with pytest.raises((ValueError, TypeError), match=says):
        app.install(GTaskPlugin())
