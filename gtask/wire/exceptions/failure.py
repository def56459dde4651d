"""Exception <-> plain data.

:func:`describe` turns any exception into plain data of a bounded size and never raises.
:func:`rebuild` turns such data, or garbage, into an exception that is a RemoteError and, where this
process knows the original class, also that class. It imports nothing, and no constructor but a builtin
exception's is run. The traceback goes on into the worker's frames (:mod:`gtask.wire.exceptions.tracebacks`).
"""

from __future__ import annotations

import builtins
from collections.abc import Collection
from functools import lru_cache
from itertools import islice
from types import ModuleType, TracebackType
from typing import Any

from gtask.errors import EncodeError, Error, RemoteError
from gtask.wire.exceptions.tracebacks import from_frames, module_vars, to_frames
from gtask.wire.plain import Room, cut

__all__ = ["Data", "Parts", "describe", "origin", "rebuild", "text"]

Data = dict[str, Any]
Parts = tuple[str, str, str, Any, dict[str, Any]]
"""Module, name of the class, text, args, attributes."""

_TEXT_LIMIT = 65536  # characters of one text, unless told otherwise
_MANY = 100  # attrs of one exception, and its notes
_EXCEPTIONS = 50  # exceptions in a description: all chains and members of groups
_DEPTH = 16  # causes of causes, groups in groups
_FRAMES = 1000  # frames of all tracebacks of a description
_FRAMES_EACH = 100  # frames of one traceback

_UNPRINTABLE = "<exception str() failed>"  # as the traceback module says it
_ORIGIN = "_gtask_origin"  # where a plain RemoteError keeps the Parts that it stands for
_RESERVED = frozenset({"__notes__", _ORIGIN, *vars(Error), *vars(RemoteError)})

# Read and written through these, an exception's own properties are never run.
_SLOTS: Any = vars(BaseException)
_GROUP: Any = vars(builtins).get("ExceptionGroup")  # None before Python 3.11
_BASE_GROUP: Any = vars(builtins).get("BaseExceptionGroup")
# What builtins keep outside of args and __dict__. Not here: AttributeError.name, because the traceback
# module would suggest attributes of the missing obj, and ImportError.name_from, because it would import.
_FIELDS: dict[type, tuple[str, ...]] = {
    OSError: ("filename", "filename2"),
    ImportError: ("name", "path"),
    NameError: ("name",),
}
_LAST_COLUMN = 1 << 20  # of a SyntaxError, and its last line: the traceback module makes as many carets


def describe(exc: BaseException, *, text_limit: int = _TEXT_LIMIT) -> Data:
    """Tell an exception as plain data.

    Args:
        exc: any exception, however ill-behaved.
        text_limit: characters after which a text is cut; a mark then says how many are missing. All
            texts together have 16 times as many.

    Returns:
        ``{type, module, args, attrs, text, frames, cause, context, suppress, notes, group}``. ``type``
        is the qualified name of the class, ``text`` the ``str()``. ``args`` is a list, or None if one
        of them is not plain data or they are too many; of a group it is the message only. ``attrs`` is
        what is plain in the ``__dict__``, and a few fields of builtins such as ``OSError.filename``.
        ``frames`` is as :func:`~gtask.wire.exceptions.tracebacks.to_frames` tells it. ``cause``, ``context`` and
        the members of ``group`` are the same again, or None; what occurs twice is told once.
    """
    try:
        data = _describe(exc, _Room(text_limit), _DEPTH)
    except BaseException:  # out of memory or stack, or interrupted: that it failed must be told all the same
        data = None
    return data or _blank(*_name(type(exc)), "<exception could not be described>")


def text(exc: BaseException) -> str:
    """Tell an exception in one text for any peer, as the end of its traceback would.

    Args:
        exc: any exception, however ill-behaved.

    Returns:
        Its name, with the module unless that is ``builtins`` or ``__main__``, a colon and its ``str()``,
        cut after 65536 characters.
    """
    try:
        module, name, message, _, _ = _parts(exc)
        return cut(_headline("" if module == "__main__" else module, name, message), _TEXT_LIMIT)
    except BaseException:  # as in describe
        return _name(type(exc))[1]


def rebuild(
    data: object,
    text: str,
    *,
    mixin: type[RemoteError] = RemoteError,
    raises: Collection[type | ModuleType] | None = None,
    note: str = "",
) -> RemoteError:
    """Make an exception of what :func:`describe` told. Never raises, whatever a peer sent.

    Args:
        data: the description; None from a foreign worker; garbage is ignored part by part.
        text: what :func:`text` told. The message, if there is no description.
        mixin: the RemoteError to make; its causes and members are plain RemoteErrors.
        raises: the classes, and modules whose classes, that may be made beside the builtin ones.
            None: any class in a module that this process has imported.
        note: a last note to add, if not empty.

    Returns:
        An instance of a class that is named as the original and derived from ``mixin`` and from the
        original; or ``mixin`` itself with the original's name in the message, if the class is not known
        here, is no Exception, has a metaclass, belongs to gtask, or if its ``str()`` does not work
        without its constructor. A group is always an ExceptionGroup where Python has that.
        ``remote_type`` is the original's full name. ``__traceback__`` is the worker's, and ``raise``
        puts the caller's frames before it.
    """
    message = cut(text, _TEXT_LIMIT) if type(text) is str else ""
    try:
        exc = _Builder(raises).build(data, message, mixin, _DEPTH)
    except Exception:  # garbage that nothing above foresaw must not hide that the worker failed
        exc = mixin(message)
    if note:
        _dict(exc)["__notes__"] = [*_dict(exc).get("__notes__", ()), note]
    return exc


def origin(exc: BaseException) -> Parts:
    """What an exception is by itself: ``(module, name, message, args, attributes)``.

    Of a plain RemoteError that :func:`rebuild` has made, what the worker's exception was: what a caller who knows its
    class needs to make one of that class.
    """
    return _parts(exc)


# ---- telling -------------------------------------------------------------------------------------


def _describe(exc: BaseException | None, room: _Room, depth: int) -> Data | None:
    if exc is None or depth == 0 or id(exc) in room.seen or len(room.seen) >= _EXCEPTIONS:
        return None
    room.seen.add(id(exc))
    module, name, message, args, attrs = _parts(exc)
    data = _blank(room.cut(module), room.cut(name), room.cut(message))
    data["frames"] = room.frames_of(_SLOTS["__traceback__"].__get__(exc))
    data["notes"] = [room.cut(note) for note in _notes(exc)]
    data["args"] = room.plain_or_none(args)
    for key, value in islice(attrs.items(), _MANY):
        if type(key) is str and key not in _RESERVED:
            plain = room.plain_or_none(value)
            if plain is not None or value is None:
                data["attrs"][room.cut(key)] = plain
    if _BASE_GROUP and issubclass(type(exc), _BASE_GROUP):
        members = vars(_BASE_GROUP)["exceptions"].__get__(exc)
        told = (_describe(member, room, depth - 1) for member in members[:_EXCEPTIONS])
        data["group"] = [member for member in told if member]
        if missing := len(members) - len(data["group"]):
            data["notes"].append(f"({missing} more exceptions in this group)")
    data["cause"] = _describe(_SLOTS["__cause__"].__get__(exc), room, depth - 1)
    data["context"] = _describe(_SLOTS["__context__"].__get__(exc), room, depth - 1)
    data["suppress"] = _SLOTS["__suppress_context__"].__get__(exc)
    return data


def _blank(module: str, name: str, message: str) -> Data:
    return {
        "type": name,
        "module": module,
        "args": None,
        "attrs": {},
        "text": message,
        "frames": [],
        "cause": None,
        "context": None,
        "suppress": False,
        "notes": [],
        "group": None,
    }


def _parts(exc: BaseException) -> Parts:
    """What an exception is by itself; of a plain RemoteError, what the exception was that it stands for."""
    attrs = dict.copy(_dict(exc))
    if _ORIGIN in attrs:
        origin: Parts = attrs[_ORIGIN]
        return origin
    kind = type(exc)
    args = _SLOTS["args"].__get__(exc)
    if _BASE_GROUP and issubclass(kind, _BASE_GROUP):
        args = args[:1]
    for owner, fields in _FIELDS.items():
        if issubclass(kind, owner):
            values = ((field, vars(owner)[field].__get__(exc)) for field in fields)
            attrs.update((field, value) for field, value in values if value is not None)
    return (*_name(kind), _str(exc), args, attrs)


def _dict(exc: BaseException) -> dict[str, Any]:
    own: dict[str, Any] = _SLOTS["__dict__"].__get__(exc)
    return own


def _name(kind: type) -> tuple[str, str]:
    """Module and qualified name of a class, whatever its metaclass says."""
    slots: Any = vars(type)
    try:
        module = slots["__module__"].__get__(kind)
    except AttributeError:
        module = None
    return (module if type(module) is str else ""), str.__str__(slots["__qualname__"].__get__(kind))


def _str(exc: BaseException) -> str:
    try:
        return str.__str__(str(exc))  # which may be of a subclass
    except BaseException:  # the exception to tell is exc, not what its __str__ raises
        return _UNPRINTABLE


def _notes(exc: BaseException) -> list[str]:
    notes = _dict(exc).get("__notes__")
    return [note for note in notes[:_MANY] if issubclass(type(note), str)] if type(notes) is list else []


def _headline(module: str, name: str, message: str) -> str:
    full = name if module in ("", "builtins") else f"{module}.{name}"
    return f"{full}: {message}" if full and message else full or message


class _Room(Room):
    """What is left of the bounds of one description."""

    def __init__(self, text_limit: int) -> None:
        super().__init__(text_limit)
        self.frames = _FRAMES
        self.seen: set[int] = set()  # ids of the exceptions told

    def frames_of(self, tb: TracebackType | None) -> list[list[Any]]:
        frames = to_frames(tb, min(self.frames, _FRAMES_EACH))
        self.frames = max(0, self.frames - len(frames))
        return frames


# ---- making --------------------------------------------------------------------------------------


class _Builder:
    """Makes the exceptions of one description."""

    def __init__(self, raises: Collection[type | ModuleType] | None) -> None:
        self.raises = raises
        self.left = _EXCEPTIONS

    def build(self, data: object, message: str, mixin: type[RemoteError], depth: int) -> RemoteError:
        self.left -= 1
        told = data if type(data) is dict else {}
        module, name = _get(told, "module", str, ""), _get(told, "type", str, "")
        message, args = _get(told, "text", str, message), _get(told, "args", list, None)
        attrs = _get(told, "attrs", dict, {})
        attrs = {key: attrs[key] for key in attrs if type(key) is str and key not in _RESERVED}
        members = self.all_nested(_get(told, "group", list, []), depth)
        parts = (module, name, message, args, attrs)

        cls = self.find(module, name)
        if members and _GROUP and (cls is None or issubclass(cls, _GROUP)):
            title = args[0] if args and type(args[0]) is str else message
            args = [title if cls else _headline(module, name, title), members]
            cls = cls or _GROUP
        exc = None
        if cls:
            exc = _instance(mixin, cls, [message] if args is None else args, attrs, message)
        if exc is None:
            exc = mixin("\n  ".join((_headline(module, name, message), *map(text, members))))
            if name:
                _dict(exc)[_ORIGIN] = parts
        _dict(exc)["remote_type"] = _headline(module, name, "")
        notes = [note for note in _get(told, "notes", list, [])[:_MANY] if type(note) is str]
        if notes:
            _dict(exc)["__notes__"] = notes
        cause, context = self.nested(told.get("cause"), depth), self.nested(told.get("context"), depth)
        _SLOTS["__traceback__"].__set__(exc, from_frames(told.get("frames")))
        _SLOTS["__context__"].__set__(exc, context)
        _SLOTS["__cause__"].__set__(exc, cause)
        _SLOTS["__suppress_context__"].__set__(exc, _get(told, "suppress", bool, cause is not None))
        return exc

    def nested(self, data: object, depth: int) -> RemoteError | None:
        if type(data) is not dict or depth == 0 or self.left <= 0:
            return None
        return self.build(data, "", RemoteError, depth - 1)

    def all_nested(self, group: list[Any], depth: int) -> list[RemoteError]:
        members = (self.nested(member, depth) for member in group[:_EXCEPTIONS])
        return [member for member in members if member is not None]

    def find(self, module: str, name: str) -> type | None:
        """The class of that name, if this process has it and it may be raised here."""
        scope, found = module_vars(module), None
        for part in name.split("."):
            found = scope.get(part)
            if not issubclass(type(found), type):
                return None
            scope = vars(type)["__dict__"].__get__(found)
        if type(found) is not type or Exception not in found.__mro__:
            return None  # the code of a metaclass would run when a class is derived
        return found if self.allows(found) else None

    def allows(self, cls: type) -> bool:
        home = _name(cls)[0]
        if issubclass(cls, Error):
            # A worker's own gtask client has failed. That is no failure of this process's client.
            ours = home.partition(".")[0] == Error.__module__.partition(".")[0]
            sticky = any(vars(base).get("sticky") for base in cls.__mro__)
            return cls is EncodeError or not (ours or sticky)
        if self.raises is None or _is_builtin(cls):
            return True
        return any(
            allowed.__name__ == home if isinstance(allowed, ModuleType) else allowed is cls for allowed in self.raises
        )


def _get(told: dict[Any, Any], key: str, kind: type, default: Any) -> Any:
    value = told.get(key)
    return value if type(value) is kind else default


def _is_builtin(cls: type) -> bool:
    return vars(builtins).get(cls.__name__) is cls


def _instance(
    mixin: type[RemoteError], cls: type, args: list[Any], attrs: dict[str, Any], message: str
) -> RemoteError | None:
    """An exception of that class, or None if that does not work without running code of the class."""
    try:
        kind = base = _remote_class((mixin, cls))
        while not _is_builtin(base):
            base = base.__base__  # the one whose C structure its instances have
        try:
            exc = base.__new__(kind, *args)
            base.__init__(exc, *args)
        except Exception:  # not what this constructor takes, such as a UnicodeError's unplain args
            exc = base.__new__(kind)
            _SLOTS["args"].__set__(exc, args)
        own = dict(attrs)
        for owner, fields in _FIELDS.items():
            if issubclass(cls, owner):
                for field in own.keys() & fields:
                    vars(owner)[field].__set__(exc, own.pop(field))
        _dict(exc).update(own)
        works = bool(str(exc)) >= bool(message) and repr(exc) and _syntax_works(exc)
    except BaseException:  # whatever its __str__ raises: this is only an attempt
        return None
    return exc if works else None


def _syntax_works(exc: BaseException) -> bool:
    """Whether the traceback module, which does not check what it shows of a SyntaxError, can print this."""
    if not issubclass(type(exc), SyntaxError):
        return True
    slots = vars(SyntaxError)
    texts: list[Any] = [slots[field].__get__(exc) for field in ("filename", "text")]
    fields = ("lineno", "offset", "end_lineno", "end_offset")
    numbers: list[Any] = [slots[field].__get__(exc) for field in fields]
    return all(value is None or type(value) is str for value in texts) and all(
        value is None or (type(value) is int and -1 <= value < _LAST_COLUMN) for value in numbers
    )


class _Rebuilt:
    """First base of all classes made here, so that these two are found before the original class's own."""

    __slots__ = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Nothing: the original's would take the class made here for a new one of the application."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        exc: Any = self
        return _restore, (describe(exc), type(exc)._mixin)


def _restore(data: Data, mixin: type[RemoteError]) -> RemoteError:
    """Unpickle or copy what was rebuilt."""
    return rebuild(data, "", mixin=mixin)


@lru_cache(maxsize=256)
def _remote_class(classes: tuple[type, type]) -> Any:
    mixin, cls = classes
    bases = (_Rebuilt, cls) if issubclass(cls, mixin) else (_Rebuilt, mixin, cls)
    module, name = _name(cls)
    return type(cls.__name__, bases, {"__module__": module, "__qualname__": name, "_mixin": mixin})
