"""The point of this test is to ensure that a request log has what all its workers have written, in order and once, also
when a call of it times out, raises, or kills its worker; and that nothing keeps it alive.
"""

from __future__ import annotations

import gc
import logging
import os
import weakref

import gevent
import pytest

import gtask
from gtask import logdefer
from gtask.logdefer import RequestLog
from tests.support.waiting import turn_hub

SOURCE = """
    import logging, os, threading, time
    from gtask import logdefer

    log = logging.getLogger("app")

    def work(name):
        deferred = logdefer.current()
        deferred.info("begin", name)
        with deferred.timer("inner"):
            deferred.debug("amid", {"name": name})
        deferred.data[name] = 1
        log.info("logged %s", name)
        return os.getpid()

    def fail(name):
        logdefer.current().error("failing", object)
        log.info("logged %s", name)
        raise KeyError(name)

    def hang(name):
        logdefer.current().info("hanging", name)
        log.info("logged %s", name)
        try:
            while True:
                pass
        finally:
            logdefer.current().warn("ending", name)
            log.info("cleaning %s", name)

    def die(name):
        logdefer.current().debug("dying", name)
        logdefer.current().debug("dying again", name)
        os.kill(os.getpid(), 9)

    def in_a_thread():
        thread = threading.Thread(target=lambda: logdefer.current().info("threaded"))
        thread.start()
        thread.join()

    def much():
        for number in range(20_000):
            logdefer.current().info("x" * 500)

    class Callable:
        def __call__(self, *args):
            logdefer.current().info("called", *args)
            return list(args)
"""


def told(record):
    """The messages of a record without their times, each with the process id apart."""
    return [(*message[1:-1], message[-1].get("pid")) for message in record["logs"]]


def test_one_request_one_story(shared, connect, caplog):
    """Three calls over two workers, one of which times out and one of which raises: every message and every log record
    in order, exactly once, with the right process id.
    """
    records = []
    client = connect(shared(SOURCE), min_workers=2, timeout=1)
    client.open(wait=True)
    caplog.set_level(logging.DEBUG, "app")
    with RequestLog(records.append) as log:
        with client.checkout(log=log) as first:
            pid = first.work("one")
            log.info("between", {"pid": os.getpid()})
            with pytest.raises(KeyError):
                first.fail("two")
        with client.checkout(log=log) as second, pytest.raises(gtask.CallTimeout) as caught:
            second.hang("three")
    (record,) = records
    other = caught.value.pid
    assert other != pid
    assert [(*message[1:3], message[-1].get("pid")) for message in record["logs"]] == [
        (30, "begin", pid),
        (40, "amid", pid),
        (30, "between", os.getpid()),
        (10, "failing", pid),
        (30, "hanging", other),
        (20, "ending", other),
    ]
    assert [timer[0] for timer in record["timers"]] == ["work", "inner", "fail", "hang"]
    for _, begin, end in record["timers"]:
        assert 0 <= begin <= end <= record["end"]
    assert record["data"] == {"one": 1}
    assert [(entry.getMessage(), entry.process) for entry in caplog.records if entry.name == "app"] == [
        ("logged one", pid),
        ("logged two", pid),
        ("logged three", other),
        ("cleaning three", other),
    ]


def test_a_worker_that_dies_has_told_all(shared, connect):
    """Also what was not urgent."""
    records = []
    client = connect(shared(SOURCE))
    with RequestLog(records.append) as log, client.checkout(log=log) as checkout, pytest.raises(gtask.WorkerDied):
        checkout.die("x")
    assert [message[2] for message in records[0]["logs"]] == ["dying", "dying again"]


def test_submitted_calls_and_functions(serve, connect):
    """Are timers and messages of it as well; a call as a function is named ``->()``."""
    records = []
    client = connect(serve(SOURCE, attribute="Callable"))
    with RequestLog(records.append) as log, client.checkout(log=log) as checkout:
        results = [checkout.submit(number) for number in range(5)]
        gevent.wait(results)
    assert [message[2:4] for message in records[0]["logs"]] == [["called", number] for number in range(5)]
    assert [timer[0] for timer in records[0]["timers"]] == ["->()"] * 5


def test_without_one_nothing_is_kept(shared, connect):
    """Whoever writes into it writes for nobody: in the worker, and outside of one."""
    client = connect(shared(SOURCE))
    assert client.call("work", "x")
    logdefer.current().error("nobody hears it")
    with logdefer.current().timer("t"):
        pass
    assert logdefer.take() is None


def test_threads_and_much(shared, connect):
    """Threads of the worker write into the same log; it is bounded, and says how much was dropped."""
    records = []
    client = connect(shared(SOURCE), timeout=60)
    with RequestLog(records.append) as log, client.checkout(log=log) as checkout:
        checkout.in_a_thread()
        checkout.much()
    messages = [message[2] for message in records[0]["logs"]]
    assert messages[0] == "threaded"
    assert any("more messages were dropped" in str(message) for message in messages)
    assert 1000 < len(messages) < 20_000


@pytest.mark.parametrize("method", ["hang", "fail", "die"])
def test_nothing_keeps_it_alive(shared, connect, method):
    """After a time-out, an error or a death it is gone with its last reference, without the garbage collector."""
    client = connect(shared(SOURCE), min_workers=1, timeout=0.5)
    client.open(wait=True)

    def request():
        log = RequestLog(lambda record: None)
        with log, client.checkout(log=log) as checkout:
            try:
                getattr(checkout, method)("x")
            except (gtask.Error, KeyError):
                pass
        return weakref.ref(log)

    gc.collect()
    gc.disable()
    try:
        gone = request()
        turn_hub()
        assert gone() is None
    finally:
        gc.enable()


def test_a_small_limit(shared, connect, caplog):
    """What is too large for the server's messages is left out, and counted; the call goes on."""
    client = connect(shared(SOURCE, "--limit-message", "1K"), limit_message=1024)
    records = []
    with RequestLog(records.append) as log, client.checkout(log=log) as checkout:
        assert checkout.work("x" * 600)
        assert checkout.work("short")
    assert ["begin", "short"] in [message[2:4] for message in records[0]["logs"]]
