"""Makes exceptions of what :mod:`gtask.wire.exceptions.telling` told, or of garbage.

What is made is a RemoteError and, where this process knows the original class or one of its bases, also that class. It
imports nothing, and no constructor but a builtin exception's is run. The traceback goes on into the worker's frames
(:mod:`gtask.wire.exceptions.tracebacks`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from types import ModuleType
from typing import Any

from gtask.errors import EncodeError, Error, RemoteError
from gtask.wire.exceptions.anatomy import (
    DEPTH,
    EXCEPTIONS,
    GROUP,
    MANY,
    NESTING,
    OF_EACH,
    ORIGIN,
    RESERVED,
    SLOTS,
    TEXT_LIMIT,
    class_name,
    headline,
    is_builtin,
    own_dict,
    told_bases,
)
from gtask.wire.exceptions.rebuilt import Told, instance
from gtask.wire.exceptions.stayed import Stayed
from gtask.wire.exceptions.telling import Data
from gtask.wire.exceptions.telling import text as text_of
from gtask.wire.exceptions.tracebacks import from_frames, module_vars
from gtask.wire.plain import cut

__all__ = ["rebuild"]

Raises = Collection[type | ModuleType] | None
_LEFT = 10  # parts that a note names


def rebuild(
    data: object,
    text: str,
    *,
    mixin: type[RemoteError] = RemoteError,
    raises: Raises = None,
    note: str = "",
    unpickle: Callable[[bytes], Any] | None = None,
) -> RemoteError:
    """Make an exception of what ``describe`` told. Never raises, whatever a peer sent.

    Args:
        data: the description; None from a foreign worker; garbage is ignored part by part.
        text: what ``text`` told. The message, if there is no description.
        mixin: the RemoteError to make; its causes and members are plain RemoteErrors.
        raises: the classes, and modules whose classes, that may be made beside the builtin ones.
            None: any class in a module that this process has imported.
        note: a last note to add, if not empty.
        unpickle: loads an attribute that came pickled, when it is first asked for; None where pickles are not agreed
            upon.

    Returns:
        An instance of a class that is named as the original and derived from ``mixin`` and from the original; or from
        its nearest bases, if the original is not known here, is no Exception, has a metaclass, belongs to gtask, or
        does not work without its constructor. Where there is no such base but Exception, it is ``mixin`` itself with
        the original's name in the message. A group is always an ExceptionGroup where Python has that.
        ``remote_type`` is the original's full name. ``__traceback__`` is the worker's, and ``raise``
        puts the caller's frames before it.
    """
    message = cut(text, TEXT_LIMIT) if type(text) is str else ""
    try:
        builder = _Builder(raises, unpickle)
        exc = builder.build(data, message, mixin, DEPTH)
        builder.settle()
    except Exception:  # garbage that nothing above foresaw must not hide that the worker failed
        exc = mixin(message)
    if note:
        own_dict(exc)["__notes__"] = [*own_dict(exc).get("__notes__", ()), note]
    return exc


def _restore(
    data: Data, mixin: type[RemoteError], unpickle: Callable[[bytes], Any] | None, pid: int | None, address: str
) -> RemoteError:
    """Unpickle or copy what was made here."""
    exc = rebuild(data, "", mixin=mixin, unpickle=unpickle)
    exc.worker_pid, exc.worker_address = pid, address
    return exc


class _Builder:
    """Makes the exceptions of one description."""

    def __init__(self, raises: Raises, unpickle: Callable[[bytes], Any] | None) -> None:
        self.raises = raises
        self.unpickle = unpickle
        self.left = EXCEPTIONS
        self.parts_left = MANY * MANY
        self.made: list[RemoteError] = []
        self.by_number: dict[int, RemoteError] = {}
        self.unsettled: dict[int, tuple[Stayed, int]] = {}  # what stands for an exception that is yet to be made

    def build(self, data: object, message: str, mixin: type[RemoteError], depth: int) -> RemoteError:
        self.left -= 1
        told = data if type(data) is dict else {}
        members = self.all_nested(_get(told, "group", list, []), depth)
        cause, context = self.nested(told.get("cause"), depth), self.nested(told.get("context"), depth)
        original = self.told(told, message, depth)
        exc = self.instance(mixin, original, members)
        if exc is None:
            title = headline(original.module, original.name, original.message)
            exc = mixin("\n  ".join((title, *map(text_of, members))))
            if original.name:
                own_dict(exc)[ORIGIN] = original.parts
        if original.bases:
            told_bases(exc, original.bases)
        own_dict(exc)["remote_type"] = headline(original.module, original.name, "")
        notes = [note for note in _get(told, "notes", list, [])[:MANY] if type(note) is str]
        notes += _note_of(original.left)
        if notes:
            own_dict(exc)["__notes__"] = notes
        SLOTS["__traceback__"].__set__(exc, from_frames(told.get("frames")))
        SLOTS["__context__"].__set__(exc, context)
        SLOTS["__cause__"].__set__(exc, cause)
        SLOTS["__suppress_context__"].__set__(exc, _get(told, "suppress", bool, cause is not None))
        self.made.append(exc)
        if type(told.get("id")) is int:
            self.by_number[told["id"]] = exc
        return exc

    def nested(self, data: object, depth: int) -> RemoteError | None:
        if type(data) is not dict or depth == 0 or self.left <= 0:
            return None
        return self.build(data, "", RemoteError, depth - 1)

    def all_nested(self, group: list[Any], depth: int) -> list[RemoteError]:
        members = (self.nested(member, depth) for member in group[:EXCEPTIONS])
        return [member for member in members if member is not None]

    # --- the parts of an exception ----------------------------------------------------------------------

    def told(self, told: dict[Any, Any], message: str, depth: int) -> Told:
        """What was told of the exception itself."""
        original = Told(_get(told, "module", str, ""), _get(told, "type", str, ""), _get(told, "text", str, message))
        original.bases = [base for base in _get(told, "bases", list, [])[:MANY] if type(base) is str]
        original.args = _get(told, "args", list, None)
        parts = _get(told, "parts", list, None)
        if original.args is None and parts is not None and len(parts) <= MANY:
            named = ((f"args[{index}]", part) for index, part in enumerate(parts))
            original.args = [self.part(part, name, depth, NESTING, original.left) for name, part in named]
        attrs = _get(told, "attrs", dict, {})
        original.attrs = {key: attrs[key] for key in attrs if _is_attribute(key)}
        for key, part in list(_get(told, "others", dict, {}).items())[:MANY]:
            if _is_attribute(key):
                self.attribute(original, key, part, depth)
        return original

    def attribute(self, original: Told, name: str, part: object, depth: int) -> None:
        pickled = part.get("pickle") if type(part) is dict else None
        if self.unpickle is not None and type(pickled) is bytes:
            original.sealed[name] = (_type_of(part), pickled, self.unpickle)
        else:
            original.attrs[name] = self.part(part, name, depth, NESTING, original.left)

    def part(self, part: object, name: str, depth: int, nesting: int, left: list[Stayed]) -> Any:
        """An argument, an attribute, or a part of one."""
        self.parts_left -= 1
        told: dict[Any, Any] = part if type(part) is dict and nesting and self.parts_left > 0 else {}
        if "value" in told:
            return told["value"]
        if type(told.get("list")) is list:
            items = enumerate(told["list"][:MANY])
            return [self.part(item, f"{name}[{index}]", depth, nesting - 1, left) for index, item in items]
        if type(told.get("map")) is dict:
            pairs = list(told["map"].items())[:MANY]
            return {key: self.part(item, f"{name}[{key!r:.40}]", depth, nesting - 1, left) for key, item in pairs}
        exc = self.nested(told.get("exc"), depth)
        number = told.get("same")
        if exc is None and type(number) is int:
            exc = self.by_number.get(number)
        if exc is not None:
            return exc
        stayed = Stayed(name, _type_of(told))
        if type(number) is int:
            self.unsettled[id(stayed)] = stayed, number
        else:
            left.append(stayed)
        return stayed

    def settle(self) -> None:
        """Put exceptions in their places that were not made yet when what refers to them was."""
        if self.unsettled:
            for exc in self.made:
                self.settle_in(own_dict(exc), NESTING)

    def settle_in(self, holder: Any, nesting: int) -> None:
        for key, value in list(holder.items() if type(holder) is dict else enumerate(holder)):
            if type(value) is Stayed:
                _, number = self.unsettled.get(id(value), (None, 0))
                if number in self.by_number:
                    holder[key] = self.by_number[number]
            elif nesting and type(value) in (list, dict):
                self.settle_in(value, nesting - 1)

    # --- what is made of it -----------------------------------------------------------------------------

    def instance(self, mixin: type[RemoteError], original: Told, members: list[RemoteError]) -> RemoteError | None:
        """An exception of the nearest classes that are known here and work; None if there are none."""
        own = self.find(original.module, original.name)
        if members and GROUP and (own is None or issubclass(own, GROUP)):
            args = original.args
            title = args[0] if args and type(args[0]) is str else original.message
            original.args = [title if own else headline(original.module, original.name, title), members]
            return instance(mixin, (own or GROUP,), original, _restore, named=own is not None)
        known = self.bases(original) if own is None else [cls for cls in own.__mro__ if self.may_make(cls)]
        for start in range(len(known)):
            nearest = _nearest(known[start:])
            for classes in (nearest, nearest[:1]) if len(nearest) > 1 else (nearest,):
                exc = instance(mixin, classes, original, _restore)
                if exc is not None:
                    return exc
        return None

    def bases(self, original: Told) -> list[type]:
        """Those that are known here, nearest first."""
        named = (base.partition(":") for base in original.bases)
        found = (self.find(module, name) for module, _, name in named)
        return [cls for cls in found if cls is not None and self.may_make(cls)]

    def find(self, module: str, name: str) -> type | None:
        """The class of that name, if this process has it and it may be raised here."""
        scope, found = module_vars(module), None
        for part in name.split("."):
            found = scope.get(part)
            if not issubclass(type(found), type):
                return None
            scope = vars(type)["__dict__"].__get__(found)
        return found if type(found) is type and self.may_make(found) else None

    def may_make(self, cls: type) -> bool:
        """Whether a class is one of exceptions, beyond Exception itself, that may be raised here."""
        # The code of a metaclass would run when a class is derived.
        return type(cls) is type and Exception in cls.__mro__ and cls is not Exception and self.allows(cls)

    def allows(self, cls: type) -> bool:
        home = class_name(cls)[0]
        if issubclass(cls, Error):
            # A worker's own gtask client has failed. That is no failure of this process's client.
            ours = home.partition(".")[0] == Error.__module__.partition(".")[0]
            sticky = any(vars(base).get("sticky") for base in cls.__mro__)
            return cls is EncodeError or not (ours or sticky)
        if self.raises is None or is_builtin(cls):
            return True
        return any(
            allowed.__name__ == home if isinstance(allowed, ModuleType) else allowed is cls for allowed in self.raises
        )


def _nearest(classes: list[type]) -> tuple[type, ...]:
    """Those of which no other is derived, in their order."""
    kept: list[type] = []
    for cls in classes:
        if not any(issubclass(other, cls) for other in kept):
            kept.append(cls)
    return tuple(kept)


def _get(told: dict[Any, Any], key: str, kind: type, default: Any) -> Any:
    value = told.get(key)
    return value if type(value) is kind else default


def _is_attribute(key: object) -> bool:
    """Whether an exception may have an attribute of this name: none that hides what each exception has."""
    return type(key) is str and key not in RESERVED and key not in OF_EACH


def _type_of(part: Any) -> str:
    return str(_get(part, "type", str, "object"))


def _note_of(left: list[Stayed]) -> list[str]:
    if not left:
        return []
    more = f" and {len(left) - _LEFT} more" if len(left) > _LEFT else ""
    return [f"stayed in the worker: {', '.join(stayed.gtask_label for stayed in left[:_LEFT])}{more}"]
