"""The point of this test is to ensure that the project can be packaged and works where the package is installed.

The sdist contains all that a wheel is built from; the wheel all modules, the type marker and the two commands.
Neither build warns. The version is stated in gtask/__init__.py alone.
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

import gtask

ROOT = Path(gtask.__file__).parent.parent
SOURCES = ("pyproject.toml", "setup.py", "setup.cfg", "README.rst", "LICENSE", "CHANGES.rst", "gtask", "bin")


def run(*command, cwd):
    """Run a command as on a machine that knows nothing of this checkout and these tests; all that it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE"))}
    done = subprocess.run(
        command, cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def build(kind, tree):
    """Build an sdist or wheel of a tree, as pip and build do without isolation; its path."""
    code = f"from setuptools import build_meta; build_meta.__legacy__.build_{kind}('dist')"
    printed = run(sys.executable, "-c", code, cwd=tree)
    assert not [line for line in printed.splitlines() if "warning" in line.lower()]
    [package] = (tree / "dist").iterdir()
    return package


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """An sdist, built from a copy of what the packages come from."""
    tree = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tree)
    return build("sdist", tree)


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """A wheel, built from the unpacked sdist."""
    unpacked = tmp_path_factory.mktemp("unpacked")
    run("tar", "-xzf", str(sdist), cwd=unpacked)
    [tree] = unpacked.iterdir()
    return build("wheel", tree)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The python of a new virtual environment with the wheel; gevent and msgpack are those of this environment."""
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", ".", cwd=environment)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel), cwd=environment)
    [site_packages] = environment.glob("lib/python*/site-packages")
    dependencies = {str(Path(find_spec(name).origin).parent.parent) for name in ("gevent", "greenlet", "msgpack")}
    (site_packages / "dependencies.pth").write_text("\n".join(dependencies))
    return python


def test_wheel_is_complete(wheel):
    """It contains all of gtask/ and the commands, and nothing else but its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        commands = archive.read(f"gtask-{gtask.__version__}.dist-info/entry_points.txt").decode()
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "gtask").rglob("*.py")}
    assert names == {*modules, "gtask/py.typed"}
    assert set(re.findall("^(gtask.*) = ", commands, re.MULTILINE)) == {"gtask", "gtask-server"}


def test_metadata(wheel):
    """It states the version of the package, the Pythons, the dependencies, the extras and the README."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"gtask-{gtask.__version__}.dist-info/METADATA").decode()
        assert f"gtask-{gtask.__version__}.dist-info/licenses/LICENSE" in archive.namelist()
    lines = metadata.partition("\n\n")[0].split("\n")
    assert f"Version: {gtask.__version__}" in lines
    assert "Requires-Python: >=3.10" in lines
    required = {re.split(r"[^\w-]", line.partition(": ")[2])[0] for line in lines if line.startswith("Requires-Dist")}
    assert {"gevent", "msgpack"} <= required
    assert {f"Provides-Extra: {extra}" for extra in ("demo", "setproctitle", "test")} <= set(lines)
    assert (ROOT / "README.rst").read_text().strip() in metadata


def test_it_works_where_it_is_installed(installed, tmp_path):
    """The command states its version, and a program calls a server that the new environment's gtask has started."""
    script = installed.parent / "gtask-server"
    assert run(str(script), "--version", cwd=tmp_path) == f"gtask {gtask.__version__}\n"
    (tmp_path / "adder.py").write_text("def add(a, b):\n    return a + b\n")
    code = "import gtask; print(gtask.__file__, gtask.Client('spawn:adder').call('add', 2, 3))"
    [site_packages] = installed.parent.parent.glob("lib/python*/site-packages")
    assert f"{site_packages / 'gtask' / '__init__.py'} 5" in run(str(installed), "-c", code, cwd=tmp_path).splitlines()


def test_version_is_in_one_place():
    """No other file of the project says which version this is; the history of the changes may."""
    stated = re.compile(rf"(?<![\d.]){re.escape(gtask.__version__)}(?![\d.])")
    files = [ROOT / "setup.py", ROOT / "setup.cfg", ROOT / "README.rst"]
    for folder in ("gtask", "docs", "bin"):
        files += [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    found = [str(path.relative_to(ROOT)) for path in files if stated.search(path.read_text())]
    assert found == ["gtask/__init__.py"]
