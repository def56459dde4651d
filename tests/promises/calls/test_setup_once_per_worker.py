"""The point of this test is to ensure that setup runs once per worker, in the worker, before its first call."""

SOURCE = """
    import os

    connection = None

    def setup():
        global connection
        connection = f"opened by {os.getpid()}"
        with open(os.path.join(DIR, "setups"), "a") as file:
            file.write(f"{os.getpid()}\\n")

    def look():
        return [os.getpid(), connection]
"""


def setups(tmp_path):
    return [int(line) for line in (tmp_path / "setups").read_text().split()]


def test_one_setup_serves_many_checkouts(shared, connect, tmp_path):
    """Three checkouts of three calls see what the one setup made."""
    client = connect(shared(SOURCE), max_workers=1)
    seen = set()
    for _ in range(3):
        with client.checkout() as worker:
            seen |= {tuple(worker.look()) for _ in range(3)}
    (pid,) = setups(tmp_path)
    assert seen == {(pid, f"opened by {pid}")}


def test_each_worker_has_its_own_setup(shared, connect, tmp_path):
    """Three checkouts at once have three workers, each with what its own setup made."""
    client = connect(shared(SOURCE))
    checkouts = [client.checkout() for _ in range(3)]
    seen = [worker.look() for worker in checkouts]
    for worker in checkouts:
        worker.release()
    assert sorted(setups(tmp_path)) == sorted(pid for pid, _ in seen)
    assert all(made == f"opened by {pid}" for pid, made in seen)
    assert len({pid for pid, _ in seen}) == 3
