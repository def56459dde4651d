"""The point of this test is to ensure that docs/tuning.rst speaks of the program as it is.

Each option of a client and of a server is described, with its default; each number of ``client.stats()`` that it names
exists; and the Python in it runs.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from dataclasses import fields
from pathlib import Path

import pytest

import gtask
from gtask import stats
from gtask.client.config import ClientConfig
from gtask.server.config import ServerConfig

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "tuning.rst").read_text(encoding="utf-8")
CLIENTS, SERVERS = DOCUMENT.split("\nThe server\n----------\n")
BLOCKS = {
    name: textwrap.dedent(body)
    for name, body in re.findall(
        r"^\.\. code-block:: \w+\n(?:   :name: (\S+)\n)?\n((?:   .*\n|\n(?=\n*   ))+)", DOCUMENT, re.MULTILINE
    )
}

SOURCE = """
    def one():
        return 1
"""


def described(text):
    """The options that have a paragraph, with what stands behind them."""
    return dict(re.findall(r"^``(\w+)``(.*)\n    \w", text, re.MULTILINE))


def default(text):
    """The value that is told in parentheses."""
    told = re.search(r"\((.*)\)", text)[1].replace(",", "")
    number, _, unit = told.partition(" ")
    return ast.literal_eval(number) * {"MiB": 2**20}.get(unit, 1) if unit else ast.literal_eval(number)


def test_every_option_of_a_client():
    """Each has its paragraph and its default, and there is no other."""
    told = described(CLIENTS)
    options = inspect.signature(gtask.Client).parameters.values()
    expected = {option.name: option.default for option in options if option.kind is option.KEYWORD_ONLY}
    assert {name: default(text) for name, text in told.items()} == expected
    assert set(expected) == {field.name for field in fields(ClientConfig)}


def test_the_numbers_of_a_server():
    """Each has its paragraph and its default, and there is no other but the ones that are no matter of tuning."""
    told = described(SERVERS)
    options = {field.name: field.default for field in fields(ServerConfig)}
    assert {name: default(text) for name, text in told.items()} == {name: options[name] for name in told}
    numbers = {name for name, value in options.items() if type(value) in (int, float)}
    assert numbers - set(told) == {"socket_mode"}


def test_every_field_that_is_named_exists():
    """The table of what says most names fields of the snapshot."""
    table = DOCUMENT.partition("number                               what it says")[2].partition("\nWaits and uses")[0]
    for name in re.findall(r"^((?:``[a-z.]+``(?:, )?)+)", table, re.MULTILINE):
        for path in re.findall(r"``([a-z.]+)``", name):
            first, _, second = path.partition(".")
            assert first in stats.ClientStats.__dataclass_fields__
            assert not second or hasattr(stats.Times, second)


@pytest.fixture
def pool_report():
    """The names of the document's module."""
    names = {}
    exec(compile(BLOCKS["pool_report.py"], "pool_report.py", "exec"), names)
    return names


def test_the_report_of_the_example(pool_report):
    """The module prints of such a minute what the document shows."""
    nothing = dict.fromkeys((field.name for field in fields(stats.ClientStats)), 0)
    minute = stats.ClientStats(
        **nothing
        | {
            "max_workers": 7,
            "checkouts": 7200,
            "uses": stats.Times(7200, 288.0, 0.06),
            "waits": stats.Times(7200, 15.0, 0.05, (5500, 250, 350, 500, 400, 200, *[0] * 9)),
        }
    )
    assert pool_report["report"](minute, 60) == BLOCKS["report"].strip()


def test_the_report_of_a_client(pool_report, shared, connect):
    """It can be made of what a real client has done, and of nothing."""
    client = connect(shared(SOURCE), max_workers=1)
    for _ in range(3):
        client.call("one")
    assert pool_report["report"](client.pop_stats(), 1).startswith("3 checkouts/s of ")
    assert pool_report["report"](client.pop_stats(), 1).startswith("0 checkouts/s of 0 ms, 0.0 of 1 workers busy")


def test_the_client_of_the_example():
    """Its options are accepted, and its numbers follow from what the example says."""
    names = {"gtask": gtask}
    exec(BLOCKS[""], names)
    config = names["client"]._config
    rate, use = (float(number) for number in re.search(r"is (\d+) x ([\d.]+) = 4\.8", DOCUMENT).groups())
    load = rate * use
    assert load == pytest.approx(4.8)
    assert load < config.min_workers < config.max_workers
    assert f"The\n   load is {100 * load / config.max_workers:.0f} % of 7" in DOCUMENT
    assert config.max_waiting == int(0.5 * config.max_workers / use)
