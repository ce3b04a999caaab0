"""Fixtures: two callers with certificates of their own, and the sandbox's account."""

import pytest
from support import Client, Sandbox


@pytest.fixture(scope="session")
def client():
    return Client("client")


@pytest.fixture(scope="session")
def other():
    return Client("other")


@pytest.fixture(scope="session")
def sandbox():
    return Sandbox()
