"""One target in a process of its own: ``python -m tests.fuzz.one TARGET SECONDS DIRECTORY [INPUT]``.

With an input, a file, the target gets that and nothing else. The outcome is a file in the directory.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from pathlib import Path

from tests.fuzz import engines
from tests.fuzz.meter import Meter

LIVE = "live"


def main(name: str, seconds: float, directory: Path, given: str = "") -> None:
    """Fuzz one target."""
    logging.raiseExceptions = False  # a message and arguments that do not fit are no news here
    engine = engines.by_atheris if engines.has_atheris() and name != LIVE and not given else engines.by_hypothesis
    with contextlib.ExitStack() as stack:
        if engine is engines.by_atheris:
            import atheris

            stack.enter_context(atheris.instrument_imports(include=["gtask"]))
        from tests.fuzz import live, targets

        stack.close()
        target = stack.enter_context(live.live(directory)) if name == LIVE else targets.TARGETS[name]
        meter = Meter(target, directory)
        if given:
            meter(Path(given).read_bytes())
        else:
            engine(meter, live.SEEDS if name == LIVE else targets.SEEDS[name], seconds, directory)
        meter.write()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])
