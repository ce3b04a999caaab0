"""mTLS: who may connect, and who a caller is."""

import contextlib
import datetime
import ssl
import subprocess
import time

import grpc
import pytest

from support import names
from support.certs import Authority
from support.check import assert_posts
from support.gateway import Gateway
from support.people import person
from support.process import wait_for
from support.wire import connect


class Secured:
    def __init__(self, sandbox):
        self.authority = Authority()
        key, certificate = self.authority.issue("gateway", ["DNS:localhost", "IP:127.0.0.1"])
        self.gateway = Gateway(sandbox, tls_cert_file=certificate, tls_key_file=key,
                               tls_client_ca_file=self.authority.ca_file)
        self._number = 0

    def channel(self, *sans, authority=None, roots=None, with_certificate=True, **how):
        if not with_certificate:
            return self.gateway.new_channel(grpc.ssl_channel_credentials(self.authority.ca_file.read_bytes()))
        self._number += 1
        key, certificate = (authority or self.authority).issue(f"client{self._number}", sans, **how)
        return self.gateway.new_channel(grpc.ssl_channel_credentials(
            (roots or self.authority.ca_file).read_bytes(), key.read_bytes(), certificate.read_bytes()))


@pytest.fixture(scope="module")
def secured_process(sandbox):
    secured = Secured(sandbox)
    yield secured
    secured.gateway.close()
    secured.authority.close()


@pytest.fixture
def secured(secured_process):
    yield secured_process
    secured_process.gateway.assert_alive()


def assert_no_entry(secured, channel, sandbox):
    request = person()
    reply = secured.gateway.create(request, timeout=5, channel=channel)
    assert reply.raw and reply.raw[0] in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED), reply
    assert_posts(sandbox, request.email, 0)


def same_caller(secured, one, two):
    """Whether two channels are one caller: whoever is sees the other's request."""
    request = person()
    secured.gateway.create(request, channel=one).ok()
    return secured.gateway.state(request.request_id, channel=two) == "CREATED"


def test_a_client_certificate_is_needed(secured, sandbox):
    """Without a certificate, or without TLS, no call gets in."""
    assert_no_entry(secured, secured.channel(with_certificate=False), sandbox)
    assert_no_entry(secured, secured.gateway.new_channel(), sandbox)  # plaintext


def test_no_usable_identity(secured, sandbox):
    """A certificate without one clear name is refused before anything is read (test_certificates.py has them all)."""
    request = person()
    channel = secured.channel("URI:spiffe://example.test/one", "URI:spiffe://example.test/two")
    secured.gateway.create(request, channel=channel).failed("CALLER_UNAUTHENTICATED", sent="no", recovery="STOP")
    secured.gateway.get(request.request_id, channel=channel).failed("CALLER_UNAUTHENTICATED")
    # Also before anything is looked at.
    secured.gateway.create_bytes(b"\xff", channel=channel).failed("CALLER_UNAUTHENTICATED")
    assert_posts(sandbox, request.email, 0)


def test_the_identity_is_the_uri_then_the_first_dns_name(secured):
    uri = secured.channel("URI:spiffe://example.test/same")
    assert same_caller(secured, uri, secured.channel("URI:spiffe://example.test/same"))  # another key
    assert same_caller(secured, uri, secured.channel("DNS:x.example.test", "URI:spiffe://example.test/same"))
    assert not same_caller(secured, uri, secured.channel("URI:spiffe://example.test/other"))
    dns = secured.channel("DNS:one.example.test", "DNS:two.example.test")
    assert same_caller(secured, dns, secured.channel("DNS:one.example.test"))
    assert not same_caller(secured, dns, secured.channel("DNS:two.example.test"))


def test_no_header_is_an_identity(secured):
    one, two = secured.channel("URI:spiffe://example.test/h1"), secured.channel("URI:spiffe://example.test/h2")
    request = person()
    secured.gateway.create(request, channel=one).ok()
    headers = [("x-forwarded-client-cert", "URI=spiffe://example.test/h1"), ("x-spiffe-id", "spiffe://example.test/h1"),
               ("authorization", "Bearer spiffe://example.test/h1"), ("x-caller", "spiffe://example.test/h1")]
    reply = secured.gateway.create(request, channel=two, metadata=headers)
    assert reply.response is None  # to the second caller it is a new request, for a person that exists
    reply.failed("PERSON_EXISTS", recovery="STOP")


def test_health_with_tls(secured):
    """The health service answers callers with a certificate."""
    assert secured.gateway.health(channel=secured.channel("URI:spiffe://example.test/probe")) == "SERVING"


def test_the_callers_name_is_not_secret_but_the_request_is(secured, sandbox):
    """The log may name the caller; conftest looks for the request."""
    request = person()
    sandbox.answer(request.email, 500, "")
    secured.gateway.create(request, channel=secured.channel("URI:spiffe://example.test/logged")).failed(
        "OUTCOME_UNKNOWN")


# -- the end of a certificate ----------------------------------------------------------------------------------------------


def test_a_certificate_that_ends_ends_its_connection_too(secured, sandbox):
    """The handshake saw a good one; from its end on every call on the same connection is refused, health is not."""
    end = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0) + datetime.timedelta(seconds=6)
    channel = secured.channel("URI:spiffe://example.test/short", end=end)
    before = person()
    secured.gateway.create(before, channel=channel).ok()
    time.sleep(max(0.0, (end - datetime.datetime.now(datetime.timezone.utc)).total_seconds()) + 1.1)
    for request in (before, person()):
        secured.gateway.create(request, channel=channel).failed("CALLER_UNAUTHENTICATED", sent="no", recovery="STOP")
    secured.gateway.get(before.request_id, channel=channel).failed("CALLER_UNAUTHENTICATED")
    assert secured.gateway.health(channel=channel) == "SERVING"  # on the same connection: a new one finds no entry
    assert_posts(sandbox, before.email, 1)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=names.of)
def test_a_session_is_never_resumed(secured, version):
    """A resumed one skips the certificate: neither a ticket nor a session id leads back."""
    secured.channel("URI:spiffe://example.test/resume")  # makes the files
    stem = secured.authority.directory / f"client{secured._number}"
    context = ssl.create_default_context(cafile=str(secured.authority.ca_file))
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(stem.with_suffix(".crt"), stem.with_suffix(".key"))
    session = None
    for _ in range(3):
        with context.wrap_socket(connect(secured.gateway.address), server_hostname="localhost", session=session) as tls:
            tls.settimeout(5)
            assert tls.recv(9)[3] == 4  # the server's settings: the handshake is over, and a ticket would have come
            assert not tls.session_reused
            assert tls.session is None or not tls.session.has_ticket
            session = tls.session


def test_a_connection_is_never_renegotiated(secured):
    """TLS 1.2 knows that; HTTP/2 forbids it (RFC 9113, section 9.2.1), and it would skip what a handshake is counted by."""
    key, certificate = secured.authority.issue("renegotiates", ["URI:spiffe://example.test/renegotiates"])
    with subprocess.Popen(["openssl", "s_client", "-connect", secured.gateway.address, "-tls1_2", "-alpn", "h2", "-cert",
                           certificate, "-key", key], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace") as client:
        said = ""
        # The server's settings first: openssl takes what comes after its question for a fault of the answer.
        while not said.partition("Extended master secret")[2].partition("---\n")[2]:
            said += (line := client.stdout.readline(1))
            assert line, f"the connection ended: {said[-2000:]}"
        client.stdin.write("R\n")  # its word for "renegotiate"
        client.stdin.flush()
        said += client.communicate(timeout=60)[0]
    assert "Verify return code" in said and "RENEGOTIATING" in said and "no renegotiation" in said, said[-2000:]


# -- refused handshakes ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def apart(sandbox):
    """A gateway without the channels of the tests above, which knock again and again."""
    secured = Secured(sandbox)
    yield secured
    secured.gateway.close()
    secured.authority.close()


def refusals(gateway):
    return [entry for entry in gateway.log() if entry["event"] == "tls_handshake_refused"]


@contextlib.contextmanager
def one_refusal(gateway, word):
    """Of the handshake in the block: one line, with this word as its reason and the address that is put into the list."""
    seen = len(refusals(gateway))
    time.sleep(0.25)  # lines are 0.2 s apart at least
    address = []
    yield address
    line = wait_for(lambda: refusals(gateway)[seen:], f"a refused handshake: {word}")[0]
    assert word in line["detail"], line
    if address:
        assert line["peer"] == address[0]


def handshake(gateway, address, certificate=None, ca_file=None, data=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if ca_file is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(ca_file)
    if certificate is not None:
        key, chain = certificate
        context.load_cert_chain(chain, key)
    with connect(gateway.address) as raw:
        host, port = raw.getsockname()
        address.append(f"{host}:{port}")
        with contextlib.suppress(OSError):
            if data is not None:
                raw.sendall(data)
                raw.recv(100)
            else:
                with context.wrap_socket(raw) as tls:
                    tls.recv(100)


def test_a_refused_handshake_is_one_line_with_address_and_reason(apart):
    gateway = apart.gateway
    with one_refusal(gateway, "peer did not return a certificate") as address:
        handshake(gateway, address)
    with one_refusal(gateway, "certificate has expired") as address:
        handshake(gateway, address, apart.authority.issue("late", ["DNS:late.example.test"], days=-1))
    other = Authority("other CA")
    with one_refusal(gateway, "issuer") as address:
        handshake(gateway, address, other.issue("foreign", ["DNS:foreign.example.test"]))
    with one_refusal(gateway, "the peer refuses: unknown CA") as address:
        handshake(gateway, address, ca_file=other.ca_file)
    with one_refusal(gateway, "purpose") as address:
        handshake(gateway, address, apart.authority.issue("server", ["DNS:s.example.test"], usage="serverAuth"))
    with one_refusal(gateway, "does not speak TLS") as address:
        handshake(gateway, address, data=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    with one_refusal(gateway, "the peer was too slow") as address:
        handshake(gateway, address, data=b"\x16\x03\x01\x00\x40" + bytes(10))
    other.close()
    wait_for(lambda: gateway.metrics()['userintent_connections_refused_total{reason="tls"}'] >= 7, "all of them counted")


def test_many_refused_handshakes_are_few_lines(apart):
    seen = len(refusals(apart.gateway))
    before = apart.gateway.metrics()['userintent_connections_refused_total{reason="tls"}']
    began = time.monotonic()
    for _ in range(100):
        handshake(apart.gateway, [], data=b"GET / HTTP/1.1\r\n\r\n")
    wait_for(lambda: apart.gateway.metrics()['userintent_connections_refused_total{reason="tls"}'] >= before + 100,
             "all of them counted")
    assert len(refusals(apart.gateway)) - seen <= (time.monotonic() - began) / 0.2 + 1


def test_a_port_that_is_looked_at_and_the_servers_own_probe_are_no_refusals(apart):
    seen = len(refusals(apart.gateway))
    for _ in range(5):
        connect(apart.gateway.address).close()
    time.sleep(4.5)  # two probes at least
    assert refusals(apart.gateway)[seen:] == []
    assert apart.gateway.metrics()["userintent_port_answers"] == 1
