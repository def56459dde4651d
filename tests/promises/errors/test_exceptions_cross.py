"""The point of this test is to ensure that a worker's exception arrives at the caller as what it was.

It is caught by its own class wherever the caller's process has that class, and by gtask.RemoteError always. Its
causes, contexts, notes and groups come with it. A class that the caller has not imported is never imported for it.
"""

import importlib
import sqlite3
import sys

import pytest

import gtask

SOURCE = """
    import sqlite3

    def missing(key):
        return {}[key]

    def duplicate():
        database = sqlite3.connect(":memory:")
        database.execute("create table users (name unique)")
        database.executemany("insert into users values (?)", [("ada",), ("ada",)])

    def no_such_table():
        sqlite3.connect(":memory:").execute("select * from nowhere")

    def no_such_file(path):
        open(path)

    def caused():
        try:
            int("x")
        except ValueError as error:
            raise LookupError("no number") from error

    def in_context():
        try:
            int("x")
        except ValueError:
            raise LookupError("no number")

    def without_context():
        try:
            int("x")
        except ValueError:
            raise LookupError("no number") from None

    def noted():
        error = LookupError("no number")
        error.__notes__ = ["it was in line 3", "of the invoice"]
        raise error

    def grouped():
        inner = ExceptionGroup("two of a kind", [KeyError("a"), KeyError("b")])
        raise ExceptionGroup("the night's jobs", [sqlite3.IntegrityError("twice"), inner])

    def rare():
        import rare
        raise rare.RareError("seldom", 7)
"""

RARE = """
class RareError(Exception):
    def __init__(self, how, often):
        super().__init__(how, often)
        self.often = often

    def __str__(self):
        return f"{self.args[0]} ({self.often})"
"""


@pytest.fixture
def client(shared, connect):
    return connect(shared(SOURCE))


@pytest.fixture
def rare(tmp_path):
    """A module that workers and this process could import, and that this process has not."""
    (tmp_path / "rare.py").write_text(RARE)
    yield
    sys.modules.pop("rare", None)


def raised(client, method, *args):
    with pytest.raises(gtask.RemoteError) as caught:
        client.call(method, *args)
    return caught.value


def test_its_own_class_catches_it(client):
    """``except KeyError`` catches a worker's KeyError, with its text and its arguments."""
    with pytest.raises(KeyError) as caught:
        client.call("missing", "grüße")
    assert str(caught.value) == "'grüße'"
    assert caught.value.args == ("grüße",)
    assert type(caught.value).__name__ == "KeyError"


def test_remote_error_catches_it(client):
    """``except gtask.RemoteError``, and gtask.Error, catch the same exception, and it says what it was."""
    error = raised(client, "missing", "k")
    assert isinstance(error, KeyError)
    assert isinstance(error, gtask.Error)
    assert error.remote_type == "KeyError"


def test_a_submitted_call_raises_the_same(client):
    """What ``get`` of a submitted call raises is of both classes, too."""
    with client.checkout() as worker:
        result = worker.missing.submit("k")
        with pytest.raises(KeyError) as caught:
            result.get()
    assert isinstance(caught.value, gtask.RemoteError)


def test_a_library_class_that_the_caller_has_imported_catches_it(client):
    """``except sqlite3.IntegrityError`` works, and so do the classes above it."""
    with pytest.raises(sqlite3.IntegrityError, match=r"UNIQUE constraint failed: users\.name") as caught:
        client.call("duplicate")
    assert isinstance(caught.value, sqlite3.DatabaseError)
    assert isinstance(caught.value, gtask.RemoteError)
    assert caught.value.remote_type == "sqlite3.IntegrityError"


def test_an_os_error_has_its_errno_and_file(client, tmp_path):
    """What a builtin keeps beside its arguments arrives, and selects the same subclass."""
    path = str(tmp_path / "absent")
    with pytest.raises(FileNotFoundError) as caught:
        client.call("no_such_file", path)
    assert (caught.value.errno, caught.value.filename) == (2, path)


def test_it_says_which_worker_raised_it(shared, connect):
    """A note names the method, the worker, and the client if that has a name."""
    client = connect(shared(SOURCE), name="invoices")
    (note,) = raised(client, "missing", "k").__notes__
    assert note.startswith("missing raised this in worker ")
    assert "'invoices'" in note


def test_a_cause_arrives(client):
    """``raise ... from error`` in the worker: the cause is the caller's ``__cause__``, with its own class."""
    error = raised(client, "caused")
    assert isinstance(error, LookupError)
    assert isinstance(error.__cause__, ValueError)
    assert isinstance(error.__cause__, gtask.RemoteError)
    assert str(error.__cause__) == "invalid literal for int() with base 10: 'x'"
    assert error.__suppress_context__


def test_a_context_arrives(client):
    """An exception raised while another was handled has that as its ``__context__``."""
    error = raised(client, "in_context")
    assert isinstance(error.__context__, ValueError)
    assert error.__cause__ is None
    assert not error.__suppress_context__


def test_a_suppressed_context_stays_suppressed(client):
    """``raise ... from None`` in the worker is shown without a context at the caller, too."""
    error = raised(client, "without_context")
    assert error.__cause__ is None
    assert error.__suppress_context__


def test_notes_arrive(client):
    """The worker's notes come first, in their order."""
    error = raised(client, "noted")
    assert error.__notes__[:2] == ["it was in line 3", "of the invoice"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python has exception groups from 3.11 on")
def test_a_group_arrives(client):
    """An ExceptionGroup is one at the caller, with its members, their classes and the groups in it."""
    error = raised(client, "grouped")
    assert type(error).__name__ == "ExceptionGroup"
    assert error.message == "the night's jobs"
    duplicates, others = error.split(sqlite3.IntegrityError)
    assert [str(member) for member in duplicates.exceptions] == ["twice"]
    (inner,) = others.exceptions
    assert inner.message == "two of a kind"
    assert [member.args for member in inner.exceptions] == [("a",), ("b",)]
    assert all(isinstance(member, KeyError) for member in inner.exceptions)


@pytest.mark.usefixtures("rare")
def test_an_unexpected_class_is_never_imported(client):
    """A class of a module that is not imported here becomes a RemoteError with its name and text."""
    raised(client, "missing", "k")  # whatever gtask itself imports at first use is there now
    before = set(sys.modules)
    error = raised(client, "rare")
    assert set(sys.modules) == before
    assert type(error) is gtask.RemoteError
    assert error.remote_type == "rare.RareError"
    assert str(error) == "rare.RareError: seldom (7)"


@pytest.mark.usefixtures("rare")
def test_the_same_class_is_found_once_it_is_imported(client):
    """When the caller's process has imported the module, the class catches its exception, attributes and all."""
    module = importlib.import_module("rare")
    with pytest.raises(module.RareError) as caught:
        client.call("rare")
    assert (caught.value.args, caught.value.often) == (("seldom", 7), 7)
    assert str(caught.value) == "seldom (7)"


@pytest.mark.parametrize(
    ("raises", "found"),
    [
        ([], []),
        ([sqlite3.IntegrityError], ["duplicate"]),
        ([sqlite3], ["duplicate", "no_such_table"]),
        (None, ["duplicate", "no_such_table"]),
    ],
    ids=["nothing", "a class", "a module", "not narrowed"],
)
def test_raises_narrows_the_classes(shared, connect, raises, found):
    """``Client(raises=[...])`` lists the classes and modules that are looked up; builtins are always."""
    client = connect(shared(SOURCE), raises=raises)
    errors = {method: raised(client, method) for method in ("duplicate", "no_such_table")}
    assert [method for method, error in errors.items() if isinstance(error, sqlite3.Error)] == found
    assert errors["duplicate"].remote_type == "sqlite3.IntegrityError"
    assert "UNIQUE constraint failed" in str(errors["duplicate"])
    assert isinstance(raised(client, "missing", "k"), KeyError)
