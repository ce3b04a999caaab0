"""Fixtures of the end-to-end tests.

The programs come from GATEWAY_BIN_DIR (default build/release/bin). Processes are shared per module where a test leaves
nothing behind but rows under e-mail addresses of its own; a test that needs other settings, or that disturbs the
process, makes its own gateway with the fixture `new_gateway`.
"""

import dataclasses

import pytest

from support import canary, postgres
from support.certs import Authority
from support.gateway import Gateway
from support.ledger_tool import Ledger
from support.process import missing
from support.sandbox import Sandbox


def pytest_sessionstart(session):
    if absent := missing("astra-sandbox", "userintent-server", "userintent-ledger"):
        raise pytest.UsageError(absent)


# Files that take longest begin first, so that the last of several processes does not begin with one of them.
LONGEST = ["test_replicas_afterwards", "test_webhook_form", "test_get_retry_table", "test_late_answers", "test_ledger_tool", "test_retry_table"]


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(autouse=True)
def no_personal_data_gets_out(request):
    """After every test: the gateways' logs and metrics hold nothing of the requests."""
    yield
    canary.check()


@pytest.fixture(scope="session")
def sandbox_process():
    sandbox = Sandbox()
    yield sandbox
    sandbox.stop()


@pytest.fixture(scope="session")
def sandbox_http1_process():
    sandbox = Sandbox(http="1")
    yield sandbox
    sandbox.stop()


def _fresh(sandbox):
    sandbox.listener("accept")
    sandbox.reset()
    return sandbox


@pytest.fixture(scope="module")
def sandbox(sandbox_process):
    """HTTP/2 and HTTP/1.1."""
    return _fresh(sandbox_process)


@pytest.fixture(scope="module")
def sandbox_http1(sandbox_http1_process):
    return _fresh(sandbox_http1_process)


@dataclasses.dataclass
class Transport:
    """A way in which the gateway speaks to Astra."""
    name: str
    upstream: Sandbox
    flags: dict        # of the gateway
    http2: bool


@pytest.fixture(scope="module", params=["nghttp2", "libcurl", "http1"])
def transport(request, sandbox, sandbox_http1):
    """HTTP/2 by nghttp2 and by libcurl; HTTP/1.1, as the default finds out by itself. nghttp2 alone, because the
    default would stay with HTTP/1.1 after an upstream that asked for it."""
    return {"nghttp2": Transport("nghttp2", sandbox, {"upstream_transport": "nghttp2"}, True),
            "libcurl": Transport("libcurl", sandbox, {"upstream_transport": "libcurl"}, True),
            "http1": Transport("http1", sandbox_http1, {}, False)}[request.param]


@pytest.fixture(scope="module")
def gateway_process(sandbox):
    gateway = Gateway(sandbox, upstream_breaker=False)
    yield gateway
    gateway.close()


@pytest.fixture
def gateway(gateway_process):
    """The module's gateway, with default settings and a ledger in memory; without a breaker, or one test's faults would
    suspend the next one's calls (test_breaker.py)."""
    yield gateway_process
    gateway_process.assert_alive()


@pytest.fixture(scope="module", params=["nghttp2", "libcurl"])
def short_gateway_process(request, sandbox):
    gateway = Gateway(sandbox, upstream_timeout="1500ms", connect_timeout="1s", upstream_transport=request.param, upstream_breaker=False)
    yield gateway
    gateway.close()


@pytest.fixture
def short_gateway(short_gateway_process):
    """As `gateway`, but it waits no longer than 1.5 s for Astra."""
    yield short_gateway_process
    short_gateway_process.assert_alive()


@pytest.fixture
def new_gateway(sandbox):
    """Makes gateways with settings of their own, in front of the module's sandbox unless told otherwise."""
    made = []

    def make(upstream=sandbox, **flags):
        made.append(Gateway(upstream, **flags))
        return made[-1]

    yield make
    errors = []
    for gateway in made:
        try:
            gateway.close()
        except AssertionError as error:
            errors.append(error)
    if errors:
        raise errors[0]


@pytest.fixture
def ledger(tmp_path):
    """The tool, on a ledger of the test's own."""
    return Ledger(tmp_path / "ledger" / "ledger.db")


@pytest.fixture
def durable(sandbox, ledger):
    """Makes gateways on that ledger."""
    made = []

    def make(**flags):
        made.append(Gateway(sandbox, **{"ledger": f"sqlite:{ledger.path}", **flags}))
        return made[-1]

    yield make
    for gateway in made:
        gateway.close()


@pytest.fixture(scope="session")
def postgres_cluster():
    """One server of PostgreSQL, without a standby."""
    cluster = postgres.Cluster(memory=True)
    yield cluster
    cluster.close()


@pytest.fixture
def postgres_url(postgres_cluster):
    """An empty database of the test's own."""
    return postgres_cluster.database()


@pytest.fixture(scope="session")
def authority():
    authority = Authority()
    yield authority
    authority.close()
