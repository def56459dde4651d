"""What a server is to serve, as its user writes it: ``module``, ``module:attribute``, and for ``spawn:`` some options.

Pure. The command line, :func:`gtask.spawn_server` and ``gtask.Client("spawn:...")`` read targets by this, so that a
mistake is told where it was made.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

__all__ = ["FUNCTIONS", "LEVELS", "NEVER", "Private", "check_allow", "check_target", "private"]

FUNCTIONS = "gtask.server.functions"
"""The target that ``allow`` is for."""

LEVELS = ("debug", "info", "warning", "error")
"""The levels that a server's log may have."""

NEVER = "never"
"""Stands for no level, where a level is asked for."""

QUIET = "warning"
"""The level of a private server's log, unless another is wanted."""

_FORMS = "allow=MODULE, log_level=LEVEL and reload"


def check_target(target: str) -> None:
    """Refuse a target that no import can find.

    Raises:
        ValueError: the message says what to write.
    """
    module, colon, attribute = target.partition(":")
    if "/" in module or module.endswith(".py"):
        directory, _, file = module.rpartition("/")
        name = f"{file.removesuffix('.py')}{colon}{attribute}"
        where = f", in the directory {directory}" if directory not in ("", ".") else ""
        raise ValueError(f"{target!r} is a file, and a server imports a module: write {name}{where}")
    for part in [*module.split("."), *([attribute] if colon else [])]:
        if not part.isidentifier():
            raise ValueError(
                f"{target!r}: {part!r} is no name that Python can import: write MODULE or MODULE:ATTRIBUTE, "
                "such as hasher or bank:Bank"
            )


def check_allow(target: str, allow: tuple[str, ...]) -> None:
    """Refuse allowed modules for any target but :data:`FUNCTIONS`, and :data:`FUNCTIONS` without allowed modules.

    Raises:
        ValueError: the message begins with the option.
    """
    if target == FUNCTIONS and not allow:
        raise ValueError(f"allow=(): {FUNCTIONS} must know whose functions may be called: write --allow myapp.jobs")
    if allow and target != FUNCTIONS:
        raise ValueError(
            f"allow={allow[0]!r}: that is for {FUNCTIONS} alone, and {target} is to be served: serve the one, or "
            "leave out the other"
        )


@dataclass(frozen=True, slots=True)
class Private:
    """What a private server serves, and how.

    Attributes:
        target: ``module`` or ``module:attribute``.
        allow: the modules whose functions may be called, if the target is :data:`FUNCTIONS`.
        reload: whether new code is loaded when a file of the application changes.
        log_level: of the server's own log, which goes to the program's stderr.
    """

    target: str
    allow: tuple[str, ...] = ()
    reload: bool = False
    log_level: str = QUIET


def private(text: str) -> Private:
    """Read what stands behind ``spawn:``, such as ``jobs``, ``jobs:Jobs?reload`` or ``...functions?allow=myapp.jobs``.

    Raises:
        ValueError: it makes no sense; the message says what to write.
    """
    target, _, options = text.partition("?")
    if not target:
        raise ValueError("write spawn:module or spawn:module:attribute")
    check_target(target)
    allow: list[str] = []
    reload, log_level = False, QUIET
    for option in options.split("&") if options else ():
        name, equals, value = option.partition("=")
        if name == "reload" and not equals:
            reload = True
        elif name == "allow" and value:
            allow.append(value)
        elif name == "log_level" and value in LEVELS:
            log_level = value
        else:
            raise ValueError(f"spawn:{text}: {_wrong(option, name)}")
    if target == FUNCTIONS and not allow:
        raise ValueError(
            f"spawn:{text}: the server must know whose functions may be called: write "
            f"spawn:{FUNCTIONS}?allow=myapp.jobs"
        )
    check_allow(target, tuple(allow))
    return Private(target, tuple(allow), reload, log_level)


def _wrong(option: str, name: str) -> str:
    """What is wrong with an option of ``spawn:``."""
    forms = {"allow": "allow=MODULE", "log_level": f"log_level={'|'.join(LEVELS)}", "reload": "reload, without a value"}
    if name in forms:
        return f"{option!r} makes no sense: write {forms[name]}"
    close = difflib.get_close_matches(name, forms, 1)
    hint = f"did you mean {close[0]}?" if close else "the options of a gtask-server can have all others"
    return f"there is no option {name!r}; spawn: takes {_FORMS}; {hint}"
