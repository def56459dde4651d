"""The point of this test is to ensure that a call ends when the client of its web request has gone, if that was asked
for, and in no other case: not by what the client sends meanwhile.

A real gevent.pywsgi, and clients that hang up in each way.
"""

from __future__ import annotations

import contextlib
import os
import socket

import gevent
import gevent.socket
import pytest
from gevent.pywsgi import WSGIServer

import gtask
from gtask.integrations.wsgi import cancel_on_disconnect, watched
from tests.support.process import check_that_it_rests
from tests.support.waiting import wait_until

SOURCE = """
    import os, time

    def hang():
        try:
            open(os.path.join(DIR, "hanging"), "w").close()
            time.sleep(300)
        finally:
            open(os.path.join(DIR, "interrupted"), "w").close()

    def wait_for(path):
        with open(path) as fifo:
            return fifo.read()

    def pid():
        return os.getpid()
"""


class Site:
    """A web server in this process; ``/METHOD/ARGUMENT`` makes a watched call, and says how it ended in ``outcomes``.

    Of ``/unwatched/METHOD/ARGUMENT`` nobody watches the client.
    """

    def __init__(self, client):
        self.client = client
        self.outcomes = []
        self.environ = None
        self.server = WSGIServer(("127.0.0.1", 0), self.answer, log=None)
        self.server.start()

    def answer(self, environ, start_response):
        self.environ = environ
        watch = not environ["PATH_INFO"].startswith("/unwatched")
        method, _, argument = environ["PATH_INFO"].removeprefix("/unwatched").lstrip("/").partition("/")
        arguments = [f"/{argument}"] if argument else []
        checkout = self.client.checkout()
        try:
            with watched(environ, checkout) if watch else checkout:
                answer = checkout.call(method, *arguments)
            self.outcomes.append(answer)
        except gtask.Error as error:
            answer = "failed"
            self.outcomes.append(error)
        body = str(answer).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    def ask(self, path, more=b""):
        """The socket of a client that has asked for a page and, in the same breath, for ``more``."""
        browser = gevent.socket.create_connection(self.server.address)
        browser.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() + more)
        return browser


@pytest.fixture
def site(serve, connect):
    site = Site(connect(serve(SOURCE)))
    yield site
    site.server.stop()


@pytest.fixture
def fifo(tmp_path):
    """A path to be waited for, and what ends that with a text."""
    path = str(tmp_path / "fifo")
    os.mkfifo(path)

    def let_go(text):
        def opened():
            with contextlib.suppress(OSError):  # until there is a reader
                return os.open(path, os.O_WRONLY | os.O_NONBLOCK)

        descriptors = []
        wait_until(lambda: descriptors.append(opened()) or descriptors[-1], "somebody who reads")
        with open(descriptors[-1], "w") as writer:
            writer.write(text)

    return path, let_go


def close(browser):
    browser.close()


def reset(browser):
    browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    browser.close()


def half_close(browser):
    browser.shutdown(socket.SHUT_WR)


def speak_and_close(browser):
    browser.sendall(b"GET /pid HTTP/1.1\r\n")
    browser.close()


@pytest.mark.parametrize("hang_up", [close, reset, half_close, speak_and_close])
def test_a_client_that_hangs_up(site, tmp_path, hang_up):
    """Its call is cancelled, the worker interrupted at its line, and the next caller gets another worker."""
    first = site.client.call("pid")
    browser = site.ask("/hang")
    wait_until((tmp_path / "hanging").exists)
    hang_up(browser)
    wait_until(lambda: site.outcomes)
    assert repr(site.outcomes[0]) == repr(gtask.Cancelled("the client has gone"))
    wait_until((tmp_path / "interrupted").exists)
    assert site.client.call("pid") != first
    browser.close()


def test_a_client_that_hangs_up_in_line(site, tmp_path):
    """The place in line of one who waits for a worker is given up, and who holds the worker is not disturbed."""
    site.client.resize(0, 1)
    with site.client.checkout() as checkout:
        checkout.pid()
        site.ask("/pid").close()
        wait_until(lambda: site.outcomes)
        assert repr(site.outcomes[0]) == repr(gtask.Cancelled("the client has gone"))
        checkout.pid()
    assert site.client.stats().waiting == 0


def test_what_the_client_sends_meanwhile(fifo, site):
    """The next request, in part or as a whole, is no hang-up, is not swallowed, and does not keep the hub busy."""
    path, let_go = fifo
    browser = site.ask(f"/wait_for{path}", b"GET /pid HTTP/1.1\r\n")
    wait_until(lambda: site.client.stats().busy)
    browser.sendall(b"Host: x\r\nConnection: close\r\n\r\n")
    check_that_it_rests(os.getpid(), 0.3)
    let_go("here it is")
    with browser, browser.makefile("rb") as reply:
        said = reply.read().decode()
    assert "here it is" in said
    assert said.count("200 OK") == 2
    assert site.outcomes == ["here it is", int(said.rpartition("\n")[2])]


def test_nobody_has_asked_for_it(fifo, site):
    """Then a call goes on to its end, whoever waits for it."""
    path, let_go = fifo
    browser = site.ask(f"/unwatched/wait_for{path}")
    wait_until(lambda: site.client.stats().busy)
    browser.close()
    with site.client.checkout() as other:
        other.pid()  # long after the end of the connection was there to be seen
    let_go("for nobody")
    wait_until(lambda: site.outcomes)
    assert site.outcomes == ["for nobody"]


def test_outside_the_block(site):
    """What comes before and after the block is not watched; within, a client that has gone before is seen at once."""
    browser = site.ask("/pid")
    wait_until(lambda: site.environ)
    with site.client.checkout() as checkout:
        ours, theirs = socket.socketpair()
        environ = {"gunicorn.socket": ours}
        with cancel_on_disconnect(environ, checkout) as same:
            assert same is checkout
            checkout.pid()
        theirs.close()
        checkout.pid()
        with cancel_on_disconnect(environ, checkout), pytest.raises(gtask.Cancelled, match="the client has gone"):
            checkout.hang()
    ours.close()
    browser.close()


def test_a_server_without_a_socket(site):
    """Is told so, and which servers have one; the checkout is not harmed."""
    with site.client.checkout() as checkout:
        with pytest.raises(RuntimeError, match=r"^Ours does not show the request.s socket.* gunicorn or gevent"):
            cancel_on_disconnect({"SERVER_SOFTWARE": "Ours"}, checkout).__enter__()
        assert checkout.pid()


def test_a_system_without_epoll(site, monkeypatch):
    """Is told so."""
    monkeypatch.delattr("select.epoll")
    with pytest.raises(RuntimeError, match="this system has no epoll"), watched({}, site.client.checkout()):
        raise AssertionError("it was watched")
