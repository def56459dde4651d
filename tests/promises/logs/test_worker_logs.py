"""The point of this test is to ensure that what worker code logs during a call is logged by its caller.

By the loggers of the same names, in the caller's context and in order, as far as the caller's levels want it; also if
the worker dies.
"""

from __future__ import annotations

import contextvars
import itertools
import logging
import os
import signal
import traceback

import gevent
import pytest
from gevent.event import Event
from gevent.lock import RLock

import gtask
from tests.support.waiting import turn_hub, wait_until

SOURCE = """
    import logging, os, signal, threading, time

    log = logging.getLogger("app.db")
    formatted = []

    class Shown:
        def __str__(self):
            formatted.append(1)
            return "shown"

    def pid():
        return os.getpid()

    def each(text):
        log.debug("debug %s", text)
        log.info("info %s", text)
        log.warning("warning %s", text)
        return os.getpid()

    def rich():
        log.info("%s has %d", "user", 7, extra={"request": {"id": 3}, "thing": Shown, "log": log}, stack_info=True)
        try:
            {}["missing"]
        except KeyError:
            log.exception("oops")
        log.info("%s", Shown())
        log.info("100%%", {"a": 1})
        log.info("%(a)s", {"a": 1})
        log.log(35, {"event": "started", "n": 1})
        return time.time()

    def secret():
        log.debug("%s", Shown())
        return len(formatted)

    def quick_infos(count):
        for number in range(count):
            log.info("number %d", number)

    def info_and_die(number):
        quick_infos(5)
        os.kill(os.getpid(), number)

    def info_and_hang():
        quick_infos(5)
        try:
            while True:
                pass
        finally:
            log.info("cleaning up")

    def info_and_hang_in_c():
        quick_infos(5)
        -1 in __import__("itertools").count()

    def warn_and_hang():
        log.warning("urgent")
        time.sleep(60)

    def log_for_ever():
        log.propagate = False  # to its caller alone
        while True:
            log.warning("again")

    def fail():
        log.info("before it")
        raise KeyError("x")

    def much(count):
        log.propagate = False  # to its caller alone
        for number in range(count):
            log.info("%d %s", number, "x" * 10_000)
        log.error("the end")

    def huge():
        log.info("y" * 3_000_000)

    def in_a_thread():
        thread = threading.Thread(target=lambda: log.warning("from a thread"), name="helper")
        thread.start()
        thread.join()

    def in_a_child():
        child = os.fork()
        if not child:
            try:
                log.warning("from a child")
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        return "done"

    def late():
        def later():
            open(DIR + "/later").close()
            log.warning("too late")
            open(DIR + "/logged", "w").close()
        threading.Thread(target=later, daemon=True).start()
"""


@pytest.fixture
def seen():
    """The records that the handler of ``app`` gets, with DEBUG as its level."""
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = logging.getLogger("app")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield records
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)
    logging.disable(logging.NOTSET)


def messages(records):
    return [record.getMessage() for record in records]


def test_a_record_is_as_it_was_made(shared, connect, seen):
    """Level, name, message, arguments, extra, exception, place, time, process: all is there."""
    client = connect(shared(SOURCE), min_workers=1, max_workers=1)
    before = logging.makeLogRecord({}).created
    pid = client.call("pid")
    after = client.call("rich")
    first, error, shown, percent, named, event = seen
    assert (first.name, first.levelno, first.levelname) == ("app.db", logging.INFO, "INFO")
    assert (first.msg, first.args, first.getMessage()) == ("%s has %d", ("user", 7), "user has 7")
    assert first.request == {"id": 3}
    assert first.thing.startswith("<class")  # no plain data: its repr
    assert first.log is logging.getLogger("app.db")
    assert "in rich" in first.stack_info
    assert (first.filename, first.module, first.funcName) == (os.path.basename(first.pathname), first.module, "rich")
    assert first.lineno < error.lineno < shown.lineno
    assert before <= first.created <= after
    assert first.msecs == pytest.approx(first.created % 1 * 1000, abs=1)
    assert first.process == pid != os.getpid()
    assert "worker" in first.processName
    kind, value, tb = error.exc_info
    assert issubclass(kind, KeyError)
    assert value.args == ("missing",)
    assert traceback.extract_tb(tb)[-1].name == "rich"
    assert "KeyError: 'missing'" in logging.Formatter().format(error)
    assert (shown.getMessage(), shown.args) == ("shown", None)  # formatted there: it could not travel
    assert (percent.args, named.getMessage()) == ({"a": 1}, "1")
    assert (event.levelno, event.msg) == (35, {"event": "started", "n": 1})


def test_they_stand_in_order_between_the_callers_own(shared, connect, seen):
    """The caller's record before the call, the worker's, then the caller's record after it."""
    client = connect(shared(SOURCE, "--peer-logs", "debug"))
    mine = logging.getLogger("app.web")
    with client.checkout() as checkout:
        for number in range(3):
            mine.info("before %d", number)
            checkout.each(number)
        results = [checkout.each.submit(f"s{number}") for number in range(2)]
        for number, result in enumerate(results):
            result.get()
            assert messages(seen)[-1] == f"warning s{number}" or number == 0
        mine.info("after")
    told = [[f"before {n}", f"debug {n}", f"info {n}", f"warning {n}"] for n in range(3)]
    told += [[f"debug s{n}", f"info s{n}", f"warning s{n}"] for n in range(2)]
    assert messages(seen) == [*itertools.chain(*told), "after"]


def test_the_levels_of_the_caller_decide(shared, connect, seen):
    """Those that it has when the call is made, of each logger; what is below is not even formatted in the worker."""
    client = connect(shared(SOURCE, "--peer-logs", "debug"), min_workers=1, max_workers=1)
    levels = logging.getLogger("app"), logging.getLogger("app.db")
    levels[0].setLevel(logging.WARNING)
    client.call("each", 1)
    assert messages(seen) == ["warning 1"]
    assert client.call("secret") == 0
    levels[1].setLevel(logging.INFO)
    client.call("each", 2)
    levels[1].setLevel(logging.NOTSET)
    levels[0].setLevel(logging.DEBUG)
    client.call("each", 3)
    logging.disable(logging.INFO)
    client.call("each", 4)
    logging.disable(logging.NOTSET)
    assert messages(seen)[1:] == ["info 2", "warning 2", "debug 3", "info 3", "warning 3", "warning 4"]
    assert client.call("secret") == 1


def test_they_can_be_turned_off(shared, connect, seen):
    """With ``logs=False`` nothing comes."""
    client = connect(shared(SOURCE), logs=False)
    client.call("each", 1)
    assert seen == []


def test_they_are_logged_in_the_callers_context(shared, connect):
    """Its context variables have the values of the calling greenlet; for submit, those when it was called."""
    request = contextvars.ContextVar("request")
    heard = []

    class Handler(logging.Handler):
        def emit(self, record):
            turn_hub()  # it may switch
            heard.append((record.getMessage(), request.get()))

    handler = Handler()
    logger = logging.getLogger("app")
    logger.addHandler(handler)
    client = connect(shared(SOURCE))

    def call(number):
        request.set(number)
        client.call("each", number)
        with client.checkout() as checkout:
            result = checkout.each.submit(f"s{number}")
            request.set("another")
            result.get()

    try:
        gevent.joinall([gevent.spawn(call, number) for number in range(5)], raise_error=True)
    finally:
        logger.removeHandler(handler)
    assert sorted(heard, key=str) == sorted(
        [(f"warning {n}", n) for n in range(5)] + [(f"warning s{n}", n) for n in range(5)], key=str
    )


def test_a_thousand_greenlets_never_mix(shared, connect):
    """Each hears its own call's records, in its own context, while all log at once."""
    request = contextvars.ContextVar("request")
    wrong, heard = [], [0]

    class Handler(logging.Handler):
        def emit(self, record):
            heard[0] += 1
            if heard[0] % 7 == 0:
                turn_hub()
            if record.getMessage() != f"warning {request.get()}":
                wrong.append(record)

    handler = Handler()
    logger = logging.getLogger("app")
    logger.addHandler(handler)
    client = connect(shared(SOURCE), max_workers=4, timeout=120)

    def call(number):
        request.set(number)
        client.call("each", number)

    try:
        gevent.joinall([gevent.spawn(call, number) for number in range(1000)], raise_error=True)
    finally:
        logger.removeHandler(handler)
    assert (wrong, heard) == ([], [1000])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_is_killed_has_told_all(serve, connect, seen, number):
    """Also what it had not yet sent: its master does."""
    client = connect(serve(SOURCE))
    with pytest.raises(gtask.WorkerDied):
        client.call("info_and_die", number)
    assert messages(seen) == [f"number {n}" for n in range(5)]


def test_a_worker_that_hangs_has_told_all(shared, connect, seen):
    """Before CallTimeout is raised; what it logs while it is interrupted, too."""
    client = connect(shared(SOURCE), min_workers=2, timeout=1)
    client.open(wait=True)
    with pytest.raises(gtask.CallTimeout):
        client.call("info_and_hang")
    assert messages(seen) == [*(f"number {n}" for n in range(5)), "cleaning up"]
    seen.clear()
    with pytest.raises(gtask.CallTimeout):
        client.call("info_and_hang_in_c")
    assert messages(seen) == [f"number {n}" for n in range(5)]


def test_a_warning_leaves_at_once(shared, connect, seen):
    """It is there when the caller's greenlet is interrupted amid the call."""
    client = connect(shared(SOURCE))
    with client.checkout() as checkout:
        checkout.pid()
        with gevent.Timeout(1, False):
            checkout.warn_and_hang()
    assert messages(seen) == ["urgent"]


def test_interrupted_while_it_logs(shared, connect, seen, monkeypatch):
    """SIGALRM may strike while a record is half written: the conversation stays whole, and says where it hung."""
    monkeypatch.setattr("gtask.client.overtime.LAST_WORDS", 30)  # a busy machine may take longer over all it is told
    client = connect(shared(SOURCE), min_workers=3, timeout=0.3)
    client.open(wait=True)
    for _ in range(3):
        with pytest.raises(gtask.CallTimeout) as caught:
            client.call("log_for_ever")
        frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert "log_for_ever" in frames or "in log_for_ever" in caught.value.stacks
    assert set(messages([r for r in seen if r.name == "app.db"])) == {"again"}


def test_before_an_error(shared, connect, seen):
    """The records are there when the worker's exception is raised, in submit's result as well."""
    client = connect(shared(SOURCE), refork_after_error=False)
    with client.checkout() as checkout:
        with pytest.raises(KeyError):
            checkout.fail()
        assert messages(seen) == ["before it"]
        with pytest.raises(KeyError):
            checkout.fail.submit().get()
        assert messages(seen) == ["before it"] * 2
        assert checkout.pid()


def test_a_handler_that_raises_breaks_nothing(serve, connect, capsys):
    """Neither the call nor the records that follow; it is reported on stderr."""
    heard = []

    class Handler(logging.Handler):
        def emit(self, record):
            heard.append(record.getMessage())
            raise OSError("the disk is full")

    handler = Handler()
    logger = logging.getLogger("app")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        client = connect(serve(SOURCE))
        with client.checkout() as checkout:
            assert checkout.each(1) == checkout.each.submit(2).get()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert heard == ["info 1", "warning 1", "info 2", "warning 2"]
    assert "the disk is full" in capsys.readouterr().err


def test_a_greenlet_killed_in_a_handler(shared, connect):
    """The handler switches, and its greenlet is killed there: the worker is as good as before."""
    reached, go_on = Event(), Event()

    class Handler(logging.Handler):
        def createLock(self):
            self.lock = RLock()  # of gevent's, for it is held while this switches

        def emit(self, record):
            reached.set()
            go_on.wait(60)

    handler = Handler()
    logger = logging.getLogger("app")
    client = connect(shared(SOURCE), min_workers=1, max_workers=1)
    pid = client.call("pid")
    logger.addHandler(handler)
    try:
        for call in (lambda: client.call("each", 1), lambda: client.checkout().each.submit(1).get()):
            reached.clear()
            caller = gevent.spawn(call)
            reached.wait(30)
            caller.kill()
    finally:
        logger.removeHandler(handler)
        go_on.set()
    wait_until(lambda: client.stats().busy == 0, what="the worker given back")
    assert client.call("pid") == pid


def test_too_much_is_bounded(shared, connect, seen, caplog):
    """Of 100 MB the first are there, and how much is missing; errors have room of their own."""
    client = connect(shared(SOURCE), timeout=120)
    client.call("much", 10_000)
    told = [record for record in seen if record.levelno == logging.INFO]
    assert 50 < len(told) < 200
    assert [record.args[0] for record in told] == list(range(len(told)))
    assert messages(seen)[-1] == "the end"
    (dropped,) = [record for record in caplog.records if record.name == "gtask.client"]
    assert f"{10_000 - len(told)} records with about" in dropped.getMessage()
    seen.clear()
    client.call("huge")
    assert seen[0].getMessage().startswith("yyy")
    assert "more characters" in seen[0].getMessage()


def test_threads_and_forks_of_the_worker(shared, connect, seen, tmp_path):
    """A thread's records belong to the call that runs; a forked process says nothing on the worker's connection."""
    client = connect(shared(SOURCE), min_workers=1, max_workers=1)
    client.call("in_a_thread")
    assert [(record.getMessage(), record.threadName) for record in seen] == [("from a thread", "helper")]
    assert client.call("in_a_child") == "done"
    assert len(seen) == 1
    os.mkfifo(tmp_path / "later")
    client.call("late")
    (tmp_path / "later").open("w").close()
    wait_until((tmp_path / "logged").exists, what="a record between the calls")
    assert client.call("in_a_child") == "done"
    assert len(seen) == 1


def test_more_levels_than_a_message_may_hold(shared, connect, seen):
    """With a small limit_message the lowest level of all stands for them; what is not wanted is not logged here."""
    loggers = [logging.getLogger(f"a.logger.with.a.long.name.{number}") for number in range(100)]
    for number, logger in enumerate(loggers):
        logger.setLevel(20 + number % 3)
    logging.getLogger("app").setLevel(logging.WARNING)
    try:
        client = connect(shared(SOURCE), limit_message=1024)
        client.call("each", 1)
    finally:
        for logger in loggers:
            logger.setLevel(logging.NOTSET)
    assert messages(seen) == ["warning 1"]
