"""Random histories against the real programs. See README.md for the variables."""

import pytest

from support.process import missing


def pytest_sessionstart(session):
    if absent := missing("astra-sandbox", "userintent-server"):
        raise pytest.UsageError(absent)
