"""Fixtures: two callers with certificates of their own, and the sandbox's account."""

import os

import pytest

from caller import Client
from support.sandbox import Admin


@pytest.fixture(scope="session")
def client():
    return Client("client")


@pytest.fixture(scope="session")
def other():
    return Client("other")


@pytest.fixture(scope="session")
def sandbox():
    return Admin(os.environ.get("SANDBOX_ADMIN", "http://astra-sandbox:8444"))
