"""A program that runs Python's own tests of ``concurrent.futures`` on the executor of a client, all side by side.

``python -m tests.compliance.executor [patched]`` prints one line for each test, with what went wrong if something did;
``patched`` says that gevent is to patch the program first. Status 77: this Python comes without its tests.
"""

from __future__ import annotations

import sys

from gevent import monkey

if __name__ == "__main__" and "patched" in sys.argv:
    monkey.patch_all()

import importlib
import time
import traceback
import unittest

import gevent

import gtask
from gtask.client.many.executor import Executor

MISSING = 77

TRIES = 3
"""How often one that fails is run again, alone: they measure time, and the machine may be busy."""

MIXINS = {
    # mixin: the module in which newer Pythons have it
    "ExecutorTest": "executor",
    "WaitTests": "test_wait",
    "AsCompletedTests": "test_as_completed",
    "ExecutorShutdownTest": "test_shutdown",
    "ProcessPoolExecutorTest": "test_process_pool",
}

LEFT_OUT = {
    # what Python's own executors do, and this one does not
    "test_no_stale_references": "submits a method that is bound to an object",
    "test_max_workers_negative": "the number of workers is the client's",
    "test_free_reference": "values are plain data, not objects to which weak references can lead",
    "test_swallows_falsey_exceptions": "passes classes as arguments",
    "test_interpreter_shutdown": "starts programs with an executor of Python's own",
    "test_submit_after_interpreter_shutdown": "starts programs with an executor of Python's own",
    "test_hang_gh83386": "starts programs with an executor of Python's own",
    "test_hang_gh94440": "is about processes of the executor's own, and needs the main thread's alarm",
    # takes 5 seconds: tests/promises/calls/test_executor.py has the same with less
    "test_map_timeout": "sleeps",
}

OF_PROCESS_POOLS = {"test_map_chunksize"}
"""Of these tests only what is not about the processes."""


class OurExecutor(Executor):
    """One that knows that ``time.sleep`` is no longer that in a patched program."""

    def submit(self, fn, /, *args, **kwargs):
        return super().submit("time:sleep" if fn is time.sleep else fn, *args, **kwargs)

    def map(self, fn, *iterables, **kwargs):
        return super().map("time:sleep" if fn is time.sleep else fn, *iterables, **kwargs)


class Case(unittest.TestCase):
    """What the mixins need, as Python's own ExecutorMixin has it."""

    executor_type = OurExecutor
    worker_count = 5

    def setUp(self):
        count = self.worker_count
        self.client = gtask.Client(server.address, min_workers=count, max_workers=count, timeout=60)
        self.client.open(wait=True, timeout=60)  # what Python's executors begin, the worker has at once
        self.executor = OurExecutor(self.client)

    def tearDown(self):
        self.executor.shutdown()
        self.client.close(timeout=30)

    def assertEqual(self, first, second, msg=None):
        """Tuples arrive as lists."""
        super().assertEqual(as_lists(first), as_lists(second), msg)  # noqa: PT009  # unittest it is


def as_lists(value):
    if isinstance(value, (list, tuple)):
        return [as_lists(item) for item in value]
    return {name: as_lists(item) for name, item in value.items()} if isinstance(value, dict) else value


def cases():
    """All tests, each with the case that it is a method of."""
    package = importlib.import_module("test.test_concurrent_futures")
    for mixin, module in MIXINS.items():
        home = package
        if hasattr(package, "__path__"):
            home = importlib.import_module(f"{package.__name__}.{module}")
        case = type(mixin, (Case, getattr(home, mixin)), {})
        for name in unittest.defaultTestLoader.getTestCaseNames(case):
            if name not in LEFT_OUT and (mixin != "ProcessPoolExecutorTest" or name in OF_PROCESS_POOLS):
                yield mixin, case(name)


def outcome(case):
    """ "" if it passes, else where and why not."""
    result = case.run()
    return "".join(text for _, text in [*result.errors, *result.failures]) or "".join(
        f"skipped: {why}" for _, why in result.skipped
    )


if __name__ == "__main__":
    try:
        there = dict.fromkeys(cases())
    except ModuleNotFoundError:
        traceback.print_exc()
        sys.exit(MISSING)
    with gtask.spawn_server(
        "gtask.server.functions", allow=["builtins", "time", "test.test_concurrent_futures"]
    ) as server:
        ran = [(mixin, case, gevent.spawn(outcome, case)) for mixin, case in there]
        gevent.joinall([greenlet for _, _, greenlet in ran])
        for mixin, case, greenlet in ran:
            trouble = greenlet.get()
            for _ in range(TRIES):
                trouble = trouble and outcome(case)
            print(f"{mixin}.{case._testMethodName}: {trouble or 'ok'}")
