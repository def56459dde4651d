"""Exceptions told as plain data and rebuilt: their classes, texts, tracebacks and bounds."""

from __future__ import annotations

import builtins
import copy
import datetime
import decimal
import gc
import io
import linecache
import logging
import os
import pdb
import pickle
import sqlite3
import subprocess
import sys
import traceback
import types
import uuid
import weakref
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtask import errors
from gtask.errors import EncodeError, RemoteError, SetupError, StayedInWorker
from gtask.wire.exceptions import tracebacks
from gtask.wire.exceptions.failure import describe, rebuild, text
from tests.support.examples import examples

GROUPS = sys.version_info >= (3, 11)
ExceptionGroup = vars(builtins).get("ExceptionGroup")
BaseExceptionGroup = vars(builtins).get("BaseExceptionGroup")
KEYS = {
    "type", "module", "args", "attrs", "text", "frames", "cause", "context", "suppress", "notes", "group",
}  # fmt: skip
LEAVES = (
    type(None), bool, int, float, str, bytes, complex, datetime.date, datetime.datetime, datetime.time,
    datetime.timedelta, decimal.Decimal, uuid.UUID, set, frozenset,
)  # fmt: skip

WORKER = """\
# The worker's own source.

def outer(value):
    return inner(value)  # the outer line

def inner(value):
    raise KeyError(value)  # the inner line
"""


def caught(call, *args):
    """The exception that a call raises."""
    try:
        call(*args)
    except BaseException as exc:
        return exc
    raise AssertionError("nothing was raised")


def sent(exc, **options):
    """The exception as the other process gets it."""
    return rebuild(describe(exc), text(exc), **options)


def raising(exc):
    raise exc


def told(type_="KeyError", module="builtins", **parts):
    """A description as a peer might send it."""
    return {"type": type_, "module": module, "text": "the text", "args": ["the text"], **parts}


def frame(file="/srv/app/hasher.py", function="run", line=7, module="hasher", source="    work()"):
    return [file, function, line, module, source]


def printed(exc):
    return "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))


def entries(exc):
    return list(traceback.walk_tb(exc.__traceback__))


def is_plain(value):
    if type(value) is list:
        return all(map(is_plain, value))
    if type(value) is dict:
        return all(type(key) in (str, int, bytes) and is_plain(item) for key, item in value.items())
    return type(value) in LEAVES


@pytest.fixture
def script(tmp_path, monkeypatch):
    """A worker's file hasher.py, and a function that loads its text as a module here and gives what it defines."""
    path = tmp_path / "hasher.py"

    def load(source=WORKER):
        path.write_text(source)
        module = types.ModuleType("hasher")
        module.__file__ = str(path)
        monkeypatch.setitem(sys.modules, "hasher", module)
        scope = vars(module)
        exec(compile(source, str(path), "exec"), scope)
        return types.SimpleNamespace(path=path, **{k: v for k, v in scope.items() if k[0] != "_"})

    return load


class AppError(Exception):
    """An application's exception, with a constructor that needs two arguments."""

    made = 0

    def __init__(self, code, detail):
        type(self).made += 1
        super().__init__(code)
        self.detail = detail

    def __str__(self):
        return f"{self.args[0]}: {self.detail}"


class Outer:
    class InnerError(AppError):
        pass


# ---- telling -------------------------------------------------------------------------------------


class TestDescribe:
    def test_has_every_part(self):
        """A plain exception is told with exactly the documented keys, and only plain data."""
        exc = caught(lambda: {}["x"])
        data = describe(exc)
        assert data.keys() == KEYS
        assert (data["module"], data["type"]) == ("builtins", "KeyError")
        assert (data["text"], data["args"], data["attrs"]) == ("'x'", ["x"], {})
        assert (data["cause"], data["context"], data["suppress"]) == (None, None, False)
        assert (data["notes"], data["group"]) == ([], None)
        file, function, line, module, source = data["frames"][-1]
        assert (file, function, module) == (__file__, "<lambda>", __name__)
        assert line == exc.__traceback__.tb_next.tb_lineno
        assert source == '        exc = caught(lambda: {}["x"])'

    def test_values_of_all_plain_types(self):
        """What the codec carries stays as it is; tuples and subclasses become what they derive from."""

        class Text(str):
            __slots__ = ()

        zone = datetime.timezone(datetime.timedelta(hours=2))
        now = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=zone)
        plain = [
            None, True, 2**70, 1.5, "s", b"b", 1j, now, now.date(), now.time(), now - now, uuid.UUID(int=7),
            decimal.Decimal("1.10"), {1, 2}, frozenset({"a"}), {"k": [1], 2: {}, b"b": "x"},
        ]  # fmt: skip
        assert describe(Exception(*plain))["args"] == plain
        given_args = describe(Exception((1, (2,)), Text("t"), {"a": (Text("u"),)}))["args"]
        assert given_args == [[1, [2]], "t", {"a": ["u"]}]
        assert type(given_args[1]) is type(given_args[2]["a"][0]) is str

    @pytest.mark.parametrize(
        "value", [object(), [object()], {1.5: 2}, {(1,): 2}, {None: 1}, {(1, 2)}, len, b"".__class__]
    )
    def test_unplain_args_are_none(self, value):
        """One argument that is not plain data makes args None; the text is told all the same."""
        data = describe(ValueError("x", value))
        assert data["args"] is None
        assert "x" in data["text"]

    def test_a_container_in_itself_is_not_plain(self):
        """A list that contains itself ends the telling of args, not the process."""
        loop = []
        loop.append(loop)
        assert describe(ValueError(loop))["args"] is None

    def test_a_zone_is_told_as_its_offset(self):
        """A datetime of any time zone is told with its offset; one whose zone raises is not plain."""

        class Zone(datetime.tzinfo):
            def utcoffset(self, when):
                return datetime.timedelta(hours=1) if when.year > 2000 else 1 / 0

        there = datetime.datetime(2026, 1, 1, tzinfo=Zone())
        (here,) = describe(ValueError(there))["args"]
        assert here == there
        assert type(here.tzinfo) is datetime.timezone
        assert describe(ValueError(datetime.datetime(1999, 1, 1, tzinfo=Zone())))["args"] is None

    def test_attrs_are_the_plain_part(self):
        """Attributes that are not plain are left out, the others are told; notes are no attribute."""
        exc = ValueError()
        exc.code, exc.nothing, exc.handle, exc.__notes__ = 5, None, object(), ["n"]
        data = describe(exc)
        assert data["attrs"] == {"code": 5, "nothing": None}
        assert data["notes"] == ["n"]

    def test_cause_context_and_suppress(self):
        """``raise from`` and an exception in an except block are told, each with its frames."""

        def chained(*cause):
            try:
                int("x")
            except ValueError:
                if cause:
                    raise KeyError(1) from cause[0]
                raise KeyError(1)  # noqa: B904

        data = describe(caught(chained))
        assert (data["cause"], data["context"]["type"], data["suppress"]) == (None, "ValueError", False)
        assert data["context"]["frames"][-1][1] == "chained"
        data = describe(caught(chained, OSError("c")))
        assert (data["cause"]["type"], data["context"]["type"]) == ("OSError", "ValueError")
        assert data["suppress"]
        data = describe(caught(chained, None))
        assert (data["cause"], data["context"]["type"], data["suppress"]) == (None, "ValueError", True)

    def test_what_is_cause_and_context_is_told_once(self):
        """A chain of ``raise X from Y`` in ``except Y`` does not double at every link."""
        exc = ValueError(0)
        for number in range(14):
            outer = ValueError(number)
            outer.__cause__ = outer.__context__ = exc
            exc = outer
        assert len(str(describe(exc))) < 5000

    def test_cycles_and_long_chains_end(self):
        """A chain that runs in a circle, or has 10,000 links, gives a small description."""
        first, second = ValueError(1), ValueError(2)
        first.__cause__, second.__cause__ = second, first
        data = describe(first)
        assert data["cause"]["args"] == [2]
        assert data["cause"]["cause"] is None
        exc = ValueError(0)
        for number in range(10_000):
            outer = ValueError(number)
            outer.__context__ = exc
            exc = outer
        data = describe(exc)
        assert len(str(data)) < 10_000
        depth = 0
        while data := data["context"]:
            depth += 1
        assert 10 <= depth <= 20

    @pytest.mark.skipif(not GROUPS, reason="Python 3.10 has no groups")
    def test_groups(self):
        """A group tells its message as args, and its members."""
        data = describe(ExceptionGroup("many", [ValueError(1), ExceptionGroup("deep", [KeyError(2)])]))
        assert data["args"] == ["many"]
        assert [member["type"] for member in data["group"]] == ["ValueError", "ExceptionGroup"]
        assert data["group"][1]["group"][0]["args"] == [2]

    @pytest.mark.skipif(not GROUPS, reason="Python 3.10 has no groups")
    def test_large_and_deep_groups_are_bounded(self):
        """Of 100,000 members the first are told and a note counts the rest; depth ends too."""
        data = describe(ExceptionGroup("many", [ValueError(n) for n in range(100_000)]))
        assert 10 <= len(data["group"]) <= 100
        assert data["notes"] == [f"({100_000 - len(data['group'])} more exceptions in this group)"]
        deep = ValueError(0)
        for _ in range(500):
            deep = ExceptionGroup("deep", [deep])
        assert len(str(describe(deep))) < 20_000
        wide = ExceptionGroup("wide", [ExceptionGroup("w", [ValueError(n) for n in range(9)]) for _ in range(9)])
        assert 10 <= str(describe(wide)).count("ValueError") <= 50

    def test_oversize_is_cut(self):
        """A 50 MB message, a million args and huge attrs give a description of a bounded size."""
        data = describe(ValueError("x" * 50_000_000))
        assert data["text"].endswith(f"... ({50_000_000 - 65536} more characters)")
        assert data["args"] == [data["text"]]
        assert describe(ValueError(*range(1_000_000)))["args"] is None
        assert describe(ValueError({n: n for n in range(1_000_000)}))["args"] is None
        assert describe(ValueError(2**1_000_000))["args"] is None
        assert describe(ValueError(decimal.Decimal("1" * 100_000)))["args"] is None
        (cut,) = describe(ValueError(b"x" * 1_000_000))["args"]
        assert len(cut) < 66_000
        assert cut.endswith(b"more bytes)")
        exc = ValueError(*["y" * 60_000] * 1000)
        vars(exc).update({f"attr{n}" * 1000: "z" * 100_000 for n in range(1000)})
        exc.__notes__ = ["n" * 10**6] * 1000
        assert len(str(describe(exc))) < 2_000_000

    def test_one_part_does_not_use_up_the_room_of_another(self):
        """Args that are far too many leave room for the attributes; many small containers are bounded too."""
        exc = ValueError(*range(1_000_000))
        exc.code = 5
        assert describe(exc)["attrs"] == {"code": 5}
        assert describe(ValueError(*[[n] for n in range(1500)]))["args"] is None
        assert describe(ValueError([*range(1500)], *range(1000)))["args"] is None
        exc.__notes__ = ["n"] * 1_000_000
        assert len(describe(exc)["notes"]) == 100

    def test_a_changed_file(self, script):
        """The lines told are those of the file as it is now, as the traceback module shows them."""
        assert describe(caught(script("def f():\n    1/0  # one\n").f))["frames"][-1][4] == "    1/0  # one"
        assert describe(caught(script("def f():\n    1/0  # three\n").f))["frames"][-1][4] == "    1/0  # three"

    def test_text_limit(self):
        """Every text obeys the limit that the caller gives."""
        exc = caught(raising, KeyError("k" * 500))
        exc.attr, exc.__notes__ = "a" * 500, ["n" * 500]
        data = describe(exc, text_limit=100)
        for value in (data["text"], *data["args"], data["attrs"]["attr"], *data["notes"]):
            assert value[1:99] == value[1] * 98
            assert value.endswith(" more characters)")
            assert len(value) < 130

    def test_deep_recursion_is_cut_in_the_middle(self):
        """Of a recursion the first and last frames are told, and how many were left out between."""

        def fall(depth):
            return fall(depth - 1) if depth else 1 / 0

        exc = caught(fall, 800)
        frames = describe(exc)["frames"]
        assert len(frames) == 101
        assert frames[0][1] == "caught"
        assert {entry[1] for entry in frames[1:50]} == {entry[1] for entry in frames[51:]} == {"fall"}
        assert frames[50][:3] == ["<702 frames left out>", "...", 1]
        assert "702 frames left out" in printed(sent(exc))

    def test_recursion_error(self):
        """A real RecursionError is told and rebuilt."""

        def fall():
            fall()

        again = sent(caught(fall))
        assert isinstance(again, RecursionError)
        assert "recursion" in str(again)

    def test_surrogates_are_kept(self):
        """A lone surrogate, as file names have them, stays what it is in every text."""
        exc = caught(raising, ValueError("\ud800"))
        exc.name = "\udcff"
        again = sent(exc)
        assert (str(again), again.name) == ("\ud800", "\udcff")

    def test_keeps_nothing_alive(self):
        """Telling makes no reference cycle: without the collector, exception and variables die at once."""

        class Local:
            pass

        class SomeError(Exception):
            def __str__(self):
                raise ValueError

        def fail():
            local = Local()
            watched.append(weakref.ref(local))
            raise SomeError("x")

        watched = []
        gc.collect()
        gc.disable()
        try:
            exc = caught(fail)
            watched.append(weakref.ref(exc))
            data = describe(exc)
            text(exc)
            del exc
            assert [ref() for ref in watched] == [None, None]
            assert data["frames"][-1][1] == "fail"
        finally:
            gc.enable()


class TestHostileExceptions:
    @pytest.mark.parametrize("raised", [ValueError, SystemExit, KeyboardInterrupt, RecursionError, MemoryError])
    def test_str_raises(self, raised):
        """Whatever ``__str__`` raises, the exception is told, and the rest of it as usual."""

        class BadError(Exception):
            def __str__(self):
                raise raised

        exc = caught(raising, BadError(5))
        data = describe(exc)
        assert data["text"] == "<exception str() failed>"
        assert data["args"] == [5]
        assert data["frames"][-1][1] == "raising"
        assert text(exc).endswith("BadError: <exception str() failed>")

    def test_str_returns_no_str(self):
        """A ``__str__`` that returns a number is as one that raises."""

        class BadError(Exception):
            def __str__(self):
                return 5

        assert describe(BadError())["text"] == "<exception str() failed>"

    def test_str_returns_a_subclass(self):
        """The text is an exact str, whatever class the exception returned and overrode."""

        class Text(str):
            __slots__ = ()

            def __len__(self):
                raise ValueError

            __getitem__ = __str__ = __format__ = __len__

        class BadError(Exception):
            def __str__(self):
                return Text("t")

        exc = BadError(Text("a"))
        assert type(describe(exc)["text"]) is type(describe(exc)["args"][0]) is str
        assert text(exc).endswith("BadError: t")

    def test_special_attributes_are_overridden(self):
        """Properties that stand in for an exception's own attributes are not run."""

        def refuse(self, *args):
            raise SystemExit

        names = ("__dict__", "__class__", "__cause__", "__context__", "__traceback__", "__notes__", "args")
        slots = dict.fromkeys((*names, "__suppress_context__"), property(refuse))
        kind = type("BadError", (Exception,), {**slots, "__getattribute__": refuse, "__reduce_ex__": refuse})
        data = describe(caught(lambda: raising(kind("x"))))
        assert (data["type"], data["args"], data["text"]) == ("BadError", ["x"], "x")
        assert data["frames"][-1][1] == "raising"

    def test_metaclass(self):
        """A metaclass that raises on everything is not asked."""

        class Meta(type):
            armed = False

            def __getattribute__(cls, name):
                if Meta.armed:
                    raise SystemExit
                return super().__getattribute__(name)

            def __instancecheck__(cls, instance):
                raise SystemExit

            __subclasscheck__ = __instancecheck__

        kind = Meta("BadError", (Exception,), {"__module__": property()})
        exc = kind("x")
        Meta.armed = True
        data = describe(exc)
        Meta.armed = False
        assert (data["module"], data["type"], data["text"]) == ("", "BadError", "x")

    def test_values_that_are_hostile(self):
        """Containers that raise when they are walked make args None, or are read beneath their overrides."""

        class Mapping(dict):
            def items(self):
                raise SystemExit

            keys = values = __iter__ = __len__ = __bool__ = items

        class Liar:
            @property
            def __class__(self):
                raise SystemExit

        assert describe(ValueError(Mapping(a=1)))["args"] == [{"a": 1}]
        assert describe(ValueError(Liar()))["args"] is None

    @pytest.mark.parametrize("notes", [5, "text", [1, "a", None, "b"], ("x",), {"a": 1}])
    def test_notes_of_any_shape(self, notes):
        """Only a list's strings count as notes."""
        exc = ValueError()
        exc.__notes__ = notes
        assert describe(exc)["notes"] == (["a", "b"] if type(notes) is list else [])

    def test_failure_while_describing(self, monkeypatch):
        """Out of memory in the middle of it: name and module are still told, in the full form."""
        monkeypatch.setattr("gtask.wire.exceptions.telling.to_frames", lambda *args: raising(MemoryError()))
        data = describe(sqlite3.IntegrityError("x"))
        assert data.keys() == KEYS
        assert (data["module"], data["type"]) == ("sqlite3", "IntegrityError")
        assert isinstance(rebuild(data, ""), sqlite3.IntegrityError)

    def test_class_without_a_module(self):
        """A class made where there is no module name has none."""
        data = describe(eval("type('NowhereError', (Exception,), {})('x')", {}))
        assert (data["module"], data["type"], data["text"]) == ("", "NowhereError", "x")

    def test_meddled_attributes(self):
        """If an application wrote garbage where gtask keeps something of its own, the name is still told."""
        exc = ValueError("x")
        exc._gtask_origin = 5
        assert describe(exc)["type"] == text(exc) == "ValueError"

    def test_loader_and_globals_are_hostile(self):
        """A frame whose module's name and loader are no such thing is told without them."""

        class Loader:
            def get_source(self, name):
                raise ValueError

        scope = {"__name__": 5, "__loader__": Loader()}
        exec(compile("def f():\n    1/0", "/srv/nowhere.py", "exec"), scope)
        assert describe(caught(scope["f"]))["frames"][-1] == ["/srv/nowhere.py", "f", 2, "", ""]
        scope["__name__"] = "named"

        class Scope(dict):
            def get(self, *args):
                raise SystemExit

            __getitem__ = get

        odd = Scope(scope)
        exec(compile("def f():\n    1/0", "/srv/nowhere.py", "exec"), odd)
        assert describe(caught(dict.get(odd, "f")))["frames"][-1][:3] == ["/srv/nowhere.py", "f", 2]
        assert describe(caught(scope["f"]))["frames"][-1] == ["/srv/nowhere.py", "f", 2, "named", ""]
        linecache.cache.pop("/srv/nowhere.py", None)


class TestText:
    @pytest.mark.parametrize(
        "exc",
        [
            KeyError("x"),
            ValueError(),
            sqlite3.IntegrityError("dup"),
            AppError(1, "d"),
            Outer.InnerError(1, 2),
        ],
    )
    def test_is_as_traceback_prints_it(self, exc):
        """The text is the last line of the traceback."""
        assert text(exc) == traceback.format_exception_only(type(exc), exc)[-1].rstrip("\n")

    def test_main_and_cut(self):
        """``__main__`` is not named; a long text is cut."""
        kind = type("MainError", (Exception,), {"__module__": "__main__"})
        assert text(kind("x")) == "MainError: x"
        assert len(text(kind("x" * 10**6))) < 66_000


# ---- rebuilding ----------------------------------------------------------------------------------


class TestClasses:
    def test_builtin(self):
        """A KeyError is caught as KeyError and as RemoteError, and looks like a KeyError."""
        again = sent(caught(lambda: {}["x"]))
        assert isinstance(again, KeyError)
        assert isinstance(again, RemoteError)
        assert (type(again).__name__, type(again).__qualname__, type(again).__module__) == (
            "KeyError", "KeyError", "builtins",
        )  # fmt: skip
        assert (str(again), repr(again), again.args) == ("'x'", "KeyError('x')", ("x",))
        assert again.remote_type == "KeyError"
        assert traceback.format_exception_only(type(again), again) == ["KeyError: 'x'\n"]

    def test_classes_are_made_once(self):
        """Two exceptions of one class are of one class here too."""
        assert type(sent(KeyError(1))) is type(sent(KeyError(2)))
        assert type(sent(KeyError(1), mixin=SetupError)) is not type(sent(KeyError(1)))

    @pytest.mark.parametrize(
        "exc",
        [
            FileNotFoundError(2, "No such file", "/a"),
            OSError(28, "No space", "/a", None, "/b"),
            OSError("only text"),
            TimeoutError(),
            BlockingIOError(11, "again"),
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
            UnicodeEncodeError("ascii", "\xe9", 0, 1, "ordinal not in range"),
            SyntaxError("bad", ("f.py", 1, 2, "x = ", 1, 3)[: 6 if GROUPS else 4]),
            StopIteration(5),
            ImportError("no", name="mod", path="/p"),
            NameError("name 'x' is not defined", name="x"),
            MemoryError(),
            ZeroDivisionError("division by zero"),
        ],
        ids=lambda exc: type(exc).__name__,
    )
    def test_builtins_keep_their_fields(self, exc):
        """Errors with fields of their own have the same str() and the same fields afterwards."""
        again = sent(exc)
        assert isinstance(again, type(exc))
        assert str(again) == str(exc)
        fields = {name for name in dir(exc) if not name.startswith("_") and not callable(getattr(exc, name, len))}
        for name in fields - {"args"}:
            assert getattr(again, name) == getattr(exc, name), name

    def test_every_builtin(self):
        """Whatever builtin Exception there is can be sent, with odd arguments too."""
        for kind in vars(builtins).values():
            if isinstance(kind, type) and issubclass(kind, Exception):
                for args in ((), ("one",), ("one", 2, [3])):
                    again = rebuild({"type": kind.__name__, "module": "builtins", "args": list(args)}, "t")
                    assert isinstance(again, RemoteError)
                    assert isinstance(str(again) + repr(again), str)

    def test_imported_module(self):
        """An extension's class that this process has imported is found."""
        again = sent(sqlite3.IntegrityError("UNIQUE constraint failed"))
        assert isinstance(again, sqlite3.IntegrityError)
        assert again.remote_type == "sqlite3.IntegrityError"
        assert type(again).__module__ == "sqlite3"

    @pytest.mark.parametrize("kind", [AppError, Outer.InnerError])
    def test_application_class_without_its_constructor(self, kind):
        """Another class is filled, not called: no constructor runs, and its str() works."""
        exc = kind(404, "gone")
        made = kind.made
        again = sent(exc)
        assert kind.made == made
        assert isinstance(again, kind)
        assert (again.args, again.detail, str(again)) == ((404,), "gone", "404: gone")
        assert again.remote_type == f"{__name__}.{kind.__qualname__}"

    def test_subclass_of_oserror(self):
        """A subclass of a builtin with fields gets them, though its own constructor does not run."""
        exc = DiskError("sda", 5)
        again = sent(exc)
        assert isinstance(again, DiskError)
        assert (again.errno, again.strerror, again.filename) == (5, "disk sda", "sda.img")
        assert str(again) == str(exc)

    def test_unknown_class(self):
        """A class that is not known here becomes a RemoteError with its name and text."""
        again = rebuild(told("Conflict", "app.errors", attrs={"a": 1}), "unused")
        assert type(again) is RemoteError
        assert str(again) == "app.errors.Conflict: the text"
        assert again.remote_type == "app.errors.Conflict"

    def test_local_class_is_not_found(self):
        """A class made in a function has no name that could be looked up."""

        class LocalError(Exception):
            pass

        again = sent(LocalError("x"))
        assert type(again) is RemoteError
        assert "<locals>.LocalError: x" in str(again)

    @pytest.mark.parametrize("exc", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
    def test_no_base_exception(self, exc):
        """What would end the caller's process is not raised there as itself."""
        assert type(sent(exc)) is RemoteError
        assert sent(exc).remote_type == type(exc).__name__

    def test_no_gevent_control_flow(self):
        """GreenletExit and gevent.Timeout of a worker do not look like this process's own."""
        gevent = pytest.importorskip("gevent")
        assert type(sent(gevent.GreenletExit())) is RemoteError
        timeout = gevent.Timeout(5)
        timeout.close()
        assert type(sent(timeout)) is RemoteError

    @pytest.mark.parametrize("name", sorted(set(errors.__all__) - {"EncodeError"}))
    def test_no_error_of_gtask(self, name):
        """A worker's own client has failed: that is not this client's failure."""
        again = rebuild(told(name, "gtask.errors"), "")
        assert type(again) is RemoteError
        assert again.remote_type == f"gtask.errors.{name}"
        assert not again.sticky

    def test_encode_error_and_sticky_subclasses(self):
        """EncodeError tells of a result that cannot travel, and comes as itself; a sticky one never does."""
        assert isinstance(sent(EncodeError("no")), EncodeError)
        assert type(sent(MyTimeoutError("no"))) is RemoteError

    def test_sticky_is_no_attribute_of_a_worker(self):
        """A worker cannot make its error end the checkout by an attribute of that name."""
        exc = ValueError("x")
        exc.sticky, exc.remote_type = True, "other"
        again = sent(exc)
        assert (again.sticky, again.remote_type) == (False, "ValueError")
        assert not rebuild(told(attrs={"sticky": True}), "").sticky

    def test_mixin(self):
        """The mixin is the caller's choice, and only for the outermost exception."""
        exc = caught(raising, KeyError(1))
        exc.__cause__ = OSError(2)
        again = sent(exc, mixin=SetupError)
        assert isinstance(again, SetupError)
        assert again.sticky
        assert not isinstance(again.__cause__, SetupError)
        assert type(rebuild(told("X", "y"), "", mixin=SetupError)) is SetupError

    def test_raises_narrows(self):
        """Only classes and modules of the list are made, and builtins always."""
        exc = sqlite3.IntegrityError("x")
        for raises, expected in [
            (None, True), ([], False), ([sqlite3.IntegrityError], True), ([sqlite3], True), ({sqlite3}, True),
            ([sqlite3.Error], False), ([os, KeyError], False),
        ]:  # fmt: skip
            assert isinstance(sent(exc, raises=raises), sqlite3.IntegrityError) is expected
        assert isinstance(sent(KeyError(1), raises=[]), KeyError)
        outer = KeyError(1)
        outer.__cause__ = exc
        assert not isinstance(sent(outer, raises=[]).__cause__, sqlite3.IntegrityError)

    def test_unplain_args_have_stand_ins(self):
        """What of the args could not be told says so, and the text is that of the worker."""
        exc = ValueError("value", object)
        again = sent(exc)
        assert isinstance(again, ValueError)
        assert (again.args[0], str(again)) == ("value", str(exc))
        with pytest.raises(StayedInWorker, match=r"^args\[1\] \(type\) stayed in the worker"):
            again.args[1].anything()
        undecodable = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "reason")
        undecodable.args = (object,)
        again = sent(undecodable)
        assert isinstance(again, UnicodeError)
        assert not isinstance(again, UnicodeDecodeError)  # which would lack all that its constructor sets
        assert "can't decode" in str(again)

    def test_args_that_are_too_many_are_the_text(self):
        """Then they are not told one by one."""
        exc = ValueError(*range(5000))
        assert sent(exc).args == (str(exc),)

    def test_arguments_that_the_constructor_refuses(self):
        """A builtin whose constructor refuses the arguments is made without it, if it then has a text."""
        assert isinstance(rebuild(told("UnicodeDecodeError", text="", args=[1]), ""), UnicodeDecodeError)
        again = rebuild(told("UnicodeDecodeError", args=[1]), "")
        assert isinstance(again, UnicodeError)
        assert not isinstance(again, UnicodeDecodeError)
        assert (str(again), again.remote_type) == ("the text", "UnicodeDecodeError")

    def test_text_only(self):
        """A foreign worker that sends only a text gives a RemoteError of that text."""
        again = rebuild(None, "died at line 3")
        assert (type(again), str(again), again.remote_type) == (RemoteError, "died at line 3", "")
        assert len(str(rebuild(None, "x" * 10**6))) < 66_000

    def test_notes(self):
        """Notes come over, and the client's note is the last one."""
        exc = ValueError(1)
        exc.__notes__ = ["a"]
        assert sent(exc, note="worker 7").__notes__ == ["a", "worker 7"]
        assert rebuild(None, "x", note="worker 7").__notes__ == ["worker 7"]
        assert not hasattr(sent(ValueError(1)), "__notes__")
        if GROUPS:
            assert printed(sent(exc, note="worker 7")).endswith("ValueError: 1\na\nworker 7\n")

    def test_chain(self):
        """Cause, context and suppress come over, with their frames, and print as they did."""

        def chained():
            try:
                int("x")
            except ValueError:
                raise KeyError("k") from OSError(2, "no")

        exc = caught(chained)
        again = sent(exc)
        assert isinstance(again.__cause__, OSError)
        assert isinstance(again.__context__, ValueError)
        assert again.__suppress_context__
        assert without_carets(printed(again)) == without_carets(printed(exc))
        exc.__suppress_context__ = False
        assert isinstance(sent(exc).__cause__, OSError)
        assert not sent(exc).__suppress_context__
        assert rebuild(told(cause=told()), "").__suppress_context__
        exc.__cause__ = None
        exc.__suppress_context__ = False
        assert without_carets(printed(sent(exc))) == without_carets(printed(exc))
        assert printed(exc).count("Traceback") == 2


class DiskError(OSError):
    def __init__(self, disk, code):
        super().__init__(code, f"disk {disk}", f"{disk}.img")


class MyTimeoutError(errors.CallTimeout):
    pass


def without_carets(printed_text):
    return [line for line in printed_text.splitlines() if line.strip(" ~^")]


@pytest.mark.skipif(not GROUPS, reason="Python 3.10 has no groups")
class TestGroups:
    def test_group(self):
        """A group is a group again, its members are what they were, and ``except*`` would find them."""
        inner = ExceptionGroup("in", [KeyError(2)])
        again = sent(caught(raising, ExceptionGroup("out", [caught(raising, ValueError(1)), inner])))
        assert isinstance(again, ExceptionGroup)
        assert isinstance(again, RemoteError)
        assert again.message == "out"
        assert again.exceptions[0].__traceback__ is not None
        found, rest = again.split(KeyError)
        assert isinstance(found.exceptions[0].exceptions[0], RemoteError)
        assert isinstance(rest.exceptions[0], ValueError)
        assert "ValueError: 1" in printed(again)

    def test_base_exceptions_as_members(self):
        """A group with a KeyboardInterrupt in it can be raised as ExceptionGroup: the member is told."""
        again = sent(BaseExceptionGroup("out", [KeyboardInterrupt(), ValueError(1)]))
        assert isinstance(again, ExceptionGroup)
        assert again.remote_type == "BaseExceptionGroup"
        assert [type(member) is RemoteError for member in again.exceptions] == [True, False]
        assert "KeyboardInterrupt" in str(again.exceptions[0])

    def test_subclasses(self):
        """A known subclass is kept; an unknown one becomes an ExceptionGroup with its name."""
        exc = AppGroup("out", [ValueError(1)])
        exc.code = 7
        again = sent(exc)
        assert isinstance(again, AppGroup)
        assert (again.message, again.code, len(again.exceptions)) == ("out", 7, 1)
        again = rebuild(told("Gone", "app", args=["out"], group=[told("ValueError")]), "")
        assert isinstance(again, ExceptionGroup)
        assert again.message == "app.Gone: out"

    def test_without_groups(self, monkeypatch):
        """Where Python has no groups, the message of a RemoteError lists the members."""
        data = describe(ExceptionGroup("out", [ValueError(1), KeyboardInterruptLike("k")]))
        monkeypatch.setattr("gtask.wire.exceptions.making.GROUP", None)
        monkeypatch.delattr(builtins, "ExceptionGroup")
        again = rebuild(data, "")
        assert type(again) is RemoteError
        assert str(again) == (
            f"ExceptionGroup: out (2 sub-exceptions)\n  ValueError: 1\n  {__name__}.KeyboardInterruptLike: k"
        )

    @pytest.mark.parametrize("group", [[], [5], "x", [{}], [None, {"type": 3}]])
    def test_garbage(self, group):
        """Members that are no descriptions are left out; without any, there is no group."""
        again = rebuild(told("ExceptionGroup", group=group), "")
        assert isinstance(again, RemoteError)
        assert isinstance(str(again), str)


class KeyboardInterruptLike(Exception):
    pass


if GROUPS:

    class AppGroup(ExceptionGroup):
        def __new__(cls, *args):
            made = super().__new__(cls, *args)
            made.code = 0
            return made


# ---- tracebacks and their source lines -----------------------------------------------------------


@pytest.fixture(params=["gone", "changed", "same"])
def remote(request, script):
    """A rebuilt exception of a worker's file which is gone here, is another version, or the same."""
    worker = script()
    again = sent(caught(worker.outer, "k"))
    if request.param == "same":
        return again
    data = describe(caught(worker.outer, "k"))
    if request.param == "gone":
        worker.path.unlink()
    else:
        worker.path.write_text("# another version\n" * 20)
    return rebuild(data, "")


class TestTracebacks:
    def test_traceback_module(self, remote):
        """The traceback module prints the worker's frames and the worker's lines, innermost last."""
        lines = [line.strip() for line in printed(remote).splitlines()]
        assert lines[-1] == "KeyError: 'k'"
        assert lines[-2] == "raise KeyError(value)  # the inner line"
        assert lines[-3].endswith("line 7, in inner")
        assert lines[-4] == "return inner(value)  # the outer line"
        assert "hasher.py" in lines[-5]

    def test_logging(self, remote):
        """logging.exception shows them too."""
        stream = io.StringIO()
        logger = logging.Logger("test")
        logger.addHandler(logging.StreamHandler(stream))
        try:
            raise remote
        except KeyError:
            logger.exception("failed")
        assert "    raise KeyError(value)  # the inner line\nKeyError: 'k'" in stream.getvalue()

    def test_linecache(self, remote):
        """linecache finds the line by a frame's file name, line number and globals."""
        frame, line = entries(remote)[-1]
        found = linecache.getline(frame.f_code.co_filename, line, frame.f_globals)
        assert found == "    raise KeyError(value)  # the inner line\n"
        assert frame.f_lineno == line == 7

    def test_pdb(self, remote, monkeypatch, tmp_path):
        """pdb's post-mortem walks the worker's frames, and lists the worker's lines."""
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        output = io.StringIO()
        monkeypatch.setattr(sys, "stdin", io.StringIO("where\nlist\nup\nlist\np __name__\nquit\n"))
        monkeypatch.setattr(sys, "stdout", output)
        tracing = sys.gettrace()
        pdb.post_mortem(remote.__traceback__)
        sys.settrace(tracing)  # which pdb ends: a measurement of coverage, for one
        shown = output.getvalue()
        assert "-> raise KeyError(value)  # the inner line" in shown
        assert "-> return inner(value)  # the outer line" in shown
        assert "  7  ->\t    raise KeyError(value)  # the inner line" in shown
        assert "  4  ->\t    return inner(value)  # the outer line" in shown
        assert "'hasher'" in shown

    def test_sentry(self, remote):
        """A real Sentry client sends the worker's frames with the worker's lines."""
        sentry = pytest.importorskip("sentry_sdk")

        class Transport(sentry.transport.Transport):
            def capture_envelope(self, envelope):
                events.append(envelope.get_event())

        events = []
        client = sentry.Client(
            dsn="http://key@localhost:9/1", transport=Transport, default_integrations=False,
            auto_enabling_integrations=False,
        )  # fmt: skip
        with sentry.new_scope() as scope:
            scope.set_client(client)
            scope.capture_exception(remote)
        client.close()
        (value,) = events[0]["exception"]["values"]
        assert (value["type"], value["value"]) == ("KeyError", "'k'")
        last = value["stacktrace"]["frames"][-1]
        assert last["context_line"] == "    raise KeyError(value)  # the inner line"
        assert (last["function"], last["lineno"], last["module"]) == ("inner", 7, "hasher")
        assert not last.get("vars")
        before = value["stacktrace"]["frames"][-2]
        assert before["context_line"] == "    return inner(value)  # the outer line"

    def test_no_columns(self, remote):
        """No carets are printed: nobody knows the columns."""
        again = printed(remote).partition("hasher.py")[2]
        assert "^" not in again
        assert "~" not in again

    def test_file_name(self, script, monkeypatch):
        """The name is the worker's own, unless a module's file here would show other lines under it."""
        worker = script()
        data = describe(caught(worker.outer, 1))

        def shown():
            return entries(rebuild(data, ""))[-1][0].f_code.co_filename

        path = str(worker.path)
        assert shown() == path
        worker.path.write_text("other")
        assert shown() == f"{path} (worker)"
        monkeypatch.delitem(sys.modules, "hasher")
        assert shown() == path

    def test_real_context_of_the_same_file(self, script):
        """If the file here is the worker's, no loader stands before it."""
        again = sent(caught(script().outer, 1))
        frame, _ = entries(again)[-1]
        assert "__loader__" not in frame.f_globals

    def test_caller_comes_first(self, script):
        """``raise`` puts the caller's frames before the worker's: most recent call last."""
        worker = script()
        data = describe(caught(worker.outer, 1))

        def caller():
            raise rebuild(data, "")

        again = caught(caller)
        names = [frame.f_code.co_name for frame, _ in entries(again)]
        assert names == ["caught", "caller", "caught", "outer", "inner"]
        assert [frame.name for frame in traceback.extract_tb(again.__traceback__)] == names

    def test_frames_keep_nothing_alive(self):
        """A rebuilt traceback holds no frame of this process, and so none of its variables."""

        class Local:
            pass

        def client():
            local = Local()
            return rebuild(told(frames=[frame()]), ""), weakref.ref(local)

        exc, local = client()
        assert local() is None
        assert entries(exc)[0][0].f_back is None
        watched = weakref.ref(exc)
        gc.disable()
        try:
            del exc
            assert watched() is None
        finally:
            gc.enable()

    def test_clear_frames(self):
        """traceback.clear_frames, as unittest calls it, does no harm."""
        exc = rebuild(told(frames=[frame()]), "")
        traceback.clear_frames(exc.__traceback__)
        assert "work()" in printed(exc)

    @pytest.mark.parametrize(
        "bad",
        [
            None, 5, "frames", {}, [None], [[]], [["f"]], [frame()[:4]], [frame(line=0)], [frame(line=-1)],
            [frame(line=1 << 31)], [frame(line=1 << 70)], [frame(line=True)], [frame(line="7")],
            [frame(file=5)], [tuple(frame())], [[frame()]],
        ],
    )  # fmt: skip
    def test_garbage_frames_are_ignored(self, bad):
        """What is no frame makes no frame."""
        assert rebuild(told(frames=bad), "").__traceback__ is None

    @pytest.mark.parametrize(
        "odd",
        [
            frame(file=""),
            frame(file="a\0b"),
            frame(file="\ud800.py"),
            frame(file=os.fsdecode(b"\xff.py")),
            frame(file="/"),
            frame(file="/dev/zero"),
            frame(file="<string>"),
            frame(file="relative.py"),
            frame(file="x" * 100_000),
            frame(function="\ud800\0"),
            frame(function=None),
            frame(module=None),
            frame(module=""),
            frame(line=8, source=None),
            frame(line=8, source="a\x0cb\x85\u2028\r\n"),
            frame(line=8, source="s" * 10**6),
            frame(line=2**31 - 1),
        ],
        ids=lambda odd: repr(odd)[:60],
    )
    def test_odd_frames_print(self, odd):
        """Odd names and lines make frames that print, with the line told, if it is one that can be shown."""
        exc = rebuild(told(frames=[frame("/srv/app/first.py", source="first()"), odd]), "")
        assert len(entries(exc)) == 2
        assert len(printed(exc)) < 6000
        assert "    first()\n" in printed(exc)
        assert ("    work()\n" in printed(exc)) is (odd[4] == "    work()" and odd[2] == 7)

    def test_lines_of_nameless_files(self):
        """Files that linecache would ask no loader for still show the worker's lines."""
        exc = rebuild(told(frames=[frame(file="<string>", source="exec_line()")]), "")
        assert "exec_line()" in printed(exc)

    def test_devices_are_not_read(self, tmp_path):
        """A peer that names a pipe cannot make this process wait for it."""
        pipe = tmp_path / "pipe.py"
        os.mkfifo(pipe)
        assert "work()" in printed(rebuild(told(frames=[frame(file=str(pipe))]), ""))

    def test_form_feeds_do_not_shift_lines(self, script):
        """A form feed, which str.splitlines takes for a line's end, does not move the lines behind it."""
        worker = script("def f():\n    g()  # \x0c one\n\x0c\n\ndef g():\n    1/0  # \x0c two\n")
        data = describe(caught(worker.f))
        for _ in range(2):
            words = " ".join(printed(rebuild(data, "")).split())
            assert "line 2, in f g() # one" in words
            assert "line 6, in g 1/0 # two" in words
            worker.path.write_text("changed")

    def test_many_frames_are_cut(self):
        """Of a million frames the middle is left out."""
        exc = rebuild(told(frames=[frame(line=n + 1) for n in range(1_000_000)]), "")
        lines = [line for _, line in entries(exc)]
        assert len(lines) == 201
        assert (lines[0], lines[-1]) == (1, 1_000_000)
        assert "999800 frames left out" in printed(exc)

    def test_high_lines_need_no_memory(self):
        """A frame at line two billion shows no source, and builds no text of that length."""
        exc = rebuild(told(frames=[frame(line=2_000_000_000), frame(line=7)]), "")
        source = entries(exc)[0][0].f_globals["__loader__"].get_source("hasher")
        assert source == "\n" * 6 + "    work()\n"
        assert "work()" in printed(exc)


class TestLinecache:
    """linecache keeps one text for each file name, for the life of the process."""

    def test_exceptions_of_one_file_show_their_own_lines(self):
        """Lines that come to be known after the file's text was cached are shown too."""
        first = rebuild(told(frames=[frame(line=3, source="line_three()")]), "")
        second = rebuild(told(frames=[frame(line=5, source="line_five()")]), "")
        assert "line_three()" in printed(first)
        assert "line_five()" in printed(second)
        third = rebuild(told(frames=[frame(line=7, source="line_seven()")]), "")
        assert "line_seven()" in printed(third)
        assert "line_three()" in printed(first)

    def test_versions_of_one_file(self):
        """Exceptions of two versions of a file show each its own, in any order."""
        old = rebuild(told(frames=[frame(source="old()")]), "")
        new = rebuild(told(frames=[frame(source="new()")]), "")
        assert "old()" in printed(old)
        assert "new()" in printed(new)
        assert "old()" in printed(old)
        del old, new
        again = rebuild(told(frames=[frame(source="new()")]), "")
        assert entries(again)[0][0].f_code.co_filename == frame()[0]

    def test_more_versions_than_are_told_apart(self):
        """A peer that sends a hundred versions of a line gets frames without that line, never a wrong one."""
        kept = [rebuild(told(frames=[frame(source=f"version_{n}()")]), "") for n in range(100)]
        for number, exc in enumerate(kept):
            shown = printed(exc)
            assert f"version_{number}()" in shown or "version_" not in shown
        assert "version_9()" in printed(kept[9])

    def test_more_lines_than_are_held(self):
        """The known lines of a file are bounded; what is beyond shows no line, never a wrong one."""
        kept = []
        for start in range(1, 40_000, 100):
            lines = range(start, start + 100)
            kept.append(rebuild(told(frames=[frame(line=n, source=f"line_{n}()") for n in lines]), ""))
        assert "line_77()" in printed(kept[0])
        for exc in kept[::50]:
            for entry in traceback.extract_tb(exc.__traceback__):
                assert entry.line in (f"line_{entry.lineno}()", "")
        assert sum(len(source.lines) for source in tracebacks._sources.values()) <= 32_000

    def test_nothing_stays(self):
        """When the last exception is gone, linecache knows nothing of the file and nobody else does."""
        before = set(linecache.cache)
        exc = rebuild(told(frames=[frame(), frame(file="/srv/app/other.py")]), "")
        printed(exc)
        assert set(linecache.cache) - before == {"/srv/app/hasher.py", "/srv/app/other.py"}
        del exc
        assert set(linecache.cache) == before
        assert not tracebacks._sources

    def test_exit_is_silent(self):
        """An exception that lives until the process ends makes no noise then."""
        code = f"""
import traceback
from gtask.wire.exceptions.failure import rebuild
kept = rebuild({told(frames=[frame()])!r}, "")
traceback.print_exception(type(kept), kept, kept.__traceback__)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stderr == printed(rebuild(told(frames=[frame()]), ""))

    def test_a_local_file_is_not_poisoned(self, script):
        """A local traceback of the same file name shows the local lines, before and after a remote one."""
        worker = script()
        data = describe(caught(worker.outer, 1))
        local = script("def local():\n" + "    pass\n" * 5 + "    1/0  # a local line\n")
        remote = rebuild(data, "")
        for _ in range(2):
            assert "# the inner line" in printed(remote)
            assert "1/0  # a local line" in printed(caught(local.local))

    def test_a_module_in_a_zip_file_is_not_poisoned(self, tmp_path, monkeypatch):
        """So does a local module whose source only its loader knows."""
        archive = tmp_path / "app.zip"
        with zipfile.ZipFile(archive, "w") as target:
            target.writestr("zipped_worker.py", "def local():\n    1/0  # a local line\n")
        monkeypatch.syspath_prepend(str(archive))
        import zipped_worker

        monkeypatch.setitem(sys.modules, "zipped_worker", zipped_worker)
        file = zipped_worker.__file__
        remote = rebuild(told(frames=[frame(file, "local", 2, "zipped_worker", "1/0  # a remote line")]), "")
        for _ in range(2):
            assert "1/0  # a remote line" in printed(remote)
            assert "1/0  # a local line" in printed(caught(zipped_worker.local))

    @pytest.mark.parametrize("name", ["<typed in>", "typed in"])
    def test_code_typed_in_is_not_poisoned(self, name, monkeypatch):
        """Nor does a remote frame show, or change, what is in linecache under the same made-up name."""
        entry = (9, None, ["local()\n"], name)
        monkeypatch.setitem(linecache.cache, name, entry)
        same = rebuild(told(frames=[frame(file=name, line=1, source="local()")]), "")
        other = rebuild(told(frames=[frame(file=name, line=1, source="remote()")]), "")
        assert "local()" in printed(same)
        assert "remote()" in printed(other)
        assert linecache.cache[name] is entry


class TestShadows:
    """A peer names attributes; none hides what handlers of exceptions call."""

    @pytest.mark.parametrize(
        "name", ["with_traceback", "add_note", "args", "__str__", "__cause__", "__class__", "__reduce__", "split"]
    )
    def test_methods_stay(self, name):
        """Whether the attribute comes as plain data or as a part that stayed in the worker."""
        for parts in ({"attrs": {name: "x", "code": 7}}, {"attrs": {"code": 7}, "others": {name: {"type": "T"}}}):
            exc = rebuild(told(**parts), "")
            assert exc.code == 7
            assert exc.with_traceback(None) is exc
            assert name not in vars(exc)
            assert exc.args == ("the text",)
            assert printed(exc)


class TestNested:
    """A worker that calls another worker raises what it got from there."""

    def test_frames_and_name_are_told_on(self, script):
        """The innermost worker's type, frames and lines arrive, behind those of the worker between."""
        inner = script()
        data = describe(caught(inner.outer, "k"))
        inner.path.write_text("changed\n")

        def between():
            raise rebuild(data, "", note="inner worker")

        told_on = describe(caught(between))
        assert (told_on["module"], told_on["type"], told_on["attrs"]) == ("builtins", "KeyError", {})
        assert told_on["frames"][-1] == [str(inner.path), "inner", 7, "hasher", WORKER.splitlines()[6]]
        again = rebuild(told_on, "", note="outer worker")
        assert [frame.f_code.co_name for frame, _ in entries(again)][-3:] == ["caught", "outer", "inner"]
        assert "# the inner line" in printed(again)
        assert again.__notes__ == ["inner worker", "outer worker"]
        assert again.remote_type == "KeyError"

    def test_a_class_unknown_between(self):
        """A class that only the first and the last process know passes through one that does not."""
        between = rebuild(told("Gone", "app", args=[1], attrs={"code": 7}), "")
        assert type(between) is RemoteError
        data = describe(between)
        assert (data["module"], data["type"], data["text"]) == ("app", "Gone", "the text")
        assert (data["args"], data["attrs"]) == ([1], {"code": 7})
        assert text(between) == "app.Gone: the text"
        assert str(rebuild(data, "")) == "app.Gone: the text"

    def test_text_only(self):
        """What a foreign worker's text became is told as a RemoteError."""
        assert str(sent(rebuild(None, "died"))) == "gtask.errors.RemoteError: died"


class TestCopies:
    @pytest.mark.parametrize(
        "copied",
        [copy.copy, copy.deepcopy, lambda exc: pickle.loads(pickle.dumps(exc))],
        ids=["copy", "deep", "pickle"],
    )
    @pytest.mark.parametrize("exc", [KeyError("x"), AppError(404, "gone"), FileNotFoundError(2, "no", "/a")])
    def test_rebuilt(self, copied, exc):
        """A rebuilt exception copies and pickles with its class, its text and its worker's traceback."""
        exc = caught(raising, exc)
        exc.__cause__ = ValueError("cause")
        first = sent(exc, mixin=SetupError, note="n")
        second = copied(first)
        assert type(second) is type(first)
        assert (str(second), second.__notes__, second.remote_type) == (str(first), ["n"], first.remote_type)
        assert [f.f_code.co_name for f, _ in entries(second)] == [f.f_code.co_name for f, _ in entries(first)]
        assert isinstance(second.__cause__, ValueError)

    def test_plain(self):
        """So does a RemoteError that stands for an unknown class, without the traceback."""
        first = rebuild(told("Gone", "app"), "")
        second = pickle.loads(pickle.dumps(first))
        assert (type(second), str(second), second.remote_type) == (RemoteError, str(first), "app.Gone")
        assert describe(second)["type"] == "Gone"

    def test_pickle_where_the_class_is_unknown(self, monkeypatch):
        """A pickle can be read where the class does not exist."""
        pickled = pickle.dumps(sent(AppError(404, "gone")))
        monkeypatch.delitem(globals(), "AppError")
        assert str(pickle.loads(pickled)) == f"{__name__}.AppError: 404: gone"


# ---- a hostile peer ------------------------------------------------------------------------------

RAN = []


class InitError(Exception):
    def __init__(self, *args):
        RAN.append("init")

    def __new__(cls, *args):
        RAN.append("new")
        return super().__new__(cls, *args)

    def __setstate__(self, state):
        RAN.append("setstate")

    def __setattr__(self, name, value):
        RAN.append("setattr")

    def __getattr__(self, name):
        RAN.append(f"getattr {name}")
        raise AttributeError

    def __init_subclass__(cls, **kwargs):
        RAN.append("init_subclass")

    def __reduce__(self):
        RAN.append("reduce")

    def add_note(self, note):
        RAN.append("add_note")

    def with_traceback(self, tb):
        RAN.append("with_traceback")

    @property
    def detail(self):
        RAN.append("property")

    @detail.setter
    def detail(self, value):
        RAN.append("setter")


class Descriptors(Exception):
    args = property(lambda self: RAN.append("args"), lambda self, value: RAN.append("args"))
    __dict__ = property(lambda self: RAN.append("dict"))
    __cause__ = __context__ = __traceback__ = args


class StrRaises(Exception):
    def __str__(self):
        raise SystemExit


class ReprRaises(Exception):
    def __repr__(self):
        raise KeyboardInterrupt


class NeedsAttribute(Exception):
    def __str__(self):
        return self.missing


class Hostile(type):
    def __call__(cls, *args, **kwargs):
        RAN.append("call")

    def __new__(mcs, name, bases, scope):
        RAN.append("metaclass")
        return super().__new__(mcs, name, bases, scope)

    def __instancecheck__(cls, instance):
        RAN.append("instancecheck")
        return True

    __subclasscheck__ = __eq__ = __instancecheck__
    __hash__ = type.__hash__

    def mro(cls):
        return type.mro(cls)


class WithMetaclass(Exception, metaclass=Hostile):
    pass


class NoException(metaclass=Hostile):
    pass


class HidesItself(type):
    @property
    def __dict__(cls):
        RAN.append("dict of a class")


class Holder(metaclass=HidesItself):
    class HeldError(Exception):
        pass


class Falsy(Exception):
    def __len__(self):
        return 0


class FalsyRaises(Exception):
    def __bool__(self):
        raise ValueError


class Slotted(Exception):
    __slots__ = ("code",)


def __getattr__(name):
    RAN.append(f"module getattr {name}")
    raise AttributeError(name)


class HostileKey:
    """Equal in hash to a key that is looked for, and raises when compared with it."""

    def __hash__(self):
        return hash("type")

    def __eq__(self, other):
        raise ValueError


GARBAGE = [
    None, True, 5, -1.5, "x", b"x", [], [[]], [None], {}, {"a": 1}, {1: 2}, {"type": 5}, object(), {"": object()},
]  # fmt: skip


class TestHostilePeers:
    @pytest.fixture(autouse=True)
    def nothing_ran(self):
        RAN.clear()
        yield
        assert RAN == []

    def test_nothing_is_imported(self):
        """A class of a module that is not imported is not imported, and sys.modules stays as it is."""
        before = dict(sys.modules)
        for module, name in [
            ("this", "Error"),
            ("antigravity", "x"),
            ("xml.sax", "SAXException"),
            ("nope", "X"),
        ]:
            assert module not in before
            assert type(rebuild(told(name, module), "")) is RemoteError
        assert sys.modules == before

    def test_names_of_other_things(self):
        """A name that is not that of an ordinary Exception class is only a name."""
        things = {
            "": ["", "KeyError"],
            "os": ["system", "path", "environ", "error.x", "fspath"],
            "sys": ["modules", "exit"],
            "builtins": [
                "eval", "object", "type", "__import__", "BaseException", "KeyError.__init__", "KeyError.__class__",
                "__dict__",
            ],
            __name__: [
                "__builtins__", "builtins.KeyError", "caught.<locals>.X", "Outer", "NoException", "WithMetaclass",
                "lazy", "Outer.InnerError.args", "AppError.__mro__", "", ".",
            ],
        }  # fmt: skip
        for module, names in things.items():
            for name in names:
                exc = rebuild(told(name, module), "")
                assert type(exc) is RemoteError, (module, name)
                assert "the text" in str(exc)

    def test_lazy_modules(self, monkeypatch):
        """Modules that make attributes on demand, and things that only pose as modules, are not asked."""

        class Lazy(types.ModuleType):
            def __getattribute__(self, name):
                RAN.append("lazy")
                return super().__getattribute__(name)

            @property
            def __dict__(self):
                RAN.append("lazy dict")

        class Poser:
            def __getattr__(self, name):
                RAN.append("poser")

        monkeypatch.setitem(sys.modules, "lazy_one", Lazy("lazy_one"))
        monkeypatch.setitem(sys.modules, "poser", Poser())
        monkeypatch.setitem(sys.modules, "nothing", None)
        for module in ("lazy_one", "poser", "nothing"):
            exc = rebuild(told("SomeError", module, frames=[frame(module=module)]), "")
            assert type(exc) is RemoteError
            assert str(exc) == f"{module}.SomeError: the text"
            assert "work()" in printed(exc)

    def test_no_code_of_the_class_runs(self):
        """Neither constructor nor state nor attribute hooks nor properties nor registration of subclasses."""
        data = told("InitError", __name__, attrs={"detail": 5, "x": 1}, notes=["n"], frames=[frame()])
        exc = rebuild({**data, "cause": told()}, "", note="note")
        assert isinstance(exc, InitError)
        assert (vars(exc)["detail"], vars(exc)["x"], exc.args) == (5, 1, ("the text",))
        assert exc.__notes__ == ["n", "note"]
        assert RAN == []

    def test_class_in_a_class_with_a_metaclass(self):
        """A class is found within one that has a metaclass, as Django's Model.DoesNotExist is."""
        assert isinstance(rebuild(told("Holder.HeldError", __name__), ""), Holder.HeldError)

    def test_descriptors_of_the_class_do_not_run(self):
        """A class that shadows the exceptions' own attributes does not see them written."""
        exc = rebuild(told("Descriptors", __name__, attrs={"a": 1}, frames=[frame()], cause=told()), "", note="n")
        assert isinstance(exc, Descriptors)
        assert RAN == []

    @pytest.mark.parametrize("name", ["StrRaises", "ReprRaises", "NeedsAttribute"])
    def test_str_or_repr_does_not_work(self, name):
        """If the class's str() or repr() raises anything at all, it is a RemoteError instead."""
        exc = rebuild(told(name, __name__), "")
        assert type(exc) is RemoteError
        assert str(exc) == f"{__name__}.{name}: the text"

    @pytest.mark.parametrize("name", ["Falsy", "FalsyRaises"])
    def test_truth_is_not_asked(self, name):
        """A class of exceptions that count as false is rebuilt as any other, as member and as cause too."""
        exc = rebuild(told(name, __name__, cause=told(name, __name__)), "")
        assert isinstance(exc, globals()[name])
        assert isinstance(exc.__cause__, globals()[name])
        assert describe(exc)["cause"]["type"] == name
        if GROUPS:
            group = rebuild(told("ExceptionGroup", group=[told(name, __name__)]), "")
            assert isinstance(group.exceptions[0], globals()[name])

    @pytest.mark.parametrize(
        "details",
        [
            ["f.py", 1, 1, 5],
            ["f.py", 1, "x", "text"],
            ["f.py", "x", 1, "text"],
            [5, 1, 1, "text"],
            ["f.py", 1, 1 << 40, "text"],
            ["f.py", 1, 1, "text", 1, 1 << 40],
            ["f.py", 1, 1, "text", [], {}],
        ],
    )
    def test_syntax_errors_print(self, details):
        """A SyntaxError whose details the traceback module would stumble over is a RemoteError instead."""
        exc = rebuild(told("SyntaxError", args=["bad", details]), "")
        assert type(exc) is RemoteError
        assert "the text" in printed(exc)
        good = rebuild(told("SyntaxError", args=["bad", ["f.py", 1, 2, "x ="]]), "")
        assert "    x =\n     ^" in printed(good)

    @pytest.mark.parametrize("garbage", [None, 5, "x", b"x", [], {}, [[]], {"a": 1}, [{"value": 1}], {1: 2}, [5, ":"]])
    @pytest.mark.parametrize("key", ["bases", "parts", "others", "id"])
    def test_what_is_told_beside_is_garbage(self, key, garbage):
        """It is ignored, or taken as far as it goes."""
        exc = rebuild({**told("NoSuchError", "nowhere", args=None, bases=["builtins:KeyError"]), key: garbage}, "x")
        assert isinstance(exc, RemoteError)
        assert "the text" in str(exc)
        assert printed(exc)

    @pytest.mark.parametrize(
        "part",
        [
            None, 5, [], {}, {"exc": 5}, {"exc": {}}, {"same": 7}, {"same": "x"}, {"list": 5}, {"list": [5, {}]},
            {"map": []}, {"map": {1: {}}}, {"type": 5}, {"type": "X" * 10**6}, {"pickle": b"x"}, {"pickle": 5},
            {"value": [{}]}, {"type": "a", "pickle": b"garbage"},
        ],
        ids=repr,
    )  # fmt: skip
    def test_a_part_is_garbage(self, part):
        """It has stayed in the worker, whatever it was."""
        for unpickle in (None, pickle.loads):
            exc = rebuild(told(args=None, parts=[part, part], others={"a": part, 5: part}), "x", unpickle=unpickle)
            assert isinstance(exc, KeyError)
            assert len(exc.args) == 2
            assert hasattr(exc, "a")
            assert repr(exc.a)
            assert printed(exc)

    def test_parts_are_bounded(self):
        """However deep and wide they lie in each other."""
        deep = {"value": 1}
        for _ in range(1000):
            deep = {"list": [deep]}
        wide = {"list": [{"list": [{"list": [{"value": 1}] * 1000}] * 1000}] * 1000}
        nested = told()
        for _ in range(1000):
            nested = told(others={"inner": {"exc": nested}})
        for part in (deep, wide, {"exc": nested}):
            exc = rebuild(told(args=None, parts=[part], others={"a": part}), "x")
            assert isinstance(exc, KeyError)
        many = told("X", "x", bases=[f"builtins:X{n}" for n in range(10**5)])
        assert type(rebuild(many, "")) is RemoteError

    def test_a_base_is_found_as_a_class_is(self):
        """By its name alone, and only exceptions: no attribute of a module is called or made."""
        for base in ("os:system", "builtins:int", "nowhere:X", "builtins:", ":", "builtins:BaseException", __name__):
            assert type(rebuild(told("X", "x", bases=[base]), "")) is RemoteError
        for name in ("X\0Y", "\ud800", "", "a.b.c", "x" * 10**5):
            exc = rebuild(told(name, "x", bases=["builtins:KeyError"]), "")
            assert isinstance(exc, RemoteError)
            assert printed(exc)

    def test_text_of_a_base(self):
        """It is the worker's, whatever the base makes of the arguments, also in what is told of it again."""
        exc = rebuild(told("MyError", "app", args=["k"], bases=["builtins:KeyError"], text="what it said"), "")
        assert (str(exc), exc.args, exc.remote_type) == ("what it said", ("k",), "app.MyError")
        again = sent(exc)
        assert isinstance(again, KeyError)
        assert (str(again), again.args, again.remote_type) == ("what it said", ("k",), "app.MyError")
        assert describe(exc)["bases"] == ["builtins:KeyError"]

    def test_slots(self):
        """What a class has slots for is told, and set."""
        exc = Slotted("the text")
        assert not hasattr(sent(exc), "code")
        exc.code = 5
        again = sent(exc)
        assert isinstance(again, Slotted)
        assert (again.code, "code" in vars(again)) == (5, False)

    def test_deep_and_wide(self):
        """Chains and groups without end are cut; every part of them costs only a part of the bound."""

        def count(exc):
            return 0 if exc is None else 1 + count(exc.__cause__) + count(exc.__context__)

        deep = double = told()
        for _ in range(10_000):
            deep = told(cause=deep)
            double = told(cause=double, context=double)
        assert 10 <= count(rebuild(deep, "")) <= 20
        assert 10 <= count(rebuild(double, "")) <= 50
        wide = told("ExceptionGroup", group=[told("ExceptionGroup", group=[told()] * 1000)] * 1000)
        assert len(printed(rebuild(wide, ""))) < 100_000

    def test_origin_cannot_be_forged(self):
        """What a RemoteError stands for is not taken from attributes that a peer sent."""
        exc = rebuild(told("KeyError", attrs={"_gtask_origin": ("a", "b", "c", [], {})}), "")
        assert describe(exc)["type"] == "KeyError"

    @pytest.mark.parametrize("part", sorted(KEYS))
    def test_one_part_is_garbage(self, part):
        """Garbage in one part leaves the others as they are."""
        for garbage in GARBAGE:
            exc = rebuild({**told(frames=[frame()], notes=["n"]), part: garbage}, "fallback")
            assert isinstance(exc, RemoteError)
            emptied = part == "args" and garbage == []  # would be a KeyError without its text
            assert isinstance(exc, KeyError) or part in ("type", "module") or emptied
            assert exc.__traceback__ is not None or part == "frames"
            assert printed(exc)

    def test_all_is_garbage(self):
        """Garbage for a description is as none: the text is told."""
        for garbage in (*GARBAGE, {HostileKey(): 1}):
            assert str(rebuild(garbage, "the text")) == "the text"
            assert type(rebuild(garbage, garbage)) is RemoteError


# ---- anything at all -----------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(), inner, max_size=4),
    max_leaves=10,
)
names = st.sampled_from(sorted(name for name in dir(builtins) if name[0].isupper())) | st.text(max_size=5)
frames = st.lists(
    st.tuples(st.text() | values, st.text() | values, st.integers(-1, 1 << 40) | values, st.text(), st.text()).map(list)
)
descriptions = st.recursive(
    values,
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": names | values,
            "module": st.sampled_from(["builtins", "os", "sys", "sqlite3", __name__]) | values,
            "args": st.lists(values) | values,
            "attrs": st.dictionaries(st.text() | st.sampled_from(dir(OSError())), values) | values,
            "text": st.text() | values,
            "frames": frames | values,
            "cause": inner,
            "context": inner,
            "suppress": st.booleans() | values,
            "notes": st.lists(st.text()) | values,
            "group": st.lists(inner) | values,
        },
    ),
    max_leaves=8,
)


class TestAnything:
    @settings(deadline=None, max_examples=examples(4))
    @given(descriptions, st.text() | values)
    def test_rebuild(self, data, message):
        """Whatever comes, rebuild returns a RemoteError that prints, can be told on, and leaves no trace."""
        modules = dict(sys.modules)
        exc = rebuild(data, message, note="note")
        assert isinstance(exc, RemoteError)
        assert exc.__notes__[-1] == "note"
        assert printed(exc)
        again = describe(exc)
        assert is_plain(again)
        assert isinstance(rebuild(again, text(exc)), RemoteError)
        assert sys.modules == modules

    @settings(deadline=None, max_examples=examples(2))
    @given(
        st.sampled_from([ValueError, KeyError, RuntimeError, sqlite3.Error, AppError, OSError]),
        st.lists(values, max_size=3),
        st.dictionaries(st.sampled_from(["code", "detail", "é"]), values),
    )
    def test_round_trip(self, kind, args, attrs):
        """Plain args and attributes arrive as they left, in an exception of the same class and text."""
        exc = kind.__new__(kind)
        exc.args = args
        vars(exc).update({"detail": "d", **attrs} if kind is AppError else attrs)
        try:
            said = str(exc)
        except Exception:  # an AppError without args
            said = None
        again = sent(exc)
        if said is not None and kind is not OSError:  # whose text is not made of its args
            assert isinstance(again, kind)
            assert str(again) == said
            assert repr(list(again.args)) == repr(args)
            assert all(repr(vars(again)[name]) == repr(value) for name, value in attrs.items())
        assert is_plain(describe(exc))
