"""A ready interface: it calls the functions of the modules that the operator allows, by their names.

``gtask-server gtask.server.functions --allow myapp.jobs`` serves it, and a program does with :class:`Functions`. It is
the one exception of the law that nothing from the wire is imported: a caller may name a module under an allowed one.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from types import BuiltinFunctionType, ClassMethodDescriptorType, FunctionType, MethodType, ModuleType
from typing import Any

from gtask.function_names import EACH, call_each, split
from gtask.wire.limits import DEFAULTS

__all__ = ["Functions"]

REMEMBERED = 1024
"""The number of names that a worker need not look up again."""

ROUTINES = (FunctionType, BuiltinFunctionType, MethodType)


class Functions:
    """Calls functions by their names: ``functions("myapp.jobs:render", page, dpi=300)``.

    A function may be called if it is defined in an allowed module or in one under it, is reached from the module by
    public names, through classes only, and needs no instance. What such a module merely imports may not. A class may be
    called like a function, if what makes its instances is defined there, too.

    Args:
        allow: the modules. They are imported at once, so that workers share them; a module under one of them is
            imported when a worker first calls a function of it.

    Raises:
        TypeError, ValueError: ``allow`` is no list of modules, or there is no such module.
    """

    def __init__(self, allow: Sequence[str]) -> None:
        if isinstance(allow, str) or not all(isinstance(module, str) for module in allow):
            raise TypeError(f"allow={allow!r}: write a list of modules, such as ['myapp.jobs']")
        if not allow:
            raise ValueError("no function may be called: allow the modules that define them, such as myapp.jobs")
        self._allowed = tuple(allow)
        self._find = lru_cache(REMEMBERED)(self._look_up)
        for module in self._allowed:
            if not all(part.isidentifier() and not part.startswith("_") for part in module.split(".")):
                raise ValueError(f"allow {module!r}: write the name of a module, without a leading underscore in it")
            try:
                _load(module)
            except ModuleNotFoundError as error:
                if not _is_missing(module, error):
                    raise
                raise ValueError(f"allow {module!r}: there is no such module along the Python path") from None

    def __repr__(self) -> str:
        return f"<Functions of {', '.join(self._allowed)}>"

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function that the first argument names, with the other arguments.

        Raises:
            PermissionError: the function may not be called. For it nothing was called, and nothing imported but the
                module that it names, if that is allowed.
            ValueError, TypeError, AttributeError, ModuleNotFoundError: the name leads to no function.
        """
        if not args or type(args[0]) is not str:
            raise TypeError("the first argument is the name of a function, such as 'myapp.jobs:render'")
        return self._find(args[0])(*args[1:], **kwargs)

    def _look_up(self, name: str) -> Callable[..., Any]:
        if name.startswith(EACH):
            return partial(call_each, self._look_up_one(name[len(EACH) :]))
        return self._look_up_one(name)

    def _look_up_one(self, name: str) -> Callable[..., Any]:
        module, path = split(name)
        if not self._admits(module):
            raise self._refusal(name, f"{module} is neither an allowed module nor under one")
        try:
            loaded = _load(module)
        except ModuleNotFoundError as error:
            if not _is_missing(module, error):
                raise
            raise ModuleNotFoundError(f"{name}: the server has no module {module}", name=module) from None
        found, within = _walk(name, loaded, path)
        if not callable(found):
            raise TypeError(f"{name} is no function, but a {type(found).__name__}")
        for home in _homes(found, within):
            if not self._admits(home) and not _is_implementation(home, loaded, path[0]):
                raise self._refusal(name, f"it is defined in {home or 'no module'}")
        return found  # type: ignore[no-any-return]

    def _admits(self, module: str) -> bool:
        if "__main__" in module.split("."):
            return False  # a program, which runs when it is imported
        return any(module == allowed or module.startswith(f"{allowed}.") for allowed in self._allowed)

    def _refusal(self, name: str, why: str) -> PermissionError:
        return PermissionError(
            f"{name:.200} may not be called: {why}; call a function that is defined in {' or '.join(self._allowed)}, "
            "or have the server started with another --allow"
        )


def _load(module: str) -> ModuleType:
    return sys.modules.get(module) or importlib.import_module(module)


def _is_missing(module: str, error: ModuleNotFoundError) -> bool:
    """Whether this module is missing, and not another one that it imports."""
    return error.name is not None and f"{module}.".startswith(f"{error.name}.")


def _walk(name: str, module: ModuleType, path: list[str]) -> tuple[Any, type | None]:
    """The object at the end of a path, and the class that has it, if one does. No code of the application runs."""
    found: Any = module
    base: type | None = None
    for part in path:
        if found is module:
            spaces: list[tuple[Mapping[str, Any], type | None]] = [(vars(module), None)]
        elif isinstance(found, type):
            spaces = [(vars(cls), cls) for cls in found.__mro__]
        else:
            raise TypeError(f"{name}: only a class has functions in it, and {part} is in a {type(found).__name__}")
        space, base = next((pair for pair in spaces if part in pair[0]), ({}, None))
        if part not in space:
            known = [each for each in spaces[0][0] if not each.startswith("_")]
            hint = "".join(
                f"; did you mean {close}?" for close in difflib.get_close_matches(part[: DEFAULTS.compared], known, 1)
            )
            raise AttributeError(f"{name}: there is no {part} in {found.__name__}{hint}")
        inner = space[part]
        if base is None or isinstance(inner, type):
            found = inner
        elif isinstance(inner, (staticmethod, classmethod, ClassMethodDescriptorType)):
            found = inner.__get__(None, found)
        else:
            raise TypeError(
                f"{name} needs an instance of {found.__name__}; call a function, or a static or class method"
            )
    return found, base


def _homes(found: Any, within: type | None) -> Iterator[str]:
    """The modules that define an object, and the code that runs when it is called."""
    if isinstance(found, type):
        yield found.__module__
        for name in ("__new__", "__init__"):
            maker = _having(name, found)
            if maker is not object:
                yield maker.__module__
    elif isinstance(found, ROUTINES) or "__module__" in getattr(found, "__dict__", ()):  # functools.wraps has said it
        home = found.__module__ or getattr(within, "__module__", None)
        yield home if isinstance(home, str) else ""
    else:
        yield _having("__call__", type(found)).__module__


def _having(name: str, cls: type) -> type:
    return next(each for each in cls.__mro__ if name in vars(each))


def _is_implementation(home: str, module: ModuleType, listed: str) -> bool:
    """Whether a public module has this from its private half in C, as ``hashlib.sha256`` is defined in ``_hashlib``."""
    if not home.startswith("_") or "." in home:
        return False
    # By whole names: an application's mypkg.pickle is not pickle, and what it imports is not its own.
    name = module.__name__
    return home == f"_{name}" or (name in sys.stdlib_module_names and listed in getattr(module, "__all__", ()))
