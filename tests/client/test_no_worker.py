"""What one is told who gets no worker: the reason, in numbers, and what to do about it."""

from __future__ import annotations

import pytest

from gtask import errors
from gtask.client.pool import no_worker as refusals
from gtask.client.pool.slots import Pressure

AT = " for client 'web' at unix:/run/x.sock"


def overdue(reason):
    """The text of the error for a call that was not sent."""
    return str(refusals.overdue("hash was not sent", AT, 5.0, reason))


def test_an_unreachable_server():
    """The message says so, since when, why, and where it was looked for."""
    trouble = refusals.trouble("connection refused at unix:/run/x.sock", True, 100.0, 104.21)
    assert trouble == "server unreachable since 4.2 s: connection refused at unix:/run/x.sock"
    assert overdue(trouble) == (
        "hash was not sent: no worker for client 'web' at unix:/run/x.sock within 5 s: "
        "server unreachable since 4.2 s: connection refused at unix:/run/x.sock"
    )


def test_all_workers_busy():
    """The message says how many of how many, how many are ahead, and what can be done."""
    crowd = refusals.crowd(20, 0, 20, 0, 31)
    assert crowd.startswith("20 of 20 workers busy, 31 ahead in line; ")
    assert "unreachable" not in overdue(crowd)
    for remedy in ("max_workers", "timeout", "shorter calls"):
        assert remedy in crowd


def test_workers_that_are_neither_idle_nor_busy():
    """They are told of if there are any: in checkout_done, or starting."""
    assert refusals.crowd(1, 2, 5, 2, 0).startswith("1 of 5 workers busy, 2 in checkout_done, 2 starting, 0 ahead in ")
    assert refusals.crowd(1, 1, 2, 0, 3).startswith("1 of 2 workers busy, 1 in checkout_done, 3 ahead in line; ")
    assert refusals.crowd(0, 0, 2, 1, 0).startswith("0 of 2 workers busy, 1 starting, 0 ahead in line; ")


def test_a_server_whose_workers_do_not_come():
    """It is there, so it is not called unreachable; the reason is told, and for how long it has been so."""
    assert refusals.trouble("its setup has raised KeyError", False, 100.0, 130.0) == (
        "its setup has raised KeyError, for 30.0 s"
    )


def test_trouble_that_is_over_or_has_just_begun():
    """Without a time to tell, there is none in the message."""
    starting = "the server is there, and a worker is starting"
    assert refusals.trouble(starting, False, None, 130.0) == starting
    assert refusals.trouble("no such file", True, None, 130.0) == "server unreachable since just now: no such file"


@pytest.mark.parametrize(("timeout", "shown"), [(5.0, "5 s"), (0.25, "0.25 s"), (1e-3, "0.001 s"), (None, "0 s")])
def test_the_timeout_is_shown_as_it_was_written(timeout, shown):
    """No rounding to nothing."""
    assert f"no worker at unix:/x within {shown}: because" in str(
        refusals.overdue("hash was not sent", " at unix:/x", timeout, "because")
    )


def test_a_full_line():
    """The message says how long the line is, how long one waits in it, where its bound comes from, and the remedies."""
    text = str(refusals.full(AT, 31, Pressure(31, 2.34)))
    assert text.startswith(f"no checkout{AT}: all workers are taken and 31 wait in line, the first for 2.3 s ")
    assert "(max_waiting=31)" in text
    assert "raise max_waiting" in text
    assert refusals.REMEDIES in text


def test_a_line_that_may_not_be():
    """With max_waiting=0 nobody waits, and no wait of nobody is told."""
    text = str(refusals.full(AT, 0, Pressure(0, 0.0)))
    assert "all workers are taken and nobody may wait in line (max_waiting=0)" in text


def test_a_line_of_one():
    """It reads well."""
    assert "and 1 waits in line, the first for 0.5 s" in str(refusals.full(AT, 1, Pressure(1, 0.5)))


def test_one_that_was_shed():
    """The message says what was too slow for how long, how long the line is and waits are, and the remedies."""
    text = str(refusals.shed(AT, 0.5, 10.0, Pressure(120, 7.0)))
    assert text.startswith(f"no worker{AT}: for 10 s nobody was served within 0.5 s (shed_target), and 120 wait ")
    assert "120 wait in line, the first for 7 s" in text
    assert refusals.REMEDIES in text


def test_the_remedies():
    """More workers, shorter calls, or fewer."""
    for remedy in ("max_workers", "shorter", "fewer"):
        assert remedy in refusals.REMEDIES


@pytest.mark.parametrize(
    ("most", "held"),
    [(1, "the only worker that there may be is held"), (4, "all 4 workers that there may be are held")],
)
def test_one_that_waits_for_itself(most, held):
    """The message says that no time-out would help, and what does."""
    text = str(refusals.nested(AT, most))
    assert text.startswith(f"no worker{AT}, ever: {held} in with blocks of this greenlet")
    for remedy in ("use the checkout that is already there", "end it first", "raise max_workers"):
        assert remedy in text


def test_one_that_was_made_before_a_fork():
    """Both processes are named, and how to go on."""
    text = str(refusals.inherited(100, 123))
    assert "process 100" in text
    assert "this process, 123" in text
    assert "client.checkout()" in text


def test_a_closed_client():
    """A new one is the remedy."""
    assert str(refusals.closed()) == "the client is closed: make a new one with gtask.Client(...)"


def test_what_one_catches():
    """Each refusal has the class that the documentation names, and all are gtask's errors."""
    caught = {
        errors.AcquireTimeout: refusals.overdue("x", AT, 1.0, "y"),
        errors.Overloaded: refusals.full(AT, 1, Pressure(1, 1.0)),
        errors.NestedCheckout: refusals.nested(AT, 1),
        errors.ClientClosed: refusals.closed(),
    }
    for kind, error in caught.items():
        assert type(error) is kind
        assert isinstance(error, errors.Error)
    assert type(refusals.shed(AT, 1.0, 1.0, Pressure(1, 1.0))) is errors.Overloaded
    assert type(refusals.inherited(1, 2)) is errors.ClientClosed
    assert isinstance(refusals.overdue("x", AT, 1.0, "y"), TimeoutError)


def test_each_has_an_error_of_its_own():
    """Two waiters do not share an exception, whose traceback would be of both."""
    assert refusals.closed() is not refusals.closed()
