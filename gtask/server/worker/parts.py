"""What workers are composed of beside their core: the aspects of calls, and the languages of clients.

Both lists may be added to before the first worker is forked, that is by the application's module as well. A worker that
is forked later has what was added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gtask.aspects.context_worker import ContextAspect
from gtask.aspects.current_call import CurrentCallAspect
from gtask.aspects.logs.reporter import Reporter
from gtask.aspects.tracing import ServerTracing
from gtask.aspects.unpickling import Unpickling
from gtask.server.worker.gtask import GtaskDialect
from gtask.server.worker.json import JsonDialect

if TYPE_CHECKING:
    from gtask.aspects.aspect import WorkerAspectFactory
    from gtask.server.worker.dialect import DialectFactory

__all__ = ["ASPECTS", "DIALECTS"]

ASPECTS: list[WorkerAspectFactory] = [Unpickling, ContextAspect, ServerTracing, Reporter, CurrentCallAspect]
"""In the order in which a call begins and enters them. Pickles are loaded before context variables are set."""

DIALECTS: list[DialectFactory] = [JsonDialect, GtaskDialect]
"""In the order in which a client's first byte is compared; the last takes any."""
