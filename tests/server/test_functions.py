"""From a name to a function that may be called: what is admitted, what is not, and what is said of it."""

from __future__ import annotations

import hashlib
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtask.server.functions import Functions
from gtask.server.worker.interface import Interface

JOBS = """
    import functools
    import os
    import subprocess
    from os import system
    from subprocess import Popen

    from elsewhere import stranger

    PRICE = 3
    here = os.getcwd
    later = functools.partial(system, "true")

    def double(number, *, times=1):
        return 2 * number * times

    def _hidden():
        return "hidden"

    @functools.lru_cache
    def cached(number):
        return number

    class Report:
        title = "report"

        def __init__(self, number=0):
            self.number = number

        def render(self):
            return self.number

        @property
        def size(self):
            raise AssertionError("looking must not run a property")

        @staticmethod
        def blank():
            return "blank"

        @classmethod
        def named(cls, name):
            return [cls.__name__, name]

        class Page:
            @staticmethod
            def count():
                return 7

    class Process(Popen):
        pass

    class Tame(Popen):
        def __init__(self, number):
            self.number = number

    class Later(functools.partial):
        pass

    class Caller:
        def __call__(self, number):
            return number + 1

    class Plain:
        pass

    also_later = Later(system, "true")
    caller = Caller()

    class Lent:
        run = staticmethod(subprocess.run)
        os = os
"""


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """The packages myapp and myapplication along the Python path, with myapp.jobs, and a module elsewhere."""
    files = {
        "elsewhere.py": "def stranger():\n    return 'stranger'\n",
        "myapp/__init__.py": "",
        "myapp/jobs/__init__.py": textwrap.dedent(JOBS),
        "myapp/jobs/deep.py": "from os import system\n\ndef down():\n    return 'down'\n",
        "myapp/jobs/broken.py": "import no_such_module_at_all\n",
        "myapp/jobs/_private.py": "def own():\n    return 'own'\n",
        "myapp/other.py": "def other():\n    return 'other'\n",
        "myapp/jobsite.py": "def site():\n    return 'site'\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "myapp.jobs"
    for name in [name for name in sys.modules if name.split(".")[0] in ("myapp", "elsewhere")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "arguments", "value"),
    [
        ("double", (4,), 8),
        ("cached", (5,), 5),
        ("Report.blank", (), "blank"),
        ("Report.named", ("x",), ["Report", "x"]),
        ("Report.Page.count", (), 7),
        ("caller", (1,), 2),
        ("*double", ([[1], [2]],), [2, 4]),
    ],
)
def test_what_may_be_called(jobs, name, arguments, value):
    """Functions, static and class methods, also of a class in a class; the star calls once for each list."""
    star = "*" if name.startswith("*") else ""
    assert Functions([jobs])(f"{star}{jobs}:{name.removeprefix('*')}", *arguments) == value


def test_keywords_and_classes(jobs):
    """They pass keyword arguments on; a class is called as one."""
    functions = Functions([jobs])
    assert functions("myapp.jobs:double", 4, times=3) == 24
    assert functions("myapp.jobs:Report", number=3).number == 3
    assert functions("myapp.jobs:Tame", 4).number == 4
    assert vars(functions("myapp.jobs:Plain")) == {}


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("myapp.jobs:system", PermissionError, "defined in posix"),
        ("myapp.jobs:here", PermissionError, "defined in posix"),
        ("myapp.jobs:stranger", PermissionError, "defined in elsewhere"),
        ("myapp.jobs:Popen", PermissionError, "defined in subprocess"),
        ("myapp.jobs:later", PermissionError, "defined in functools"),
        ("myapp.jobs:Lent.run", PermissionError, "defined in subprocess"),
        ("myapp.jobs:Process", PermissionError, "defined in subprocess"),
        ("myapp.jobs:Later", PermissionError, "defined in functools"),
        ("myapp.jobs:also_later", PermissionError, "defined in functools"),
        ("myapp.jobs:os.system", TypeError, "only a class has functions in it, and system is in a module"),
        ("myapp.jobs:Lent.os.system", TypeError, "needs an instance"),
        ("myapp.jobs:Process.kill", TypeError, "needs an instance of Process"),
        ("myapp.jobs:Report.render", TypeError, "needs an instance of Report"),
        ("myapp.jobs:Report.size", TypeError, "needs an instance of Report"),
        ("myapp.jobs:Report.title", TypeError, "needs an instance of Report"),
        ("myapp.jobs:PRICE", TypeError, "no function, but a int"),
        ("myapp.jobs:PRICE.bit_length", TypeError, "bit_length is in a int"),
        ("myapp.jobs:subprocess", TypeError, "no function, but a module"),
        ("myapp.jobs:double.gi_frame", TypeError, "gi_frame is in a function"),
        ("myapp.jobs:_hidden", ValueError, "'_hidden' is private"),
        ("myapp.jobs:double.__globals__", ValueError, "'__globals__' is private"),
        ("myapp.jobs:Report.__subclasses__", ValueError, "private"),
        ("myapp.jobs._private:own", ValueError, "'_private' is private"),
        ("myapp.jobs:duoble", AttributeError, "no duoble in myapp.jobs; did you mean double?"),
        ("myapp.jobs:Report.blink", AttributeError, "no blink in Report; did you mean blank?"),
        ("myapp.jobs.none:down", ModuleNotFoundError, "the server has no module myapp.jobs.none"),
        ("myapp.jobs.subprocess:run", ModuleNotFoundError, "no module myapp.jobs.subprocess"),
        ("myapp.other:other", PermissionError, "neither an allowed module nor under one"),
        ("myapp:anything", PermissionError, "neither an allowed module"),
        ("myapp.jobsite:site", PermissionError, "neither an allowed module"),
        ("os:system", PermissionError, "call a function that is defined in myapp.jobs, or"),
        ("double", ValueError, 'write "module:function"'),
        ("myapp.jobs:", ValueError, "'' is no name"),
        (":double", ValueError, "'' is no name"),
        ("myapp.jobs:double()", ValueError, "'double()' is no name"),
        ("myapp.jobs:a:b", ValueError, "'a:b' is no name"),
        ("**myapp.jobs:double", ValueError, "is no name"),
        ("*os:system", PermissionError, "os:system may not be called"),
    ],
)
def test_what_may_not(jobs, name, error, says):
    """Each refusal names what was asked for and what is the matter with it."""
    functions = Functions([jobs])
    with pytest.raises(error) as caught:
        functions(name)
    assert says in str(caught.value)
    if error is PermissionError:
        assert "allow" in str(caught.value)


def test_a_refusal_imports_nothing(jobs):
    """What is not allowed is not loaded to find that out."""
    functions = Functions([jobs])
    with pytest.raises(PermissionError):
        functions("myapp.other:other")
    assert "myapp.other" not in sys.modules


def test_modules_under_an_allowed_one(jobs):
    """They are loaded when first called; what they import stays closed; if one is broken that is told as it is."""
    functions = Functions([jobs])
    assert "myapp.jobs" in sys.modules
    assert "myapp.jobs.deep" not in sys.modules
    assert functions("myapp.jobs.deep:down") == "down"
    with pytest.raises(PermissionError):
        functions("myapp.jobs.deep:system")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        functions("myapp.jobs.broken:anything")


def test_a_module_of_python_with_a_half_in_c():
    """What hashlib offers can be called, though it is defined in _hashlib; os.system cannot, being posix's."""
    functions = Functions(["hashlib", "bisect", "math", "datetime", "os"])
    assert functions("hashlib:sha256", b"x").digest() == hashlib.sha256(b"x").digest()
    assert functions("bisect:bisect", [1, 3], 2) == 1
    assert functions("math:sqrt", 9) == 3
    assert functions("datetime:date.fromisoformat", "2020-01-02").day == 2
    with pytest.raises(PermissionError, match="posix"):
        functions("os:system", "true")


def test_a_module_that_is_named_as_one_of_python(jobs, tmp_path):
    """Its own functions can be called, and not what it imports from the half in C of Python's module of that name."""
    source = "from _pickle import loads\n__all__ = ['loads', 'mine']\n\ndef mine():\n    return 1\n"
    (tmp_path / "myapp" / "pickle.py").write_text(source)
    functions = Functions(["myapp"])
    assert functions("myapp.pickle:mine") == 1
    with pytest.raises(PermissionError, match="it is defined in _pickle"):
        functions("myapp.pickle:loads", b"")
    assert Functions(["pickle"])("pickle:loads", b"N.") is None


@pytest.mark.parametrize("arguments", [(), (3,), (["math:sqrt"],), (None,)])
def test_no_name(arguments):
    """The first argument has to be one."""
    with pytest.raises(TypeError, match="the first argument is the name of a function"):
        Functions(["math"])(*arguments)


@pytest.mark.parametrize(
    ("allow", "error", "says"),
    [
        ("math", TypeError, r"write a list of modules, such as \['myapp.jobs'\]"),
        ([3], TypeError, "write a list"),
        ([], ValueError, "no function may be called: allow the modules"),
        (["no_such_module"], ValueError, "'no_such_module': there is no such module"),
        (["math.sqrt"], ValueError, "'math.sqrt': there is no such module"),
        (["json:loads"], ValueError, "'json:loads': write the name of a module"),
        ([""], ValueError, "write the name of a module"),
        (["_thread"], ValueError, "without a leading underscore"),
        (["math."], ValueError, "write the name"),
    ],
)
def test_what_cannot_be_allowed(allow, error, says):
    """It is told when the interface is made."""
    with pytest.raises(error, match=says):
        Functions(allow)


def test_an_allowed_module_that_does_not_load(jobs):
    """Its own error is raised, not that it does not exist."""
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        Functions(["myapp.jobs.broken"])


def test_it_is_an_interface():
    """A callable, which gets all that the caller sends; it says whose functions it calls."""
    functions = Functions(["math", "json"])
    interface = Interface(functions)
    assert interface.is_function
    assert interface.find("math:sqrt")("math:sqrt", 4) == 2
    assert repr(functions) == "<Functions of math, json>"


@given(st.text(alphabet="osytemjn.:*_ d", max_size=24) | st.text(max_size=24))
def test_no_name_does_more_than_be_refused(name):
    """Whatever is asked for: a function of json is found, or one of the errors that are told."""
    with pytest.raises((ValueError, TypeError, AttributeError, PermissionError, ModuleNotFoundError)):
        Functions(["json"])._look_up(name if name != "json:loads" else "")
