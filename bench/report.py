"""The report: figures as plain data, then as a table. Pure, and the same for the clock and for valgrind."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.contestants import PING_PONG, Contestant, Limit
from bench.instructions import PROTOTYPE, Count
from bench.operations import Operation

__all__ = ["Line", "counts_as_lines", "figure", "over_limits", "table", "times_as_lines"]

Line = dict[str, Any]
"""The report on one contestant, operation or figure; docs/performance.rst lists the keys."""


def times_as_lines(contestants: Sequence[Contestant], times: Mapping[str, Sequence[float]]) -> list[Line]:
    """The lines of a contest."""
    return [
        {
            "name": one.name,
            "title": one.title,
            "us": statistics.median(times[one.name]) * 1e6,
            "least_us": min(times[one.name]) * 1e6,
            "ratio": median_ratio(times[one.name], times[PING_PONG.name]),
            "least_ratio": min(times[one.name]) / min(times[PING_PONG.name]),
            "limits": [judged(limit, times[one.name], times) for limit in one.limits if limit.than in {"", *times}],
        }
        for one in contestants
    ]


def judged(limit: Limit, mine: Sequence[float], times: Mapping[str, Sequence[float]]) -> Line:
    """A limit, and whether the least time keeps it."""
    value = min(mine) / min(times[limit.than]) if limit.than else min(mine) * 1e6
    return within(value, limit.most, limit.than)


def within(value: float, most: float, than: str = "") -> Line:
    return {"than": than, "value": value, "limit": most, "ok": value <= most}


def median_ratio(dividends: Sequence[float], divisors: Sequence[float]) -> float:
    return statistics.median(dividend / divisor for dividend, divisor in zip(dividends, divisors, strict=True))


def counts_as_lines(operations: Iterable[Operation], counts: Mapping[str, Count]) -> list[Line]:
    """The lines of the prototype and of these operations."""
    base = counts[PROTOTYPE]
    lines = [count_as_line(PROTOTYPE, "bare prototype", base, base, None)]
    lines += [count_as_line(one.name, one.title, counts[one.name], base, one.most) for one in operations]
    return lines


def count_as_line(name: str, title: str, count: Count, base: Count, most: float | None) -> Line:
    ratio = count.total / base.total
    return {
        "name": name,
        "title": title,
        "caller": round(count.caller),
        "worker": round(count.worker),
        "instructions": round(count.total),
        "ratio": ratio,
        "limits": [] if most is None else [within(ratio, most, PROTOTYPE)],
    }


def figure(name: str, title: str, unit: str, value: float, most: float | None = None) -> Line:
    """The line of a figure that is no time of a contestant."""
    limits = [] if most is None else [within(value, most)]
    return {"name": name, "title": title, "value": value, "unit": unit, "limits": limits}


def over_limits(lines: Iterable[Line]) -> list[str]:
    """The names of the lines that are over a limit."""
    return [str(line["name"]) for line in lines if not all(limit["ok"] for limit in line["limits"])]


# ----- As text ----------------------------------------------------------------------------------------


def table(lines: Sequence[Line]) -> str:
    """All lines as text, each kind below its own head."""
    rows: list[str] = []
    head = None
    for line in lines:
        row_head, row = as_row(line)
        if row_head != head:
            rows += ([""] if rows else []) + [row_head]
            head = row_head
        rows.append(f"{row}   {', '.join(map(limit_text, line['limits']))}".rstrip())
    return "\n".join(rows)


def as_row(line: Line) -> tuple[str, str]:
    """The head of a line's kind, and the line without its limits."""
    title = f"{line['title']:40}"
    if "us" in line:
        head = f"{'us: median, least; / ping-pong, the same':40}{'':8}"
        numbers = f"{line['us']:9.1f}{line['least_us']:9.1f}{line['ratio']:9.2f}{line['least_ratio']:9.2f}"
    elif "instructions" in line:
        head = f"{'instructions':40}{'caller':>9}{'worker':>9}{'both':>9}{'ratio':>9}"
        numbers = f"{line['caller']:9}{line['worker']:9}{line['instructions']:9}{line['ratio']:9.2f}"
    else:
        head = "other figures"
        numbers = f"{number(line['value']):>18} {line['unit']:17}"
    return head.rstrip(), title + numbers


def limit_text(limit: Line) -> str:
    other = f" x {limit['than']}" if limit["than"] else ""
    return f"{number(limit['value'])} of {number(limit['limit'])}{other} {'ok' if limit['ok'] else 'OVER'}"


def number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
