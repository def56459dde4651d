"""The point of this test is to ensure that the error of a call names the client, if it has a name, and the method.

In a program with many clients the log shows at once who asked whom for what.
"""

import pytest

import gtask
from tests.support.waiting import turn_hub

SOURCE = """
    import os
    import time

    def misbehave(how):
        if how == "raise":
            raise KeyError("on purpose")
        if how == "raise what nobody knows":
            raise type("StrangeError", (Exception,), {})("on purpose")
        if how == "die":
            os._exit(7)
        if how == "hang":
            time.sleep(60)
        if how == "return what cannot travel":
            return lambda: None
        return how
"""


def text_of(error):
    """All that a log would show of an error, but for its traceback, where the caller's source may name the client."""
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("raise", KeyError),
        ("raise what nobody knows", gtask.RemoteError),
        ("return what cannot travel", gtask.EncodeError),
        ("die", gtask.WorkerDied),
        ("hang", gtask.CallTimeout),
    ],
)
def test_what_befalls_a_worker_names_both(shared, connect, how, kind):
    """The worker raised, cannot answer, died, or took too long."""
    client = connect(shared(SOURCE), name="the-billing-client")
    client.call("misbehave", "not")  # so that there is a worker, and the time-out is the call's alone
    with client.checkout(timeout=0.5 if how == "hang" else 10) as worker, pytest.raises(kind) as caught:
        worker.misbehave(how)
    assert "the-billing-client" in text_of(caught.value)
    assert "misbehave" in text_of(caught.value)


def test_a_submitted_call_names_both(shared, connect):
    """Its error is the same as that of a call which was waited for."""
    client = connect(shared(SOURCE), name="the-billing-client")
    with client.checkout() as worker:
        result = worker.misbehave.submit("raise")
    with pytest.raises(KeyError) as caught:
        result.get()
    assert "the-billing-client" in text_of(caught.value)
    assert "misbehave" in text_of(caught.value)


def test_a_dropped_call_names_both(shared, connect):
    """A call behind one that raised."""
    client = connect(shared(SOURCE), name="the-billing-client")
    with client.checkout() as worker:
        worker.misbehave.submit("raise")
        dropped = worker.misbehave.submit("nothing")
    with pytest.raises(gtask.CallDropped) as caught:
        dropped.get()
    assert "the-billing-client" in text_of(caught.value)
    assert "misbehave" in text_of(caught.value)


def test_an_argument_that_cannot_travel_names_both(connect, tmp_path):
    """The caller's own mistake."""
    client = connect(f"unix:{tmp_path}/nobody.sock", name="the-billing-client")
    with client.checkout() as worker, pytest.raises(gtask.EncodeError) as caught:
        worker.misbehave(lambda: None)
    assert "the-billing-client" in text_of(caught.value)
    assert "misbehave" in text_of(caught.value)


def test_a_full_queue_names_both(connect, tmp_path):
    """The call for which there was no room."""
    client = connect(f"unix:{tmp_path}/nobody.sock", name="the-billing-client", max_queue=1)
    with client.checkout() as worker:
        worker.first.submit()
        with pytest.raises(gtask.Overloaded) as caught:
            worker.misbehave.submit("nothing")
        worker.cancel()
        turn_hub()
    assert "the-billing-client" in text_of(caught.value)
    assert "misbehave" in text_of(caught.value)


def test_a_call_that_got_no_worker_names_both(connect, tmp_path):
    """There is no server."""
    client = connect(f"unix:{tmp_path}/nobody.sock", name="the-billing-client", timeout=0.1)
    with pytest.raises(gtask.AcquireTimeout) as caught:
        client.call("misbehave", "nothing")
    assert "the-billing-client" in text_of(caught.value)
    assert "misbehave" in text_of(caught.value)


def test_a_failed_setup_names_the_client(shared, connect):
    """What failed is named, too: it was no method."""
    client = connect(shared("def setup(): raise KeyError('on purpose')\ndef f(): pass"), name="the-billing-client")
    with pytest.raises(gtask.SetupError) as caught:
        client.call("f")
    assert "the-billing-client" in text_of(caught.value)
    assert "setup" in text_of(caught.value)


def test_a_client_without_a_name_is_not_named(shared, connect):
    """No empty quotes, no "for client"."""
    with pytest.raises(KeyError) as caught:
        connect(shared(SOURCE)).call("misbehave", "raise")
    assert "for client" not in text_of(caught.value)
    assert "misbehave" in text_of(caught.value)
