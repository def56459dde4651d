"""The point of this test is to ensure that ``settings.GTASK`` gives Django programs the clients that it describes, and
says what is wrong with a description.
"""

from __future__ import annotations

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

import gtask
from gtask.integrations.django import client, clients

SOURCE = """
    def double(number):
        return 2 * number
"""


@pytest.fixture(autouse=True)
def configured():
    if not settings.configured:
        settings.configure()


def test_clients_by_alias(shared):
    """Each alias is a client with its options, made once; ``client`` stands for the one called default."""
    address = str(shared(SOURCE).address)
    described = {
        "default": {"ADDRESS": address, "MIN_WORKERS": 0, "MAX_WORKERS": 3, "NAME": "site"},
        "slow": {"ADDRESS": address, "MIN_WORKERS": 0, "TIMEOUT": None},
    }
    with override_settings(GTASK=described):
        assert list(clients) == ["default", "slow"]
        assert isinstance(clients["slow"], gtask.Client)
        assert clients["slow"] is clients["slow"] is not clients["default"]
        assert client.name == clients["default"].name == "site"
        assert client.stats().max_workers == 3
        assert client.call("double", 21) == 42
        with client.checkout() as worker, clients["slow"].checkout(timeout=5) as other:
            assert [worker.double(1), other.double(2)] == [2, 4]
        for alias in clients:
            clients[alias].close()


def test_other_settings_in_a_test():
    """After ``override_settings`` the clients are those of the settings that count now."""
    with override_settings(GTASK={"default": {"ADDRESS": "unix:one"}}):
        assert client.address == "unix:one"
        with override_settings(GTASK={"default": {"ADDRESS": "unix:two"}}, DEBUG=True):
            assert client.address == "unix:two"
        assert client.address == "unix:one"


@pytest.mark.parametrize(
    ("described", "says"),
    [
        ({}, r"^settings.GTASK has no 'default', only \[\]: write GTASK = "),
        ({"reports": {}}, r"^settings.GTASK has no 'default', only \['reports'\]"),
        (
            {"ADDRESS": "unix:x"},
            "^settings.GTASK has a dict for each alias, and is {'ADDRESS': 'unix:x'}: write GTASK = ",
        ),
        ("unix:x", "^settings.GTASK has a dict for each alias, and is 'unix:x'"),
        ({"default": {}}, r"settings.GTASK\['default'\]\['ADDRESS'\] is not set: write the server's address"),
        ({"default": {"ADDRESS": "x"}}, r"^settings.GTASK\['default'\]: .*'x'"),
        (
            {"default": {"ADDRESS": "unix:x", "timeout": 5}},
            r"^settings.GTASK\['default'\]\['timeout'\]: write 'TIMEOUT'",
        ),
        (
            {"default": {"ADDRESS": "unix:x", "TIMOUT": 5}},
            r"^settings.GTASK\['default'\]: TIMOUT is no option .* TIMEOUT",
        ),
        ({"default": {"ADDRESS": "unix:x", "TIMEOUT": 0}}, r"^settings.GTASK\['default'\]: timeout=0: write a number"),
    ],
)
def test_mistakes(described, says):
    """Are told when the client is asked for."""
    with override_settings(GTASK=described), pytest.raises(ImproperlyConfigured, match=says):
        clients["default"]


def test_no_settings():
    """Without any there is no alias."""
    assert list(clients) == []
    with pytest.raises(ImproperlyConfigured, match="has no 'default'"):
        client.call("double", 1)
