"""A server process and the system: signals, descriptors, forks, users, titles, and the parent's end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from gtask.server.descriptors import to_null
from gtask.server.originals import (
    POLLRDHUP,
    close,
    dup2,
    fork,
    handler_of,
    open_file,
    posix_spawn,
    pthread_sigmask,
    read,
    set_handler,
    set_wakeup_fd,
    write,
)

try:
    from setproctitle import setproctitle
except ImportError:  # the extra "setproctitle" is not installed

    def setproctitle(title: str) -> None:
        pass


__all__ = [
    "Parent",
    "be_killed_first",
    "daemonize",
    "die_with",
    "dump_no_core",
    "end_with",
    "flush",
    "follow_links",
    "forget_unwritten",
    "fork_child",
    "has_terminal",
    "how_it_ended",
    "leave_program",
    "leave_stdout",
    "reset_signals",
    "resident_memory",
    "setproctitle",
    "signals_as_bytes",
    "spawn",
    "start_afresh",
    "substitutes",
]

PR_SET_PDEATHSIG = 1

MORE_KILLABLE = 100
"""Thousandths of the memory that a worker counts as larger than its master where the kernel must kill a process."""

UNBLOCKABLE = {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE}


def substitutes() -> list[str]:
    """The features that this system lacks, each with its substitute, for the log."""
    lacking = []
    if not POLLRDHUP:
        lacking.append(
            "no POLLRDHUP: a client that hangs up is noticed by POLLHUP, and half-closed ones only at the end"
        )
    if sys.platform != "linux":
        lacking.append("no prctl: the end of the parent is noticed by its pipe, or within a second")
    if not os.path.isdir("/proc/self"):
        lacking.append("no /proc: the memory of workers is not known, and --max-memory does nothing")
    return lacking


def start_afresh() -> None:
    """Undo what the starter of this process has done to signals: an empty mask, and none ignored but by Python.

    SIGHUP stays ignored, for that is the purpose of nohup. A terminal that stops what writes to it from the background
    does not stop this process.
    """
    for number in signal.valid_signals() - UNBLOCKABLE - {signal.SIGHUP, signal.SIGXFSZ}:
        if handler_of(number) == signal.SIG_IGN:
            set_handler(number, signal.SIG_DFL)
    set_handler(signal.SIGTTOU, signal.SIG_IGN)
    pthread_sigmask(signal.SIG_SETMASK, ())


def reset_signals(unblock: bool = True) -> None:
    """Forget the parent's signal handlers, wake-up descriptor and, unless it is done later, mask."""
    set_wakeup_fd(-1)
    for number in signal.valid_signals():
        # SIGPIPE stays ignored, as in any Python program; handlers of libraries written in C stay, too.
        if callable(handler_of(number)) and number != signal.SIGINT:
            set_handler(number, signal.SIG_DFL)
    set_handler(signal.SIGINT, signal.default_int_handler)
    if unblock:
        pthread_sigmask(signal.SIG_SETMASK, ())


@contextlib.contextmanager
def signals_as_bytes(numbers: Collection[int]) -> Iterator[int]:
    """Turn these signals into bytes in a pipe, for a loop to read; yields the reading end.

    They are not blocked meanwhile. Ignored are what a write to a peer that is gone raises, and what a terminal raises
    that lets no process in the background write.
    """
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    handlers = {number: set_handler(number, lambda *_: None) for number in numbers}
    handlers.update({number: set_handler(number, signal.SIG_IGN) for number in (signal.SIGPIPE, signal.SIGTTOU)})
    wakeup = set_wakeup_fd(writing, warn_on_full_buffer=False)
    mask = pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    try:
        yield reading
    finally:
        pthread_sigmask(signal.SIG_SETMASK, mask)
        set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            set_handler(number, signal.SIG_DFL if handler is None else handler)  # None: not installed by Python
        close(reading)
        close(writing)


def spawn(command: list[str], passed: Collection[int]) -> int:
    """Start another program as the leader of a process group, with these descriptors; gives its process id.

    Raises:
        OSError: the program cannot be started.
    """
    for descriptor in passed:
        os.set_inheritable(descriptor, True)
    try:
        return posix_spawn(
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
    mask = pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = fork()
        if not pid:
            try:
                act()
            except BaseException:  # there is nobody else to say so
                traceback.print_exc()
            finally:
                os._exit(70)
        return pid
    finally:
        pthread_sigmask(signal.SIG_SETMASK, mask)


def end_with(parent: int) -> None:
    """Let this process, a child that has nothing to tidy up, be killed when its parent ends, where the system can.

    Args:
        parent: its process id; it has forked this process in its main thread.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def die_with(number: int) -> None:
    """Have the kernel, where it can, send this process a signal at the end of the thread that has started it.

    Args:
        number: of the signal; 0 for none any more.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def dump_no_core(pid: int) -> None:
    """Let this process leave no core file, nor be handed to a program that keeps those. It may be gone already."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        # Less than a page is no core file, and 1 is Linux's sign that no program is wanted either.
        resource.prlimit(pid, resource.RLIMIT_CORE, (1, resource.prlimit(pid, resource.RLIMIT_CORE)[1]))


def be_killed_first() -> None:
    """Where memory is short the kernel is to kill this process rather than the one that has forked it."""
    with contextlib.suppress(OSError, ValueError):
        descriptor = open_file("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
        try:
            write(descriptor, b"%d" % min(int(read(descriptor, 20)) + MORE_KILLABLE, 1000))
        finally:
            close(descriptor)


def follow_links() -> str:
    """The working directory by the name that the starter of this process has for it, which may lead through links.

    What is searched for modules has that name from now on, too: where a link leads another way after a new release of
    the application, the next master loads that release.
    """
    here, named = os.getcwd(), os.environ.get("PWD", "")
    if not os.path.isabs(named) or not os.path.exists(named) or not os.path.samefile(named, here):
        return here
    for place, entry in enumerate(sys.path):
        if f"{entry}/".startswith(f"{here}/"):
            sys.path[place] = named + entry[len(here) :]
    return named


def has_terminal() -> bool:
    """Whether this process has a controlling terminal, and that is still there."""
    try:
        close(open_file("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def daemonize(keep_stderr: bool) -> Callable[[], None]:
    """Go on in the background. The process that was started waits, and exits with status 0 once the function that is
    given back has been called, or with 1 if this process ends before.

    Args:
        keep_stderr: whether stderr is kept for good; otherwise it is until that function is called.
    """
    reading, writing = os.pipe()
    if fork():
        pthread_sigmask(signal.SIG_SETMASK, ())  # a Ctrl-C ends the waiting
        close(writing)
        os._exit(0 if read(reading, 1) else 1)
    close(reading)
    os.setsid()
    if fork():
        os._exit(0)
    to_null(0, 1)

    def tell() -> None:
        write(writing, b".")
        close(writing)
        if not keep_stderr:
            to_null(2)

    return tell


def how_it_ended(status: int) -> str:
    """A child's end, in words, from its status as ``os.waitpid`` gives it."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with status {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"  # a real-time signal has no name


def leave_stdout() -> None:
    """What this process prints goes to stderr from now on."""
    with contextlib.suppress(OSError):  # stderr is closed
        dup2(2, 1)


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
                close(descriptor)


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


def limit_memory(more: int) -> None:
    """Let this process have that many bytes of address space beyond those that it has now; then Python raises
    MemoryError. Where the system does not tell how many it has, they are all that it may have.
    """
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = _memory("self", 0) + more
    resource.setrlimit(resource.RLIMIT_AS, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))


def resident_memory(pid: int | str = "self") -> int:
    """The resident memory of a process, in bytes; 0 where that is not known."""
    return _memory(pid, 1)


def _memory(pid: int | str, place: int) -> int:
    """A number of ``/proc/PID/statm`` in bytes: the first is the address space, the second what is resident."""
    try:
        descriptor = open_file(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return int(read(descriptor, 200).split()[place]) * os.sysconf("SC_PAGE_SIZE")
        finally:
            close(descriptor)
    except OSError:
        return 0


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
