"""Where a server listens, as a value: ``unix:/run/x.sock``, ``unix:@name`` or ``tcp://host:port``."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Collection
from dataclasses import dataclass

__all__ = [
    "PRIVATE",
    "UNIX_PATH_LIMIT",
    "Address",
    "TcpAddress",
    "UnixAddress",
    "check_pickle",
    "is_private",
    "parse",
    "place",
    "reason_file",
    "shown",
]

PRIVATE = "gtask-"
"""How the name begins of the directory of a private server's socket; the rest of it is made up anew each time."""

UNIX_PATH_LIMIT = 107
"""Bytes that fit into ``sockaddr_un`` on Linux, less the closing NUL."""

_TCP = re.compile(r"tcp://(?:\[(?P<v6>[^\[\]]+)\]|(?P<host>[^:/\[\]]+)):(?P<port>[0-9]+)/?\Z")


FORMS = "unix:/path/to/the.sock or tcp://host:port"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A unix socket: a path, or a name in Linux's abstract namespace (written with a leading ``@``)."""

    path: str

    @property
    def sockaddr(self) -> str:
        """What ``bind`` and ``connect`` take."""
        return "\0" + self.path[1:] if self.abstract else self.path

    @property
    def abstract(self) -> bool:
        return self.path.startswith("@")

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A TCP host (a name or an IP address) and port."""

    host: str
    port: int

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    @property
    def sockaddr(self) -> tuple[str, int]:
        """What ``bind`` and ``connect`` take."""
        return (self.host, self.port)

    def __str__(self) -> str:
        return f"tcp://[{self.host}]:{self.port}" if ":" in self.host else f"tcp://{self.host}:{self.port}"


Address = UnixAddress | TcpAddress


def parse(text: str | Address) -> Address:
    """Turn what a user wrote into an address.

    Args:
        text: ``unix:/path``, ``unix:@abstract-name`` or ``tcp://host:port``; an address is given back as it is.

    Raises:
        ValueError: it is none of these; the message shows the forms.
        TypeError: it is no text.
    """
    if isinstance(text, (UnixAddress, TcpAddress)):
        return text
    if not isinstance(text, str):
        raise TypeError(f"address={text!r:.100}: {_instead_of(text)}")
    if text.startswith("unix:"):
        path = text[len("unix:") :]
        if path.startswith("/"):
            path = "/" + path.lstrip("/")  # unix:///run/x.sock, as a URL has it
        if path in ("", "/", "@") or "\0" in path:
            raise ValueError(f"{text!r} names no unix socket: write unix:/path/to/the.sock")
        size = len(path.encode("utf-8", "surrogateescape"))
        if size > UNIX_PATH_LIMIT:
            raise ValueError(
                f"the path of a unix socket may have {UNIX_PATH_LIMIT} bytes and {path!r} has {size}: "
                "use a shorter directory"
            )
        return UnixAddress(path)
    found = _TCP.match(text)
    if found:
        port = int(found["port"])
        if port > 65535:
            raise ValueError(f"{text!r}: a TCP port is a number from 0 to 65535")
        return TcpAddress(found["v6"] or found["host"], port)
    raise ValueError(f"{text!r} is no address: write {FORMS}{_nearest(text)}")


def shown(address: Address | None) -> str:
    """An address in a message: a relative path together with the directory that it begins at."""
    is_relative = isinstance(address, UnixAddress) and not address.path.startswith(("/", "@"))
    return f"{address} (in {os.getcwd()})" if is_relative else str(address)


def _instead_of(value: object) -> str:
    """What to write in place of something that is no text."""
    if value is None:
        return f"write {FORMS}; None is what a variable of the environment gives that is not set"
    if isinstance(value, (list, tuple, set, frozenset, dict)):
        return f"write one address, {FORMS}; a client has one server, so make a client for each"
    if isinstance(value, (bytes, bytearray)):
        return f"write a str, {FORMS}"
    if hasattr(value, "__fspath__"):
        return f"write unix:{value}"
    return f"write {FORMS}"


def _nearest(text: str) -> str:
    """What was probably meant by a text that is no address."""
    if not text:
        return "; it is empty, as a variable of the environment may be"
    if "://" not in text and (text.startswith(("/", "./", "../", "@")) or text.endswith((".sock", ".socket"))):
        return f"; perhaps unix:{text}"
    if re.fullmatch(r"(tcp:)?[\w.-]+:[0-9]+", text, re.ASCII):
        return f"; perhaps tcp://{text.removeprefix('tcp:')}"
    return ""


def check_pickle(
    address: Address,
    insecure: bool,
    danger: str = "any process that connects to {} could have a worker run any code",
    allow_uid: Collection[int] = (),
) -> None:
    """Refuse pickles where any user of the machine can connect, or listen: on TCP, and at an abstract name, which has
    no owner and no permissions.

    Args:
        address: where pickles would be sent and loaded.
        insecure: whether the user says that all who can connect are trusted.
        danger: why, with ``{}`` for the address.
        allow_uid: the only users who may connect to a unix socket; default (), for all.

    Raises:
        ValueError: it is such an address, and not said to be trusted.
    """
    if insecure or (isinstance(address, UnixAddress) and (allow_uid or not address.abstract)):
        return
    raise ValueError(
        f"pickle=True: {danger.format(address)}. Use a unix socket at a path, which has an owner and permissions, or "
        "say insecure=True (--insecure) if all who can connect there are trusted"
    )


def is_private(address: Address) -> bool:
    """Whether it is that of a private server, and so another one each time."""
    if not isinstance(address, UnixAddress):
        return False
    directory, name = os.path.split(address.path)
    return name == "socket" and os.path.basename(directory).startswith(PRIVATE)


def reason_file(address: Address) -> str:
    """Where a private server that cannot serve leaves the reason to its program; "" for any other server."""
    if not isinstance(address, UnixAddress) or not is_private(address):
        return ""
    return os.path.join(os.path.dirname(address.path), "reason")


def place(server: str, address: Address | None) -> str:
    """Where a server's workers are, for a text that is the same each time.

    Args:
        server: its name; "" if it is not known.
        address: where it is; None for a private server that is not there yet.
    """
    where = "a private address" if address is None or is_private(address) else str(address)
    return f"{server or 'the server'} at {where}"
