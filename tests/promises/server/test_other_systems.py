"""The point of this test is to ensure that gtask works, and says what it does instead, where a system lacks something.

A system without POLLRDHUP, memfd_create, waitid and prctl is played by taking them away from this one.
"""

import sys

import pytest

from gtask.server import process
from tests.support.program import run_program

PROGRAM = """
    import ctypes, gevent, logging, os, select, signal, subprocess, sys, sysconfig, tempfile, traceback

    sysconfig.get_paths()  # while it still finds what this system has
    del select.POLLRDHUP, os.memfd_create, os.waitid
    ctypes.CDLL = None  # there is no prctl to ask for
    sys.platform = "darwin"
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")

    import gtask
    from gtask.server import originals
    originals.POLLRDHUP = 0
    from gtask.wire import frames as codec, conversation as exchange, lastwords, messages
    from gtask.wire.exceptions import failure, tracebacks
    from gtask.server.daemon import cli
    from gtask.server import embed, listener
    from gtask.server.master import master
    from gtask.server.worker import worker

    def double(number):
        return 2 * number

    def die():
        ctypes.string_at(0)

    with gtask.fork_server({"double": double, "die": die}) as server:
        with gtask.Client(server.address, min_workers=0, timeout=30) as client:
            assert client.call("double", 21) == 42
            try:
                client.call("die")
            except gtask.WorkerDied as error:
                assert error.signal == "SIGSEGV"
                assert "in die" in error.stacks, error.stacks
            else:
                raise AssertionError("a dead worker was not noticed")
"""


def test_a_server_without_them(tmp_path):
    """It imports, serves, tells of a death with its stacks from a temporary file, and has said so at its start."""
    ran = run_program(PROGRAM, directory=tmp_path, options=())
    assert ran.stderr == ""
    for lacking in ("no POLLRDHUP: ", "no memfd_create: ", "no prctl: "):
        assert f"this system has {lacking}" in ran.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="others do lack something")
def test_linux_lacks_nothing():
    """So nothing is said."""
    assert process.substitutes() == []
