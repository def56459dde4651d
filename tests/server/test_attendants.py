"""What the master's loop attends to: each part by itself, with a toy that shows how another is added."""

from __future__ import annotations

import math
import os
import select
import signal
import threading

import pytest

from gtask.address import UnixAddress
from gtask.server import process
from gtask.server.config import ServerConfig
from gtask.server.listener import listen
from gtask.server.master import attendants
from gtask.server.master.attendants import Attendant, KeeperWatch, ParentWatch, ReloadWatch, Title
from gtask.server.master.master import Master
from gtask.server.metrics.status import Record
from gtask.server.worker.interface import Interface


class Echo(Attendant):
    """The toy: writes back what comes in one pipe, and is due once after a while."""

    def __init__(self, reading, writing):
        self.reading, self.writing = reading, writing
        self.due_at = math.inf
        self.happened = []

    @property
    def descriptors(self):
        return (self.reading,) if self.reading >= 0 else ()

    def begin(self, now):
        self.happened.append("begin")
        self.due_at = now + 0.01

    def next_due(self, now):
        return self.due_at

    def turn(self, now, ready):
        if ready:
            os.write(self.writing, os.read(self.reading, 100))
            self.reading = -1
        if now >= self.due_at:
            self.due_at = math.inf
            self.happened.append("due")

    def drain(self, now):
        self.happened.append("drain")


def test_a_toy_is_attended_to(tmp_path):
    """A master that is given it lets it begin, hears its descriptor, wakes when it is due, and tells it of the end."""
    incoming, outgoing = os.pipe(), os.pipe()
    toy = Echo(incoming[0], outgoing[1])
    config = ServerConfig((UnixAddress(f"{tmp_path}/socket"),), freeze=False)

    def talk():
        os.write(incoming[1], b"hello")
        poll = select.poll()
        poll.register(outgoing[0], select.POLLIN)
        assert poll.poll(20_000)
        while "due" not in toy.happened:
            select.poll().poll(5)
        os.kill(os.getpid(), signal.SIGTERM)

    talking = threading.Thread(target=talk)
    Master(config, Interface(len), listen(config), on_ready=talking.start, attendants=[toy]).run()
    talking.join()
    assert os.read(outgoing[0], 100) == b"hello"
    assert toy.happened == ["begin", "due", "drain"]
    for descriptor in (*incoming, *outgoing):
        os.close(descriptor)


# --- the parent, and the keeper --------------------------------------------------------------------------


class Calls(list):
    """Remembers that it was called."""

    def __call__(self):
        self.append(1)


class Socket:
    """A listener, as far as a keeper's watch knows it."""

    was_replaced = False
    has_more = False
    can_be_replaced, can_be_claimed = True, False


@pytest.fixture
def pipe():
    """The two ends of a pipe; the second may be closed by the test."""
    ends = os.pipe()
    yield ends
    os.close(ends[0])


def test_the_end_of_the_parent_is_told_once(pipe):
    """By its pipe; then that is watched no more, and the loop need not wake."""
    lost = Calls()
    watch = ParentWatch(process.Parent(os.getppid(), pipe[0], forked=False), lost)
    watch.begin(0.0)
    watch.turn(0.0, ())
    assert (lost, list(watch.descriptors), watch.next_due(5.0)) == ([], [pipe[0]], 5.0 + attendants.PARENT_CHECK)
    os.close(pipe[1])
    watch.turn(1.0, [pipe[0]])
    watch.turn(2.0, ())
    assert (lost, list(watch.descriptors), watch.next_due(5.0)) == ([1], [], math.inf)


def test_another_parent_is_the_end_of_the_first(pipe):
    """A sibling may hold the pipe's other end."""
    lost = Calls()
    watch = ParentWatch(process.Parent(os.getpid(), pipe[0], forked=False), lost)
    watch.turn(1.0, ())
    assert lost == [1]
    os.close(pipe[1])


@pytest.fixture
def orphan(pipe, monkeypatch, caplog):
    """``turn(time)`` is a turn of a master that has lost its keeper at time 0; ``left`` tells whether it drains."""
    os.close(pipe[1])
    record, listener, closed, left = Record("name", 1, [], 0.0), Socket(), Calls(), Calls()
    monkeypatch.setattr(attendants, "monotonic", lambda: 0.0)
    watch = KeeperWatch(process.Parent(os.getppid(), pipe[0], forked=False), [listener], record, closed, left, 300.0)
    watch.turn(0.0, [pipe[0]])
    assert "has lost its keeper; it serves on until another one serves, for at most 300 s" in caplog.text
    assert (closed, left) == ([1], [])
    watch.record, watch.listener, watch.left = record, listener, left
    return watch


def test_an_orphan_serves_until_a_new_daemon_listens(orphan):
    """It looks often, and leaves at the first look that finds the path replaced."""
    assert orphan.next_due(1.0) == 1.0 + attendants.ORPHAN_LOOK
    orphan.turn(1.0, ())
    assert not orphan.left
    orphan.listener.was_replaced = True
    orphan.turn(1.1, ())
    assert orphan.left


@pytest.mark.parametrize("can_be_replaced", [True, False])
def test_an_orphan_serves_on_while_connections_come(orphan, can_be_replaced):
    """However long the new daemon takes to start; but not for ever."""
    orphan.listener.can_be_replaced = can_be_replaced
    time = 0.0
    while time + 2.0 < 300.0:
        time += 2.0
        orphan.record.forked += 1
        orphan.turn(time, ())
        assert not orphan.left
    orphan.record.forked += 1
    orphan.turn(300.0, ())
    assert orphan.left


def test_an_orphan_to_whom_nobody_comes_serves_on(orphan):
    """Its successor may take long to come, and somebody may connect before."""
    orphan.turn(299.0, ())
    assert not orphan.left
    orphan.turn(300.0, ())
    assert orphan.left


def test_an_orphan_that_cannot_be_replaced_drains_when_nobody_comes(orphan):
    """After a while, and not while somebody waits, though at max_workers nobody is accepted. The service manager has
    bound the socket."""
    orphan.listener.can_be_replaced = False
    orphan.turn(0.0, ())
    orphan.turn(attendants.ORPHAN_QUIET - 0.1, ())
    assert not orphan.left
    orphan.listener.has_more = True
    orphan.turn(attendants.ORPHAN_QUIET, ())
    assert not orphan.left
    orphan.listener.has_more = False
    orphan.turn(attendants.ORPHAN_QUIET + 0.1, ())
    assert orphan.left


def test_a_keeper_that_ends_while_the_server_drains(pipe, caplog):
    """Nothing is left to be done."""
    os.close(pipe[1])
    left = Calls()
    watch = KeeperWatch(
        process.Parent(os.getppid(), pipe[0], forked=False), [Socket()], Record("name", 1, [], 0.0), left, left, 300.0
    )
    watch.drain(0.0)
    watch.turn(0.0, [pipe[0]])
    assert (left, caplog.text, watch.next_due(0.0)) == ([], "", math.inf)


# --- title and files -------------------------------------------------------------------------------------


def test_the_title_changes_at_most_once_a_second(monkeypatch):
    """It wakes nobody for that."""
    shown = []
    monkeypatch.setattr(attendants.process, "setproctitle", shown.append)
    title = Title(Record("name", 1, ["unix:x"], 0.0), list)
    title.begin(0.0)
    title.turn(attendants.TITLE_EVERY - 0.1, ())
    title.turn(attendants.TITLE_EVERY, ())
    assert shown == ["gtask-server: name master [unix:x] 0 workers: 0 busy, 0 lent, 0 idle"] * 2
    assert title.next_due(0.0) == math.inf


class Files:
    """What has changed, as the test says."""

    def __init__(self):
        self.files = []

    def changed(self):
        found, self.files = self.files, []
        return found


def test_files_are_looked_at_in_each_turn_and_a_last_time(caplog):
    """A turn comes every second at the least. After the server has begun to drain nobody looks any more."""
    caplog.set_level("INFO")
    sent, files = [], Files()
    watch = ReloadWatch(files, sent.append)
    watch.turn(0.0, ())
    assert (sent, watch.next_due(0.5)) == ([], 0.5 + attendants.RELOAD_LOOK)
    files.files = ["a.py", "b.py"]
    watch.turn(0.6, ())
    assert sent == ["a.py"]
    assert "reload, because of a.py, b.py" in caplog.text
    files.files = ["c.py"]
    watch.drain(0.7)
    assert sent == ["a.py", "c.py"]
    files.files = ["d.py"]
    watch.turn(100.0, ())
    assert (len(sent), watch.next_due(100.0)) == (2, math.inf)
