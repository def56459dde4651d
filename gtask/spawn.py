"""Start a private server by exec, so that it is safe anywhere: under monkey-patching, with threads, with a hub.

The server dies with the process that started it: it holds the reading end of a pipe whose writing end only
that process has, and looks whether its parent is still the same in case a sibling inherited the writing end.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from posix import close  # gevent's os.close, under monkey-patching, closes at the hub's next turn

from gtask import address as addresses

__all__ = ["SpawnedServer", "private_address", "spawn_server", "tidy_up"]

PRIVATE = "gtask-"
"""How the directory of a private socket is named."""

_BOOT = "import sys; sys.path[:] = sys.argv.pop(1).split(%r); from gtask.server.application import main; main()"


class SpawnedServer:
    """A server in a child process; made by :func:`spawn_server`. Also a context manager that stops it.

    Attributes:
        address: where it listens, or soon will: clients wait for it.
        pid: its process id.
    """

    def __init__(self, target: str, address: addresses.Address, arguments: list[str], private: bool = False) -> None:
        self.address = address
        reading, self._keep_alive = os.pipe()
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        orders = {"parent": os.getpid(), "pipe": reading, "private": private}
        command = [sys.executable, "-c", _BOOT % os.pathsep, path, json.dumps(orders)]
        command += [target, "--listen", str(address), *arguments]
        try:
            self._process = subprocess.Popen(command, pass_fds=(reading,))
        except BaseException:  # whatever it was, there is no server
            self.let_go()
            tidy_up(address)
            raise
        finally:
            close(reading)
        self.pid = self._process.pid

    def __repr__(self) -> str:
        return f"<SpawnedServer {self.pid} at {self.address}, {self.obituary() or 'running'}>"

    def obituary(self) -> str:
        """How the server ended, as a phrase for a message; "" while it runs."""
        status = self._process.poll()
        if status is None:
            return ""
        tidy_up(self.address)
        how = f"was killed by {_signal_name(-status)}" if status < 0 else f"ended with status {status}"
        return f"the private server {how}; its stderr says why"

    def let_go(self) -> None:
        """Tell the server to stop, and do not wait for it."""
        if self._keep_alive >= 0:
            close(self._keep_alive)
            self._keep_alive = -1

    def abandon(self) -> None:
        """In a forked child: the server is the parent's, which alone keeps it alive and waits for its end."""
        self.let_go()
        self._process.returncode = 0

    def kill(self) -> None:
        """Kill the server; its workers end when their clients close."""
        self._process.kill()

    def stop(self, timeout: float = 10.0) -> None:
        """Stop the server and its workers, and wait for its end. Stopping again does nothing.

        Args:
            timeout: seconds after which it is killed.
        """
        self.let_go()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)  # a child that was forked meanwhile may hold the pipe, too
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        tidy_up(self.address)

    def __enter__(self) -> SpawnedServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def spawn_server(
    target: str, address: str | addresses.Address | None = None, *, name: str = "", allow: Sequence[str] = ()
) -> SpawnedServer:
    """Start a server in a child process, by exec. It dies with this process.

    Returns at once: clients wait until the application is loaded, and are told if that fails.

    Args:
        target: what it serves, ``"module"`` or ``"module:attribute"``; found along this process's ``sys.path``.
        address: where it listens (``unix:/path``, ``tcp://host:port``); by default a private unix socket.
        name: for messages and the process title; by default the target.
        allow: the modules whose functions may be called, if the target is ``"gtask.server.functions"``.

    Raises:
        ValueError: the address is none.
        OSError: no process could be started.
    """
    arguments = ["--name", name] if name else []
    arguments += [f"--allow={module}" for module in allow]
    if address is None:
        return SpawnedServer(target, private_address(), arguments, private=True)
    return SpawnedServer(target, addresses.parse(address), arguments)


def private_address() -> addresses.UnixAddress:
    """A unix socket in a new directory that only this user can enter; the server removes both at its end."""
    return addresses.UnixAddress(os.path.join(tempfile.mkdtemp(prefix=PRIVATE), "socket"))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # a real-time signal has no name


def tidy_up(address: addresses.Address) -> None:
    """Remove a private address that its server, killed perhaps, has left behind; leave any other alone."""
    if isinstance(address, addresses.UnixAddress):
        directory, name = os.path.split(address.path)
        if name == "socket" and os.path.basename(directory).startswith(PRIVATE):
            for path in (address.path, f"{address.path}.lock"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            with contextlib.suppress(OSError):
                os.rmdir(directory)
