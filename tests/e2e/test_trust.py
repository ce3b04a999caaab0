"""Whom the gateway speaks to as Astra: the environment that the operator says and the host go together, and --astra_ca_file is a
pin: with it the system's authorities do not count."""

import subprocess

import pytest

from support.certs import Authority
from support.gateway import SERVER
from support.people import person
from support.process import PATIENCE, as_arguments, clean_environment
from support.sandbox import Sandbox
from support.server import Server

PRODUCTION = "https://api.astra.finance"
SANDBOX = "https://api-sandbox.astra.finance"


# -- sandbox or production ---------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def files():
    """Settings and files of a server that is not started, with a ledger on disk."""
    server = Server(start=False)
    server.flags["ledger"] = f"sqlite:{server.directory}/ledger/ledger.db"
    yield server
    server.close()


def run(files, *words, variables=None, **changes):
    return subprocess.run([str(SERVER), *words, *as_arguments({**files.flags, **changes})], capture_output=True, text=True,
                          timeout=PATIENCE + 30, env=clean_environment(**(variables or {})), cwd=files.directory)


# Each is refused by a start and by --check_config; unit tests have the whole table.
REFUSED = [
    ("--astra_base_url", dict(astra_base_url=PRODUCTION)),
    ("--environment", dict(environment="sandbox", astra_base_url=PRODUCTION)),
    ("--environment", dict(environment="production", astra_base_url=SANDBOX)),
    ("--environment", dict(environment="production")),
    ("--environment", dict(environment="production", astra_base_url="https://astra.example.com")),
    ("--astra_app_url", dict(astra_app_url="https://app.astra.finance")),
    ("--ledger", dict(environment="production", astra_base_url=PRODUCTION, ledger="memory:")),
]


@pytest.mark.parametrize("flag, changes", REFUSED, ids=range(len(REFUSED)))
def test_an_environment_that_contradicts_the_host(files, flag, changes):
    for words in ([], ["--check_config"]):
        ended = run(files, *words, **changes)
        assert ended.returncode == 1
        [line] = ended.stderr.splitlines()
        assert line.startswith(f"userintent-server: {flag}: "), line
    assert not (files.directory / "ledger").exists(), "a refused start made a ledger"


def test_environments_that_fit(files):
    for changes in (dict(), dict(environment="sandbox"), dict(environment="sandbox", astra_base_url="https://127.0.0.1:8443"),
                    dict(environment="production", astra_base_url=PRODUCTION)):
        ended = run(files, "--check_config", **changes)
        assert ended.returncode == 0, ended.stderr
    ended = run(files, "--check_config", astra_base_url=SANDBOX, variables={"USERINTENT_ENVIRONMENT": "production"})
    assert ended.returncode == 1 and "USERINTENT_ENVIRONMENT" in ended.stderr


def test_a_ledger_is_of_one_environment(durable, ledger):
    """Said by the flag at a start with the stand-in; a start and --check_config with the other one are refused, and the tool
    works on."""
    gateway = durable(environment={"USERINTENT_ENVIRONMENT": "sandbox"})
    request = person()
    gateway.create(request).ok()
    gateway.stop()
    flags = {**gateway.flags, "astra_base_url": PRODUCTION, "environment": "production"}
    for words in ([], ["--check_config"]):
        ended = subprocess.run([str(SERVER), *words, *as_arguments(flags)], capture_output=True, text=True, timeout=PATIENCE + 30,
                               env=clean_environment(), cwd=gateway.directory)
        assert ended.returncode == 1
        [line] = ended.stderr.splitlines()
        assert line.startswith("userintent-server: --ledger: ") and "is of Astra's sandbox" in line, line
    assert ledger.state(request) == "SUCCEEDED"
    gateway.environment.pop("USERINTENT_ENVIRONMENT")
    gateway.restart()  # nobody says which: as before
    assert gateway.create(request).ok().replayed


def test_a_stand_in_serves_the_sandbox(new_gateway):
    new_gateway(environment={"USERINTENT_ENVIRONMENT": "sandbox"}).create(person()).ok()


# -- the pin -------------------------------------------------------------------------------------------------------------------

# A namespace of its own, in which the system's bundle is another file.
UNDER_ANOTHER_BUNDLE = ["unshare", "--map-root-user", "--mount", "sh", "-c",
                        'mount --bind "$0" /etc/ssl/certs/ca-certificates.crt && exec "$@"']


@pytest.mark.parametrize("transport", ["nghttp2", "libcurl"])
def test_with_a_ca_file_the_systems_authorities_do_not_count(new_gateway, transport):
    """A certificate of an authority that the whole machine trusts is good without --astra_ca_file, and refused with it; what the
    file names is good, be it the authority or the one certificate itself."""
    trusted, other = Authority("trusted by the system"), Authority("another")
    key, certificate = trusted.issue("astra", ["IP:127.0.0.1"])
    upstream = Sandbox(tls_cert_file=certificate, tls_key_file=key)

    def ask(ca_file):
        own = new_gateway(upstream=upstream, astra_ca_file=ca_file, upstream_transport=transport,
                          wrapper=[*UNDER_ANOTHER_BUNDLE, str(trusted.ca_file)])
        request = person()
        reply = own.create(request)
        if reply.error is not None:
            assert upstream.posts(request.email) == []
            reply.failed("UPSTREAM_UNREACHABLE")
        return reply.error is None

    try:
        assert ask(None)
        assert not ask(other.ca_file)
        assert ask(trusted.ca_file)
        assert ask(certificate)
    finally:
        upstream.stop()
        trusted.close()
        other.close()
