"""The point of this test is to ensure that a call that is given up leaves no core file, while true crashes still do."""

import os
import resource

import pytest

import gtask
from tests.support.daemon import Daemon
from tests.support.process import is_gone
from tests.support.waiting import wait_until

SOURCE = """
    import ctypes
    import itertools
    import os

    def pid():
        return os.getpid()

    def hang():
        return -1 in itertools.count()

    def crash():
        ctypes.string_at(0)
"""


def cores(directory):
    """The core files there; and whether they would be written there at all."""
    return [name for name in os.listdir(directory) if name.startswith("core")]


def test_a_time_out_dumps_no_core(tmp_path, connect):
    """The caller has the stacks instead. A segmentation fault dumps one, where the kernel writes them into files."""

    def unlimited():
        limit = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))

    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("no core files are allowed here")
    server = Daemon(tmp_path, source=SOURCE, preexec_fn=unlimited)
    try:
        client = connect(server)
        for _ in range(2):
            with client.checkout(timeout=1) as checkout:
                pid = checkout.pid()
                with pytest.raises(gtask.CallTimeout) as caught:
                    checkout.hang()
            assert "in hang" in caught.value.stacks
            wait_until(lambda pid=pid: is_gone(pid), "the end of the worker")
        assert cores(tmp_path) == []
        with pytest.raises(gtask.WorkerDied, match="SIGSEGV"):
            client.call("crash")
        with open("/proc/sys/kernel/core_pattern") as pattern:
            if pattern.read().strip() in ("core", "core.%p"):
                assert len(cores(tmp_path)) == 1
        assert server.end() == 0
    finally:
        server.kill()
