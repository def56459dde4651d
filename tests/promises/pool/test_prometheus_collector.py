"""The point of this test is to ensure that ``gtask.prometheus.Collector`` tells Prometheus what client.stats() says.

What is written is read by prometheus_client's own parsers.
"""

from __future__ import annotations

import gc
import math
import os
import subprocess
import sys
import threading
from dataclasses import fields

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

import gtask
from gtask.prometheus import Collector
from gtask.stats import BOUNDS, ClientStats, Times
from tests.support.waiting import wait_until

SOURCE = """
    import os

    def pid():
        return os.getpid()

    def fail():
        raise LookupError("on purpose")

    def die(status):
        os._exit(status)
"""
LISTS = {"deaths", "retirements"}
HISTOGRAMS = {"waits": "wait_seconds", "uses": "use_seconds"}
STATES = {"idle", "busy", "connecting", "settling"}


def registered(*collectors):
    """A registry with these."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return registry


def told(registry):
    """The samples that Prometheus reads: for each client, by name and the labels that are not the client's."""
    found = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = dict(sample.labels)
            samples = found.setdefault((labels.pop("client"), labels.pop("address")), {})
            key = (sample.name.removeprefix("gtask_client_"), *labels.values())
            assert key not in samples
            samples[key] = sample.value
    return found


def only(registry):
    """The same of the only client."""
    (samples,) = told(registry).values()
    return samples


def as_samples(stats):
    """What these numbers are to be for Prometheus."""
    samples = {("workers", state): getattr(stats, state) for state in STATES}
    for field in fields(ClientStats):
        value = getattr(stats, field.name)
        if field.name in LISTS:
            samples |= {(f"{field.name}_total", cause): count for cause, count in value.items()}
        elif field.name in HISTOGRAMS:
            name = HISTOGRAMS[field.name]
            for number, bound in enumerate((*map(str, BOUNDS), "+Inf"), 1):
                samples[f"{name}_bucket", bound] = sum(value.buckets[:number])
            samples[f"{name}_sum",], samples[f"{name}_count",] = value.total, value.count
        elif field.name in ("min_workers", "max_workers", "waiting"):
            samples[field.name,] = value
        elif field.name not in STATES:
            samples[f"{field.name}_total",] = value
    return samples


@pytest.fixture
def address(shared, connect):
    """Where a server runs, which is up already."""
    server = shared(SOURCE)
    connect(server).call("pid")
    return str(server.address)


def test_all_that_a_client_counts(address, connect):
    """Each number of stats() is there, and no other, after calls, errors, deaths, time-outs and a full line."""
    client = connect(address, name="mails", max_workers=1, max_waiting=1)
    registry = registered(Collector(client))
    with pytest.raises(LookupError):
        client.call("fail")
    with pytest.raises(gtask.WorkerDied):
        client.call("die", 7)
    with client.checkout() as worker:
        worker.pid()
        waiting = client.checkout(timeout=0.05)
        with pytest.raises(gtask.Overloaded):
            client.checkout()
        with pytest.raises(gtask.NestedCheckout):
            waiting.pid()
        held = only(registry)
    stats = client.stats()
    samples = only(registry)
    assert samples == as_samples(stats)
    assert told(registry).keys() == {("mails", address)}
    assert held["workers", "busy"] == 1
    assert (samples["checkouts_total",], samples["errors_total",], samples["rejected_total",]) == (3, 1, 1)
    assert samples["deaths_total", "exit 7"] == 1
    assert samples["use_seconds_sum",] == stats.uses.total > 0
    assert samples["use_seconds_count",] == samples["use_seconds_bucket", "+Inf"] == 3


def test_a_client_that_was_never_used(connect):
    """All is there, and 0; nothing is opened for it."""
    client = connect("unix:/run/nobody.sock", min_workers=3)
    samples = only(registered(Collector(client)))
    assert samples == as_samples(client.stats())
    assert samples["min_workers",] == 3
    assert "not yet open" in repr(client)


class Fake:
    """A client whose numbers are given."""

    name, address = "fake", "unix:x"

    def __init__(self, stats):
        self._stats = stats

    def stats(self):
        return self._stats


def test_histograms_are_cumulative():
    """Each bucket has those before it; the last has all."""
    plain = {field.name: 0 for field in fields(ClientStats)} | {"deaths": {}, "retirements": {}}
    times = Times(count=120, total=99.5, longest=70, buckets=tuple(range(1, 16)))
    client = Fake(ClientStats(**plain | {"waits": times, "uses": Times()}))
    samples = only(registered(Collector(client)))
    buckets = {float(key[1]): value for key, value in samples.items() if key[0] == "wait_seconds_bucket"}
    assert list(buckets) == [*BOUNDS, math.inf]
    assert list(buckets.values()) == [n * (n + 1) / 2 for n in range(1, 16)]
    assert (samples["wait_seconds_sum",], samples["wait_seconds_count",]) == (99.5, 120)


def test_names_are_good_ones(address, connect):
    """Counters end in _total, times in _seconds, and no name is there twice. OpenMetrics, which is stricter, agrees."""
    client = connect(address)
    client.call("pid")
    text = openmetrics.generate_latest(registered(Collector(client))).decode()
    families = list(parse_openmetrics(text))
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert family.name.startswith("gtask_client_")
        assert family.documentation.endswith(".")
        assert (family.type == "histogram") == family.name.endswith("_seconds")
        assert {sample.name.endswith("_total") for sample in family.samples} <= {family.type == "counter"}
    assert {family.type for family in families} == {"gauge", "counter", "histogram"}


def test_several_clients_of_one_collector(address, connect):
    """They are told apart by their labels, and the text stays one that strict readers read."""
    one, two = connect(address, name="one"), connect(address, name='t"w\\o\n')
    registry = registered(Collector(one, two))
    one.call("pid")
    samples = told(registry)
    assert samples["one", address]["calls_total",] == 1
    assert samples['t"w\\o\n', address]["calls_total",] == 0
    assert list(parse_openmetrics(openmetrics.generate_latest(registry).decode()))


def test_several_collectors_in_one_registry(address, connect):
    """One for each client does, too."""
    one, two = connect(address, name="one"), connect(address, name="two")
    registry = registered(Collector(one), Collector(two))
    two.call("pid")
    assert [told(registry)[name, address]["calls_total",] for name in ("one", "two")] == [0, 1]


def test_clients_that_cannot_be_told_apart(address, connect):
    """They need names; and somebody has to be told of."""
    with pytest.raises(ValueError, match=r"2 clients of unix:.* have the same name, '': give them names"):
        Collector(connect(address), connect(address))
    with pytest.raises(TypeError, match=r"Write Collector\(client\)"):
        Collector()


def test_a_closed_client(address, connect):
    """It is told of as long as somebody holds it."""
    client = connect(address)
    registry = registered(Collector(client))
    client.call("pid")
    client.close()
    wait_until(lambda: only(registry)["retirements_total", "close"] == 1)
    assert only(registry) == as_samples(client.stats())


def test_a_client_that_nobody_holds(address):
    """It ends as it would without a collector, and is told of no more; the others are."""
    client, other = gtask.Client(address, name="a", min_workers=0), gtask.Client(address, name="b")
    registry = registered(Collector(client, other))
    client.call("pid")
    del client
    gc.collect()
    assert told(registry).keys() == {("b", address)}
    del other
    gc.collect()
    assert told(registry) == {}


def test_pop_stats(address, connect):
    """It begins anew, which Prometheus knows from programs that restart."""
    client = connect(address)
    registry = registered(Collector(client))
    client.call("pid")
    client.pop_stats()
    assert only(registry)["calls_total",] == 0


def test_from_another_thread(address, connect):
    """As prometheus_client's own HTTP server asks."""
    client = connect(address)
    client.call("pid")
    registry, found = registered(Collector(client)), []
    thread = threading.Thread(target=lambda: found.append(only(registry)))
    thread.start()
    thread.join()
    assert found == [only(registry)]


def test_without_prometheus_client():
    """The error says what to install; gtask itself does not need it."""
    code = "import sys; sys.modules['prometheus_client'] = None; import gtask; gtask.Client; import gtask.prometheus"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last == "ImportError: gtask.prometheus needs prometheus_client: pip install gtask[prometheus]"
