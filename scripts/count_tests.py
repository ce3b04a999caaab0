"""Adds up the JUnit reports of a test run: count_tests.py DIRECTORY [DIRECTORY ...] prints "N passed, N failed, N skipped".

A gtest program counts by its cases, not as one; where it left no report (it crashed), ctest's word for it counts.
Exit status 1 when something failed or when there was nothing to count.

count_tests.py --failed DIRECTORY prints, for each test that failed, the command that runs it alone.
"""

import pathlib
import re
import shlex
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


SHOWN = 20  # commands; who broke more than that reads the log


def commands(directory: pathlib.Path):
    """A line of shell for each failed test."""
    preset = directory.name
    programs = set()
    for report in sorted(directory.glob("gtest/*.xml")):
        for case in ElementTree.parse(report).iter("testcase"):
            if case.find("failure") is not None:
                programs.add(report.stem)
                name = f"{case.get('classname')}.{case.get('name')}"
                yield f"build/{preset}/bin/{report.stem} --gtest_filter={shlex.quote(name)}"
    for report in sorted(directory.glob("*.xml")):
        for case in ElementTree.parse(report).iter("testcase"):
            if case.find("failure") is None and case.find("error") is None and case.get("status") != "fail":
                continue
            name = case.get("name") or ""
            if report.name == "ctest.xml":
                if name not in programs:
                    yield f"ctest --preset {preset} -R {shlex.quote(f'^{re.escape(name)}$')}"
            else:
                # pytest's class name is the path of the file, seen from the suite's directory, with dots, and the class.
                parts = (case.get("classname") or "").split(".")
                suite = pathlib.PurePath("tests", report.stem)
                if parts[:2] == list(suite.parts):
                    parts = parts[2:]
                node = str(suite / parts[0]) + ".py" if parts[0] else str(suite)
                node = "::".join([node, *parts[1:], name])
                yield f"build/tools/venv/bin/python -m pytest -p no:cacheprovider {shlex.quote(node)}"


def print_failed(directories: list[pathlib.Path]) -> int:
    lines = [line for directory in directories for line in commands(directory)]
    for line in lines[:SHOWN]:
        print("    " + line)
    if len(lines) > SHOWN:
        print(f"    and {len(lines) - SHOWN} more")
    return 0


def main() -> int:
    if sys.argv[1:2] == ["--failed"]:
        return print_failed([pathlib.Path(name) for name in sys.argv[2:]])
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
