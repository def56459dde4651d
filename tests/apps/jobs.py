"""What the web applications call; it leaves its marks in the directory MARKS."""

import os
import time


def double(number):
    return 2 * number


def pid():
    return os.getpid()


def spin(seconds):
    """Hold the interpreter's lock for so long."""
    end = time.monotonic() + seconds
    turns = 0
    while time.monotonic() < end:
        turns += sum(range(1000)) > 0
    return turns


def hang():
    """Until it is interrupted."""
    try:
        _mark("hanging")
        time.sleep(300)
    finally:
        _mark("interrupted")


def _mark(name):
    with open(os.path.join(os.environ["MARKS"], name), "w") as mark:
        mark.write(str(os.getpid()))
