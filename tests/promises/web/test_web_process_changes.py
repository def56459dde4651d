"""The point of this test is to ensure that no request fails, and no worker is left over, when the processes of a web
application change: at a fork with a client that has been used, at a reload, after ``--max-requests``, at the end.
"""

from __future__ import annotations

import json
import signal
import threading

import pytest

from tests.support.process import children
from tests.support.waiting import wait_until


def test_reload_of_both_under_load(site):
    """gunicorn and gtask-server are reloaded while 200 connections call: no error, and all processes are new."""
    web = site.gunicorn("flask_app")
    before = {*web.workers, *site.server.masters}
    finish = web.wrk("/double/4", 3)
    wait_until(lambda: site.server.workers, "the load")
    web.process.send_signal(signal.SIGHUP)
    web.wait_for("Ready: ", 4)
    site.server.process.send_signal(signal.SIGHUP)
    load = finish()
    assert load.errors == {}
    assert load.requests > 0
    wait_until(lambda: before.isdisjoint([*web.workers, *site.server.masters]), "the end of the old ones")
    assert web.get("/double/21") == "42"


def test_restart_of_workers_under_load(site):
    """``--max-requests``: gunicorn's workers end and begin while 200 connections call, without an error."""
    web = site.gunicorn("flask_app", "--max-requests", "150", "--max-requests-jitter", "50")
    finish = web.wrk("/double/4", 2)
    web.wait_for("Ready: ", 3)
    load = finish()
    assert load.errors == {}
    assert "Autorestarting worker" in web.log

    def all_are_ready():  # a signal that comes before that may be lost, and gunicorn waits long for such a worker
        return web.log.count("Ready: ") == web.log.count("Booting worker")

    wait_until(all_are_ready, "the last worker")


def test_a_client_that_was_used_before_the_fork(site):
    """With ``--preload`` each child finds it unused, and has workers of its own; the parent's stays the parent's."""
    web = site.gunicorn("used_app", "--preload")
    answers = {}

    def both():
        answer = json.loads(web.get("/"))
        answers.setdefault(answer["pids"][0], answer)
        return len(answers) == 2

    wait_until(both, "an answer of each process")
    assert set(answers) == set(web.workers)
    ((master, parents),) = {tuple(answer["first"]) for answer in answers.values()}
    assert master == web.pid
    assert len({parents, *(answer["pids"][1] for answer in answers.values())}) == 3
    assert {answer["calls"] for answer in answers.values()} == {1}
    assert parents in site.server.workers


def test_the_end(site):
    """SIGTERM lets the call that runs come to its end and its answer to the client; then all workers are released."""
    web = site.gunicorn("flask_app")
    answers = []
    asking = threading.Thread(target=lambda: answers.append(web.get("/spin/0.8")))
    asking.start()
    try:
        wait_until(lambda: site.server.workers, "the call")
        assert web.end() == 0
    finally:
        asking.join()
    assert int(answers[0]) > 0
    wait_until(lambda: not children(site.server.master), "the end of the workers")
    assert "Traceback" not in web.log


def test_a_sudden_end(site):
    """When gunicorn stops at once, what its workers wait for is ended, and no worker is left."""
    web = site.gunicorn("flask_app")

    def ask():
        with pytest.raises(OSError, match="closed connection without response"):
            web.get("/hang")

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        wait_until((site.marks / "hanging").exists)
    finally:
        web.end(signal.SIGQUIT)
        asking.join()
    wait_until(lambda: not children(site.server.master), "the end of the workers")
