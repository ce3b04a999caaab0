"""One certificate after the other: what the handshake says of it, or who its caller is."""

import contextlib
import dataclasses
import datetime
import socket
import ssl
import struct
from collections.abc import Callable

import grpc
import pytest

from support import names, rotation
from support.callers import NOBODY, Caller, Callers
from support.certs import Authority
from support.gateway import CREATE, GET
from support.people import person
from support.protos import pb
from support.wire import split

SPIFFE = "URI:spiffe://example.test/caller"


@pytest.fixture(scope="module")
def callers_process(sandbox):
    callers = Callers(sandbox)
    yield callers
    callers.close()


@pytest.fixture
def callers(callers_process):
    yield callers_process
    callers_process.gateway.assert_alive()


# -- certificates that OpenSSL can make from words, or not ------------------------------------------------------------------

def san_bytes(*entries):
    """The value of subjectAltName as openssl's DER form; entries are pairs of tag (0x86: URI, 0x82: DNS) and bytes."""
    def part(tag, content):
        size = len(content)
        length = bytes([size]) if size < 128 else b"\x82" + struct.pack(">H", size)
        return bytes([tag]) + length + content
    return "subjectAltName=DER:" + part(0x30, b"".join(part(*entry) for entry in entries)).hex(":")


def now(**delta):
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(**delta)


def with_between(callers, send=True, more=(), san=SPIFFE, name=None):
    between = callers.authority.between(name or f"between {len(list(callers.authority.directory.iterdir()))}", more)
    certificate = callers.issue(san, authority=between)
    return Caller(callers.gateway, certificate, [between.ca_file] if send else [])


def vouched_for_by_a_caller(callers):
    """A caller's certificate used as an authority."""
    key, certificate = callers.issue("DNS:caller.example.test")
    false = Authority.of(key, certificate)
    return Caller(callers.gateway, false.issue("below", [SPIFFE]), [certificate])


def too_long_a_path(callers):
    first = callers.authority.between("path one", ["basicConstraints=critical,CA:TRUE,pathlen:0"])
    second = first.between("path two")
    return Caller(callers.gateway, callers.issue(SPIFFE, authority=second), [second.ca_file, first.ca_file])


def of_another(callers, name):
    other = Authority(name)
    try:
        return Caller(callers.gateway, other.issue("foreign", [SPIFFE]))
    finally:
        other.close()


def self_signed(callers):
    own = Authority("itself")
    try:
        return Caller(callers.gateway, (own.ca_key, own.ca_file))
    finally:
        own.close()


def tampered(callers):
    key, certificate = callers.issue(SPIFFE)
    der = bytearray(rotation.der(certificate))
    der[-1] ^= 1
    certificate.write_text(ssl.DER_cert_to_PEM_cert(bytes(der)))
    return Caller(callers.gateway, (key, certificate))


def issued(*sans, **how):
    return lambda callers: Caller(callers.gateway, callers.issue(*sans, **how))


@dataclasses.dataclass
class Case:
    """`becomes`: the name as a SAN of who the caller is, NOBODY, or what the handshake is counted as."""
    what: str
    becomes: str
    caller: Callable[[Callers], Caller]


LONG = "URI:spiffe://example.test/" + "a" * (512 - len("spiffe://example.test/"))

CASES = [
    # refused in the handshake
    Case("none", "PEER_CERTIFICATE_REQUIRED_BUT_MISSING", lambda c: Caller(c.gateway)),
    Case("none, TLS 1.2", "PEER_CERTIFICATE_REQUIRED_BUT_MISSING",
         lambda c: Caller(c.gateway, version=ssl.TLSVersion.TLSv1_2)),
    Case("self-signed", "CERTIFICATE_AUTHORITY_INVALID", self_signed),
    Case("another authority", "CERTIFICATE_AUTHORITY_INVALID", lambda c: of_another(c, "another CA")),
    Case("another authority of the same name", "CERTIFICATE_AUTHORITY_INVALID", lambda c: of_another(c, "e2e CA")),
    Case("changed after it was signed", "SIGNATURE_VERIFICATION_FAILED", tampered),
    Case("expired", "CERTIFICATE_EXPIRED", issued(SPIFFE, days=-1)),
    Case("not yet valid", "CERTIFICATE_NOT_YET_VALID", lambda c: Caller(
        c.gateway, c.issue(SPIFFE, start=now(days=1), end=now(days=2)))),
    Case("for servers only", "CERTIFICATE_MALFORMED", issued(SPIFFE, usage="serverAuth")),
    Case("for any use, not for clients by name", "CERTIFICATE_MALFORMED", issued(SPIFFE, usage="anyExtendedKeyUsage")),
    Case("a key that may not sign", "CERTIFICATE_MALFORMED",
         issued(SPIFFE, extensions=["keyUsage=critical,keyEncipherment"])),
    Case("an unknown critical extension", "CERTIFICATE_VERIFICATION_FAILED",
         issued(SPIFFE, extensions=["1.2.3.4=critical,ASN1:UTF8String:unknown"])),
    Case("the authority between is missing", "CERTIFICATE_AUTHORITY_INVALID",
         lambda c: with_between(c, send=False)),
    Case("the authority between is no authority", "CERTIFICATE_MALFORMED", vouched_for_by_a_caller),
    Case("longer a path than allowed", "CERTIFICATE_VERIFICATION_FAILED", too_long_a_path),
    Case("outside of its authority's names", "CERTIFICATE_VERIFICATION_FAILED", lambda c: with_between(
        c, more=["nameConstraints=critical,permitted;URI:other.test"])),
    Case("RSA with 1024 bits", "CERTIFICATE_VERIFICATION_FAILED", issued(SPIFFE, key="rsa:1024")),
    Case("signed by way of SHA-1", "CERTIFICATE_VERIFICATION_FAILED", issued(SPIFFE, digest="sha1")),
    # accepted, but of nobody
    Case("no name", NOBODY, issued()),
    Case("a common name", NOBODY, issued(subject="/CN=caller.example.test")),
    Case("an IP address", NOBODY, issued("IP:8.8.8.8")),
    Case("an e-mail address", NOBODY, issued("email:caller@example.test")),
    Case("two URIs", NOBODY, issued(SPIFFE, "URI:spiffe://example.test/two")),
    Case("the same URI twice", NOBODY, issued(SPIFFE, SPIFFE)),
    Case("two URIs and a DNS name", NOBODY, issued(SPIFFE, "URI:spiffe://example.test/two", "DNS:caller.example.test")),
    Case("an empty URI", NOBODY, issued(extensions=[san_bytes((0x86, b""))])),
    Case("an empty URI and a DNS name", NOBODY, issued(extensions=[san_bytes((0x86, b""), (0x82, b"a.example.test"))])),
    Case("a URI of 513 characters", NOBODY, issued(LONG + "b")),
    Case("a URI with a control character", NOBODY,
         issued(extensions=[san_bytes((0x86, b"spiffe://example.test/cal\nler"))])),
    Case("a URI with a zero byte", NOBODY, issued(extensions=[san_bytes((0x86, b"spiffe://example.test/caller\0x"))])),
    Case("a URI with a letter beyond ASCII", NOBODY,
         issued(extensions=[san_bytes((0x86, "spiffe://example.test/ca\u00efler".encode()))])),
    Case("a URI with a space", NOBODY, issued(extensions=[san_bytes((0x86, b"spiffe://example.test/a caller"))])),
    Case("a DNS name with a control character", NOBODY, issued(extensions=[san_bytes((0x82, b"a.example\x7f.test"))])),
    # accepted, of somebody
    Case("a URI", SPIFFE, issued(SPIFFE)),
    Case("a URI, TLS 1.2", SPIFFE, lambda c: Caller(c.gateway, c.issue(SPIFFE), version=ssl.TLSVersion.TLSv1_2)),
    Case("a URI that is no SPIFFE name", "URI:https://example.test/with/path?and=query",
         issued("URI:https://example.test/with/path?and=query")),
    Case("a URI of 512 characters", LONG, issued(LONG)),
    Case("a URI before a DNS name", SPIFFE, issued("DNS:caller.example.test", SPIFFE)),
    Case("a URI beside what is no name", SPIFFE, issued(SPIFFE, "IP:8.8.8.8", "email:caller@example.test")),
    Case("a URI and another common name", SPIFFE, issued(SPIFFE, subject=r"/CN=spiffe:\/\/example.test\/other")),
    Case("a DNS name", "DNS:caller.example.test", issued("DNS:caller.example.test")),
    Case("two DNS names, the first counts", "DNS:first.example.test",
         issued("DNS:first.example.test", "DNS:second.example.test")),
    Case("a wildcard is a name like others", "DNS:*.example.test", issued("DNS:*.example.test")),
    Case("no use named", SPIFFE, issued(SPIFFE, usage=None)),
    Case("one that may vouch for others", SPIFFE, issued(SPIFFE, extensions=["basicConstraints=critical,CA:TRUE"])),
    Case("RSA with 2048 bits", SPIFFE, issued(SPIFFE, key="rsa:2048")),
    Case("the authority between is sent", SPIFFE, with_between),
    Case("inside of its authority's names", SPIFFE, lambda c: with_between(
        c, more=["nameConstraints=critical,permitted;URI:example.test"])),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_what_becomes_of_a_certificate(callers, case):
    """In the handshake; as a caller; and who that is: the requests of that name are its own, those of others are not."""
    of_the_name = not (case.becomes == NOBODY or case.becomes.isupper())
    own = callers.request_of(case.becomes) if of_the_name else callers.request_of(SPIFFE)
    caller = case.caller(callers)
    if not of_the_name and case.becomes != NOBODY:
        with callers.counted(case.becomes):
            assert caller.call(GET, pb.GetCreationRequest(request_id=own)) is None
        return
    with callers.counted("SUCCESS"):
        answer = caller.call(GET, pb.GetCreationRequest(request_id=own))
    if case.becomes == NOBODY:
        assert answer == (grpc.StatusCode.UNAUTHENTICATED.value[0], NOBODY)
        assert caller.call(CREATE, person()) == answer
    else:
        assert answer == (0, None)
        assert caller.sees(callers.request_of("URI:spiffe://example.test/somebody-else")) is False


def test_a_uri_and_a_dns_name_of_the_same_letters_are_two_callers(callers):
    own = callers.request_of("URI:same.example.test")
    assert issued("DNS:same.example.test")(callers).sees(own) is False


# -- before a certificate is seen -------------------------------------------------------------------------------------------

def hello(gateway, **how):
    """A handshake by Python's own library; the bytes that stand for it, or None."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers(how.get("ciphers", "ALL:@SECLEVEL=0"))
    if "version" in how:
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, how["version"]
    with contextlib.suppress(OSError), socket.create_connection(split(gateway.address), 10) as raw:
        with context.wrap_socket(raw) as tls:
            tls.recv(100)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1], ids=names.of)
def test_old_versions_are_refused(callers, version):
    with callers.counted("PROTOCOL_VERSION_UNSUPPORTED"):
        hello(callers.gateway, version=version)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_weak_ciphers_are_refused(callers):
    with callers.counted("CIPHER_SUITE_MISMATCH"):
        hello(callers.gateway, ciphers="AES128-SHA:@SECLEVEL=0", version=ssl.TLSVersion.TLSv1_2)


def test_a_peer_that_leaves_or_is_slow_is_counted_as_that(callers):
    begun = b"\x16\x03\x01\x00\x40" + bytes(10)
    with callers.counted("PEER_CONNECTION_CLOSED"), socket.create_connection(split(callers.gateway.address), 10) as raw:
        raw.sendall(begun)
    with callers.counted("HANDSHAKE_TIMEOUT"), socket.create_connection(split(callers.gateway.address), 30) as raw:
        raw.sendall(begun)
        assert raw.recv(100) == b""  # the gateway ends it
    with callers.counted("UNEXPECTED_MESSAGE"), socket.create_connection(split(callers.gateway.address), 10) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(OSError):
            raw.recv(100)


def test_a_caller_that_does_not_believe_the_gateway_is_counted_as_that(callers):
    other = Authority("their CA")
    context = ssl.create_default_context(cafile=str(other.ca_file))
    with callers.counted("REFUSED_BY_PEER"), pytest.raises(ssl.SSLError):
        with socket.create_connection(split(callers.gateway.address), 10) as raw:
            context.wrap_socket(raw, server_hostname="localhost")
    other.close()
