"""The point of this test is to ensure that an operator sees that no worker can be set up.

The log has it with its traceback, but not for each worker; status and metrics count it; ``gtask ping --setup`` fails. A
class whose constructor wants arguments, and a hook that does, is refused when it is loaded.
"""

import json
import re
import socket
import subprocess
import sys

import pytest

import gtask
from tests.support.daemon import daemon, refused
from tests.support.process import environment

SOURCE = """
    def setup():
        raise LookupError("no database")

    def work():
        return 1
"""


def tool(*arguments):
    """The command ``gtask``: its status, and what it wrote to stdout and stderr."""
    command = [sys.executable, "-c", "from gtask.tool.cli import main; raise SystemExit(main())", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60)
    return ran.returncode, ran.stdout, ran.stderr


def test_it_is_logged_counted_and_found(tmp_path, connect):
    """One ERROR with the traceback, however many callers fail, of whatever language."""
    with daemon(tmp_path, "--metrics", f"unix:{tmp_path}/metrics", source=SOURCE) as server:
        for _ in range(3):
            with pytest.raises(gtask.SetupError):
                connect(server).call("work")
        with socket.socket(socket.AF_UNIX) as perl:
            perl.connect(f"{tmp_path}/sock")
            for _ in range(2):
                perl.sendall(json.dumps(["do", {}, "work"]).encode() + b"\n")
                assert b"no database" in perl.recv(65536)
        status, _, errors = tool("ping", "--setup", server.address)
        assert status == 1
        assert "LookupError: no database" in errors
        status, out, _ = tool("status", "--json", server.address)
        failed = json.loads(out)["totals"]["setup_failures"]
        assert failed >= 6
        assert f"{failed} setups failed" in tool("status", server.address)[1]
        with socket.socket(socket.AF_UNIX) as scraper:
            scraper.connect(f"{tmp_path}/metrics")
            scraper.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            text = b"".join(iter(lambda: scraper.recv(65536), b"")).decode()
        assert re.search(r"^gtask_server_setup_failures_total\{server=\"app\"\} \d+$", text, re.MULTILINE)
        assert int(re.search(r"setup_failures_total\S+ (\d+)", text)[1]) >= 6
    assert server.log.count(" ERROR ") == 1
    assert server.log.count("LookupError: no database") == 1
    assert 'in setup\n    raise LookupError("no database")' in server.log


def test_a_setup_that_works(tmp_path):
    """``gtask ping --setup`` runs it, and says so."""
    with daemon(tmp_path, source="def setup():\n    open('ran', 'a').write('.')\n\ndef work():\n    pass\n") as server:
        assert tool("ping", server.address)[0] == 0
        assert not (tmp_path / "ran").exists()
        status, out, _ = tool("ping", "--setup", server.address)
        assert status == 0
        assert "setup has run" in out
        assert (tmp_path / "ran").read_text() == "."


@pytest.mark.parametrize(
    ("source", "target", "missing"),
    [
        ("class Store:\n    def __init__(self, url): pass\n    def get(self): pass", "app:Store", "url"),
        ("def setup(config): pass\ndef get(): pass", "app", "config"),
        ("class Store:\n    def setup(self, config): pass\n    def get(self): pass", "app:Store", "config"),
        (
            "class Store:\n    @staticmethod\n    def teardown(config): pass\n    def get(self): pass",
            "app:Store",
            "config",
        ),
        (
            "class Store:\n    def setup(self, config): pass\n    def get(self): pass\nstore = Store()",
            "app:store",
            "config",
        ),
    ],
)
def test_what_wants_arguments_is_refused(tmp_path, source, target, missing):
    """Each worker would fail."""
    status, line = refused(tmp_path, source=source, target=target)
    assert status == 1
    assert f"missing a required argument: '{missing}'" in line


def test_what_can_be_called_without_is_served(tmp_path, connect):
    """Defaults, static methods, class methods, and constructors written in C."""
    source = """
        class Store(dict):
            def __init__(self, url="here"): self.url = url
            def setup(self, retries=3): self.retries = retries
            @staticmethod
            def checkout_done(): pass
            @classmethod
            def teardown(cls): pass
            def shown(self): return self.url, self.retries

        class Bare(dict):
            def shown(self): return 1
    """
    with daemon(tmp_path, source=source, target="app:Store") as server:
        assert tuple(connect(server).call("shown")) == ("here", 3)
    with daemon(tmp_path, source="", target="app:Bare") as server:
        assert connect(server).call("shown") == 1
