"""``gtask top``: what a server does, live. It needs the package rich (extra ``top``)."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import textwrap
import tty
from collections import Counter
from collections.abc import Iterator
from time import monotonic
from typing import Any, Literal

from gtask.address import Address
from gtask.errors import Error
from gtask.printable import printable_lines
from gtask.tool.conversation import Session
from gtask.tool.tables import bar, by_share, client, duration, share, shown, size

try:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text
except ImportError:
    Live = None  # type: ignore[assignment,misc]

__all__ = ["run"]

MISSING = 2
"""The exit status without rich, or without a terminal."""

BAR = 10

COLUMNS: tuple[tuple[str, int | None, Literal["left", "right"]], ...] = (
    ("PID", 7, "right"), ("STATE", 11, "left"), ("FOR", 6, "right"), ("BUSY", BAR, "left"), ("", 4, "right"),
    ("METHOD", None, "left"), ("CALLS", 9, "right"), ("MEM", 6, "right"),
)  # fmt: skip

WIDE = 110
"""Columns of a screen in which each worker's client has its place; else the clients stand below the table."""

FIXED_LINES = 6
"""Lines of the screen that are always there: three of the head, an empty one, the table's head and the last."""

ESCAPE = b"\x1b"

STYLES = {"call": "green", "setup": "yellow", "hooks": "yellow", "decode": "yellow", "idle": "dim", "lent": ""}


def run(address: Address, timeout: float, interval: float) -> int:
    """Show the server until q is pressed; gives the exit status."""
    if Live is None:
        print("gtask: top needs the package rich: pip install gtask[top]", file=sys.stderr)
        return MISSING
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("gtask: top needs a terminal; gtask status prints once", file=sys.stderr)
        return MISSING
    console = Console()
    before: dict[str, Any] | None = None
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            try:
                with Session(address, timeout, about=True) as server:
                    said: dict[str, Any] = shown(server.call("status"))
            except Error as error:
                told = Text(printable_lines(str(error)), style="red")
                live.update(Group(told, _foot(interval)), refresh=True)
                before = None
            else:
                if before is not None and before["master"] != said["master"]:
                    before = None  # another master has other workers, and another clock
                live.update(_view(said, before, interval, console.width, console.height), refresh=True)
                before = said
            if pressed(interval):
                return 0


def _view(said: dict[str, Any], before: dict[str, Any] | None, interval: float, width: int, height: int) -> Any:
    """The screen.

    Args:
        said: what the server says now, and ``before``, what it said at the look before, if there was one.
        width, height: of the screen.
    """
    seconds = said["uptime"] - before["uptime"] if before is not None else 0.0
    earlier = {worker["pid"]: worker for worker in before["workers"]} if before is not None else {}
    shares = {worker["pid"]: share(worker, earlier.get(worker["pid"]), seconds) for worker in said["workers"]}
    is_wide = width >= WIDE
    lines: list[str] = []
    for death in said["deaths"][-3:][::-1]:
        lines += textwrap.wrap(f"{duration(death['ago'])} ago: {death['line']}", width, subsequent_indent="    ")
    room = max(1, height - FIXED_LINES - len(lines))
    workers = by_share(said["workers"], shares)
    clients = [] if is_wide else _clients(workers, width)
    if len(workers) + len(clients) <= room:
        lines = clients + lines
    if len(workers) > room:
        room = max(1, room - 1)
        lines.insert(0, f"... and {len(workers) - room} more workers, less busy")
    table = Table(box=None, padding=(0, 1, 0, 0), expand=True, header_style="bold")
    for name, columns, justify in COLUMNS:
        rest = None if columns else 1  # the method has what the others leave
        table.add_column(
            name, width=columns, min_width=columns, ratio=rest, justify=justify, no_wrap=True, overflow="ellipsis"
        )
    if is_wide:
        table.add_column("CLIENT", min_width=30, no_wrap=True, overflow="ellipsis")
    for worker in workers[:room]:
        part = shares[worker["pid"]]
        table.add_row(
            str(worker["pid"]),
            Text(worker["state"], style=STYLES.get(worker["state"], "red")),
            duration(worker["for"]),
            Text(bar(part, BAR), style="red" if part > 0.95 else "green"),
            f"{part:.0%}",
            Text(worker["method"]),  # a str would be read as markup
            f"{worker['calls']:,}",
            size(worker["memory"]),
            *([Text(client(worker))] if is_wide else []),
        )
    foot = Text("\n".join(lines), style="yellow", no_wrap=True, overflow="ellipsis")
    return Group(_head(said, before, seconds, shares), table, *([foot] if lines else []), _foot(interval))


def _clients(workers: list[dict[str, Any]], width: int) -> list[str]:
    """How many workers each client has, the one with most first, in at most two lines."""
    counts = Counter(client(worker) for worker in workers)
    told = [f"{count} of {name}" for name, count in counts.most_common() if name]
    return textwrap.wrap(f"workers: {'; '.join(told)}", width, max_lines=2, placeholder=" ...") if told else []


def _head(said: dict[str, Any], before: dict[str, Any] | None, seconds: float, shares: dict[int, float]) -> Any:
    limit = f" of {said['max_workers']}" if said["max_workers"] else ""
    states = ", ".join(f"{count} {state}" for state, count in sorted(said["states"].items())) or "none"
    calls = f"{said['totals']['calls']:,} calls"
    if before is not None and seconds > 0:
        calls += f", {max(0, said['totals']['calls'] - before['totals']['calls']) / seconds:,.0f} a second"
    reloads = f"{said['reloads']} reload{'' if said['reloads'] == 1 else 's'}"
    head = Text(no_wrap=True, overflow="ellipsis")
    head.append(f"{said['name']} at {', '.join(said['addresses'])}\n", style="bold")
    head.append(f"master {said['master']}, up {duration(said['uptime'])}, {reloads}; {calls}\n")
    head.append(f"{len(shares)}{limit} workers ({states}), {sum(shares.values()):.1f} busy on average\n")
    return head


def _foot(interval: float) -> Any:
    return Text(f"q quits; looks every {interval:g} s", style="dim")


@contextlib.contextmanager
def _keys() -> Iterator[Any]:
    """Yields a function that waits some seconds, and says whether q was pressed meanwhile."""
    descriptor = sys.stdin.fileno()
    usual = termios.tcgetattr(descriptor)

    def pressed(seconds: float) -> bool:
        deadline = monotonic() + seconds
        while (left := deadline - monotonic()) > 0:
            if select.select([descriptor], [], [], left)[0]:
                keys = os.read(descriptor, 100)  # sys.stdin would keep back what select is to see
                if not keys or keys == ESCAPE or b"q" in keys.lower():
                    return True
        return False

    tty.setcbreak(descriptor)
    try:
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, usual)
