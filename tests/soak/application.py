"""What the soak's workers serve. Each worker keeps a log of its own: a line for each event, as it happens.

A line is ``begin``, ``end`` (of a call) or ``done`` (checkout_done has run), the call's token, and the monotonic time,
which all processes of a machine share.
"""

from __future__ import annotations

import itertools
import os
import time

import gtask

DIRECTORY = "GTASK_SOAK_LOGS"
"""The environment variable that says where the logs go."""

_log = -1


class OnPurpose(Exception):
    """What a call raises that was asked to."""


def setup():
    global _log
    path = os.path.join(os.environ[DIRECTORY], f"worker-{os.getpid()}-{time.monotonic_ns()}")
    _log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)


def checkout_done():
    _note("done")


def work(token, payload, seconds):
    """Takes a while; gives back what shows which question was answered."""
    _note("begin", token)
    time.sleep(seconds)
    _note("end", token)
    return [token, payload]


def fail(token, payload, seconds):
    _note("begin", token)
    time.sleep(seconds)
    _note("end", token)
    raise OnPurpose(token)


def hang_asleep(token, payload, seconds):
    _note("begin", token)
    time.sleep(3600)


def hang_in_python(token, payload, seconds):
    _note("begin", token)
    while True:
        pass


def hang_in_c(token, payload, seconds):
    """Holds the GIL, so that no signal handler runs."""
    _note("begin", token)
    return -1 in itertools.count()


def _note(event, token=""):
    # One write for a line: a worker may be killed at any time.
    os.write(_log, f"{event}\t{token}\t{time.monotonic():.6f}\n".encode())


_methods = {function.__name__: function for function in (work, fail, hang_asleep, hang_in_python, hang_in_c)}
plain = gtask.Interface(_methods, setup=setup, name="soak")
with_hook = gtask.Interface(_methods, setup=setup, checkout_done=checkout_done, name="soak")
