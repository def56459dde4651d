"""The point of this test is to ensure that the program of docs/howto/gunicorn.rst does what the page says: it starts,
and new code comes to both servers by the page's commands.
"""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.support import web
from tests.support.waiting import wait_until


@pytest.mark.parametrize("more", [[], ["--preload"]])
def test_program(tmp_path, more):
    """The page's configuration files count; after the reloads the answers come from new code."""
    with web.page("gunicorn.rst", tmp_path) as page:
        page.start("start", 0, say=" serves")
        # Whose access log says who has answered: a signal to one that still loads may be lost.
        log = ["--access-logfile", "-", "--access-logformat", "answered by %(p)s"]
        server = page.start("start", 1, "-b", "127.0.0.1:0", *log, *more, say="Listening at: ")
        wait_until(lambda: server.get("/") and len(answered(server)) == 2)
        assert "Using worker: gevent" in server.log
        assert [server.get(path) for path in ("/", "/fibonacci/15", "/version")] == ["it works\n", "610\n", "1\n"]
        if not more:
            reload_both(page, server)


def answered(server):
    """The processes that have answered."""
    return set(re.findall("answered by <[0-9]+>", server.log))


def reload_both(page, server):
    """New code for both, and the two commands."""
    for name, old, new in (("jobs.py", '"1"', '"2"'), ("web.py", "it works", "it still works")):
        path = page.directory / name
        path.write_text(path.read_text().replace(old, new))
    for command in page.lines("reload"):
        subprocess.run(command, shell=True, check=True, cwd=page.directory)
    wait_until(lambda: [server.get("/"), server.get("/version")] == ["it still works\n", "2\n"])
