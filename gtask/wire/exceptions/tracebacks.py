"""Traceback <-> plain frames.

:func:`to_frames` writes a traceback down as lists of plain data. :func:`from_frames` makes real
traceback objects of them in another process, so that ``traceback``, logging, Sentry and pdb show the
frames *and their source lines*, also where the source files do not exist or are of another version.
No line of a local file is ever shown for a remote frame unless it is the same line, and linecache is
left as it was once the last remote traceback is gone.

The peer may name any file in its frames. Only those are read, and looked for, from which this process has
loaded code itself. For any other name linecache is given the peer's lines, so that it reads no file either.

The way of remaking code objects is that of tblib and Jinja2 (``code.replace``); the way of giving them
source is PEP 302's ``__loader__.get_source``, which linecache, pdb and Sentry all ask.
"""

from __future__ import annotations

import linecache
import os
import re
import stat
import sys
from collections import deque
from collections.abc import Sequence
from itertools import chain
from types import FunctionType, ModuleType, TracebackType
from typing import Any, overload
from weakref import WeakValueDictionary

__all__ = ["from_frames", "module_vars", "to_frames"]

_TEXT_LIMIT = 1000  # characters of a file name, a function name, a source line
_FRAMES_LIMIT = 200  # frames of one traceback that are made here, whatever a peer sends
_READ_LIMIT = 4 << 20  # bytes of local files that are read for the comparison with one traceback
_NEVER_CODE = "/+(proc|sys|dev)/"  # under these names a read may block, or never end
_LAST_LINE = 50_000  # line number above which no source is shown: linecache would hold a list that long
_LINES_LIMIT = 2000  # lines that one source holds
_VARIANTS = 16  # versions of one file that are told apart at the same time

# The code of each frame made here but for its names and its line. It has only this line, and its first
# instruction has no columns, so that nobody underlines any.
_TEMPLATE: Any = (lambda: (yield)).__code__
_NAMES = ("co_name", "co_qualname") if sys.version_info >= (3, 11) else ("co_name",)

_Frame = tuple[str, str, int, str, str]


def to_frames(tb: TracebackType | None, limit: int = 100) -> list[list[Any]]:
    """Write a traceback down.

    Args:
        tb: the traceback, or None.
        limit: how many frames to keep. Of a longer traceback the middle is left out, and one frame
            in its place says how many those were.

    Returns:
        ``[file, function, line, module, source line]`` for each frame, outermost first. Frames that
        came from another process themselves are told as they came.
    """
    head: list[TracebackType] = []
    tail: deque[TracebackType] = deque(maxlen=limit - limit // 2)
    count = 0
    while tb is not None:
        (head if count < limit // 2 else tail).append(tb)
        count += 1
        tb = tb.tb_next
    kept = len(head) + len(tail)
    for file in {entry.tb_frame.f_code.co_filename for entry in chain(head, tail)}:
        linecache.checkcache(file)
    frames = [_to_frame(entry) for entry in chain(head, tail)]
    if kept < count:
        frames.insert(len(head), _left_out(count - kept))
    return frames


def from_frames(frames: object) -> TracebackType | None:
    """Make traceback objects.

    Args:
        frames: what :func:`to_frames` returned, or any garbage: whatever is not a frame is ignored,
            and of more than 200 frames the middle is left out.

    Returns:
        The traceback of the outermost frame, or None if there is no frame. Its frames refer to no
        other frames (``f_back`` is None) and to no data but a few names and source lines.
    """
    if type(frames) is not list:
        return None
    if len(frames) > _FRAMES_LIMIT:
        half = _FRAMES_LIMIT // 2
        frames = [*frames[:half], _left_out(len(frames) - 2 * half), *frames[-half:]]
    valid = [frame for frame in map(_checked, frames) if frame]
    lines: dict[str, dict[int, str]] = {}
    modules: dict[str, str] = {}
    for file, _, number, module, text in valid:
        lines.setdefault(file, {})[number] = text
        modules[file] = module
    local = _LocalFiles()
    places = {file: _place(file, local.has_same(file, modules[file], known), known) for file, known in lines.items()}
    scopes: dict[tuple[str, str], dict[str, Any]] = {}
    tb: TracebackType | None = None
    for file, function, number, module, _ in reversed(valid):
        shown, source = places[file]
        scope = scopes.get((file, module))
        if scope is None:
            scope = scopes[file, module] = {"__name__": module, "__file__": file}
            if source:
                scope["__loader__"] = source
        code = _TEMPLATE.replace(co_filename=shown, co_firstlineno=number, **dict.fromkeys(_NAMES, function))
        # The frame of a generator that never ran: unlike a frame that did run, it has no f_back,
        # which would keep the callers of this function and all their variables alive.
        tb = TracebackType(tb, FunctionType(code, scope)().gi_frame, 0, number)
    return tb


def module_vars(name: str) -> dict[str, Any]:
    """The variables of an imported module, read without running any code of it.

    Args:
        name: its name in ``sys.modules``.

    Returns:
        Its ``__dict__``, or an empty dict if there is no such module.
    """
    module = sys.modules.get(name)
    if not issubclass(type(module), ModuleType):
        return {}
    return vars(ModuleType)["__dict__"].__get__(module) or {}


# ---- one frame -----------------------------------------------------------------------------------


def _to_frame(entry: TracebackType) -> list[Any]:
    code, scope = entry.tb_frame.f_code, entry.tb_frame.f_globals
    number = entry.tb_lineno or code.co_firstlineno or 1  # tb_lineno can be None
    module = dict.get(scope, "__name__")
    source = dict.get(scope, "__loader__")
    if type(source) is _Source:
        file, text = source.file, source.lines.get(number, "")
    else:
        file, text = code.co_filename, _line(code.co_filename, number, scope)
    return [
        file[:_TEXT_LIMIT],
        code.co_name[:_TEXT_LIMIT],
        number,
        module[:_TEXT_LIMIT] if type(module) is str else "",
        text,
    ]


def _left_out(count: int) -> list[Any]:
    return [f"<{count} frames left out>", "...", 1, "", ""]


def _checked(frame: object) -> _Frame | None:
    """The frame with every part of the right type and size, or None if that cannot be."""
    if type(frame) is not list or len(frame) < 5:
        return None
    file, function, number, module, text = frame[:5]
    if type(file) is not str or type(number) is not int or not 0 < number < 1 << 31:
        return None
    function, module, text = (part if type(part) is str else "" for part in (function, module, text))
    return (
        _file_name(file[:_TEXT_LIMIT]),
        function[:_TEXT_LIMIT] or "<unknown>",
        number,
        module[:_TEXT_LIMIT] or "<unknown>",  # linecache asks no loader for a module without a name
        _one_line(text),
    )


def _file_name(file: str) -> str:
    """A name that os.stat takes: linecache of Python 3.10 lets its ValueError through."""
    try:
        if b"\0" not in os.fsencode(file):
            return file or "<unknown>"
    except UnicodeEncodeError:
        pass  # a lone surrogate that stands for no byte
    return file.encode("ascii", "backslashreplace").decode().replace("\0", "\\0")


def _one_line(text: str) -> str:
    """Without what would count as a line break to linecache, such as a form feed."""
    return " ".join(text[:_TEXT_LIMIT].rstrip().splitlines())


def _line(file: str, number: int, scope: dict[str, Any] | None = None) -> str:
    """What linecache knows of a line. Without the ``scope`` of a frame no loader is asked."""
    try:
        return _one_line(linecache.getline(file, number, scope))
    except Exception:  # a loader may raise anything; a traceback without this line is still one
        return ""


def _has_lines(file: str, lines: dict[int, str]) -> bool:
    return all(_line(file, number) == text for number, text in lines.items())


# ---- source lines --------------------------------------------------------------------------------


class _Lines(Sequence[str]):
    """The lines of a file as far as they are known, in the form in which linecache keeps them; the others are empty."""

    __slots__ = ("known", "last")

    def __init__(self) -> None:
        self.known: dict[int, str] = {}
        self.last = 0

    def add(self, lines: dict[int, str]) -> None:
        self.known.update(lines)
        self.last = max((number for number in self.known if number <= _LAST_LINE), default=0)

    def __len__(self) -> int:
        return self.last

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        at = range(1, self.last + 1)[index]
        if isinstance(at, range):
            return [self.known.get(number, "") + "\n" for number in at]
        return self.known.get(at, "") + "\n"


class _Source:
    """What the living remote tracebacks know of one file: a loader as of PEP 302.

    All tracebacks share it, because linecache keeps one text for each file name. linecache has it from the beginning:
    it would look for a file of that name before it asks a loader. When the last traceback is gone, linecache forgets
    the file.
    """

    __slots__ = ("__weakref__", "_lines", "file", "shown")

    def __init__(self, file: str, shown: str) -> None:
        self.file = file
        self.shown = shown
        self._lines = _Lines()

    @property
    def lines(self) -> dict[int, str]:
        """The known lines, by their numbers."""
        return self._lines.known

    def get_source(self, fullname: str) -> str:
        """The file's text as far as it is known; the other lines are empty."""
        parts, at = [], 1
        for number, text in sorted(self.lines.items()):
            if number > _LAST_LINE:
                break
            parts += ["\n" * (number - at), text]
            at = number
        return "".join(parts) + "\n"

    def learn(self, lines: dict[int, str]) -> bool:
        """Add these lines, unless they contradict what is known: that is another version."""
        known = self.lines
        if any(known.get(number, text) != text for number, text in lines.items()):
            return False
        if not lines.keys() <= known.keys():
            if len(known) + len(lines) > _LINES_LIMIT:
                return False
            self._lines.add(lines)
        linecache.cache[self.shown] = (0, None, self._lines, self.shown)  # type: ignore[assignment]  # a sequence will do
        return True

    def __del__(self) -> None:
        entry: Any = linecache.cache.get(self.shown)
        if entry is not None and len(entry) > 2 and entry[2] is self._lines:
            del linecache.cache[self.shown]


_sources: WeakValueDictionary[str, _Source] = WeakValueDictionary()


def _place(file: str, is_same: bool | None, lines: dict[int, str]) -> tuple[str, _Source | None]:
    """Under which file name these lines will be shown, and by which loader.

    The name is the file's own if its lines here are the same (no loader: all of the file may show), or
    if it is not known here. Otherwise the name says that this is the worker's version of the file.
    """
    if file in _sources:
        is_same = None  # its name is the worker's already
    elif is_same:
        return file, None
    for version in range(0 if is_same is None else 1, _VARIANTS):
        shown = _shown(file, version)
        source = _sources.get(shown)
        if source is None:
            source = _sources[shown] = _Source(file, shown)
        if source.learn(lines):
            return shown, source
    return _shown(file, _VARIANTS), None  # a name that never has a source and so shows none


def _shown(file: str, version: int) -> str:
    return f"{file} (worker {version})" if version > 1 else f"{file} (worker)" if version else file


# ---- local files ---------------------------------------------------------------------------------


class _Loaded:
    """The files from which this process has loaded its modules, as they were when the number of these changed last."""

    def __init__(self) -> None:
        self._count = 0
        self._files: set[object] = set()

    def __contains__(self, file: str) -> bool:
        if len(sys.modules) != self._count:
            self._count = len(sys.modules)
            found = (module_vars(name).get("__file__") for name in list(sys.modules))
            self._files = {name for name in found if type(name) is str}
        return file in self._files


_loaded = _Loaded()


class _LocalFiles:
    """The files of this process, as far as they are read for the comparison with one traceback."""

    def __init__(self) -> None:
        self._room = _READ_LIMIT

    def has_same(self, file: str, module: str, lines: dict[int, str]) -> bool | None:
        """Whether this process has the same lines in its own file of that name. None: it has no such file."""
        entry: Any = linecache.cache.get(file)
        if module_vars(module).get("__file__") == file or file in _loaded:
            return self._read(file, lines, entry)
        if entry is not None and len(entry) > 2 and entry[1] is None and type(entry[2]) is not _Lines:
            return _has_lines(file, lines)  # of code that has no file, such as code typed in
        if file[0] == "<" and file[-1] == ">":  # linecache asks no loader for these
            return not any(lines.values())
        # Should linecache be cleared, it would look for a file when the traceback is shown.
        return False if re.match(_NEVER_CODE, os.path.normpath(file)) else None

    def _read(self, file: str, lines: dict[int, str], entry: Any) -> bool:
        try:
            status = os.stat(file)
        except OSError:  # such as a module in a zip file
            linecache.checkcache(file)
        else:
            self._room -= status.st_size
            if not stat.S_ISREG(status.st_mode) or self._room < 0:
                return False
            linecache.checkcache(file)
        is_same = _has_lines(file, lines)
        if entry is None:
            linecache.cache.pop(file, None)
        return is_same
