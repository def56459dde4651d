"""Traceback <-> plain frames.

:func:`to_frames` writes a traceback down as lists of plain data. :func:`from_frames` makes real
traceback objects of them in another process, so that ``traceback``, logging, Sentry and pdb show the
frames *and their source lines*, also where the source files do not exist or are of another version.
No line of a local file is ever shown for a remote frame unless it is the same line, and linecache is
left as it was once the last remote traceback is gone.

The way of remaking code objects is that of tblib and Jinja2 (``code.replace``); the way of giving them
source is PEP 302's ``__loader__.get_source``, which linecache, pdb and Sentry all ask.
"""

from __future__ import annotations

import linecache
import os
import stat
import sys
from collections import deque
from itertools import chain
from types import FunctionType, ModuleType, TracebackType
from typing import Any
from weakref import WeakValueDictionary

__all__ = ["from_frames", "module_vars", "to_frames"]

_TEXT_LIMIT = 1000  # characters of a file name, a function name, a source line
_FRAMES_LIMIT = 200  # frames of one traceback that are made here, whatever a peer sends
_FILE_LIMIT = 8 << 20  # bytes of a local file that is worth reading for a comparison
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
    places = {file: _place(file, modules[file], known) for file, known in lines.items()}
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


# ---- source lines --------------------------------------------------------------------------------


class _Source:
    """What the living remote tracebacks know of one file: a loader as of PEP 302.

    All tracebacks share it, because linecache keeps one text for each file name. When a line is
    added, and when the last traceback is gone, linecache forgets the file.
    """

    __slots__ = ("__weakref__", "file", "lines", "shown")

    def __init__(self, file: str, shown: str) -> None:
        self.file = file
        self.shown = shown
        self.lines: dict[int, str] = {}

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
            known.update(lines)
            linecache.cache.pop(self.shown, None)
        return True

    def __del__(self) -> None:
        linecache.cache.pop(self.shown, None)


_sources: WeakValueDictionary[str, _Source] = WeakValueDictionary()


def _place(file: str, module: str, lines: dict[int, str]) -> tuple[str, _Source | None]:
    """Under which file name these lines will be shown, and by which loader.

    The name is the file's own if its lines here are the same (no loader: all of the file may show), or
    if it is not known here. Otherwise the name says that this is the worker's version of the file.
    """
    same = None if file in _sources else _same(file, module, lines)
    if same:
        return file, None
    for version in range(0 if same is None else 1, _VARIANTS):
        shown = _shown(file, version)
        source = _sources.get(shown)
        if source is None:
            source = _sources[shown] = _Source(file, shown)
        if source.learn(lines):
            return shown, source
    return _shown(file, _VARIANTS), None  # a name that never has a source and so shows none


def _shown(file: str, version: int) -> str:
    return f"{file} (worker {version})" if version > 1 else f"{file} (worker)" if version else file


def _same(file: str, module: str, lines: dict[int, str]) -> bool | None:
    """Whether this process has the same lines in its own file of that name. None: it has no such file."""
    try:
        status = os.stat(file)
    except OSError:
        linecache.checkcache(file)
        known = (
            file in linecache.cache  # such as code typed in
            or (file[0] == "<" and file[-1] == ">")  # linecache asks no loader for these
            or module_vars(module).get("__file__") == file  # such as a module in a zip file
        )
        if not known:
            return None
    else:
        if not stat.S_ISREG(status.st_mode) or status.st_size > _FILE_LIMIT:
            return False  # a peer could name a device or a pipe, which must not be read
        linecache.checkcache(file)
    return all(_line(file, number) == text for number, text in lines.items())
