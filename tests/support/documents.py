"""What the tests read in the documents: the code blocks that have a name, files to write or texts to expect."""

from __future__ import annotations

import re
import textwrap


def named_blocks(document):
    """The code blocks of a document that have a ``:name:``: name to text."""
    found = re.findall(
        r"^\.\. code-block:: \w+\n   :name: (\S+)\n\n((?:   .*\n|\n(?=\n*   ))+)", document, re.MULTILINE
    )
    return {name: textwrap.dedent(body) for name, body in found}
