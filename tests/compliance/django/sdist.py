"""Django's own tests, which its sdist has and its wheel has not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import django

PATIENCE = 120
"""Seconds for the download."""


class CannotBeHad(Exception):
    """There is no sdist, and no way to get it; the text says why."""


def tests_of_django() -> Path:
    """The directory of the tests of the Django that is installed, downloaded if it is not in the cache.

    The cache is ``gtask`` in ``$XDG_CACHE_HOME``, or in ``~/.cache``.

    Raises:
        CannotBeHad: it could not be downloaded.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gtask"
    tests = cache / f"django-{django.__version__}" / "tests"
    if (tests / "runtests.py").exists():
        return tests
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as directory:
        _download(directory)
        [archive] = Path(directory).glob("*.tar.gz")
        subprocess.run(["tar", "xzf", archive.name], cwd=directory, check=True)
        [unpacked] = (path for path in Path(directory).iterdir() if path.is_dir())
        shutil.rmtree(tests.parent, ignore_errors=True)
        unpacked.rename(tests.parent)
    return tests


def _download(directory: str) -> None:
    release = f"django=={django.__version__}"
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", ":all:", "--dest", directory]
    command = [sys.executable, "-m", "pip", "download", *options, release]
    try:
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = f"{error.stdout or error}".strip()
        raise CannotBeHad(f"sdist of {release}, which has Django's tests; {' '.join(command[1:])}: {said}") from error
