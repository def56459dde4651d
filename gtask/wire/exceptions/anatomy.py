"""What an exception consists of, read and written without running its own properties, whatever its class does."""

from __future__ import annotations

import builtins
from types import MemberDescriptorType
from typing import Any

from gtask.errors import Error, RemoteError

__all__ = [
    "BASE_GROUP", "DEPTH", "EXCEPTIONS", "FIELDS", "GROUP", "MANY", "NESTING", "NOTHING", "OF_EACH", "ORIGIN",
    "RESERVED", "SEALED", "SLOTS", "TEXT", "TEXT_LIMIT", "Parts", "bases", "class_name", "full_name", "headline",
    "is_builtin", "member", "notes", "own_dict", "parts", "told_bases",
]  # fmt: skip

Parts = tuple[str, str, str, Any, dict[str, Any]]
"""Module, name of the class, text, args, attributes."""

TEXT_LIMIT = 65536  # characters of one text, unless told otherwise
MANY = 100  # attributes of one exception, its notes, and the parts of a container
EXCEPTIONS = 50  # exceptions in a description: all chains, members of groups and attributes
DEPTH = 16  # causes of causes, groups in groups
NESTING = 8  # containers within containers of exceptions
_MRO = 32  # bases of a class

_UNPRINTABLE = "<exception str() failed>"  # as the traceback module says it

# Where what was made of a description keeps: the Parts that a plain RemoteError stands for, the bases of the original's
# class, its text, and the attributes that came pickled, by name.
ORIGIN, _BASES, TEXT, SEALED = "_gtask_origin", "_gtask_bases", "_gtask_text", "_gtask_sealed"
RESERVED = frozenset({"__notes__", ORIGIN, _BASES, TEXT, SEALED, *vars(Error), *vars(RemoteError)})
NOTHING: dict[str, Any] = {}

SLOTS: Any = vars(BaseException)
OF_EACH = frozenset({*vars(object), *vars(BaseException), "add_note", "derive", "split", "subgroup"})
"""The methods and the like that each exception has, or each group."""

_OF_TYPE: Any = vars(type)
GROUP: Any = vars(builtins).get("ExceptionGroup")  # None before Python 3.11
BASE_GROUP: Any = vars(builtins).get("BaseExceptionGroup")
# What builtins keep outside of args and __dict__. Not here: AttributeError.name, because the traceback
# module would suggest attributes of the missing obj, and ImportError.name_from, because it would import.
FIELDS: dict[type, tuple[str, ...]] = {
    OSError: ("filename", "filename2"),
    ImportError: ("name", "path"),
    NameError: ("name",),
}


def parts(exc: BaseException) -> Parts:
    """What an exception is by itself: ``(module, name, message, args, attributes)``.

    Of a plain RemoteError that was made of a description, what the worker's exception was: what a caller who knows its
    class needs to make one of that class.
    """
    attrs = dict.copy(own_dict(exc))
    if ORIGIN in attrs:
        origin: Parts = attrs[ORIGIN]
        return origin
    kind = type(exc)
    args = SLOTS["args"].__get__(exc)
    if BASE_GROUP and issubclass(kind, BASE_GROUP):
        args = args[:1]
    for owner, fields in FIELDS.items():
        if issubclass(kind, owner):
            values = ((field, vars(owner)[field].__get__(exc)) for field in fields)
            attrs.update((field, value) for field, value in values if value is not None)
    for owner in _mro(kind):
        if not is_builtin(owner):
            attrs.update(_in_slots(exc, owner, attrs))
    return (*class_name(kind), _str(exc), args, attrs)


def _in_slots(exc: BaseException, owner: type, known: dict[str, Any]) -> dict[str, Any]:
    """The attributes for which a class has slots, as far as they are set."""
    found = {}
    for name, slot in _OF_TYPE["__dict__"].__get__(owner).items():
        if type(slot) is MemberDescriptorType and name not in known and not name.startswith("__"):
            try:
                found[name] = slot.__get__(exc)
            except AttributeError:
                continue
    return found


def member(kind: type, name: str) -> MemberDescriptorType | None:
    """The slot that a class has for an attribute; None if it has none."""
    for owner in _mro(kind):
        found = _OF_TYPE["__dict__"].__get__(owner).get(name)
        if found is not None:
            return found if type(found) is MemberDescriptorType else None
    return None


def own_dict(exc: BaseException) -> dict[str, Any]:
    """The ``__dict__`` itself."""
    own: dict[str, Any] = SLOTS["__dict__"].__get__(exc)
    return own


def _mro(kind: type) -> tuple[type, ...]:
    mro: tuple[type, ...] = _OF_TYPE["__mro__"].__get__(kind)
    return mro


def bases(exc: BaseException) -> list[str]:
    """The classes from which that of an exception derives, as ``module:name``, nearest first, without Exception and
    what that derives from; none for a builtin class, nor for an error of the worker's own gtask client, which is no
    failure of its caller's. Of one that was made of a description, those of the original."""
    if issubclass(type(exc), RemoteError):
        return list(own_dict(exc).get(_BASES, ()))
    mro = _mro(type(exc))
    names = [class_name(base) for base in mro[:_MRO] if base not in _OF_ALL]
    sticky = any(vars(base).get("sticky") for base in mro if issubclass(base, Error))
    if is_builtin(mro[0]) or sticky or _is_ours(*names[:1]):
        return []
    return [f"{module}:{name}" for module, name in names[1:] if not _is_ours((module, name))]


def _is_ours(name: tuple[str, str] = ("", "")) -> bool:
    return name[0].partition(".")[0] == Error.__module__.partition(".")[0]


_OF_ALL = (Exception, BaseException, object)


def told_bases(exc: BaseException, told: list[str]) -> None:
    """Note the bases that were told of the original's class."""
    own_dict(exc)[_BASES] = told


def class_name(kind: type) -> tuple[str, str]:
    """Module and qualified name of a class, whatever its metaclass says."""
    try:
        module = _OF_TYPE["__module__"].__get__(kind)
    except AttributeError:
        module = None
    return (module if type(module) is str else ""), str.__str__(_OF_TYPE["__qualname__"].__get__(kind))


def full_name(kind: type) -> str:
    """The name of a class with its module, unless that is ``builtins``."""
    return headline(*class_name(kind), "")


def is_builtin(kind: type) -> bool:
    """Whether it is a class of the module builtins."""
    return vars(builtins).get(class_name(kind)[1]) is kind


def _str(exc: BaseException) -> str:
    try:
        return str.__str__(str(exc))  # which may be of a subclass
    except BaseException:  # the exception to tell is exc, not what its __str__ raises
        return _UNPRINTABLE


def notes(exc: BaseException) -> list[str]:
    """Its notes, as far as they are texts."""
    all_notes = own_dict(exc).get("__notes__")
    return [note for note in all_notes[:MANY] if issubclass(type(note), str)] if type(all_notes) is list else []


def headline(module: str, name: str, message: str) -> str:
    """As the last line of a traceback."""
    full = name if module in ("", "builtins") else f"{module}.{name}"
    return f"{full}: {message}" if full and message else full or message
