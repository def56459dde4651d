"""Processes as the tests see them: one in the background with its log in a file, and what /proc says of any."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic

import gevent
import pytest

import gtask
from tests.support.waiting import PATIENCE, wait_until

ROOT = Path(gtask.__file__).parents[1]
"""The project's directory."""


def environment(**more):
    """This process's environment, in which gtask and all that is importable here can be imported.

    Args:
        more: variables to be set; None takes one away.
    """
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), *sys.path])), **more}
    return {name: value for name, value in variables.items() if value is not None}


class Background:
    """A process that runs beside the test and writes its log into a file.

    Args:
        command: what is run.
        log: the file to which the process's output is appended.
        streams: what of the output: "stderr", "stdout".
        options: more arguments of :class:`subprocess.Popen`.

    Attributes:
        process: the :class:`subprocess.Popen`.
        pid: its process id.
    """

    def __init__(self, command, log, streams=("stderr",), **options):
        self._log = log
        self._begin = log.stat().st_size if log.exists() else 0
        with open(log, "ab") as file:
            outputs = dict.fromkeys(streams, file)
            self.process = subprocess.Popen(command, **{"stdin": subprocess.DEVNULL, **outputs, **options})
        self.pid = self.process.pid

    @property
    def log(self):
        """The text that the process has written so far."""
        return self._log.read_bytes()[self._begin :].decode()

    def wait_for(self, text, count=1):
        """Wait until the log has a text, a number of times; fail at once if the process ends before.

        Args:
            text: what is looked for.
            count: how many times the log must have it.
        """

        def is_written():
            return self.log.count(text) >= count or self.process.poll() is not None

        try:
            wait_until(is_written, f"{text!r} in the log")
        except AssertionError as error:
            raise AssertionError(f"{error}; it is: {self.log}") from None
        assert self.log.count(text) >= count, f"it ended with status {self.process.returncode}: {self.log}"

    def wait(self):
        """Wait for the process's end, while greenlets run; gives its exit status."""
        wait_until(lambda: self.process.poll() is not None, f"the end of process {self.pid}")
        return self.process.returncode

    def send(self, number):
        """Send the process a signal."""
        self.process.send_signal(number)

    def end(self, number=signal.SIGTERM):
        """Send the process a signal that ends it; gives its exit status."""
        self.send(number)
        return self.wait()

    def kill(self):
        """Kill the process and its descendants of two generations, if there are any left."""
        kill([grandchild for child in children(self.pid) for grandchild in [*children(child), child]])
        self.process.kill()
        self.process.wait()


def children(pid):
    """The child processes of a process, zombies too, in order. (The kernel's own list misses some while they come and
    go.)"""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and int(_fields(entry.name)[1]) == pid:
                found.append(int(entry.name))
    return sorted(found)


def processes(directory):
    """The processes that work in a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and os.readlink(entry / "cwd") == str(directory):
                found.append(int(entry.name))
    return found


def state_of(pid):
    """The state of a process: R, S, T for stopped, Z for a zombie; "" if there is none."""
    try:
        return _fields(pid)[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_gone(pid):
    """Whether a process has ended; its parent, which need not be ours, may not have reaped it yet."""
    return state_of(pid) in ("", "Z")


def is_reaped(pid):
    """Whether a process has ended, and its parent knows it."""
    return not os.path.exists(f"/proc/{pid}")


def cpu_time(pid):
    """Seconds of a processor that a process has used."""
    fields = _fields(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def check_that_it_rests(pid, seconds=1.0):
    """Check that a process has little to do: wait until its main thread has slept for a while, and see what it ran.

    The time in which it could run and had no processor counts as neither: a loop that spins never sleeps, on a quiet
    machine and on a loaded one. This thread's hub runs meanwhile.

    Args:
        pid: the process.
        seconds: how long it must have slept, in which it may have run for half as long.
    """

    def times():
        running, waiting, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
        return int(running) / 1e9, monotonic() - (int(running) + int(waiting)) / 1e9

    if not os.path.exists(f"/proc/{pid}/schedstat"):
        pytest.skip("this kernel does not count how long a process could run")
    deadline, (ran, slept) = monotonic() + PATIENCE, times()
    while (left := slept + seconds - times()[1]) > 0:
        assert monotonic() < deadline, f"process {pid} does not rest"
        gevent.sleep(left)
    assert times()[0] - ran < seconds / 2, f"process {pid} rests too little"


def sockets(pid):
    """The sockets that a process has open; those that it listens at are also its daemon's."""
    found = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(os.readlink(entry))
    return {path for path in found if path.startswith("socket:")}


def descriptors(pid):
    """The number of descriptors that a process has open; 0 if there is no such process."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return 0


def stop(pid):
    """Send SIGSTOP, and wait until it has worked."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: state_of(pid) == "T", what=f"the stop of process {pid}")


def kill(pids):
    """Kill processes; gives them."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return pids


def _fields(pid):
    """The fields of /proc/PID/stat behind the name: state, parent and so on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
