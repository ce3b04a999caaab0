"""Adds up the JUnit reports of a test run: count_tests.py DIRECTORY [DIRECTORY ...] prints "N passed, N failed, N skipped".

A gtest program counts by its cases, not as one; where it left no report (it crashed), ctest's word for it counts.
Exit status 1 when something failed or when there was nothing to count.
"""

import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def cases(path: pathlib.Path):
    """(name, state) of each test case in a report."""
    for case in ElementTree.parse(path).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail":
            yield case.get("name"), "failed"
        elif case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
            yield case.get("name"), "skipped"
        else:
            yield case.get("name"), "passed"


def main() -> int:
    total = {"passed": 0, "failed": 0, "skipped": 0}
    for directory in map(pathlib.Path, sys.argv[1:]):
        detailed = {}  # program -> whether its own report has a failure
        for report in directory.glob("gtest/*.xml"):
            detailed[report.stem] = False
            for _, state in cases(report):
                total[state] += 1
                detailed[report.stem] |= state == "failed"
        for report in directory.glob("*.xml"):
            for name, state in cases(report):
                # A program that failed as a whole although its own report looks fine still counts (a leak, a crash at exit).
                if report.name != "ctest.xml" or name not in detailed or (state == "failed" and not detailed[name]):
                    total[state] += 1
    print(", ".join(f"{count} {state}" for state, count in total.items() if count or state != "skipped"))
    return 1 if total["failed"] or not total["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
