"""Torture of replicas. See README.md for the variables."""

import pytest

from support import postgres
from support.process import missing


def pytest_sessionstart(session):
    if absent := missing("astra-sandbox", "userintent-server"):
        raise pytest.UsageError(absent)


@pytest.fixture
def programs():
    """PostgreSQL can be started; else the test fails, or is skipped where that was said to be so."""
    postgres.require()
