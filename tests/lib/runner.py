"""Runs a part's tests and says on the last line `N passed, N failed, N skipped`."""

import sys
import time
import unittest


class Result(unittest.TextTestResult):
    def startTest(self, test):
        self.began = time.monotonic()
        super().startTest(test)

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed = getattr(self, "passed", 0) + 1
        self.stream.writeln(f"    {time.monotonic() - self.began:.1f} s")


def main(names):
    loader = unittest.defaultTestLoader
    suite = loader.loadTestsFromNames(names)
    runner = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, resultclass=Result)
    result = runner.run(suite)
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    print(f"{getattr(result, 'passed', 0)} passed, {failed} failed, {len(result.skipped)} skipped", flush=True)
    return 0 if failed == 0 else 1
