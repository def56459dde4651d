"""The point of this test is to ensure that an error clears the queue of its checkout.

When a submitted call raises, it raises that error once; those queued behind it raise CallDropped and provably never
ran, also when they all lay in the worker's socket already. A call made after the error was seen runs.
"""

import pytest

import gtask

SOURCE = """
    import os

    def note(text):
        with open(os.path.join(DIR, "ran"), "a") as file:
            file.write(text + "\\n")
        return text

    def fail():
        raise LookupError("on purpose")
"""


def test_calls_behind_an_error_never_run(shared, connect, tmp_path):
    """Of five submitted calls the second raises; only the first and one made afterwards leave a mark."""
    client = connect(shared(SOURCE))
    with client.checkout() as worker:
        first = worker.note.submit("first")
        failing = worker.fail.submit()
        behind = [worker.note.submit(f"behind {i}") for i in range(3)]
        assert first.get() == "first"
        with pytest.raises(LookupError, match="on purpose"):
            failing.get()
        for result in behind:
            with pytest.raises(gtask.CallDropped, match="note did not run"):
                result.get()
        assert worker.note("after") == "after"
    assert (tmp_path / "ran").read_text().split("\n")[:-1] == ["first", "after"]
