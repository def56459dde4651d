"""The options of a server, as one frozen, validated value.

Each field carries its default, its check and its sentence. The command line is made of them; signatures and documents
are tested against them.
"""

from __future__ import annotations

import signal
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Annotated, TypedDict, get_args, get_type_hints

from gtask import address as addresses
from gtask.address import Address, check_pickle
from gtask.server.option import Kind, Option
from gtask.target import LEVELS, NEVER
from gtask.wire.limits import DEFAULTS as DEFAULT_LIMITS
from gtask.wire.limits import Limits

__all__ = [
    "DEFAULTS", "OPTIONS", "SIGNALS", "TEXT", "Kind", "OpenSocket", "Option", "ServerConfig", "ServerOptions",
]  # fmt: skip

SIGNALS = {
    signal.SIGTERM: "drain: accept no more, let checkouts end, for at most graceful-timeout, then stop",
    signal.SIGINT: "stop at once: what runs is interrupted",
    signal.SIGQUIT: "stop at once: what runs is interrupted",
    signal.SIGHUP: "reload: a new master loads code and configuration as they are now, then the old one drains",
    signal.SIGUSR1: "open the log file anew, after it was moved away",
    signal.SIGUSR2: "write the status to the log",
}
"""The effect of each signal to the daemon."""


@dataclass(frozen=True, slots=True)
class OpenSocket:
    """In place of an address: a listening socket that the daemon's parent has opened."""

    descriptor: int

    def __str__(self) -> str:
        return f"fd:{self.descriptor}"


def _is_open_to_others(address: Address | OpenSocket) -> bool:
    """Whether other machines may reach this address."""
    if not isinstance(address, addresses.TcpAddress):
        return False
    host = address.host  # any other name leads who knows where, 127.example.org as well
    return not (host in ("localhost", "::1") or (host.startswith("127.") and host.replace(".", "").isdigit()))


FULL, TEXT = "full", "text"
"""Values of ``peer_errors``."""

HOW, SOCKETS, WORKERS, PROCESS, LOG = "what and how", "sockets", "workers", "process", "log"


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The options of a server. Each carries its sentence of ``--help``; docs/server.rst has the details.

    The groups "process" and "log", and ``reload``, are only for the daemon, ``gtask-server``.

    Raises:
        ValueError, TypeError: an option makes no sense. The message has the option, the value and the allowed values.
    """

    addresses: Annotated[
        tuple[Address | OpenSocket, ...],
        Option(
            SOCKETS,
            Kind.SOCKET,
            "unix:/path/to/the.sock, unix:@abstract-name, tcp://host:port, or fd:N for a socket that is open already",
            "ADDRESS",
            several=True,
            flag="listen",
        ),
    ]
    name: Annotated[
        str, Option(HOW, Kind.TEXT, "for messages and process titles", "NAME", default_text="the target")
    ] = ""
    backlog: Annotated[int, Option(SOCKETS, Kind.COUNT, "connections that may wait", "N", least=1)] = 1024
    socket_mode: Annotated[int, Option(SOCKETS, Kind.MODE, "permissions of a unix socket", "MODE")] = 0o600
    allow_uid: Annotated[
        tuple[int, ...],
        Option(
            SOCKETS, Kind.COUNT, "a user who may connect to a unix socket, others then may not", "UID", several=True
        ),
    ] = ()
    insecure: Annotated[
        bool,
        Option(SOCKETS, Kind.SWITCH, "allow TCP where other machines can connect, and --pickle where any user can"),
    ] = False
    pickle: Annotated[
        bool,
        Option(
            SOCKETS,
            Kind.SWITCH,
            "pickle what cannot travel otherwise, from and to clients that consent as well: who sends a pickle can "
            "have its reader run any code",
        ),
    ] = False
    metrics: Annotated[
        Address | None,
        Option(
            SOCKETS,
            Kind.ADDRESS,
            "where Prometheus finds /metrics over HTTP: unix:/path/to/the.sock or tcp://host:port",
            "ADDRESS",
        ),
    ] = None
    limit_message: Annotated[
        int, Option(SOCKETS, Kind.SIZE, "how large a message may be; 64M", "BYTES", least=1024)
    ] = DEFAULT_LIMITS.message
    limit_shared: Annotated[
        int,
        Option(
            SOCKETS, Kind.SIZE, "how much of a message may be in shared memory, at unix sockets; 0: none; 1G", "BYTES"
        ),
    ] = DEFAULT_LIMITS.shared
    limit_items: Annotated[
        int, Option(SOCKETS, Kind.COUNT, "lists, maps and other composed values in one message", "N", least=1024)
    ] = DEFAULT_LIMITS.items
    limit_strangers: Annotated[
        int, Option(SOCKETS, Kind.COUNT, "connections that have sent nothing yet; the oldest is closed", "N", least=1)
    ] = DEFAULT_LIMITS.strangers
    limit_per_uid: Annotated[
        int | None,
        Option(SOCKETS, Kind.COUNT, "connections of one user to unix sockets", "N", least=1, default_text="no limit"),
    ] = DEFAULT_LIMITS.connections
    idle_timeout: Annotated[
        float | None,
        Option(
            SOCKETS,
            Kind.SECONDS_OR_NONE,
            "how long a client may keep a worker outside of checkouts; 0: no limit",
            "SECONDS",
        ),
    ] = DEFAULT_LIMITS.idle
    peer_logs: Annotated[
        str,
        Option(
            SOCKETS,
            Kind.CHOICE,
            "the lowest level of the log records that clients may ask for",
            "LEVEL",
            choices=(*LEVELS, NEVER),
        ),
    ] = LEVELS[1]
    peer_errors: Annotated[
        str,
        Option(
            SOCKETS,
            Kind.CHOICE,
            "what clients are told of an exception: full, or text, which is its type and message",
            "HOW",
            choices=(FULL, TEXT),
        ),
    ] = FULL
    peer_context: Annotated[
        tuple[str, ...],
        Option(
            SOCKETS,
            Kind.TEXT,
            "a context variable that clients may set, MODULE:NAME",
            "VARIABLE",
            several=True,
            default_text="those of the application",
        ),
    ] = ()
    max_workers: Annotated[
        int | None,
        Option(WORKERS, Kind.COUNT, "more connections wait", "N", least=1, default_text="what the machine can bear"),
    ] = DEFAULT_LIMITS.workers
    limit_memory: Annotated[
        int | None,
        Option(
            WORKERS,
            Kind.SIZE,
            "by how much a worker may grow, then it gets MemoryError; 500M, 2G",
            "BYTES",
            least=1 << 20,
            default_text="no limit",
        ),
    ] = DEFAULT_LIMITS.memory
    max_memory: Annotated[
        int | None,
        Option(
            WORKERS,
            Kind.SIZE,
            "a worker that uses more is replaced after its checkout; 500M, 2G",
            "BYTES",
            least=1 << 20,
            default_text="no limit",
        ),
    ] = None
    hung_worker_timeout: Annotated[
        float | None,
        Option(
            WORKERS,
            Kind.SECONDS_OR_NONE,
            "how long a call, setup or a hook may take, whatever its client says; 0: no limit",
            "SECONDS",
        ),
    ] = 300.0
    stop_timeout: Annotated[
        float,
        Option(
            WORKERS,
            Kind.SECONDS,
            "how long a worker may take for its hooks when its client is gone or the server stops",
            "SECONDS",
        ),
    ] = 5.0
    graceful_timeout: Annotated[
        float, Option(WORKERS, Kind.SECONDS, "how long checkouts may take to end when the server drains", "SECONDS")
    ] = 30.0
    greeting_timeout: Annotated[
        float, Option(WORKERS, Kind.SECONDS, "how long a peer that has connected may stay silent", "SECONDS")
    ] = 10.0
    nice: Annotated[int, Option(WORKERS, Kind.COUNT, "how much workers yield to others, 0 to 19", "N", most=19)] = 0
    freeze: Annotated[
        bool,
        Option(WORKERS, Kind.SWITCH, "do not exempt the loaded application from collection", flag="no-freeze"),
    ] = True
    private: Annotated[bool, Option("", Kind.SWITCH, "the socket lies in a directory that goes with it")] = False
    chdir: Annotated[str, Option(PROCESS, Kind.TEXT, "where the application is loaded and runs", "DIRECTORY")] = ""
    pythonpath: Annotated[
        tuple[str, ...], Option(PROCESS, Kind.TEXT, "searched for modules first", "DIRECTORY", several=True)
    ] = ()
    env: Annotated[
        dict[str, str],
        Option(PROCESS, Kind.VARIABLE, "a variable in the application's environment", "NAME=VALUE", several=True),
    ] = field(default_factory=dict)
    user: Annotated[str, Option(PROCESS, Kind.TEXT, "whom the application runs as, a name or a number", "USER")] = ""
    group: Annotated[
        str, Option(PROCESS, Kind.TEXT, "the same for the group", "GROUP", default_text="the user's own")
    ] = ""
    umask: Annotated[int | None, Option(PROCESS, Kind.MODE, "of the application", "MODE")] = None
    pid: Annotated[str, Option(PROCESS, Kind.TEXT, "a file for the daemon's process id", "FILE")] = ""
    daemon: Annotated[bool, Option(PROCESS, Kind.SWITCH, "go into the background as soon as it serves")] = False
    orphan_timeout: Annotated[
        float,
        Option(
            PROCESS,
            Kind.SECONDS,
            "how long a server whose keeper was killed serves on when no other daemon takes its place",
            "SECONDS",
        ),
    ] = 300.0
    log_file: Annotated[str, Option(LOG, Kind.TEXT, "where the log goes", "FILE", default_text="stderr")] = ""
    log_level: Annotated[str, Option(LOG, Kind.CHOICE, ", ".join(LEVELS), "LEVEL", choices=LEVELS)] = "info"
    log_json: Annotated[bool, Option(LOG, Kind.SWITCH, "each line is a JSON object")] = False
    reload: Annotated[bool, Option(HOW, Kind.SWITCH, "reload when a file of the application changes")] = False

    def __post_init__(self) -> None:
        self._check_addresses()
        if self.metrics is not None:
            self._check_metrics(self.metrics)
        for name, option in OPTIONS.items():
            value = getattr(self, name)
            if value is not None or name not in _MAY_BE_NONE:
                option.check(name, value)

    @property
    def limits(self) -> Limits:
        """What a peer may cost."""
        return Limits(
            message=self.limit_message,
            shared=self.limit_shared,
            items=self.limit_items,
            strangers=self.limit_strangers,
            idle=self.idle_timeout,
            connections=self.limit_per_uid,
            workers=self.max_workers,
            memory=self.limit_memory,
        )

    def _check_addresses(self) -> None:
        if not self.addresses:
            raise ValueError("a server needs an address to listen at: write unix:/path/to/the.sock")
        for address in self.addresses:
            if not self.insecure and _is_open_to_others(address):
                raise ValueError(
                    f"{address}: other machines could connect, and nothing is encrypted and nobody asked for a key. "
                    "Listen at tcp://127.0.0.1 or a unix socket, or say insecure (--insecure) if the network is trusted"
                )
            if not isinstance(address, OpenSocket):
                self.check_trust(address)
        self.check_allowed(self.addresses)

    def check_trust(self, address: Address) -> None:
        """Refuse an address at which these options open more than they may; raises ValueError."""
        if self.pickle:
            check_pickle(address, self.insecure, allow_uid=self.allow_uid)

    def check_allowed(self, some: Collection[object]) -> None:
        """Refuse users who would be told apart at none of these addresses; raises ValueError."""
        if self.allow_uid and all(isinstance(address, addresses.TcpAddress) for address in some):
            raise ValueError(
                f"allow_uid={self.allow_uid[0]}: TCP does not tell users apart, and the server listens nowhere else. "
                "Listen at a unix socket, or leave allow_uid (--allow-uid) out"
            )

    def _check_metrics(self, address: Address) -> None:
        if not self.insecure and _is_open_to_others(address):
            raise ValueError(
                f"metrics={address}: other machines could look at them, and nothing is encrypted and nobody asked for "
                "a key. Serve them at tcp://127.0.0.1 or a unix socket, or say insecure (--insecure) if the network is "
                "trusted"
            )
        any_port = isinstance(address, addresses.TcpAddress) and not address.port
        if address in self.addresses and not any_port:
            raise ValueError(f"metrics={address}: that is where clients connect; choose an address of its own")


_HINTS = get_type_hints(ServerConfig, include_extras=True)
_MAY_BE_NONE = {name for name, hint in _HINTS.items() if type(None) in get_args(hint.__origin__)}

OPTIONS: dict[str, Option] = {name: hint.__metadata__[0] for name, hint in _HINTS.items()}
"""The options that the fields of :class:`ServerConfig` carry, by name."""

DEFAULTS = ServerConfig((OpenSocket(-1),))
"""A configuration in which only the address was given."""


class ServerOptions(TypedDict, total=False):
    """The options of a server that a program embeds, for type checkers. :class:`ServerConfig` has their meaning."""

    name: str
    backlog: int
    socket_mode: int
    allow_uid: tuple[int, ...]
    insecure: bool
    pickle: bool
    metrics: str | Address | None
    limit_message: int
    limit_shared: int
    limit_items: int
    limit_strangers: int
    limit_per_uid: int | None
    idle_timeout: float | None
    peer_logs: str
    peer_errors: str
    peer_context: tuple[str, ...]
    max_workers: int | None
    limit_memory: int | None
    max_memory: int | None
    hung_worker_timeout: float | None
    stop_timeout: float
    graceful_timeout: float
    greeting_timeout: float
    nice: int
    freeze: bool
