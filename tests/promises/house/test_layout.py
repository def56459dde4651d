"""The point of this test is to ensure that the project is laid out as it says: docs/design.rst names every module, and
setup.cfg every package.

The section "Layout" of docs/design.rst has one literal block. Each of its lines names a path, indented by two spaces
for each folder that it lies in; behind two spaces or more a sentence may follow::

    gtask/
      address.py            "unix:/run/x.sock", "tcp://host:port" as a value
      wire/
        frames.py           message <-> bytes

A folder ends with "/". Several files that belong together may stand on one line, with commas between them. The
``__init__.py`` of a folder need not be named.
"""

from __future__ import annotations

import configparser
import re

from tests.support.process import ROOT

FILES = {str(path.relative_to(ROOT)) for path in (ROOT / "gtask").rglob("*.py")}


def section(title):
    """The text of a section of docs/design.rst."""
    text = (ROOT / "docs" / "design.rst").read_text(encoding="utf-8")
    found = re.search(rf"^{title}[^\n]*\n-+\n(.*?)(?=^[^\n]+\n[-=]{{4,}}\n|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"docs/design.rst has no section {title}"
    return found[1]


def paths(block):
    """The paths of a literal block's lines, in order."""
    folders = []
    for line in block.splitlines():
        if not line.strip():
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        for name in re.split(r"\s{2,}", line.strip())[0].split(", "):
            del folders[depth:]
            yield "".join(folders) + name
            if name.endswith("/"):
                folders.append(name)


def literal_block(text):
    """The first literal block of a text, without its indentation."""
    lines = text.partition("::\n")[2].lstrip("\n").splitlines()
    block = []
    for line in lines:
        if line and not line.startswith("    "):
            break
        block.append(line[4:])
    return "\n".join(block)


NAMED = list(paths(literal_block(section("Layout"))))


def test_the_format():
    """A path is what its folders' lines and its own say."""
    block = (
        "gtask/\n  address.py   a value\n  wire/  pure\n    frames.py, messages.py   both\n  client/\n    lease.py\n"
    )
    assert list(paths(block)) == [
        "gtask/", "gtask/address.py", "gtask/wire/", "gtask/wire/frames.py", "gtask/wire/messages.py", "gtask/client/",
        "gtask/client/lease.py",
    ]  # fmt: skip


def test_every_module_is_named():
    """In the literal block, by its path."""
    assert sorted(name for name in FILES - set(NAMED) if not name.endswith("/__init__.py")) == []


def test_nothing_that_is_named_is_missing():
    """Neither a file nor a folder; and nothing is named twice."""
    assert [name for name in NAMED if not (ROOT / name).exists()] == []
    assert sorted({name for name in NAMED if NAMED.count(name) > 1}) == []


def test_setup_cfg_names_every_package():
    """Each folder of gtask/ that has modules is a package; setup.cfg lists these, and no others."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = config["options"]["packages"].split()
    assert listed == sorted(listed)
    assert set(listed) == {name.rpartition("/")[0].replace("/", ".") for name in FILES}
    assert {f"{name.rpartition('/')[0]}/__init__.py" for name in FILES} <= FILES
