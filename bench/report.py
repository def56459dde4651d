"""The report: figures as plain data, then as a table. Pure, and the same for the clock and for valgrind."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from bench.contestants import PING_PONG, Contestant, Limit
from bench.instructions import PROTOTYPE, Count
from bench.operations import Operation

__all__ = ["Line", "counts_as_lines", "figure", "is_over", "table", "times_as_lines"]

Line = dict[str, object]
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
    """The lines of a count of instructions."""
    base = counts[PROTOTYPE.name].total
    return [
        {
            "name": one.name,
            "title": one.title,
            "caller": round(counts[one.name].caller),
            "worker": round(counts[one.name].worker),
            "instructions": round(counts[one.name].total),
            "ratio": counts[one.name].total / base,
            "limits": [] if one.most is None else [within(counts[one.name].total / base, one.most, PROTOTYPE.name)],
        }
        for one in (PROTOTYPE, *operations)
        if one.name in counts
    ]


def figure(name: str, title: str, unit: str, value: float, most: float | None = None) -> Line:
    """The line of a figure that is no time of a contestant."""
    limits = [] if most is None else [within(value, most)]
    return {"name": name, "title": title, "value": value, "unit": unit, "limits": limits}


def is_over(lines: Iterable[Line]) -> list[str]:
    """The names of the lines that are over a limit."""
    return [str(line["name"]) for line in lines if not all(limit["ok"] for limit in line["limits"])]


# ----- As text ----------------------------------------------------------------------------------------


def table(lines: Sequence[Line]) -> str:
    """All lines as text, each kind below its own head."""
    rows, head = [], None
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
        numbers = f"{line['value']:18,.6g} {line['unit']:17}"
    return head.rstrip(), title + numbers


def limit_text(limit: Line) -> str:
    text = f"{limit['value']:.3g} of {limit['limit']:g}"
    return f"{text}{' x ' if limit['than'] else ''}{limit['than']} {'ok' if limit['ok'] else 'OVER'}"
