"""The point of this test is to ensure that docs/metrics.rst and docs/grafana.json name the metrics that there are.

The tables of the document have each metric, with its type and label, and no other; whatever its queries and those of
the dashboard ask for, somebody tells.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import gtask
from gtask.client.counters import CAUSES
from gtask.prometheus import Collector
from gtask.server.metrics import scrapes, status
from gtask.server.metrics import text as metrics
from gtask.stats import BOUNDS, ClientStats, Times
from tests.support.documents import named_blocks

DOCS = Path(gtask.__file__).parents[1] / "docs"
DOCUMENT = (DOCS / "metrics.rst").read_text(encoding="utf-8")
BOARD = json.loads((DOCS / "grafana.json").read_text(encoding="utf-8"))
BLOCKS = named_blocks(DOCUMENT)


class Client:
    """One to which everything has happened."""

    name, address = "name", "unix:x"

    def stats(self):
        values = {field.name: 1 for field in fields(ClientStats)}
        return ClientStats(
            **values | dict.fromkeys(("waits", "uses"), Times()) | {"deaths": {"x": 1}, "retirements": {"x": 1}}
        )


def texts():
    """What a client and a server write."""
    client = Client()
    registry = CollectorRegistry()
    registry.register(Collector(client))
    yield generate_latest(registry).decode()
    record = status.Record("name", 1, ["unix:x"], 0.0, causes={"x": 1})
    yield metrics.render(status.snapshot(record, list, lambda pid: 0, 1.0))


def exported():
    """Each metric, as the document names it: its type and its labels; and the names of all samples, with theirs."""
    families, samples = {}, {}
    for text in texts():
        for family in text_string_to_metric_families(text):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            for sample in family.samples:
                samples.setdefault(sample.name, set()).update(sample.labels)
            labels = set().union(*(sample.labels for sample in family.samples))
            families[name] = (family.type, labels - {"client", "address", "server", "le"})
    return families, samples


FAMILIES, SAMPLES = exported()


def asked_for(expression):
    """The names of metrics in a query."""
    return set(re.findall(r"\bgtask_\w+", expression))


def test_the_tables_have_every_metric():
    """Each once, with its type and its label."""
    rows = re.findall(r"^``(gtask_\w+)`` +(\w+) +(?:``(\w+)``)?", DOCUMENT, re.MULTILINE)
    assert {name: (kind, {label} - {""}) for name, kind, label in rows} == FAMILIES
    assert len(rows) == len(FAMILIES)


def test_the_tables_are_tables():
    """Each line of one keeps to its columns."""
    tables = re.findall(r"^(=+ =+ =+ =+)\n((?:.*\n)+?)\1\n((?:.*\n)+?)\1$", DOCUMENT, re.MULTILINE)
    assert len(tables) == 2
    for bar, head, body in tables:
        gaps = [match.start() for match in re.finditer(" ", bar)]
        for line in (head + body).splitlines():
            assert {line.ljust(len(bar))[gap] for gap in gaps} == {" "}, line
            assert len(line) <= len(bar), line


def test_every_number_of_a_client_is_told():
    """Nothing of client.stats() is forgotten."""
    states = {"idle", "busy", "connecting", "settling"}
    assert states <= set(re.findall(r"``(\w+)``", DOCUMENT))
    names = {field.name for field in fields(ClientStats)} - states - {"waits", "uses"}
    told = {name.removeprefix("gtask_client_").removesuffix("_total") for name in FAMILIES}
    assert names - told == set()


def test_states_and_numbers():
    """The states of workers, and the numbers that are told, are those of the code."""
    described = DOCUMENT.partition("\nA worker is ``idle``")[2].partition("\nAfter a reload")[0]
    assert {"idle", *re.findall(r"``(\w+)``", described)} == set(status.STATES)
    text = " ".join(DOCUMENT.split())
    assert f"at most {scrapes.HELPERS} helpers at a time" in text
    assert f"ended after {scrapes.DEADLINE:g} seconds" in text
    assert f"from {BOUNDS[0]:g} to {BOUNDS[-1]:g} seconds" in text
    assert f"at most {CAUSES} causes apart" in text


def test_the_queries_ask_for_what_there_is():
    """Each is of metrics and labels that exist."""
    queries = [line for line in BLOCKS["queries"].splitlines() if line and not line.startswith("#")]
    assert len(queries) == 6
    for query in queries:
        assert asked_for(query)
        assert asked_for(query) <= set(SAMPLES)
        assert labels_of(query) <= labels_told(query)


def test_the_program_runs():
    """As it stands, but for the registry, which is everybody's."""
    registry = CollectorRegistry()
    namespace = {"REGISTRY": registry}
    exec(BLOCKS["program.py"].replace("from prometheus_client import REGISTRY\n", ""), namespace)
    assert b'client="hasher"' in generate_latest(registry)
    namespace["client"].close()


def test_links_lead_somewhere():
    """Each link of the page is a file, and the README leads to it. No line is longer than elsewhere."""
    links = [link for link in re.findall(r"`[^`<]+\s<([^>]+)>`_", DOCUMENT) if not link.startswith("https:")]
    assert "grafana.json" in links
    assert [link for link in links if not (DOCS / link).exists()] == []
    assert "<docs/metrics.rst>" in (DOCS.parent / "README.rst").read_text(encoding="utf-8")
    assert [line for line in DOCUMENT.splitlines() if len(line) > 120] == []


# --- the dashboard -------------------------------------------------------------------------------------

VARIABLES = {variable["name"]: variable for variable in BOARD["templating"]["list"]}
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
EXPRESSIONS += [annotation["expr"] for annotation in BOARD["annotations"]["list"]]


def labels_of(expression):
    """The labels by which a query selects or groups."""
    grouped = re.findall(r"\b(?:by|on) \(([\w, ]+)\)", expression)
    return {*re.findall(r"(\w+)=~", expression), *(label for labels in grouped for label in labels.split(", "))}


def labels_told(expression):
    """The labels of all metrics that a query asks for."""
    return set().union(*(SAMPLES[name] for name in asked_for(expression)))


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_dashboard_asks_for_what_there_is(expression):
    """Metrics and labels; counters by their rate, and gauges not."""
    assert asked_for(expression)
    assert asked_for(expression) <= set(SAMPLES)
    assert labels_of(expression) <= labels_told(expression)
    assert expression.count("(") == expression.count(")")
    for name in asked_for(expression):
        is_counter = name.endswith(("_total", "_bucket", "_sum", "_count"))
        assert bool(re.search(rf"\b(?:rate|increase|changes)\({name}\b", expression)) == is_counter, name


def test_the_dashboard_shows_every_metric():
    """But for the version, and how many workers are kept ready."""
    shown = set().union(*map(asked_for, EXPRESSIONS))
    shown |= {re.sub("_(bucket|sum|count)$", "", name) for name in shown}
    assert set(FAMILIES) - shown == {"gtask_server_info", "gtask_client_min_workers"}


def test_legends_name_labels_that_are_left():
    """Each ``{{label}}`` of a legend is one by which its query groups."""
    for panel in PANELS:
        for target in panel["targets"]:
            labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert labels
            assert labels <= labels_of(target["expr"])


def test_variables():
    """The data source is chosen by the user, and so are clients and servers; no other is used."""
    assert VARIABLES["datasource"]["type"] == "datasource"
    assert VARIABLES["datasource"]["query"] == "prometheus"
    for name in ("client", "server"):
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", VARIABLES[name]["query"]["query"]).groups()
        assert label == name
        assert label in SAMPLES[metric]
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(BOARD["panels"]))) - {"__rate_interval"}
    assert used == set(VARIABLES)


def sources(thing):
    """Every data source that is named anywhere."""
    if isinstance(thing, dict):
        if "datasource" in thing:
            yield thing["datasource"]
        for inner in thing.values():
            yield from sources(inner)
    elif isinstance(thing, list):
        for inner in thing:
            yield from sources(inner)


def test_it_belongs_to_no_installation():
    """All data sources are the variable; there is no id of a database, which an import refuses."""
    found = list(sources(BOARD))
    assert len(found) > len(PANELS)
    assert [source for source in found if source != {"type": "prometheus", "uid": "${datasource}"}] == []
    assert "id" not in BOARD
    assert (BOARD["title"], BOARD["uid"]) == ("gtask", "gtask")
    assert BOARD["schemaVersion"] >= 36  # since which data sources are written like that


def test_panels_have_their_places():
    """Each has a title, a unit, an id of its own, and a place of 24 columns that no other has."""
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    for panel in PANELS:
        assert panel["type"] == "timeseries"
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"] in {"short", "s", "bytes", "ops", "percentunit"}
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0
