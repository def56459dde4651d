"""Run a server from a program: in this process (:class:`Server`), or in a forked child (:func:`fork_server`)."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection
from posix import close, fork  # those of os may be monkey-patched
from typing import TYPE_CHECKING, Any, NoReturn

from gtask import address as addresses
from gtask import loading
from gtask.server import descriptors, output, process, remarks
from gtask.server.config import ServerConfig, ServerOptions
from gtask.server.daemon import logs
from gtask.server.listener import Listener, listen
from gtask.server.master.master import Master
from gtask.server.worker.interface import Interface
from gtask.spawn import open_standard_descriptors, private_address, tidy_up

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["EmbeddedOptions", "ForkedServer", "Server", "fork_server"]

log = logging.getLogger("gtask.server")

Hook = Callable[[], object]

HOOKS = ("setup", "checkout_done", "teardown")


class EmbeddedOptions(ServerOptions, total=False):
    """The options of :class:`Server`, for type checkers."""

    setup: Hook | None
    checkout_done: Hook | None
    teardown: Hook | None


class Server:
    """A server, to be run in this process until a signal stops it.

    Args:
        address: of the server (``unix:/path``, ``tcp://host:port``), or a list of addresses.
        interface: the functions to serve; see :class:`gtask.Interface`, which also describes the hooks.
        options: hooks that run in the workers, described at :class:`gtask.Interface`: ``setup``, ``checkout_done``,
            ``teardown``; and

            name: for messages and process titles; by default the interface's.
            backlog: connections that the kernel keeps until they are accepted; default 1024.
            socket_mode: permissions of a unix socket; default 0o600.
            allow_uid: the only users who may connect to a unix socket; default (), for all whom the permissions let.
            insecure: whether the server may listen on TCP where other machines can connect, and ``pickle``
                where any user of the machine can; default False.
            pickle: whether what cannot travel otherwise is pickled, from and to clients that consent as well; see
                :class:`gtask.Client`. Default False.
            metrics: where the server tells Prometheus over HTTP what it does (``tcp://127.0.0.1:port``,
                ``unix:/path``); default None, for nowhere. docs/metrics.rst lists the metrics.
            limit_message: bytes that a message may have; default 67108864 (64 MiB).
            limit_shared: bytes that a message may have in shared memory, at unix sockets; default 1073741824 (1 GiB).
                0 for none.
            limit_items: lists, maps and other composed values that a message may have; default 2000000.
            limit_strangers: how many connections there may be that have sent nothing yet, before the oldest of them is
                closed; default 100.
            limit_per_uid: how many connections one user may have to unix sockets; default None, for no limit.
            idle_timeout: seconds for which a client may keep a worker outside of checkouts; default None, for no limit.
            peer_logs: the lowest level of the log records that clients may ask for, ``"debug"``, ``"info"``,
                ``"warning"`` or ``"error"``; or ``"never"``. Default info.
            peer_errors: what clients are told of an exception: ``"full"``, or ``"text"``, which is its type and
                message. Default full.
            peer_context: the context variables that clients may set, each as ``"module:name"``; default (), for those
                of the application.
            max_workers: how many workers there may be, while further connections wait; default None, for a number that
                the machine can bear, which the log tells.
            limit_memory: bytes by which a worker may grow; then it gets MemoryError. Default None, for no limit.
            max_memory: bytes over which a worker asks to be replaced after its checkout; default None, for no limit.
            hung_worker_timeout: seconds that a call, setup, a hook or the reading of a message may take; default 300,
                None for no limit.
            stop_timeout: seconds that a worker gets for its hooks when its client is gone or the server stops;
                default 5.
            graceful_timeout: seconds that checkouts get to end when SIGTERM has come; default 30.
            greeting_timeout: seconds that a connected peer may stay silent; default 10.
            nice: how much workers yield to other processes, 0 to 19; default 0.
            freeze: whether objects that are there before the first fork are exempt from garbage collection; default
                True.

    Raises:
        TypeError: the interface offers nothing.
        ValueError: an option makes no sense.
    """

    def __init__(
        self,
        address: str | addresses.Address | list[str | addresses.Address],
        interface: Any,
        **options: Unpack[EmbeddedOptions],
    ) -> None:
        several = address if isinstance(address, list) else [address]
        given: dict[str, Any] = {**options}
        self.interface = _as_interface(interface, {hook: given.pop(hook) for hook in HOOKS if hook in given})
        self._remarks = remarks.about(interface, self.interface)
        given["name"] = given.get("name") or self.interface.name
        if given.get("metrics") is not None:
            given["metrics"] = addresses.parse(given["metrics"])
        self.config = ServerConfig(tuple(addresses.parse(one) for one in several), **given)

    def run(self, *, keep: Collection[int] | None = None, parent: process.Parent | None = None) -> None:
        """Listen and serve until SIGTERM (which drains), SIGINT or SIGQUIT (at once); call it in the main thread.

        Args:
            keep: descriptors of this process that the workers may use; by default all that are open now.
            parent: a process whose end stops the server, too.

        Raises:
            AddressUnavailable: it cannot listen.
            UsedWhileLoading: a module does this while a server loads it.
        """
        loading.check("a server was started")
        self.warn()
        open_standard_descriptors()
        kept = descriptors.open_descriptors() if keep is None else set(keep)
        with output.guarded():
            Master(self.config, self.interface, listen(self.config), kept, parent).run()

    def warn(self) -> None:
        """Say in the log what of the interface will surprise its callers."""
        for remark in self._remarks:
            log.warning("%s", remark)


class ForkedServer:
    """A server in a forked child; made by :func:`fork_server`. Also a context manager that stops it.

    Attributes:
        address: where it listens.
        pid: the process id of its master.
    """

    def __init__(self, address: addresses.Address, pid: int, keep_alive: int) -> None:
        self.address = address
        self.pid = pid
        self._keep_alive = keep_alive
        self._owner = os.getpid()

    def __repr__(self) -> str:
        return f"<ForkedServer {self.pid} at {self.address}{', stopped' if self._keep_alive < 0 else ''}>"

    def stop(self, timeout: float = 10.0) -> None:
        """Stop the server and its workers, and wait for its end. Stopping again does nothing.

        Args:
            timeout: seconds after which it is killed.
        """
        if self._keep_alive < 0 or self._owner != os.getpid():
            return
        close(self._keep_alive)
        self._keep_alive = -1
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGQUIT)  # a child that was forked meanwhile may hold the pipe, too
        deadline = time.monotonic() + timeout
        while _is_running(self.pid):
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                deadline = float("inf")
            time.sleep(0.002)  # cooperative under monkey-patching, and short where it is not
        tidy_up(self.address)

    def __enter__(self) -> ForkedServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def fork_server(
    interface: Any, address: str | addresses.Address | None = None, **options: Unpack[EmbeddedOptions]
) -> ForkedServer:
    """Fork a server off this program. It dies with the program.

    The server shares all that the program has imported so far. Fork early: before threads and before gevent's hub runs.
    When this returns, the server is listening.

    Args:
        interface: the functions to serve; see :class:`gtask.Interface`.
        address: of the server; by default a private unix socket.
        options: those of :class:`gtask.Server`.

    Raises:
        RuntimeError: threads run in this program, or a hub does, or gevent has patched it. Their locks and events would
            be copied in whatever state they are. Use :func:`gtask.spawn_server` there.
        AddressUnavailable: it cannot listen.
        UsedWhileLoading: a module does this while a server loads it.
    """
    loading.check("a server was started")
    _check_forkable()
    server = Server(private_address() if address is None else address, interface, **options)
    server.config = dataclasses.replace(server.config, private=address is None)
    server.warn()
    open_standard_descriptors()
    return _fork(server)


def _fork(server: Server) -> ForkedServer:
    listeners = listen(server.config)
    reading, writing = os.pipe()
    parent = process.Parent(os.getpid(), reading, forked=threading.current_thread() is threading.main_thread())
    process.flush()
    pid = fork()
    if not pid:
        _serve_in_child(server, listeners, parent)
    os.close(reading)
    for listener in listeners:
        listener.let_go()
    return ForkedServer(listeners[0].address, pid, writing)


def _serve_in_child(server: Server, listeners: list[Listener], parent: process.Parent) -> NoReturn:
    status = 1
    try:
        os.setpgid(0, 0)  # a Ctrl-C at the terminal is for the program, which then stops its server
        process.reset_signals()
        own = {parent.pipe, *(listener.fileno() for listener in listeners)}
        descriptors.replace_inherited(own)
        if server.config.private:
            logs.leave_to_callers()
        kept = descriptors.open_descriptors() - own
        with output.guarded():
            Master(server.config, server.interface, listeners, kept, parent).run()
        status = 0
    except BaseException:  # this child must not go on as its parent
        log.exception("the server %s failed", server.config.name)
    finally:
        process.flush()
        os._exit(status)


def _check_forkable() -> None:
    why = ""
    monkey = sys.modules.get("gevent.monkey")
    hub_local = sys.modules.get("gevent._hub_local")
    if monkey is not None and monkey.is_module_patched("socket"):
        why = "gevent has monkey-patched this program"
    elif hub_local is not None and hub_local.get_hub_if_exists() is not None:
        why = "a gevent hub exists in this thread"
    elif len(sys._current_frames()) > 1:
        why = f"{len(sys._current_frames()) - 1} other threads run in this program"
    if why:
        raise RuntimeError(
            f"fork_server cannot be used here: {why}, and a fork would copy locks and events in whatever state they "
            "are. Call it earlier, or use gtask.spawn_server('module:attribute'), which is safe anywhere"
        )


def _as_interface(target: Any, hooks: dict[str, Any]) -> Interface:
    if not isinstance(target, Interface):
        return Interface(target, **hooks)
    if any(hooks.values()):
        raise TypeError("give the hooks either to gtask.Interface(...) or to the server, not to both")
    return target


def _is_running(pid: int) -> bool:
    """Whether a child still runs; reaps it, unless gevent has."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:
        return False
