"""The short name of a process, which ``ps`` and ``top`` show also where setproctitle is not installed."""

from __future__ import annotations

import contextlib

__all__ = ["short_name", "show"]

LIMIT = 15
"""Bytes that Linux keeps."""


def short_name(server: str, role: str) -> bytes:
    """Such as ``gtask:hasher w3``: the server's name is cut so that the role has its place.

    Args:
        server: the name of the server.
        role: ``k`` for the keeper, ``m`` for a master, ``w3`` for the third worker of a master, ``s`` for who answers
            a scrape.
    """
    begin, end = b"gtask:", f" {role}".encode()
    room = max(0, LIMIT - len(begin) - len(end))
    name = "".join(character if character.isprintable() else "?" for character in server)
    return (begin + name.encode("utf-8", "replace")[:room] + end)[:LIMIT]


def show(server: str, role: str) -> None:
    """Give this process its short name, where the system has one; call it after setproctitle, which sets it, too."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "wb", buffering=0) as comm:
        comm.write(short_name(server, role))
