"""Random histories against the real programs. See README.md for the variables."""

import pathlib
import sys

_HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent / "e2e")]

import pytest  # noqa: E402

from harness.process import BIN_DIR  # noqa: E402


def pytest_sessionstart(session):
    for program in ("astra-sandbox", "userintent-server"):
        if not (BIN_DIR / program).exists():
            raise pytest.UsageError(f"{BIN_DIR / program} is missing: build it, or set GATEWAY_BIN_DIR")
