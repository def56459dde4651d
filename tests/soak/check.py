"""What must hold of a soak's logs, checked when it is over. Pure: lines in, violations out.

- **Exclusivity**: a checkout has one worker. Between its calls the worker begins no call of another checkout; nor does
  it before checkout_done has run, if there is that hook.
- **At most once**: no call is begun twice. A value means that its call has run to its end, CallDropped that it has not
  begun.
- **Answers**: every call has exactly one outcome, within its deadline and a second, and a value is the answer to its
  own question. While the hub stands still nothing can end, so that time does not count.
- **Errors**: a call fails only if a fault was injected that explains it, and in the way that this fault should show.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.soak.record import NOTHING

__all__ = ["LATE", "check"]

LATE = 1.0
"""Seconds within which a call must have ended after its deadline."""


@dataclass(slots=True)
class _Executions:
    """What the workers' logs say: the calls that were begun, with whether they ended; the worker of each turn."""

    ended: dict[str, bool] = field(default_factory=dict)
    workers: dict[str, str] = field(default_factory=dict)


class _Call(NamedTuple):
    token: str
    method: str
    timeout: float
    begin: float
    end: float
    outcome: str
    detail: str


@dataclass(slots=True)
class _Turn:
    """What is known of a checkout so far.

    Attributes:
        begin: when its first call was made.
        end: when the latest of its calls ended.
        answered: a bit for each call that has ended.
        failed: whether a call has failed.
        hung: whether a call was meant to hang.
        faults: what was done to it.
    """

    begin: float = float("inf")
    end: float = 0.0
    answered: int = 0
    failed: bool = False
    hung: bool = False
    faults: str = ""


def check(workers: Mapping[str, Iterable[str]], client: Iterable[str], has_hook: bool) -> Iterator[str]:
    """Find all violations.

    Args:
        workers: the lines of each worker's log; see :mod:`tests.soak.application`.
        client: the lines of the client's log; see :mod:`tests.soak.record`.
        has_hook: whether checkout_done runs after each checkout.

    Yields:
        each violation, as a sentence.
    """
    executions = _Executions()
    for worker, lines in workers.items():
        yield from _check_worker(worker, lines, executions, has_hook)
    turns: dict[str, _Turn] = defaultdict(_Turn)
    kills: dict[str, list[float]] = defaultdict(list)
    gaps: list[tuple[float, float]] = []  # from, until
    late: list[tuple[_Call, float]] = []  # with their deadlines
    for line in client:
        kind, *fields = line.rstrip("\n").split("\t")
        if kind == "kill":
            pid, at = fields
            kills[pid].append(float(at))
        elif kind == "gap":
            seconds, at = map(float, fields)
            gaps.append((at - seconds, at))
        elif kind == "fault":
            name, what, _ = fields
            turns[name].faults += f" {what}"
        else:
            token, method, timeout, begin, end, outcome, detail = fields
            call = _Call(token, method, float(timeout), float(begin), float(end), outcome, detail)
            turn = turns[_turn_of(token)]
            deadline = max(call.begin, turn.end) + call.timeout
            if call.end > deadline + LATE:
                late.append((call, deadline))
            yield from _check_call(call, turn, kills, executions)
    for call, deadline in late:
        yield from _check_lateness(call, deadline, gaps)


def _check_lateness(call: _Call, deadline: float, gaps: Iterable[tuple[float, float]]) -> Iterator[str]:
    stood = sum(max(0.0, min(until, call.end) - max(begin, deadline)) for begin, until in gaps)
    if call.end - deadline - stood > LATE and call.outcome != NOTHING:
        in_gaps = f" ({stood:.3g} s of them in gaps)" if stood else ""
        late = f"{call.end - deadline:.3g} s after its deadline{in_gaps}"
        yield f"answers: {call.token} ({call.method}) ended {late}, with {call.outcome}"


def _check_worker(worker: str, lines: Iterable[str], executions: _Executions, has_hook: bool) -> Iterator[str]:
    holder = running = ""  # whose checkout it is, and its call that runs
    is_over = True
    for line in lines:
        event, token, _ = line.rstrip("\n").split("\t")
        if event == "begin":
            turn = _turn_of(token)
            if running:
                yield f"exclusivity: {worker} began {token} while {running} ran"
            if token in executions.ended:
                yield f"at most once: {token} was begun a second time, in {worker}"
            elif turn != holder and turn in executions.workers:
                yield f"exclusivity: checkout {turn}, begun in {executions.workers[turn]}, went on in {worker}"
            elif turn == holder and is_over:
                yield f"exclusivity: {worker} began {token} though that checkout was over"
            elif turn != holder and not is_over and has_hook:
                yield f"exclusivity: {worker} began {token} before checkout_done had run for {holder}"
            executions.ended[token] = False
            executions.workers.setdefault(turn, worker)
            holder, running, is_over = turn, token, False
        elif event == "end":
            if token != running:
                yield f"exclusivity: {worker} ended {token} while {running or 'nothing'} ran"
            executions.ended[token] = True
            running = ""
        else:
            running, is_over = "", True


def _check_call(call: _Call, turn: _Turn, kills: Mapping[str, list[float]], executions: _Executions) -> Iterator[str]:
    token, outcome = call.token, call.outcome
    number = 1 << int(token.rpartition(".")[2])
    if outcome == NOTHING:
        yield f"answers: {token} ({call.method}) never ended"
        return
    if turn.answered & number:
        yield f"answers: {token} ended a second time, with {outcome}"
        return
    turn.answered |= number
    turn.begin = min(turn.begin, call.begin)
    turn.end = call.end
    turn.hung = turn.hung or call.method.startswith("hang")
    if outcome == "value":
        if call.detail != token:
            yield f"answers: {token} got the answer {call.detail}"
        elif call.method != "work":
            yield f"answers: {token} ({call.method}) returned"
        elif not executions.ended.get(token):
            yield f"at most once: {token} returned, but no worker has run it to its end"
        return
    if outcome == "CallDropped" and token in executions.ended:
        yield f"at most once: {token} was dropped, but {executions.workers[_turn_of(token)]} began it"
    if not _is_explained(call, turn, kills):
        yield f"errors: no fault explains {outcome} of {token} ({call.method}), at {call.end:.3f}: {call.detail}"
    turn.failed = True


def _is_explained(call: _Call, turn: _Turn, kills: Mapping[str, list[float]]) -> bool:
    outcome = call.outcome
    if outcome == "OnPurpose":
        return call.method == "fail" and call.detail == call.token
    if outcome == "CallDropped":
        return turn.failed
    if outcome == "CallTimeout":
        return turn.hung
    if outcome == "WorkerDied":
        # It may have been killed just before it was lent.
        return any(turn.begin - LATE <= at <= call.end for at in kills.get(call.detail, ()))
    if outcome == "Cancelled":
        return bool(turn.faults)
    return outcome in ("GreenletExit", "Timeout") and "interrupted" in turn.faults


def _turn_of(token: str) -> str:
    return token.rpartition(".")[0]
