"""Fixtures of the crash tests. The variables are those of the end-to-end tests (GATEWAY_BIN_DIR, ...)."""

import os
import time

import pytest

from crash_server import PROGRAM, TALLY
from support.process import missing
from support.sandbox import Sandbox

SEED = os.environ.get("CRASH_SEED") or str(time.time_ns() % 1_000_000_007)


def pytest_sessionstart(session):
    if absent := missing(PROGRAM, "crash-ledger", "userintent-server", "userintent-ledger", "astra-sandbox"):
        raise pytest.UsageError(absent)


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
