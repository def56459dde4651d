"""A keeper that belongs to a program, so that its server can reload: ``spawn:jobs?reload``.

It has no operator: it ends with the program that has started it, and knows neither the environment nor the file. The
first of its arguments is a JSON object, as that of :mod:`gtask.server.daemon.application`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys

from gtask.server import descriptors, output, process
from gtask.server.config import SIGNALS
from gtask.server.daemon import cli, logs, options
from gtask.server.listener import AddressUnavailable, listen
from gtask.spawn import open_standard_descriptors

__all__ = ["main"]


def main() -> int:
    """Keep a master until the program ends; gives the exit status."""
    open_standard_descriptors()
    process.start_afresh()
    inherited = descriptors.open_descriptors()
    orders, arguments = json.loads(sys.argv[1]), sys.argv[2:]
    os.set_inheritable(orders["pipe"], False)
    process.leave_program(inherited)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the keeper heeds them
    try:
        chosen = options.parse(arguments, {}, default_file="").config
        config = dataclasses.replace(chosen, private=orders["private"])
        output.guard("stderr")
        logs.setup(config.log_level, config.log_json)
        listeners = listen(config)
    except (AddressUnavailable, options.BadOptions, ValueError) as error:
        logs.complain(str(error))
        return cli.CANNOT_SERVE
    parent = process.Parent(orders["parent"], orders["pipe"], forked=False)
    try:
        return cli.keep(config, listeners, arguments, parent=parent)
    finally:
        process.forget_unwritten()
