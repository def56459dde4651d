"""The point of this test is to ensure that the program of docs/howto/django.rst does what the page says."""

from __future__ import annotations

import hashlib
import json
import urllib.error

import pytest

from tests.support import web


def test_program(tmp_path):
    """Both of its clients are called, and the worker's exception becomes a bad request."""
    with web.page("django.rst", tmp_path) as page:
        page.start("production", 0, say=" serves")
        server = page.start("production", 1, "-b", "127.0.0.1:0", say="Listening at: ")
        for address, turns in (("/seal/word", 1000), ("/seal-well/word", 200_000)):
            expected = hashlib.pbkdf2_hmac("sha256", b"word", b"salt", turns).hex()
            assert json.loads(server.get(address)) == {"seal": expected}
        with pytest.raises(urllib.error.HTTPError, match="400") as caught:
            server.get("/seal/")
        assert caught.value.read() == b"there is nothing to seal"
