"""Fixtures of the crash tests. They use the harness of the end-to-end tests, and its variables (GATEWAY_BIN_DIR, ...)."""

import os
import pathlib
import sys
import time

import pytest

HERE = pathlib.Path(__file__).resolve().parent
for directory in (HERE, HERE.parent / "e2e"):
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))

from crash_server import PROGRAM, TALLY  # noqa: E402
from harness.process import BIN_DIR  # noqa: E402
from harness.sandbox import Sandbox  # noqa: E402

SEED = os.environ.get("CRASH_SEED") or str(time.time_ns() % 1_000_000_007)


def pytest_sessionstart(session):
    for program in (PROGRAM, BIN_DIR / "userintent-server", BIN_DIR / "astra-sandbox"):
        if not program.exists():
            raise pytest.UsageError(f"{program} is missing: build it, or set GATEWAY_BIN_DIR")


def pytest_report_header(config):
    return f"CRASH_SEED={SEED}"


def pytest_terminal_summary(terminalreporter):
    if TALLY["kills"]:
        terminalreporter.write_line("crash tests: " + ", ".join(f"{count} {what}" for what, count in TALLY.items())
                                    + f"; CRASH_SEED={SEED}")


@pytest.fixture(scope="session")
def seed():
    return SEED


@pytest.fixture(scope="session")
def sandbox():
    """One for all tests. It has no attempt limit of its own: that nobody gets a fourth intent is the gateway's doing."""
    sandbox = Sandbox(attempt_limit=0)
    yield sandbox
    sandbox.stop()
