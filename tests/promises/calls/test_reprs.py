"""The point of this test is to ensure that the reprs of a client, a checkout and a worker tell, in a log, how things
stand."""

import os
import re

import gevent
import pytest

import gtask
from tests.support.waiting import wait_until

SOURCE = """
    import os

    def pid():
        return os.getpid()

    def hold():
        open(os.path.join(DIR, "inside"), "w").close()
        with open(os.path.join(DIR, "gate")) as gate:
            gate.read()

    def die():
        os._exit(7)
"""


def test_a_client_before_its_first_use():
    """It says where its server is, whose it is, and that nothing has happened yet."""
    assert repr(gtask.Client("unix:/run/hasher.sock", name="shop", max_workers=20)) == (
        "<Client 'shop' of unix:/run/hasher.sock: not yet open, 0 of 20 workers busy, 0 idle, 0 waiting>"
    )
    assert repr(gtask.Client("tcp://host:4000")).startswith("<Client of tcp://host:4000: ")
    assert "spawn:hasher" in repr(gtask.Client("spawn:hasher"))


def test_a_client_at_work(shared, connect):
    """It counts its workers, busy and idle, and those who wait."""
    client = connect(shared(SOURCE), max_workers=2)
    with client.checkout() as one:
        with client.checkout() as other:
            one.pid(), other.pid()
            waiting = client.checkout()
            assert "open, 2 of 2 workers busy, 0 idle, 1 waiting" in repr(client)
            waiting.release()
        assert "open, 1 of 2 workers busy, 1 idle, 0 waiting" in repr(client)


def test_a_client_that_connects(connect, tmp_path):
    """A worker that is on its way is not yet idle or busy."""
    client = connect(f"unix:{tmp_path}/nowhere")
    waiting = client.checkout()
    assert "0 of 20 workers busy, 0 idle, 1 connecting, 1 waiting" in repr(client)
    waiting.release()


def test_a_client_with_a_worker_in_checkout_done(serve, connect, tmp_path):
    """That one is not idle either."""
    os.mkfifo(tmp_path / "gate")
    client = connect(serve(SOURCE + "\n    def checkout_done():\n        hold()\n"))
    client.call("pid")
    assert "0 of 20 workers busy, 0 idle, 1 settling, 0 waiting" in repr(client)
    wait_until((tmp_path / "inside").exists)
    (tmp_path / "gate").write_text("")
    wait_until(lambda: "1 idle, 0 waiting" in repr(client))
    (tmp_path / "gate").unlink()
    (tmp_path / "gate").touch()


def test_a_closed_client(shared, connect):
    """It says so."""
    client = connect(shared(SOURCE))
    client.call("pid")
    client.close()
    assert ": closed, 0 of 20 workers busy, 0 idle, 0 waiting>" in repr(client)


def test_a_checkout_from_its_begin_to_its_end(shared, connect, tmp_path):
    """In line, with a worker, in a call with others behind, released with calls under way, and released."""
    os.mkfifo(tmp_path / "gate")
    server = shared(SOURCE)
    client = connect(server)
    checkout = client.checkout()
    result = checkout.pid.submit()
    assert repr(checkout) == "<Checkout in line with 1 calls>"
    pid = result.get()
    worker = f"<worker {pid} of {server.address.path.rpartition('/')[2][:-5]} at {server.address}"
    assert repr(checkout) == f"<Checkout holding {worker}, idle>>"
    checkout.hold.submit()
    last = checkout.pid.submit()
    assert re.fullmatch(
        re.escape(f"<Checkout holding {worker}, in hold for ") + r"[\d.e-]+ s, 1 calls behind it>>", repr(checkout)
    )
    assert repr(checkout.pid) == f"<Method pid of {checkout!r}>" or "in hold for" in repr(checkout.pid)
    checkout.release()
    assert repr(checkout).startswith(f"<Checkout releasing {worker}, in hold for ")
    wait_until((tmp_path / "inside").exists)
    (tmp_path / "gate").write_text("")
    last.get()
    wait_until(lambda: repr(checkout) == "<Checkout released>")


def test_a_checkout_that_ended_by_an_error(shared, connect):
    """The class of the error tells how."""
    client = connect(shared(SOURCE))
    with client.checkout() as checkout:
        with pytest.raises(gtask.WorkerDied):
            checkout.die()
        assert repr(checkout) == "<Checkout ended by WorkerDied>"
    with client.checkout() as checkout:
        checkout.cancel()
        assert repr(checkout) == "<Checkout ended by Cancelled>"


def test_each_is_one_line_and_tells_no_argument(serve, connect, tmp_path):
    """A log that takes them gets no line breaks, and no values that may be secret."""
    os.mkfifo(tmp_path / "gate")
    client = connect(serve("def check(password):\n        " + "open(DIR + '/gate').read()"), name="two\nlines")
    checkout = client.checkout()
    call = gevent.spawn(checkout.check, "s3cret")
    wait_until(lambda: "in check for" in repr(checkout))
    for thing in (client, checkout, checkout.check, client.remote):
        assert "\n" not in repr(thing)
        assert "s3cret" not in repr(thing)
    (tmp_path / "gate").write_text("")
    call.get()
    checkout.release()


def test_no_repr_needs_a_hub_or_raises(connect, tmp_path):
    """Also before, while and after everything fails."""
    client = connect(f"unix:{tmp_path}/nowhere")
    checkout = client.checkout(timeout=0.05)
    assert repr(checkout) == "<Checkout in line with 0 calls>"
    with pytest.raises(gtask.AcquireTimeout):
        checkout.anything()
    assert repr(checkout) == "<Checkout ended by AcquireTimeout>"
    assert repr(client.remote) == f"<Remote of {client!r}>"
