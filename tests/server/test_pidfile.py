"""The pid file: written, locked, removed, and refused while its owner lives."""

from __future__ import annotations

import os

import pytest

from gtask.server.daemon import pidfile
from gtask.server.daemon.pidfile import PidFile


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.pid"


def test_it_is_written_and_removed(path):
    """The file exists from the claim to the end, and holds the process id and a newline."""
    file = PidFile(str(path))
    assert path.read_text() == ""
    file.write()
    assert path.read_text() == f"{os.getpid()}\n"
    file.remove()
    assert not path.exists()


def test_removing_twice_does_nothing(path):
    """The second time the file may be another's."""
    file = PidFile(str(path))
    file.remove()
    other = PidFile(str(path))
    file.remove()
    assert path.exists()
    other.remove()


def test_nowhere():
    """Without a path nothing happens."""
    file = PidFile("")
    file.write()
    file.remove()


def test_a_held_file_is_refused(path):
    """While its owner lives another is told who that is, and the file stays as it is."""
    file = PidFile(str(path))
    file.write()
    with pytest.raises(ValueError, match=rf"^the pid file .*x\.pid is held by another server, process {os.getpid()}: "):
        PidFile(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    file.remove()


def test_a_stale_file_is_taken_over(path):
    """One that nobody holds, as after kill -9, is filled anew."""
    path.write_text("123456789\n")
    file = PidFile(str(path))
    file.write()
    assert path.read_text() == f"{os.getpid()}\n"
    file.remove()


def test_a_forked_child_holds_it_too(path):
    """The lock goes over to the process that goes on in the background."""
    file = PidFile(str(path))
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    os.close(file._descriptor)
    with pytest.raises(ValueError, match="is held"):
        PidFile(str(path))
    os.close(writing)
    os.waitpid(child, 0)
    PidFile(str(path)).remove()


def test_it_stays_where_it_is(path, monkeypatch):
    """A relative path is meant from where it was claimed."""
    monkeypatch.chdir(path.parent)
    file = PidFile("x.pid")
    monkeypatch.chdir("/")
    file.remove()
    assert not path.exists()


def test_a_directory_that_is_not_there(tmp_path):
    """The error names the path."""
    with pytest.raises(FileNotFoundError) as caught:
        PidFile(str(tmp_path / "no" / "x.pid"))
    assert caught.value.filename == str(tmp_path / "no" / "x.pid")


def test_a_file_that_is_removed_in_the_moment_of_the_claim(path, monkeypatch):
    """If its former owner removes it between open and lock, it is made anew: a lock on nothing is worth nothing."""
    lock, times = pidfile.fcntl.flock, []

    def removed_just_before(descriptor, operation):
        if not times:
            path.unlink()
        times.append(descriptor)
        lock(descriptor, operation)

    monkeypatch.setattr(pidfile.fcntl, "flock", removed_just_before)
    file = PidFile(str(path))
    file.write()
    assert path.read_text() == f"{os.getpid()}\n"
    assert len(times) == 2
    file.remove()


def test_children_by_exec_do_not_hold_it(path):
    """A master that outlives its daemon does not keep the file."""
    file = PidFile(str(path))
    assert not os.get_inheritable(file._descriptor)
    file.remove()
