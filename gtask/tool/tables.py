"""What the command prints, as text. Pure: from what a server says of itself to lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gtask.printable import TEXT, printable, printable_lines

__all__ = ["bar", "by_need", "by_share", "client", "duration", "methods", "share", "shown", "size", "status"]

ORDER = ("call", "decode", "hooks", "setup", "interrupted", "aborted", "killed", "leaving", "lent", "idle")


def shown(said: Any) -> Any:
    """What a server says, with escapes for all that cannot be printed."""
    if isinstance(said, str):
        return printable(said, TEXT)
    if isinstance(said, dict):
        return {shown(key): shown(item) for key, item in said.items()}
    return [shown(item) for item in said] if isinstance(said, list) else said


def duration(seconds: float) -> str:
    """Short: ``0.012s``, ``4.2s``, ``3m20s``, ``5h12m``, ``2d3h``, ``100d``."""
    if seconds < 60:
        return f"{seconds:.3f}s" if seconds < 1 else f"{seconds:.1f}s"
    whole = int(seconds)
    if whole >= 100 * 86400:
        return f"{whole // 86400}d"
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // smaller}{name}"
    return f"{whole}s"


def size(count: int) -> str:
    """Bytes, short: ``16M``."""
    return f"{count / (1 << 30):.1f}G" if count >= 1 << 30 else f"{count >> 20}M"


def client(worker: dict[str, Any]) -> str:
    """Who has a worker: ``web, pid 4711, uid 1000``, as far as the server knows."""
    said = worker.get("client", {"name": "", "pid": 0, "uid": -1})
    process = [f"pid {said['pid']}", f"uid {said['uid']}"] if said["pid"] else []
    return ", ".join([*([said["name"]] if said["name"] else []), *process])


def by_need(workers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The workers, those first that an operator looks for: busy ones, the longest in their call before others."""

    def need(worker: dict[str, Any]) -> tuple[int, float]:
        place = ORDER.index(worker["state"]) if worker["state"] in ORDER else len(ORDER)
        return (place, -worker["for"])

    return sorted(workers, key=need)


def share(worker: dict[str, Any], before: dict[str, Any] | None, seconds: float) -> float:
    """How much of its time a worker was busy, from 0 to 1: since an earlier look, or else in all its life.

    Args:
        before: what the earlier look has shown of it, if it was there.
        seconds: since then.
    """
    busy, time = (worker["busy"], worker["age"]) if before is None else (worker["busy"] - before["busy"], seconds)
    return min(1.0, max(0.0, busy / time)) if time > 0 else 0.0


def by_share(workers: Sequence[dict[str, Any]], shares: dict[int, float]) -> list[dict[str, Any]]:
    """The workers, the busiest first; of those that are equally busy, the one that is so for longest."""

    def place(worker: dict[str, Any]) -> tuple[int, float, int]:
        is_busy = worker["state"] not in ("idle", "lent")
        return (-round(shares.get(worker["pid"], 0.0) * 10), -worker["for"] if is_busy else 0.0, worker["pid"])

    return sorted(workers, key=place)


def bar(part: float, width: int) -> str:
    """A bar that is filled up to this part, in eighths of a character; a part over 0 shows."""
    eighths = round(part * width * 8) or int(part > 0)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (" ▏▎▍▌▋▊▉"[rest] if rest else "")).ljust(width)


def status(said: dict[str, Any]) -> str:
    """The answer to ``status``."""
    said = shown(said)
    limit = f" of at most {said['max_workers']}" if said["max_workers"] else ""
    totals = said["totals"]
    states = ", ".join(f"{count} {state}" for state, count in sorted(said["states"].items())) or "none"
    lines = [
        f"{said['name']} at {', '.join(said['addresses'])}",
        f"master {said['master']}, up {duration(said['uptime'])}, {said['reloads']} reloads",
        f"{len(said['workers'])} workers{limit}: {states}",
        f"totals: {totals['calls']} calls, {totals['forked']} workers forked, {totals['ended']} ended, "
        f"{totals['refused']} connections refused",
    ]
    if totals.get("setup_failures"):  # an older server does not say
        lines.append(f"{totals['setup_failures']} setups failed; the log has the reason")
    if said["workers"]:
        clients = "  CLIENT" if any("client" in worker for worker in said["workers"]) else ""
        lines += ["", f"{'PID':>8} {'STATE':<12}{'FOR':>8} {'METHOD':<22}{'CALLS':>8}{'MEMORY':>8}{'AGE':>8}{clients}"]
    lines += [
        f"{worker['pid']:>8} {worker['state']:<12}{duration(worker['for']):>8} {worker['method'][:21]:<22}"
        f"{worker['calls']:>8}{size(worker['memory']):>8}{duration(worker['age']):>8}  {client(worker)}".rstrip()
        for worker in by_need(said["workers"])
    ]
    if said["deaths"]:
        lines += ["", "recent deaths:"]
        lines += [f"  {duration(death['ago'])} ago: {death['line']}" for death in said["deaths"]]
    return "\n".join(lines)


def methods(said: Sequence[dict[str, Any]]) -> str:
    """The answer to ``methods``: each with its signature, and its docstring indented below."""
    blocks = []
    for method in said:
        head = printable(f"{method['name']}{method['signature']}", TEXT)
        doc = printable_lines(method["doc"])
        blocks.append("\n".join([head, *(f"    {line}".rstrip() for line in doc.splitlines())]))
    return "\n".join(blocks)
