"""The point of this test is to ensure that workers share the memory of what was loaded before they were forked.

Python's collector writes to every object that it looks at, which would copy each page of a large application into each
worker. So the master exempts from collection what is there before its first fork.
"""

import subprocess
import sys
from pathlib import Path

import pytest

LARGE = """
    import gc

    _live = [[number] for number in range(500_000)]

    def private_dirty():
        gc.collect()
        with open("/proc/self/smaps_rollup") as rollup:
            return sum(int(line.split()[1]) for line in rollup if line.startswith("Private_Dirty:")) << 10

    def frozen():
        return gc.get_freeze_count()
"""

MEGABYTE = 1 << 20


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="this kernel does not tell")
def test_a_fresh_worker_of_a_large_application_has_little_of_its_own(shared, connect):
    """With half a million live objects, a worker that collects has its own copy of them only under --no-freeze."""
    frozen = connect(shared(LARGE), timeout=30).call("private_dirty")
    copied = connect(shared(LARGE, "--no-freeze"), timeout=30).call("private_dirty")
    print(f"private dirty memory: {frozen / MEGABYTE:.1f} MB, and {copied / MEGABYTE:.1f} MB without freeze")
    assert frozen < 8 * MEGABYTE
    assert copied > 24 * MEGABYTE


def test_what_is_made_later_is_collected_as_ever(shared, connect):
    """All that was loaded is frozen, and nothing under --no-freeze."""
    assert connect(shared(LARGE), timeout=30).call("frozen") > 500_000
    count = [sys.executable, "-c", "import gc; print(gc.get_freeze_count())"]  # Python 3.12 freezes some by itself
    bare = int(subprocess.run(count, capture_output=True, text=True, check=True, timeout=60).stdout)
    assert connect(shared(LARGE, "--no-freeze"), timeout=30).call("frozen") == bare
