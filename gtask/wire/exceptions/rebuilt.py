"""The classes of exceptions that are made here, and an instance that can be shown and logged like any other."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from gtask.errors import RemoteError, StayedInWorker
from gtask.wire.exceptions.anatomy import (
    FIELDS,
    NOTHING,
    SEALED,
    SLOTS,
    TEXT,
    class_name,
    is_builtin,
    member,
    own_dict,
)
from gtask.wire.exceptions.stayed import Stayed
from gtask.wire.exceptions.telling import describe

__all__ = ["Told", "instance"]

_LAST_COLUMN = 1 << 20  # of a SyntaxError, and its last line: the traceback module makes as many carets
_MADE_UP = "_gtask_made_up"  # an attribute that no exception has


class Told:
    """What was told of one exception by itself.

    Attributes:
        module, name: of its class.
        message: its ``str()``.
        bases: of its class, as ``module:name``, nearest first.
        args: its arguments; None if they were not told.
        attrs: its attributes.
        sealed: those that came pickled: the name of the class, the pickle, and what loads it.
        left: what of it has not travelled.
    """

    __slots__ = ("args", "attrs", "bases", "left", "message", "module", "name", "sealed")

    def __init__(self, module: str, name: str, message: str) -> None:
        self.module = module
        self.name = name
        self.message = message
        self.bases: list[str] = []
        self.args: list[Any] | None = None
        self.attrs: dict[str, Any] = {}
        self.sealed: dict[str, tuple[str, bytes, Callable[[bytes], Any]]] = {}
        self.left: list[Stayed] = []

    @property
    def parts(self) -> tuple[str, str, str, Any, dict[str, Any]]:
        """As :func:`gtask.wire.exceptions.anatomy.parts` tells them."""
        return self.module, self.name, self.message, self.args, self.attrs


def instance(
    mixin: Any, classes: tuple[type, ...], original: Told, restore: Callable[..., Any], named: bool = True
) -> RemoteError | None:
    """An exception of these classes, or None if one does not work whose constructors have not run.

    Args:
        mixin: the RemoteError to make.
        classes: the original's class, or bases of it.
        original: what was told.
        restore: makes the same of a description once more, for a copy.
        named: whether the class is named as the original's.
    """
    cls = classes[0]
    is_own = class_name(cls) == (original.module, original.name)
    try:
        name = (original.module, original.name) if named else class_name(cls)
        # What a class makes of what has stayed in the worker is not what it made there.
        says_text = named and (not is_own or bool(original.left or original.sealed))
        kind: Any = _remote_class(mixin, classes, *name, says_text, restore)
        exc, is_accepted = _made(kind, [original.message] if original.args is None else original.args)
        if says_text and not is_accepted:
            return None  # its text is there, and what the constructor would have set is not
        own = own_dict(exc)
        if says_text:
            own[TEXT] = original.message
        if original.sealed:
            own[SEALED] = dict(original.sealed)
        _set(exc, dict(original.attrs))
        works = bool(str(exc)) >= bool(original.message) and repr(exc) and _syntax_works(exc)
        if not all(map(is_builtin, classes)):
            works = works and _can_be_shown(exc)
    except BaseException:  # whatever its methods raise: this is only an attempt
        return None
    return exc if works else None


def _made(kind: Any, args: list[Any]) -> tuple[Any, bool]:
    """An instance, and whether the builtin constructor has taken the arguments."""
    base = kind
    while not is_builtin(base):
        base = base.__base__  # the one whose C structure its instances have
    try:
        exc = base.__new__(kind, *args)
        base.__init__(exc, *args)
    except Exception:  # such as a UnicodeError's of args that are not plain
        exc = base.__new__(kind)
        SLOTS["args"].__set__(exc, args)
        return exc, False
    return exc, True


def _set(exc: BaseException, attrs: dict[str, Any]) -> None:
    kind = type(exc)
    for owner, fields in FIELDS.items():
        if issubclass(kind, owner):
            for field in attrs.keys() & fields:
                vars(owner)[field].__set__(exc, attrs.pop(field))
    for key, value in attrs.items():
        slot: Any = member(kind, key)
        if slot is None:
            own_dict(exc)[key] = value
        else:
            slot.__set__(exc, value)


def _can_be_shown(exc: BaseException) -> bool:
    """Whether what shows and handles exceptions finds here what it finds in all others."""
    for name in (_MADE_UP, "__notes__"):
        try:
            getattr(exc, name)
        except AttributeError:
            continue
        return False
    return bool(list(traceback.TracebackException(type(exc), exc, None).format(chain=False)))


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
    """First base of all classes made here, so that these are found before the original class's own: no constructor has
    run, so hooks and properties of the class may fail, and whoever shows or handles an exception must not meet that.
    """

    __slots__ = ()

    args, __dict__ = SLOTS["args"], SLOTS["__dict__"]
    __cause__, __context__ = SLOTS["__cause__"], SLOTS["__context__"]
    __traceback__, __suppress_context__ = SLOTS["__traceback__"], SLOTS["__suppress_context__"]
    with_traceback = BaseException.with_traceback
    __getattribute__ = object.__getattribute__
    __setattr__ = object.__setattr__
    __delattr__ = object.__delattr__

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Nothing: the original's would take the class made here for a new one of the application."""

    def __getattr__(self, name: str) -> Any:
        exc: Any = self
        sealed = own_dict(exc).get(SEALED, NOTHING).get(name)
        if sealed is not None:
            return _open(exc, name, *sealed)
        missing = f"{type(self).__name__!r} object has no attribute {name!r}"
        left = [value.gtask_label for value in own_dict(exc).values() if type(value) is Stayed]
        if left and not name.startswith("__"):
            raise StayedInWorker(f"{missing}, and {', '.join(left)} stayed in the worker")
        raise AttributeError(missing)

    def __bool__(self) -> bool:
        return True

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        exc: Any = self
        sealed = own_dict(exc).get(SEALED, NOTHING)
        load = next((load for _, _, load in sealed.values()), None)
        described = describe(exc, pickle=_refuse if sealed else None)
        return type(exc)._restore, (described, type(exc)._mixin, load, exc.worker_pid, exc.worker_address)


def _open(exc: BaseException, name: str, kind: str, data: bytes, load: Callable[[bytes], Any]) -> Any:
    """The attribute that came pickled, loaded in the greenlet that asks for it."""
    try:
        value = load(data)
    except Exception:  # of pickle, or of the code that it runs
        value = Stayed(name, kind)
    own_dict(exc)[name] = value
    del own_dict(exc)[SEALED][name]
    return value


def _refuse(value: Any) -> bytes:
    """What is sealed is passed on, and nothing else is pickled."""
    raise TypeError


@lru_cache(maxsize=256)
def _remote_class(
    mixin: type[RemoteError], classes: tuple[type, ...], module: str, name: str, says_text: bool, restore: Any
) -> Any:
    cls = classes[0]
    bases: tuple[type, ...] = (_Rebuilt, *classes) if issubclass(cls, mixin) else (_Rebuilt, mixin, *classes)
    body: dict[str, Any] = {
        "__module__": module,
        "__qualname__": name,
        "_mixin": mixin,
        "_restore": staticmethod(restore),
    }
    if says_text:
        body["__str__"] = _text
    if any(hasattr(base, "__del__") for base in classes):
        body["__del__"] = _nothing
    return type(name.rpartition(".")[2], bases, body)


def _text(exc: BaseException) -> str:
    text: str = own_dict(exc).get(TEXT, "")
    return text


def _nothing(exc: BaseException) -> None:
    """No constructor has run, so there is nothing to be cleaned up."""
