"""What became of each of Django's own tests, written to the file that the environment names."""

from __future__ import annotations

import json
import os
import unittest
from collections import defaultdict

from django.test.runner import DiscoverRunner


class Result(unittest.TextTestResult):
    """Notes each outcome; a test with parts (subTest) may have several."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.outcomes = defaultdict(list)

    def _note(self, test, outcome):
        self.outcomes[test.id()].append(outcome)

    def addSuccess(self, test):
        super().addSuccess(test)
        self._note(test, "ok")

    def addError(self, test, err):
        super().addError(test, err)
        self._note(test, "error")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._note(test, "failure")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._note(test, "skipped")

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self._note(test, "expected failure")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self._note(test, "unexpected success")

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._note(subtest, "error")


class Runner(DiscoverRunner):
    """Django's usual one, which writes the outcomes down."""

    def get_resultclass(self):
        return Result

    def suite_result(self, suite, result, **kwargs):
        with open(os.environ["COMPLIANCE_OUTCOMES"], "w") as file:
            json.dump(result.outcomes, file)
        return super().suite_result(suite, result, **kwargs)
