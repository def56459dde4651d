"""The options of a server, as one frozen, validated value.

Each field carries its default, its check and its sentence. The command line is made of them; signatures and documents
are tested against them.
"""

from __future__ import annotations

import enum
import math
import signal
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict, get_args, get_type_hints

from gtask import address as addresses
from gtask.address import Address, check_pickle
from gtask.target import LEVELS
from gtask.wire.messages import DEFAULT_LIMIT

__all__ = ["DEFAULTS", "OPTIONS", "SIGNALS", "Kind", "OpenSocket", "Option", "ServerConfig", "ServerOptions"]

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


class Kind(enum.Enum):
    """The kind of an option's value: the command line has a parser for each, :class:`Option` a check."""

    COUNT = enum.auto()
    SIZE = enum.auto()
    SECONDS = enum.auto()
    SECONDS_OR_NONE = enum.auto()
    MODE = enum.auto()
    LEVEL = enum.auto()
    SWITCH = enum.auto()
    TEXT = enum.auto()
    VARIABLE = enum.auto()
    ADDRESS = enum.auto()
    SOCKET = enum.auto()


@dataclass(frozen=True, slots=True)
class Option:
    """The option that a field of :class:`ServerConfig` carries, beside its default.

    Attributes:
        group: the heading of ``--help`` under which the option stands; "" if only gtask itself sets the field.
        kind: of the value.
        sentence: the meaning of the option, for ``--help``.
        metavar: the placeholder of the value in ``--help``.
        least, most: the bounds of a number.
        several: whether the option may be given several times.
        default_text: the default in words, where its value would not tell.
        flag: the option's name on the command line, where it is not that of the field.
    """

    group: str
    kind: Kind
    sentence: str
    metavar: str = ""
    least: int = 0
    most: float = math.inf
    several: bool = False
    default_text: str = ""
    flag: str = ""

    def check(self, name: str, value: object) -> None:
        """Refuse a value that makes no sense.

        Raises:
            ValueError, TypeError: the message has the option, the value and the allowed values.
        """
        if self.kind in (Kind.COUNT, Kind.SIZE) and not self.several:
            bounds = f"from {self.least} to {self.most}" if self.most < math.inf else f"of at least {self.least}"
            _check(name, value, int, lambda number: self.least <= number <= self.most, f"a number {bounds}")
        elif self.kind in (Kind.SECONDS, Kind.SECONDS_OR_NONE):
            _check(name, value, (int, float), lambda seconds: seconds > 0, "a number of seconds over 0")
        elif self.kind is Kind.MODE:
            _check(name, value, int, lambda mode: 0 <= mode <= 0o777, "permissions such as 0o600", oct)
        elif self.kind is Kind.LEVEL:
            _check(name, value, str, lambda level: level in LEVELS, f"one of {', '.join(LEVELS)}")
        elif self.kind is Kind.SWITCH:
            _check(name, value, bool, lambda _: True, "True or False")

    def written(self, value: object) -> str:
        """A value as the command line has it."""
        if isinstance(value, int) and self.kind is Kind.MODE:
            return f"{value:o}"
        return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


def _check(
    name: str,
    value: Any,
    kind: type | tuple[type, ...],
    is_allowed: Callable[[Any], bool],
    advice: str,
    show: Callable[[Any], str] = repr,
) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name}={value!r}: write {advice}")
    if not is_allowed(value):
        raise ValueError(f"{name}={show(value)}: write {advice}")


def _is_open_to_others(address: Address | OpenSocket) -> bool:
    """Whether other machines may reach this address."""
    if not isinstance(address, addresses.TcpAddress):
        return False
    host = address.host  # any other name leads who knows where, 127.example.org as well
    return not (host in ("localhost", "::1") or (host.startswith("127.") and host.replace(".", "").isdigit()))


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
    ] = DEFAULT_LIMIT
    max_workers: Annotated[
        int | None, Option(WORKERS, Kind.COUNT, "more connections wait", "N", least=1, default_text="no limit")
    ] = None
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
    log_level: Annotated[str, Option(LOG, Kind.LEVEL, ", ".join(LEVELS), "LEVEL")] = "info"
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
    max_workers: int | None
    max_memory: int | None
    hung_worker_timeout: float | None
    stop_timeout: float
    graceful_timeout: float
    greeting_timeout: float
    nice: int
    freeze: bool
