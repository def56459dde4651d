"""The point of this test is to ensure that whatever interrupts a running call destroys its connection.

Half a reply is never used: the worker serves nobody again, the checkout raises Cancelled from then on, and the next
checkout gets a new worker. Who is interrupted while it only waits for a worker has sent nothing and can go on.
"""

import os

import gevent
import pytest

import gtask
from tests.support.waiting import turn_hub, wait_until

SOURCE = """
    import os, time

    def pid():
        return os.getpid()

    def hang(name="inside"):
        open(os.path.join(DIR, name), "w").close()
        time.sleep(60)

    def large():
        return b"x" * 50_000_000

    def note(text):
        with open(os.path.join(DIR, "ran"), "a") as file:
            file.write(text + "\\n")
        return text
"""


class Stop(BaseException):
    """What no library catches."""


@pytest.mark.parametrize("interruption", [gevent.GreenletExit, gevent.Timeout, KeyError, Stop])
def test_a_running_call(shared, connect, tmp_path, interruption):
    """Its caller gets the interruption, those queued behind it and later calls get Cancelled, and none of them runs."""
    client = connect(shared(SOURCE), timeout=None, max_workers=1)
    with client.checkout() as worker:
        pid = worker.pid()
        caught = []

        def call():
            try:
                worker.hang()
            except BaseException as error:  # that, whatever it is, is what is looked at
                caught.append(error)

        caller = gevent.spawn(call)
        wait_until((tmp_path / "inside").exists)
        behind = worker.note.submit("behind")
        caller.kill(interruption())
        assert [type(error) for error in caught] == [interruption]
        for ended in (behind.get, worker.pid, worker.note.submit):
            with pytest.raises(gtask.Cancelled, match=f"hang was interrupted in its caller by {interruption.__name__}"):
                ended()
    assert client.call("pid") != pid
    assert not (tmp_path / "ran").exists()


def test_amid_a_reply(shared, connect):
    """The first pieces of a large reply are there when its caller is killed; nobody gets the rest."""
    client = connect(shared(SOURCE), timeout=None, max_workers=1)
    with client.checkout() as worker:
        pid = worker.pid()
        caller = gevent.spawn(worker.large)
        for _ in range(20):  # turns of the hub, each of which reads one piece if there is one
            turn_hub()
        caller.kill()
        with pytest.raises(gtask.Cancelled):
            worker.pid()
    with client.checkout() as worker:
        assert worker.pid() != pid
        assert worker.note("text") == "text"


def test_a_gevent_timeout_of_the_caller(shared, connect):
    """The common case, as it is written: the block is left with the Timeout, and the pool has a new worker."""
    client = connect(shared(SOURCE), timeout=None, max_workers=1)
    pid = client.call("pid")
    with client.checkout() as worker:
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.2):
            worker.hang()
        with pytest.raises(gtask.Cancelled, match="interrupted in its caller by Timeout"):
            worker.pid()
    assert client.call("pid") != pid


def test_no_answer_goes_to_a_wrong_call(shared, connect):
    """After an interruption, hundreds of calls over the same pool get their own answers."""
    client = connect(shared(SOURCE), timeout=None, max_workers=3)
    callers = [gevent.spawn(client.call, "note", f"killed-{number}") for number in range(30)]
    for turn, caller in enumerate(callers):
        for _ in range(turn % 5):
            turn_hub()
        caller.kill(block=False)
    texts = [f"text-{number}" for number in range(300)]
    answers = [caller.get() for caller in [gevent.spawn(client.call, "note", text) for text in texts]]
    assert answers == texts


@pytest.mark.parametrize("how", ["timeout", "kill"])
def test_who_only_waits_for_a_worker_has_sent_nothing(shared, connect, tmp_path, how):
    """The call never runs, the checkout keeps its place and can be used, and no worker is lost."""
    client = connect(shared(SOURCE), timeout=None, max_workers=1)
    holder = client.checkout()
    pid = holder.pid()
    waiting = client.checkout()
    if how == "timeout":
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
            waiting.note("interrupted")
    else:
        caller = gevent.spawn(waiting.note, "interrupted")
        turn_hub()
        caller.kill()
    following = client.checkout()
    behind = following.note.submit("behind")
    following.release()
    holder.release()
    assert waiting.pid() == pid
    assert waiting.note("again") == "again"
    waiting.release()
    assert behind.get() == "behind"
    assert (tmp_path / "ran").read_text().split() == ["again", "behind"]


def test_one_of_several_that_wait_for_a_worker(shared, connect, tmp_path):
    """Only the interrupted call is taken back; those of other greenlets on the same checkout run."""
    client = connect(shared(SOURCE), max_workers=1)
    with client.checkout() as holder:
        holder.pid()
        waiting = client.checkout()
        callers = [gevent.spawn(waiting.note, name) for name in ("first", "second", "third")]
        turn_hub()
        callers[1].kill()
    assert [callers[0].get(), callers[2].get()] == ["first", "third"]
    waiting.release()
    assert (tmp_path / "ran").read_text().split() == ["first", "third"]


def test_the_worker_of_an_interrupted_call_ends(serve, connect, tmp_path):
    """It finds nobody to answer, and exits once its call is over."""
    os.mkfifo(tmp_path / "gate")
    source = SOURCE.replace("time.sleep(60)", "open(os.path.join(DIR, 'gate')).read()")
    client = connect(serve(source), timeout=None)
    with client.checkout() as worker:
        pid = worker.pid()
        caller = gevent.spawn(worker.hang)
        wait_until((tmp_path / "inside").exists)
        caller.kill()
    os.close(os.open(tmp_path / "gate", os.O_RDWR))  # which does not wait for a reader: it may have been interrupted
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), what="the end of the worker")
