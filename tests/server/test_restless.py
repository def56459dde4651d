"""When requests for a reload are taken for the consequence of the reload before."""

from __future__ import annotations

from gtask.server.daemon.restless import IN_A_ROW, Restless


def test_requests_in_a_row_are_heeded_a_few_times():
    """Each comes soon after the end of a reload, or while one is under way."""
    restless = Restless()
    heeded = []
    for number in range(2 * IN_A_ROW):
        heeded.append(restless.asked(100.0 + number, is_under_way=bool(number % 2)))
        restless.ready(100.5 + number)
    assert heeded == [True] * IN_A_ROW + [False] * IN_A_ROW


def test_a_request_after_a_calm_while_begins_anew():
    """Somebody has edited a file."""
    restless = Restless()
    for number in range(3 * IN_A_ROW):
        assert restless.asked(10.0 * number, is_under_way=False)
        restless.ready(10.0 * number + 1)


def test_a_slow_reload_is_no_calm_while():
    """The application takes long to load, and writes a file meanwhile."""
    restless = Restless()
    answers = []
    for number in range(IN_A_ROW + 1):
        restless.ready(100.0 * number)
        answers.append(restless.asked(100.0 * number + 90, is_under_way=True))
    assert answers == [True] * IN_A_ROW + [False]
