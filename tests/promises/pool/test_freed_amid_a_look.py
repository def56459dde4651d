"""The point of this test is to ensure that clients may be freed at any moment, also while another looks at them.

A greenlet that waits in line looks at all clients of its thread, for what it holds of them. A garbage collection may
come at each allocation of that look. One that shortened the list under it has crashed Python 3.10 and 3.11.
"""

from __future__ import annotations

from tests.support.program import run_program

PROGRAM = """
import gc, logging
import gevent, gtask

logging.disable()  # after a second it is said that there is no server

def make():
    client = gtask.Client("unix:nowhere.sock", min_workers=0)
    client.checkout().release()
    return client

def litter():
    client = make()
    client.close()
    gevent.sleep(0)  # which ends its attempts to connect, and with them all that refers to it
    ring = [client]
    ring.append(ring)

client = make()
look = client._pool._workers._neighbours
for allocations in range(30):
    gc.disable()
    for _ in range(40):
        litter()
    gc.enable()
    gc.set_threshold(gc.get_count()[0] + allocations // 3)
    found = look()
    gc.set_threshold(700)
    assert found[0] is client._pool._workers
    del found
gc.collect()
assert look() == [client._pool._workers]
print("no crash")
"""


def test_a_collection_at_each_allocation_of_the_look(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    ran = run_program("program.py", directory=tmp_path)
    assert (ran.stdout, ran.stderr) == ("no crash\n", "")
