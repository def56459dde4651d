"""From a function to the name by which a worker finds it, and why others have none."""

from __future__ import annotations

import functools
import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gtask
from gtask.function_names import name_of, split


def render():
    return None


def decorated(function):
    @functools.wraps(function)
    def wrapper():
        return function()

    return wrapper


@decorated
def framed():
    return None


@functools.lru_cache
def cached():
    return None


def nested():
    def inner():
        return None

    return inner


def careless(function):
    return lambda: function()


class Report:
    def render(self):
        return None

    @staticmethod
    def blank():
        return None

    @classmethod
    def named(cls):
        return None


renamed = decorated(render)
bare = careless(render)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("myapp.jobs:Report.blank", "myapp.jobs:Report.blank"),
        (render, f"{__name__}:render"),
        (framed, f"{__name__}:framed"),
        (framed.__wrapped__, f"{__name__}:framed"),
        (cached, f"{__name__}:cached"),
        (Report.blank, f"{__name__}:Report.blank"),
        (Report, f"{__name__}:Report"),
        (math.sqrt, "math:sqrt"),
        (pow, "builtins:pow"),
        (str, "builtins:str"),
    ],
)
def test_names(function, name):
    """Functions, decorated ones too, static methods, classes, builtins; a name stays as it is."""
    assert name_of(function) == name


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda: None, "it has no name; write it with def"),
        (bare, "it has no name"),
        (nested(), "move it to the top level of a module"),
        (Report().render, "it is bound to an object"),
        (Report.named, "name a class's as 'module:Class.name'"),
        ("text".upper, "it is bound to an object"),
        (functools.partial(render), "it is a partial"),
        (Report(), "it is a Report"),
        (3, "it is a int"),
        (renamed, f"{__name__}:render is something else"),
        (hashlib.sha256, "'_hashlib' is private"),
    ],
)
def test_refusals(function, says):
    """They say what is the matter and what to do."""
    if function is renamed:
        # A second function of the same name: unlike the decorated one, it does not unwrap to what is there.
        function = functools.wraps(render)(lambda: None)
        del function.__wrapped__
    with pytest.raises(TypeError) as caught:
        name_of(function)
    assert says in str(caught.value)


def test_a_new_function():
    """Its module does not have it yet."""

    def fresh():
        return None

    fresh.__qualname__ = "fresh"
    assert name_of(fresh, is_new=True) == f"{__name__}:fresh"
    with pytest.raises(TypeError, match="fresh is something else"):
        name_of(fresh)


@pytest.mark.parametrize("name", ["", "render", "a.b", "a:", ":a", "a::b", "a:b c", "a:b.", ".a:b", "a/b:c"])
def test_no_names(name):
    """What is not of the form is refused, with the form."""
    with pytest.raises(ValueError, match='write "module:function"'):
        split(name)


@pytest.mark.parametrize("name", ["_a:b", "a:_b", "a._b:c", "a:b.__c__"])
def test_private_names(name):
    """So is what begins with an underscore."""
    with pytest.raises(ValueError, match="is private"):
        split(name)


PROGRAM = """
from gtask.function_names import name_of

def render():
    return None

try:
    print(name_of(render))
except TypeError as error:
    print(error)
"""


def test_functions_of_the_program_itself(tmp_path):
    """Started by its module's name it is known by that; started by its file it is not."""
    (tmp_path / "script.py").write_text(PROGRAM)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(PROGRAM)

    environment = {**os.environ, "PYTHONPATH": str(Path(gtask.__file__).parents[1])}

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True, text=True, timeout=30, cwd=tmp_path, check=True, env=environment,
        )  # fmt: skip
        return done.stdout.strip()

    assert run("-m", "script") == "script:render"
    for arguments in (["script.py"], ["-m", "package"]):
        text = run(*arguments)
        assert text.startswith("__main__.render belongs to the program that was started, which workers do not load: ")
        assert text.endswith("start the program by its module's name (python -m name)")
