"""A server process and the system: signals, descriptors, forks, users, titles, and the parent's end."""

from __future__ import annotations

import contextlib
import ctypes
import grp
import os
import pwd
import select
import signal
import stat
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from posix import fork  # never monkey-patched, while a program that forks a server may have patched os.fork

try:
    from setproctitle import setproctitle
except ImportError:  # the extra "setproctitle" is not installed

    def setproctitle(title: str) -> None:
        pass


__all__ = [
    "Parent",
    "become",
    "close_descriptors",
    "daemonize",
    "end_with",
    "flush",
    "forget_unwritten",
    "fork_child",
    "how_it_ended",
    "identity",
    "leave_program",
    "leave_stdout",
    "memory_file",
    "open_descriptors",
    "open_standard_streams",
    "reopen",
    "replace_inherited",
    "reset_signals",
    "resident_memory",
    "setproctitle",
    "signals_as_bytes",
    "spawn",
    "substitutes",
    "to_null",
]

PR_SET_PDEATHSIG = 1
_ONLY_ROOT = "user={!r}, group={!r}: only root may become another user; leave them out"
UNBLOCKABLE = {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE}


def substitutes() -> list[str]:
    """The features that this system lacks, each with its substitute, for the log."""
    lacking = []
    if not hasattr(select, "POLLRDHUP"):
        lacking.append(
            "no POLLRDHUP: a client that hangs up is noticed by POLLHUP, and half-closed ones only at the end"
        )
    if not hasattr(os, "memfd_create"):
        lacking.append("no memfd_create: the stacks of a dying worker go to a temporary file")
    if sys.platform != "linux":
        lacking.append("no prctl: the end of the parent is noticed by its pipe, or within a second")
    return lacking


def reset_signals(unblock: bool = True) -> None:
    """Forget the parent's signal handlers, wake-up descriptor and, unless it is done later, mask."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        # SIGPIPE stays ignored, as in any Python program; handlers of libraries written in C stay, too.
        if callable(signal.getsignal(number)) and number != signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if unblock:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())


@contextlib.contextmanager
def signals_as_bytes(numbers: Collection[int]) -> Iterator[int]:
    """Turn these signals into bytes in a pipe, for a loop to read; yields the reading end."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    handlers = {number: signal.signal(number, lambda *_: None) for number in numbers}
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


def spawn(command: list[str], passed: Collection[int]) -> int:
    """Start another program as the leader of a process group, with these descriptors; gives its process id.

    Raises:
        OSError: the program cannot be started.
    """
    for descriptor in passed:
        os.set_inheritable(descriptor, True)
    try:
        return os.posix_spawn(
            command[0], command, os.environ, setpgroup=0, setsigmask=(), setsigdef=signal.valid_signals() - UNBLOCKABLE
        )
    finally:
        for descriptor in passed:
            os.set_inheritable(descriptor, False)


def fork_child(act: Callable[[], object]) -> int:
    """Fork a process that calls ``act`` and ends. All signals are blocked in it until it unblocks them.

    Returns:
        the child's process id, in this process; the child never returns.

    Raises:
        OSError: the system has no process to give.
    """
    flush()  # or the child would write the buffers a second time
    # A signal for the child that comes before it has reset its handlers would wake this process.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = fork()
        if not pid:
            try:
                act()
            finally:
                os._exit(70)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def end_with(parent: int) -> None:
    """Let this process, a child that has nothing to tidy up, be killed when its parent ends, where the system can.

    Args:
        parent: its process id; it has forked this process in its main thread.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def daemonize(keep_stderr: bool) -> Callable[[], None]:
    """Go on in the background. The process that was started waits, and exits with status 0 once the function that is
    given back has been called, or with 1 if this process ends before.

    Args:
        keep_stderr: whether stderr is kept for good; otherwise it is until that function is called.
    """
    reading, writing = os.pipe()
    if fork():
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # a Ctrl-C ends the waiting
        os.close(writing)
        os._exit(0 if os.read(reading, 1) else 1)
    os.close(reading)
    os.setsid()
    if fork():
        os._exit(0)
    to_null(0, 1)

    def tell() -> None:
        os.write(writing, b".")
        os.close(writing)
        if not keep_stderr:
            to_null(2)

    return tell


def to_null(*descriptors: int) -> None:
    """Let these descriptors lead to the null device."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    os.close(null)


def identity(user: str, group: str) -> tuple[int, int]:
    """The ids of a user and a group, by name or number; "" for those of this process, or the user's own group.

    Raises:
        ValueError: there is no such user or group, or this process may not become them.
    """
    uid, gid = os.geteuid(), os.getegid()
    if user:
        try:
            entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
        except KeyError:
            raise ValueError(f"user={user!r}: there is no such user") from None
        uid, gid = entry.pw_uid, entry.pw_gid
    if group:
        try:
            gid = (grp.getgrgid(int(group)) if group.isdigit() else grp.getgrnam(group)).gr_gid
        except KeyError:
            raise ValueError(f"group={group!r}: there is no such group") from None
    if os.geteuid() and (uid, gid) != (os.geteuid(), os.getegid()):
        raise ValueError(_ONLY_ROOT.format(user, group))
    return uid, gid


def become(user: str, group: str) -> None:
    """Run as this user and group from now on.

    Raises:
        ValueError: they do not exist, or this process may not become them.
    """
    uid, gid = identity(user, group)
    try:
        if os.geteuid() == 0:
            os.initgroups(pwd.getpwuid(uid).pw_name, gid)
        os.setgid(gid)
        os.setuid(uid)
    except PermissionError:
        raise ValueError(_ONLY_ROOT.format(user, group)) from None


def how_it_ended(status: int) -> str:
    """A child's end, in words, from its status as ``os.waitpid`` gives it."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with status {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"  # a real-time signal has no name


def open_descriptors() -> set[int]:
    """The descriptors that are open in this process."""
    directory = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    # The listing's own descriptor is in the listing, and closed again.
    return {int(name) for name in os.listdir(directory) if _is_open(int(name))}


def open_standard_streams() -> None:
    """Open descriptors 0, 1 and 2 if they are closed, or a socket or a lock would get their numbers."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    if sys.stderr is None:  # opening a log file later replaces the descriptor
        sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)


def leave_stdout() -> None:
    """What this process prints goes to stderr from now on."""
    with contextlib.suppress(OSError):  # stderr is closed
        os.dup2(2, 1)


def leave_program(inherited: Collection[int]) -> None:
    """In a server that a program has started: leave alone what is the program's.

    That is its process group (a Ctrl-C at the terminal is for the program, which then stops its server), its stdout
    (which somebody may read: what the application prints goes to stderr), and the descriptors that it lets its
    children inherit (its ports, say, are not to live on here).

    Args:
        inherited: the descriptors that were open at the start.
    """
    os.setpgid(0, 0)
    leave_stdout()
    for descriptor in set(inherited) - {0, 1, 2}:
        with contextlib.suppress(OSError):
            if os.get_inheritable(descriptor):  # nothing is that Python itself has opened since
                os.close(descriptor)


def close_descriptors(keep: Collection[int]) -> None:
    """Close every descriptor but these."""
    for descriptor in open_descriptors() - set(keep):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def replace_inherited(keep: Collection[int]) -> None:
    """Let go of the sockets and pipes that a forked server inherited from its program.

    They would keep the program's ports busy and hide its ends of files. Objects that still know their numbers
    remain in memory, so the numbers are not freed for others to reuse: they lead to the null device. Files stay.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in open_descriptors() - set(keep) - {0, 1, 2, null}:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
            os.dup2(null, descriptor, inheritable=False)
    os.close(null)


@dataclass(frozen=True)
class Parent:
    """The process whose end is the end of this server, too.

    Args:
        pid: its process id.
        pipe: a descriptor that reads the end of the file when it ends, unless a sibling holds the other end, too.
        forked: whether it has forked this process in its main thread, so that Linux can send SIGTERM at its end
            (the signal comes when the forking *thread* ends).
    """

    pid: int
    pipe: int
    forked: bool

    def watch(self) -> None:
        """Ask for that signal, where it exists. Call it when SIGTERM has its handler."""
        if self.forked and sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    @property
    def is_gone(self) -> bool:
        return os.getppid() != self.pid


def reopen(path: str, user: str = "", group: str = "") -> None:
    """Let stderr go to the end of this file, which is made if it does not exist.

    Args:
        user, group: the new owners of the file, so that they can reopen it, too; "" leaves the file as it is.

    Raises:
        OSError: it cannot be opened.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        if user or group:
            os.fchown(descriptor, *identity(user, group))
        os.dup2(descriptor, 2)
    finally:
        os.close(descriptor)


def resident_memory(pid: int | str = "self") -> int:
    """The resident memory of a process, in bytes; 0 where that is not known."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def memory_file(name: str) -> int:
    """The descriptor of a new file in memory; of a deleted temporary file where the system has none."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def flush() -> None:
    """Write out Python's buffers; closed and broken streams do not matter."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def forget_unwritten() -> None:
    """Drop the buffer of a broken stderr before this process ends, or Python would end it with another status."""
    try:
        sys.stderr.flush()
    except OSError:
        to_null(2)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
