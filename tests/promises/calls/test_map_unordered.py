"""The point of this test is to ensure that map_unordered gives values as they come, and reads only so far ahead."""

from __future__ import annotations

import gc
import os

import gevent
import pytest

import gtask
from tests.support.waiting import wait_until

SOURCE = """
    import os

    def pid(_):
        return os.getpid()

    def double(number):
        return 2 * number

    def hold(gate):
        open(os.path.join(DIR, gate + "-inside"), "w").close()
        with open(os.path.join(DIR, gate)) as file:
            file.read()
        return gate

    def fail(number):
        if number == 2:
            raise LookupError("on purpose")
        return number

    def fail_at(number):
        if number == 150:
            raise LookupError("on purpose")
        return number

    def note(number):
        with open(os.path.join(DIR, "noted"), "a") as file:
            file.write(f"{number + 0}\\n")
        return number

    class Doubler:
        def double(self, number):
            return 2 * number

    def either(what):
        return hold(what) if isinstance(what, str) else what
"""


@pytest.fixture
def gates(tmp_path):
    """``gates(*names)`` makes gates that hold whoever comes; gives a function that opens one."""
    made = []

    def make(*names):
        for name in names:
            os.mkfifo(tmp_path / name)
            made.append(tmp_path / name)
        return lambda name: (tmp_path / name).write_text("")

    return make


def is_inside(tmp_path, gate):
    wait_until((tmp_path / f"{gate}-inside").exists)


def test_all_of_them(shared, connect):
    """One for each item, whatever the order; of an empty iterable none."""
    client = connect(shared(SOURCE), max_workers=3)
    assert sorted(client.map_unordered("double", range(200))) == [2 * number for number in range(200)]
    assert list(client.map_unordered("double", [])) == []
    assert client.stats().busy == 0


def test_values_as_they_come(shared, connect, gates, tmp_path):
    """The one that is ready first is first, in whatever order they were asked for."""
    open_gate = gates("a", "b", "c")
    client = connect(shared(SOURCE), max_workers=3)
    values = client.map_unordered("hold", "abc")
    order = []
    for gate in "bca":
        gevent.spawn(lambda gate=gate: (is_inside(tmp_path, gate), open_gate(gate)))
        order.append(next(values))
    assert order == ["b", "c", "a"]
    assert list(values) == []


def test_in_many_workers_at_once(shared, connect, gates, tmp_path):
    """As many as there may be."""
    open_gate = gates("a", "b", "c")
    client = connect(shared(SOURCE), max_workers=3)
    values = client.map_unordered("hold", "abc")
    first = gevent.spawn(next, values)
    for gate in "abc":
        is_inside(tmp_path, gate)
    for gate in "abc":
        open_gate(gate)
    assert sorted([first.get(), *values]) == ["a", "b", "c"]


def test_it_reads_only_so_far_ahead(shared, connect):
    """Of an endless iterable: never more than that are taken whose values have not been, and so many are."""
    server = shared(SOURCE)
    for options, arguments, ahead in [
        ({}, {}, 4),
        ({"max_waiting": 1}, {}, 3),
        ({"max_waiting": 0}, {}, 2),
        ({}, {"max_ahead": 7}, 7),
        ({}, {"max_ahead": 1}, 1),
    ]:
        reader = Reader()
        values = connect(server, max_workers=2, **options).map_unordered("double", reader.items(), **arguments)
        assert reader.taken == 0  # nothing is taken before the first value is wanted
        for _ in range(20):
            next(values)
            reader.given += 1
        assert reader.farthest == ahead
        values.close()


class Reader:
    """An endless iterable that knows how far ahead of the values it has been read."""

    def __init__(self):
        self.taken = self.given = self.farthest = 0

    def items(self):
        while True:
            self.taken += 1
            self.farthest = max(self.farthest, self.taken - self.given)
            yield self.taken


def test_a_slow_iterable_does_not_hold_back_values(shared, connect):
    """A value that is there is not kept until all is taken that may be."""
    client = connect(shared(SOURCE), max_workers=4)

    def is_quiet():
        stats = client.stats()
        return stats.busy == stats.waiting == 0

    def items():
        for number in range(8):
            yield number
            wait_until(is_quiet)
            gevent.idle()  # until all that has come has been told

    seen = [(value, client.stats().checkouts) for value in client.map_unordered("double", items())]
    assert seen == [(2 * number, min(number + 2, 8)) for number in range(8)]


def test_an_exception_is_raised_at_its_place(shared, connect):
    """After the values that came before it; it ends the generator, and the workers are free again."""
    client = connect(shared(SOURCE), max_workers=1)
    values = client.map_unordered("fail", range(10))
    assert [next(values), next(values)] == [0, 1]
    with pytest.raises(LookupError, match="on purpose") as caught:
        next(values)
    assert isinstance(caught.value, gtask.RemoteError)
    assert list(values) == []
    wait_until(lambda: client.stats().busy == client.stats().waiting == 0)


def test_an_exception_of_the_iterable(shared, connect, gates, tmp_path):
    """It ends the generator as well, and what still runs is cancelled."""
    gates("a")
    client = connect(shared(SOURCE), max_workers=2)

    def items():
        yield "a"
        is_inside(tmp_path, "a")
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        list(client.map_unordered("hold", items()))
    wait_until(lambda: client.stats().busy == 0)


@pytest.mark.parametrize("end", ["close", "drop", "cycle"])
def test_ending_it_early_cancels_what_runs(shared, connect, gates, tmp_path, end):
    """Closed or dropped, also by the garbage collector: nothing more is taken, and what runs is stopped."""
    gates("a", "b")
    client = connect(shared(SOURCE), max_workers=3, timeout=None)
    taken = []

    def items():
        for item in [1, "a", "b", *range(100)]:
            taken.append(item)
            yield item

    values = client.map_unordered("either", items(), max_ahead=3)
    assert next(values) == 1
    is_inside(tmp_path, "a")
    before = list(taken)
    if end == "close":
        values.close()
    elif end == "cycle":
        cycle = [values]
        cycle.append(cycle)
        del cycle
    values = None
    gc.collect()
    wait_until(lambda: client.stats().busy == client.stats().waiting == 0)
    assert taken == before
    assert client.call("double", 4) == 8


def test_chunks(shared, connect):
    """Each is one call; the values are those of the items, whatever the size of the last chunk."""
    client = connect(shared(SOURCE), max_workers=2)
    for size in (2, 7, 100, 1000):
        calls = client.stats().calls
        values = client.map_unordered("double", range(150), chunksize=size)
        assert sorted(values) == [2 * number for number in range(150)]
        assert client.stats().calls - calls == -(-150 // size)
    assert list(client.map_unordered("double", [], chunksize=10)) == []


@pytest.mark.parametrize("chunksize", [1, 4])
def test_the_error_of_an_item_names_it(shared, connect, chunksize):
    """By its number among all items, in a note."""
    client = connect(shared(SOURCE), max_workers=1)
    with pytest.raises(LookupError, match="on purpose") as caught:
        list(client.map_unordered("fail_at", range(100, 200), chunksize=chunksize))
    assert "item 50 of the map" in caught.value.__notes__


@pytest.mark.parametrize(("chunksize", "note"), [(1, "item 6 of the map"), (4, "in the chunk that begins with item 4")])
def test_an_item_that_cannot_travel_is_named(shared, connect, chunksize, note):
    """Nothing was sent for it."""
    client = connect(shared(SOURCE), max_workers=1)
    with pytest.raises(gtask.EncodeError) as caught:
        list(client.map_unordered("double", [*range(6), object(), 8], chunksize=chunksize))
    assert note in caught.value.__notes__


@pytest.mark.parametrize("chunksize", [1, 4])
def test_an_executor_names_the_item_as_well(allow, connect, chunksize):
    """In its map, which gives values in order."""
    server, jobs = allow(SOURCE)
    values = connect(server).executor().map(jobs.fail_at, range(100, 200), chunksize=chunksize)
    with pytest.raises(LookupError, match="on purpose") as caught:
        list(values)
    assert "item 50 of the map" in caught.value.__notes__


def test_an_item_of_a_chunk_runs_once(shared, connect, tmp_path):
    """Those before the one that raises have run, those behind it have not, and no other chunk is affected."""
    client = connect(shared(SOURCE), max_workers=1)
    values = client.map_unordered("note", [*range(10), "x", *range(11, 20)], chunksize=5)
    got = []
    with pytest.raises(TypeError):
        got.extend(values)
    assert sorted(got) == [*range(10)]
    noted = (tmp_path / "noted").read_text().split()
    assert noted[:10] == [str(number) for number in range(10)]
    assert len(noted) == len(set(noted))
    assert not {"11", "12", "13", "14"} & set(noted)


def test_chunks_of_an_endless_iterable(shared, connect):
    """So many items are taken ahead as max_ahead says, in whole chunks and at least one."""
    server = shared(SOURCE)
    for arguments, ahead in [({}, 40), ({"max_ahead": 25}, 20), ({"max_ahead": 1}, 10)]:
        reader = Reader()
        values = connect(server, max_workers=2).map_unordered("double", reader.items(), chunksize=10, **arguments)
        for _ in range(300):
            next(values)
            reader.given += 1
        assert reader.farthest == ahead
        values.close()


def test_a_method_of_an_object_in_chunks(serve, connect):
    """And what there is not is refused by its own name."""
    client = connect(serve(SOURCE, attribute="Doubler"), max_workers=1)
    assert sorted(client.map_unordered("double", range(10), chunksize=3)) == [2 * number for number in range(10)]
    with pytest.raises(AttributeError, match="no method 'dubble': did you mean double"):
        list(client.map_unordered("dubble", range(10), chunksize=3))


def test_quick_calls_share_a_checkout(shared, connect):
    """So that they come in bursts: a client makes far fewer checkouts than calls."""
    client = connect(shared(SOURCE), max_workers=8)
    list(client.map_unordered("double", range(100)))
    before = client.stats()
    assert sorted(client.map_unordered("double", range(4000))) == [2 * number for number in range(4000)]
    after = client.stats()
    assert after.calls - before.calls == 4000
    assert after.checkouts - before.checkouts < 4000
    assert after.busy == after.waiting == 0


def test_no_worker_is_held_while_nobody_takes_values(shared, connect):
    """Others get it."""
    client = connect(shared(SOURCE), max_workers=1)
    values = client.map_unordered("double", range(1000))
    for _ in range(300):
        next(values)
    assert client.call("double", 4) == 8
    assert len(list(values)) == 700


def test_slow_calls_wait_behind_none(shared, connect, gates, tmp_path):
    """Behind quick ones as well: whatever worker is free gets the next."""
    gates("a")
    client = connect(shared(SOURCE), max_workers=2)
    values = client.map_unordered("either", [*range(200), "a", *range(200, 400)], max_ahead=4)
    taken = [next(values) for _ in range(200)]
    is_inside(tmp_path, "a")
    gevent.sleep(0.01)  # longer than the calls that others are sent behind
    taken += [next(values) for _ in range(150)]
    assert "a" not in taken
    (tmp_path / "a").write_text("")
    assert len([*taken, *values]) == 401


def test_functions_of_a_server_of_functions(allow, connect):
    """The method may be a function object there."""
    server, jobs = allow(SOURCE, "math")
    client = connect(server)
    assert sorted(client.map_unordered(jobs.double, [1, 2, 3])) == [2, 4, 6]
    assert sorted(client.map_unordered("math:sqrt", [1, 4])) == [1, 2]
    with pytest.raises(TypeError, match="it has no name"):
        client.map_unordered(lambda number: number, [1])


def test_what_is_no_bound(connect):
    """It is refused at once, before anything is connected to."""
    client = connect("unix:/nowhere")
    with pytest.raises(ValueError, match="max_ahead=0: write a number of at least 1"):
        client.map_unordered("double", [], max_ahead=0)
    with pytest.raises(TypeError, match=r"max_ahead=1\.5: write a whole number"):
        client.map_unordered("double", [], max_ahead=1.5)
