"""The point of this test is to ensure that the program of docs/howto/uwsgi.rst does what the page says.

With ``lazy-apps`` and without, with ``gevent`` and without: each request of a real uWSGI gets its own value.
"""

from __future__ import annotations

import concurrent.futures
import os
import re
import shutil
import signal
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.support.daemon import daemon
from tests.support.documents import named_blocks
from tests.support.needs import fail_or_skip
from tests.support.process import Background, environment
from tests.support.waiting import PATIENCE

ROOT = Path(__file__).parents[3]
BLOCKS = named_blocks((ROOT / "docs" / "howto" / "uwsgi.rst").read_text(encoding="utf-8"))
GEVENT = ("gevent = 100\n", "gevent-monkey-patch = true\n")


def uwsgi():
    """The program."""
    found = shutil.which("uwsgi", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    return found or fail_or_skip("uWSGI (pip install pyuwsgi)")


@pytest.fixture
def start(tmp_path, nothing_is_left_behind):
    """``start(changes, *more)`` starts both servers as the page does; gives a function that gets a page's text.

    Args of it: lines of uwsgi.ini that are left out, and lines that are added.
    """
    program = uwsgi()
    for name in ("jobs.py", "web.py"):
        (tmp_path / name).write_text(BLOCKS[name])
    running = []

    def begin(left_out, more):
        text = BLOCKS["uwsgi.ini"].replace("127.0.0.1:8000", "127.0.0.1:0") + more
        for line in left_out:
            assert line in text
            text = text.replace(line, "")
        (tmp_path / "uwsgi.ini").write_text(text)
        words = BLOCKS["start"].splitlines()[1].removeprefix("$ uwsgi").split()
        web = Background(
            [program, *words], tmp_path / "web.log", streams=("stdout", "stderr"), cwd=tmp_path, env=environment()
        )
        running.append(web)
        web.wait_for("spawned uWSGI worker 2")
        if "lazy-apps" in more:
            web.wait_for("seconds on interpreter", 2)  # or the end would come while one loads its application
        address = re.search(r"bound to TCP address (127\.0\.0\.1:\d+)", web.log)[1]

        def get(path):
            with urllib.request.urlopen(f"http://{address}/{path}", timeout=PATIENCE) as reply:
                return reply.read().decode().strip()

        return get

    with daemon(tmp_path, "--listen", "unix:jobs.sock", source="", target="jobs", log="jobs.log"):
        yield begin
        for web in running:
            web.process.send_signal(signal.SIGTERM)
            try:
                assert web.wait() in (0, 22)  # 22: ended while a worker still loaded its application
                assert "Traceback" not in web.log, web.log
            finally:
                web.process.kill()
                web.process.wait()


@pytest.mark.parametrize("left_out", [(), GEVENT], ids=["gevent", "no gevent"])
@pytest.mark.parametrize("more", ["", "lazy-apps = true\n"], ids=["", "lazy-apps"])
def test_the_program(start, left_out, more):
    """Both processes answer, each request with its own value, and SIGTERM ends both servers in order."""
    get = start(left_out, more)
    assert get("fibonacci/15") == "610"
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: get(f"echo/{number}"), range(100)))
        processes = set(pool.map(lambda _: get(""), range(40)))
    assert [answer.split()[0] for answer in answers] == [str(number) for number in range(100)]
    assert len({answer.split()[-1] for answer in answers}) >= len(processes) >= 1
