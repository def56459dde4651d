"""A peer names files in the frames of its exceptions, any files: none is read, or looked for, but those from which this
process has loaded code. That holds when the exception is made, when it is shown, and for what linecache keeps.
"""

from __future__ import annotations

import fractions
import linecache
import os
import sys
import traceback

import pytest

from gtask.wire.exceptions import tracebacks
from gtask.wire.exceptions.failure import rebuild

SECRET = "first = 1\npassword = 'x'\nlast = 3\n"

_opened: list[str] = []
_is_watching = False


def note(event, arguments):
    if _is_watching and event == "open":
        _opened.append(str(arguments[0]))


sys.addaudithook(note)


@pytest.fixture
def opened(monkeypatch):
    """The names of the files that are opened or looked for meanwhile."""
    global _is_watching
    usual = os.stat

    def stat(path, *arguments, **options):
        note("open", (path,))
        return usual(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", stat)
    _opened.clear()
    _is_watching = True
    yield _opened
    _is_watching = False


def remote(*frames):
    """What a client makes of a peer's frames: file, line, module and the text of the line."""
    told = [[file, "run", line, module, text] for file, line, module, text in frames]
    return rebuild({"type": "ValueError", "module": "builtins", "text": "x", "args": ["x"], "frames": told}, "")


def shown(error):
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


@pytest.fixture
def secret(tmp_path):
    """A file of this user that is no module."""
    path = tmp_path / "secret.py"
    path.write_text(SECRET)
    return str(path)


@pytest.mark.parametrize("text", ["password = 'x'", "", "other"])
def test_another_file(secret, opened, text):
    """Its line is the peer's, whether or not it is the file's, and the lines around it stay unknown."""
    error = remote((secret, 2, "secret", text))
    assert f'File "{secret}", line 2, in run' in shown(error)
    assert text in shown(error)
    assert [line.strip() for line in linecache.getlines(secret)] == ["", text]
    assert error.__traceback__.tb_frame.f_globals["__loader__"].get_source("secret") == f"\n{text}\n"
    assert secret not in opened


@pytest.mark.parametrize(
    "file",
    ["/proc/self/pagemap", "/dev/zero", "/sys/kernel/notes", "//proc/self/pagemap", "/srv/../proc/self/pagemap"],
)
def test_files_that_never_end(file, opened):
    """They are not read either when linecache has been cleared before the traceback is shown."""
    error = remote((file, 1, "app", "x"), (file, 2, "app", ""))
    shown(error)
    linecache.clearcache()
    shown(error)
    assert file not in opened


def test_a_pipe(tmp_path, opened):
    """To open it would block for ever."""
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    assert "work()" in shown(remote((pipe, 1, "app", "work()")))
    assert pipe not in opened


def test_a_file_that_comes_later(tmp_path, opened):
    """The name was unknown when the exception came, and is a file's when it is shown."""
    path = tmp_path / "later.py"
    error = remote((str(path), 2, "later", "work()"))
    path.write_text(SECRET)
    opened.clear()
    assert "work()" in shown(error)
    assert "password" not in shown(error)
    assert str(path) not in opened


@pytest.mark.parametrize("module", ["fractions", "another"])
def test_a_file_of_this_process(opened, module):
    """It is read for the comparison, whatever the peer's name for it; and linecache forgets it."""
    file = fractions.__file__
    with open(file) as lines:
        text = lines.readlines()[11].strip("\n")
    linecache.cache.pop(file, None)
    opened.clear()
    error = remote((file, 12, module, text))
    assert file in opened
    assert file not in linecache.cache
    assert "__loader__" not in error.__traceback__.tb_frame.f_globals
    assert f'File "{file}", line 12' in shown(error)
    other = remote((file, 12, module, "other()"))
    assert f'File "{file} (worker)", line 12' in shown(other)


def test_many_files_of_this_process(opened, monkeypatch):
    """The bytes that are read for one traceback are bounded."""
    monkeypatch.setattr(tracebacks, "_READ_LIMIT", 100_000)
    files = [name for module in list(sys.modules.values()) if (name := getattr(module, "__file__", None))]
    files = [name for name in files if name.endswith(".py") and os.path.exists(name)][:199]
    opened.clear()
    remote(*((file, 1, "app", "x") for file in files))
    read = {name for name in opened if opened.count(name) > 1}  # looked for, then opened
    assert sum(os.path.getsize(name) for name in read) <= 100_000


def test_a_last_line_beyond_all_bounds():
    """Whoever asks for all lines of the file gets a list of a bearable length."""
    error = remote(("/srv/app/x.py", 2**31 - 1, "app", "work()"), ("/srv/app/x.py", 3, "app", "work()"))
    assert len(list(linecache.getlines("/srv/app/x.py"))) == 3
    assert shown(error)
