"""What clients count, for Prometheus: a collector for prometheus_client, which the extra ``prometheus`` installs.

::

    from prometheus_client import REGISTRY
    from gtask.prometheus import Collector

    REGISTRY.register(Collector(client))

``docs/metrics.rst`` says what each metric is good for.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

from gtask.stats import BOUNDS, ClientStats, Times

try:
    from prometheus_client import core, registry
except ImportError as error:
    raise ImportError("gtask.prometheus needs prometheus_client: pip install gtask[prometheus]") from error

if TYPE_CHECKING:
    from gtask.client.client import Client

__all__ = ["Collector"]

_WHOSE = ("client", "address")

_GAUGES: dict[str, tuple[str, Callable[[ClientStats], float]]] = {
    "gtask_client_min_workers": ("How many workers are kept ready.", lambda stats: stats.min_workers),
    "gtask_client_max_workers": ("How many workers there may be.", lambda stats: stats.max_workers),
    "gtask_client_waiting": ("Checkouts that stand in line.", lambda stats: stats.waiting),
}

_COUNTERS: dict[str, tuple[str, Callable[[ClientStats], float]]] = {
    "gtask_client_checkouts": ("Workers that were lent.", lambda stats: stats.checkouts),
    "gtask_client_calls": ("Calls that were made.", lambda stats: stats.calls),
    "gtask_client_errors": ("Calls whose worker raised.", lambda stats: stats.errors),
    "gtask_client_call_timeouts": ("Calls that took too long.", lambda stats: stats.call_timeouts),
    "gtask_client_acquire_timeouts": ("Checkouts without a worker in time.", lambda stats: stats.acquire_timeouts),
    "gtask_client_connects": ("Workers that came.", lambda stats: stats.connects),
    "gtask_client_failed_connects": ("Attempts at which no worker came.", lambda stats: stats.failed_connects),
    "gtask_client_rejected": ("Checkouts that max_waiting turned away.", lambda stats: stats.rejected),
    "gtask_client_shed": ("Checkouts that shed_target turned away.", lambda stats: stats.shed),
    "gtask_client_leaks": ("Checkouts held longer than leak_after.", lambda stats: stats.leaks),
    "gtask_client_server_restarts": (
        "Private servers that ended and were replaced.",
        lambda stats: stats.server_restarts,
    ),
}

_LABELLED: dict[str, tuple[str, str, Callable[[ClientStats], Mapping[str, int]]]] = {
    "gtask_client_deaths": ("Workers that died.", "cause", lambda stats: stats.deaths),
    "gtask_client_retirements": ("Workers that the client closed.", "cause", lambda stats: stats.retirements),
}

_HISTOGRAMS: dict[str, tuple[str, Callable[[ClientStats], Times]]] = {
    "gtask_client_wait_seconds": ("How long checkouts waited for their worker.", lambda stats: stats.waits),
    "gtask_client_use_seconds": ("How long checkouts had their worker.", lambda stats: stats.uses),
}


class Collector(registry.Collector):
    """Tells what some clients have counted, each time when it is asked, under ``gtask_client_...``.

    It holds the clients weakly: a client that nobody holds any more ends as it would without a collector, and is no
    longer told of. One that is closed, and still held, is. ``client.pop_stats()`` sets the counters to 0, which
    Prometheus takes for a restart of the program.

    Collectors of several clients can be registered in one registry. Each writes its own heads of metrics then, which
    Prometheus reads but stricter readers may not: one collector of all clients suits them, too.

    Args:
        clients: one or more :class:`gtask.Client`. They are told apart by the labels ``client``, the name, and
            ``address``.

    Raises:
        TypeError: there is no client.
        ValueError: two clients have the same address and the same name, or none.
    """

    def __init__(self, *clients: Client) -> None:
        if not clients:
            raise TypeError("whose metrics are to be collected? Write Collector(client)")
        for (name, address), times in Counter((client.name, client.address) for client in clients).items():
            if times > 1:
                raise ValueError(
                    f"{times} clients of {address} have the same name, {name!r}: give them names by which they can be "
                    "told apart, such as gtask.Client(..., name='mails')"
                )
        self._clients = [weakref.ref(client) for client in clients]

    def describe(self) -> Iterator[core.Metric]:
        """Nothing, so that a registry takes several collectors; prometheus_client calls it."""
        return iter(())

    def collect(self) -> Iterator[core.Metric]:
        """The metrics as they are now, for all clients that are still there; prometheus_client calls it."""
        clients = [client for client in (ref() for ref in self._clients) if client is not None]
        found = [((client.name, client.address), client.stats()) for client in clients]
        workers = core.GaugeMetricFamily(
            "gtask_client_workers", "How many workers are in each state.", labels=(*_WHOSE, "state")
        )
        for whose, stats in found:
            for state in ("idle", "busy", "connecting", "settling"):
                workers.add_metric((*whose, state), getattr(stats, state))
        yield workers
        for name, (told, gauge_of) in _GAUGES.items():
            gauge = core.GaugeMetricFamily(name, told, labels=_WHOSE)
            for whose, stats in found:
                gauge.add_metric(whose, gauge_of(stats))
            yield gauge
        for name, (told, count_of) in _COUNTERS.items():
            counter = core.CounterMetricFamily(name, told, labels=_WHOSE)
            for whose, stats in found:
                counter.add_metric(whose, count_of(stats))
            yield counter
        for name, (told, label, counts_of) in _LABELLED.items():
            counter = core.CounterMetricFamily(name, told, labels=(*_WHOSE, label))
            for whose, stats in found:
                for value, count in counts_of(stats).items():
                    counter.add_metric((*whose, value), count)
            yield counter
        for name, (told, times_of) in _HISTOGRAMS.items():
            histogram = core.HistogramMetricFamily(name, told, labels=_WHOSE)
            for whose, stats in found:
                times = times_of(stats)
                histogram.add_metric(whose, _cumulative(times), times.total)
            yield histogram


def _cumulative(times: Times) -> list[tuple[str, float]]:
    """For each bound, how many took at most so long; the last is all."""
    return list(zip([*map(str, BOUNDS), "+Inf"], accumulate(times.buckets), strict=True))
