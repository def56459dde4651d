"""What the client's side did and what it got, as lines of a file, and in figures.

======  =============================================================================================
call    token, method, time-out, when it was made, when it ended, outcome, detail of the outcome
fault   turn, what was done to it (``interrupted``, ``cancelled``), when
kill    pid of a worker, when
gap     seconds for which the hub stood still, until when
======  =============================================================================================

The outcome is ``value`` or the name of an exception's class. The detail is the token that came back, or the pid of
the worker that died. A fault is written before it is injected, so it stands above all that it causes.
"""

from __future__ import annotations

from collections import Counter
from time import monotonic
from typing import IO, NamedTuple

import gtask

__all__ = ["NOTHING", "Record"]

NOTHING = "nothing"
"""The outcome of a call that never ended."""


class Asked(NamedTuple):
    method: str
    payload: bytes
    timeout: float
    at: float


class Record:
    """Takes down what happens; keeps in memory only the calls that are under way, and figures."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self.under_way: dict[str, Asked] = {}
        self.outcomes: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.longest = 0.0

    @property
    def calls(self) -> int:
        return self.outcomes.total() + len(self.under_way)

    def asked(self, token: str, method: str, payload: bytes, timeout: float) -> None:
        self.under_way[token] = Asked(method, payload, timeout, monotonic())
        if method.startswith("hang"):
            self.faults["hangs"] += 1

    def value(self, token: str, value: object) -> None:
        """A call has returned; also if the answer is wrong, which is for the check to say."""
        echo, payload = value if isinstance(value, list) and len(value) == 2 else (repr(value)[:80], None)
        asked = self.under_way.get(token)
        self._ended(token, "value", echo if asked and payload == asked.payload else f"{echo} with another payload")

    def error(self, token: str, error: BaseException) -> None:
        """A call has raised."""
        if isinstance(error, gtask.RemoteError):
            self._ended(token, error.remote_type.rpartition(".")[2], str(error.args[0]) if error.args else "")
        elif isinstance(error, gtask.WorkerDied):
            self._ended(token, "WorkerDied", str(error.pid))
        else:
            self._ended(token, type(error).__name__, str(error)[:300])

    def fault(self, turn: str, what: str) -> None:
        self.faults[what] += 1
        self._write("fault", turn, what, monotonic())

    def kill(self, pid: int) -> None:
        self.faults["kills"] += 1
        self._write("kill", pid, monotonic())

    def gap(self, seconds: float) -> None:
        self._write("gap", seconds, monotonic())

    def reload(self) -> None:
        self.faults["reloads"] += 1

    def end(self) -> None:
        """Nothing more is waited for."""
        for token in list(self.under_way):
            self._ended(token, NOTHING, "")
        self._file.flush()

    def _ended(self, token: str, outcome: str, detail: str) -> None:
        now = monotonic()
        # Without a question it was answered before: the check is to see the second answer, too.
        asked = self.under_way.pop(token, None) or Asked("?", b"", 0, now)
        self.outcomes[outcome] += 1
        self.longest = max(self.longest, now - asked.at)
        self._write("call", token, asked.method, asked.timeout, asked.at, now, outcome, detail)

    def _write(self, *fields: object) -> None:
        texts = [f"{field:.6f}" if isinstance(field, float) else str(field) for field in fields]
        print(*(" ".join(text.split()) for text in texts), sep="\t", file=self._file)
