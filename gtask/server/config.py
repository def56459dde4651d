"""What a server may be told, as one frozen, validated value."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field

from gtask import address as addresses
from gtask.address import Address
from gtask.wire.messages import DEFAULT_LIMIT

__all__ = ["LEVELS", "SIGNALS", "OpenSocket", "ServerConfig"]

LEVELS = ("debug", "info", "warning", "error")

SIGNALS = {
    signal.SIGTERM: "drain: accept no more, let checkouts end, for at most graceful-timeout, then stop",
    signal.SIGINT: "stop at once: what runs is interrupted",
    signal.SIGQUIT: "stop at once: what runs is interrupted",
    signal.SIGHUP: "reload: a new master loads code and configuration as they are now, then the old one drains",
    signal.SIGUSR1: "open the log file anew, after it was moved away",
    signal.SIGUSR2: "write the status to the log",
}
"""What a signal to the daemon does."""


@dataclass(frozen=True, slots=True)
class OpenSocket:
    """In place of an address: a listening socket that whoever started the daemon has opened."""

    descriptor: int

    def __str__(self) -> str:
        return f"fd:{self.descriptor}"


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The options of a server. Those from ``chdir`` on are only for the daemon, ``gtask-server``.

    Args:
        addresses: where it listens; at least one.
        name: for messages and process titles.
        backlog: connections that the kernel keeps until the master accepts them.
        socket_mode: permissions of a unix socket.
        allow_uid: users who may connect to a unix socket, beside those whom the permissions let; none for all of them.
        insecure: whether it may listen on TCP where other machines can reach it, and ``pickle`` on any TCP.
        pickle: whether what cannot travel otherwise is pickled, from and to clients that consent as well.
        metrics: where it tells Prometheus what it does; None for nowhere.
        limit_message: bytes that a message may have.
        max_workers: how many workers there may be; None for no limit. More connections wait in the backlog.
        max_memory: bytes of resident memory over which a worker asks to be retired after its checkout; None: no limit.
        hung_worker_timeout: seconds that a call, setup or a hook may take, whatever its client says; None for no limit.
        stop_timeout: seconds that a worker gets for its hooks when its client has hung up or the server stops.
        graceful_timeout: seconds that checkouts get to end when the server drains.
        greeting_timeout: seconds that a connected peer may stay silent before it is closed.
        nice: how much workers yield to other processes, 0 to 19.
        freeze: whether what was loaded before the first fork is exempt from garbage collection.
        private: the socket lies in a directory of its own, which goes with it.
        chdir, pythonpath, env: where the application is loaded, where it is looked for, and with what environment.
        user, group: whom the masters and their workers run as; "" for who started the daemon.
        umask: of the masters and their workers; None leaves it.
        pid: a file for the daemon's process id, or "".
        daemon: whether it goes into the background.
        log_file: where the log goes, or "" for stderr. ``log_level`` is one of :data:`LEVELS`; ``log_json`` makes each
            line a JSON object.
        reload: whether to reload when a file of the application changes.

    Raises:
        ValueError, TypeError: an option makes no sense; the message names it and says what is allowed.
    """

    addresses: tuple[addresses.Address | OpenSocket, ...]
    name: str = ""
    backlog: int = 1024
    socket_mode: int = 0o600
    allow_uid: tuple[int, ...] = ()
    insecure: bool = False
    pickle: bool = False
    metrics: Address | None = None
    limit_message: int = DEFAULT_LIMIT
    max_workers: int | None = None
    max_memory: int | None = None
    hung_worker_timeout: float | None = 300.0
    stop_timeout: float = 5.0
    graceful_timeout: float = 30.0
    greeting_timeout: float = 10.0
    nice: int = 0
    freeze: bool = True
    private: bool = False
    chdir: str = ""
    pythonpath: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    user: str = ""
    group: str = ""
    umask: int | None = None
    pid: str = ""
    daemon: bool = False
    log_file: str = ""
    log_level: str = "info"
    log_json: bool = False
    reload: bool = False

    def __post_init__(self) -> None:
        if not self.addresses:
            raise ValueError("a server needs an address to listen at: write unix:/path/to/the.sock")
        for address in self.addresses:
            if not self.insecure and isinstance(address, addresses.TcpAddress) and not _is_loopback(address.host):
                raise ValueError(
                    f"{address}: other machines could connect, and nothing is encrypted and nobody asked for a key. "
                    "Listen at tcp://127.0.0.1 or a unix socket, or say insecure (--insecure) if the network is trusted"
                )
            if self.pickle and not self.insecure and isinstance(address, addresses.TcpAddress):
                raise ValueError(
                    f"pickle=True: whoever connects to {address} could have a worker run any code. Listen at a unix "
                    "socket, or say insecure (--insecure) if the network is trusted"
                )
        if self.metrics is not None:
            self._check_metrics(self.metrics)
        for name, least in (("backlog", 1), ("limit_message", 1024), ("max_workers", 1), ("max_memory", 1 << 20)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}={value!r}: write a number of at least {least}")
        if self.hung_worker_timeout is not None:
            _check_seconds("hung_worker_timeout", self.hung_worker_timeout)
        for name in ("stop_timeout", "graceful_timeout", "greeting_timeout"):
            _check_seconds(name, getattr(self, name))
        if not 0 <= self.nice <= 19:
            raise ValueError(f"nice={self.nice!r}: write a number from 0 to 19")
        for name in ("socket_mode", "umask"):
            mode = getattr(self, name)
            if mode is not None and not 0 <= mode <= 0o777:
                raise ValueError(f"{name}={mode:#o}: write permissions such as 0o600")
        if self.log_level not in LEVELS:
            raise ValueError(f"log_level={self.log_level!r}: write one of {', '.join(LEVELS)}")

    def _check_metrics(self, address: Address) -> None:
        if isinstance(address, addresses.TcpAddress) and not self.insecure and not _is_loopback(address.host):
            raise ValueError(
                f"metrics={address}: other machines could look at them, and nothing is encrypted and nobody asked for "
                "a key. Serve them at tcp://127.0.0.1 or a unix socket, or say insecure (--insecure) if the network is "
                "trusted"
            )
        any_port = isinstance(address, addresses.TcpAddress) and not address.port
        if address in self.addresses and not any_port:
            raise ValueError(f"metrics={address}: that is where clients connect; choose an address of its own")


def _check_seconds(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name}={value!r}: write a number of seconds over 0")


def _is_loopback(host: str) -> bool:
    # Any other name leads who knows where, 127.example.org as well.
    return host in ("localhost", "::1") or (host.startswith("127.") and host.replace(".", "").isdigit())
