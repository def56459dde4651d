"""The user and the group that a server runs as, by name or number."""

from __future__ import annotations

import grp
import os
import pwd

__all__ = ["become", "environment", "identity"]

_ONLY_ROOT = "user={!r}, group={!r}: only root may become another user; leave them out"

NO_ID = (1 << 32) - 1
"""The least number that can be no user's and no group's."""


def identity(user: str, group: str) -> tuple[int, int]:
    """The ids of a user and a group, by name or number; "" for those of this process, or the user's own group.

    A number need have no entry in the databases of users and groups. Then the group is that of the same number.

    Raises:
        ValueError: there is no such user or group, or this process may not become them.
    """
    uid, gid = os.geteuid(), os.getegid()
    if user:
        uid, gid = _user_of(user)
    if group:
        gid = _group_of(group)
    if os.geteuid() and (uid, gid) != (os.geteuid(), os.getegid()):
        raise ValueError(_ONLY_ROOT.format(user, group))
    return uid, gid


def _user_of(text: str) -> tuple[int, int]:
    number = _number(text)
    try:
        entry = pwd.getpwnam(text) if number is None else pwd.getpwuid(number)
    except (KeyError, OverflowError):
        if number is None:
            raise ValueError(f"user={text!r}: there is no such user") from None
        return number, number
    return entry.pw_uid, entry.pw_gid


def _group_of(text: str) -> int:
    number = _number(text)
    try:
        return grp.getgrnam(text).gr_gid if number is None else number
    except KeyError:
        raise ValueError(f"group={text!r}: there is no such group") from None


def _number(text: str) -> int | None:
    """The id that a text gives; None if it is a name, or no id."""
    return int(text) if text.isdecimal() and int(text) < NO_ID else None


def environment() -> dict[str, str]:
    """The variables that tell a program who its user is and where that user is at home."""
    try:
        entry = pwd.getpwuid(os.geteuid())
    except KeyError:  # a number without an entry
        return {"HOME": "/"}
    return {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}


def become(user: str, group: str) -> None:
    """Run as this user and group from now on.

    Raises:
        ValueError: they do not exist, or this process may not become them.
    """
    uid, gid = identity(user, group)
    try:
        if os.geteuid() == 0:
            try:
                os.initgroups(pwd.getpwuid(uid).pw_name, gid)
            except KeyError:  # a number without an entry
                os.setgroups([gid])
        os.setgid(gid)
        os.setuid(uid)
    except PermissionError:
        raise ValueError(_ONLY_ROOT.format(user, group)) from None
