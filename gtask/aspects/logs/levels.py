"""Which log records are wanted at the caller: the level of each logger that differs from that of its parent."""

from __future__ import annotations

import logging

__all__ = ["MANY", "Levels", "bounded", "of_parent"]

MANY = 1000
"""How many loggers may have a level of their own; where more have, the lowest of all stands for them."""

_NEVER = 1 << 31  # a level that no record has


class Levels:
    """The levels of this process's loggers, for the workers to know.

    Attributes:
        told: what :meth:`current` has given last; it still holds while ``holds`` is true.
        holds: not empty until some level is changed; each time another object.
    """

    __slots__ = ("_probe", "holds", "told")

    def __init__(self) -> None:
        # A logger remembers its answers, and logging forgets them all whenever a level changes: asking for the
        # level of each logger before each call would cost more than the call.
        self._probe = logging.getLogger("gtask.aspects.logs.levels")
        self.holds: dict[int, bool] = {}
        self.told: dict[str, int] = {}
        self._refresh()

    def current(self) -> dict[str, int]:
        """The level of each logger that differs from that of its parent, the root logger's under "".

        It is the same object until something has changed.
        """
        if not self.holds:
            self._refresh()
        return self.told

    def _refresh(self) -> None:
        self.holds = self._probe._cache = {}  # type: ignore[attr-defined]  # the one before stays empty
        self._probe.isEnabledFor(logging.CRITICAL)  # now it remembers something
        root = logging.getLogger()
        least = root.manager.disable + 1
        levels = {"": max(root.level, least)}
        for name, logger in list(root.manager.loggerDict.items()):
            if isinstance(logger, logging.Logger) and logger.level:
                levels[name] = max(logger.level, least)
        if len(levels) > MANY:
            levels = {"": min(levels.values())}
        levels = {name: level for name, level in levels.items() if not name or of_parent(levels, name) != level}
        if levels != self.told:
            self.told = levels


def bounded(levels: dict[str, int], least: int | None) -> dict[str, int]:
    """The levels that a client has asked for, as its server allows them.

    Args:
        levels: by logger.
        least: the lowest level of records that the client may have; None for no records at all.
    """
    if least is None:
        return {}
    if len(levels) > MANY:
        levels = {"": min(levels.values())}
    return {name: max(level, least) for name, level in levels.items()}


def of_parent(levels: dict[str, int], name: str) -> int:
    """The level of a logger that has none of its own."""
    while name:
        name = name.rpartition(".")[0]
        if name in levels:
            return levels[name]
    return _NEVER
