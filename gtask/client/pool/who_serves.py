"""Whether the server at a unix socket is that of the user who must serve. Pure; the idea is libpq's ``requirepeer``."""

from __future__ import annotations

from gtask.address import Address, UnixAddress
from gtask.errors import Error

__all__ = ["WrongServerError", "check_address", "check_server"]


class WrongServerError(Error):
    """Another user serves there."""


def check_address(address: Address, server_uid: int | None) -> None:
    """Refuse a user for a server whose user the system does not tell; raises ValueError."""
    if server_uid is not None and not isinstance(address, UnixAddress):
        raise ValueError(
            f"server_uid={server_uid}: TCP does not tell users apart, and the server is at {address}. Connect to a "
            "unix socket, or leave server_uid out"
        )


def check_server(peer: tuple[int, int], address: Address, server_uid: int | None) -> None:
    """Refuse a server of another user.

    Args:
        peer: the process and the user who have opened the listening socket.
        address: of the server.
        server_uid: the user who must have opened it; None for any.

    Raises:
        WrongServerError: another one has.
    """
    pid, uid = peer
    if server_uid not in (None, uid):
        raise WrongServerError(
            f"the server at {address} is process {pid} of user {uid}, and user {server_uid} must serve there "
            "(server_uid): nothing was sent to it. Find out who listens there, or give the client another server_uid"
        )
