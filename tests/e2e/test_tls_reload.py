"""The listener's certificate, and the authorities of its callers, change while the gateway runs."""

import signal

import grpc
import pytest

from support.certs import Authority
from support.gateway import Gateway
from support.people import person
from support.process import wait_for
from support.rotation import Files, der, shown

GATEWAY_NAMES = ["DNS:localhost", "IP:127.0.0.1"]
CALLER = "URI:spiffe://example.test/caller"


class Rotating:
    """A gateway whose files change, and the authority of its first certificate and its first callers."""

    def __init__(self, sandbox, directory, **flags):
        self.authority = Authority()
        key, self.certificate = self.authority.issue("gateway", GATEWAY_NAMES)
        self.files = Files(directory / "tls", tls_key=key.read_bytes(), tls_crt=self.certificate.read_bytes(),
                           ca_crt=self.authority.ca_file.read_bytes())
        self.gateway = Gateway(sandbox, tls_cert_file=self.files.path("tls_crt"),
                               tls_key_file=self.files.path("tls_key"), tls_client_ca_file=self.files.path("ca_crt"),
                               **flags)
        self._authorities = [self.authority]

    def close(self):
        try:
            self.gateway.close()
        finally:
            for authority in self._authorities:
                authority.close()

    def another_authority(self, name="second CA"):
        self._authorities.append(Authority(name))
        return self._authorities[-1]

    def issue(self, name, authority=None, **how):
        """A certificate for the gateway: its key and itself, as bytes, and the file of the second."""
        key, certificate = (authority or self.authority).issue(name, GATEWAY_NAMES, **how)
        return key.read_bytes(), certificate.read_bytes(), certificate

    def channel(self, authority=None, roots=None, san=CALLER, name="client"):
        key, certificate = (authority or self.authority).issue(name, [san])
        return self.gateway.new_channel(grpc.ssl_channel_credentials(
            roots or self.authority.ca_file.read_bytes(), key.read_bytes(), certificate.read_bytes()))

    def shows(self, certificate):
        wait_for(lambda: shown(self.gateway.address) == der(certificate), "the gateway shows its new certificate")

    def told(self, event):
        return [entry for entry in self.gateway.log() if entry["event"] == event]

    def wait_told(self, event, number):
        return wait_for(lambda: len(self.told(event)) >= number and self.told(event)[number - 1], f"{event} {number}")


@pytest.fixture
def rotating(sandbox, tmp_path):
    rotating = Rotating(sandbox, tmp_path)
    yield rotating
    rotating.gateway.assert_alive()
    rotating.close()


@pytest.mark.parametrize("how", ["links swapped", "one file after the other", "at a signal"])
def test_a_new_server_certificate_needs_no_restart(rotating, how):
    """New connections see it; those that stand go on."""
    before = rotating.channel(name="before")
    rotating.gateway.create(person(), channel=before).ok()
    assert shown(rotating.gateway.address) == der(rotating.certificate)
    key, content, certificate = rotating.issue("gateway2")
    if how == "one file after the other":
        rotating.files.put("tls_crt", content)  # fits no key for a moment
        rotating.files.put("tls_key", key)
    else:
        rotating.files.swap(tls_key=key, tls_crt=content)
    if how == "at a signal":
        rotating.gateway.signal(signal.SIGHUP)
    rotating.shows(certificate)
    rotating.wait_told("tls_certificate_reloaded", 1)
    rotating.gateway.create(person(), channel=before).ok()
    rotating.gateway.create(person(), channel=rotating.channel(name="after")).ok()


def test_a_pair_that_does_not_fit_is_never_shown(rotating):
    key, content, certificate = rotating.issue("gateway2")
    rotating.files.swap(tls_crt=content)
    refused = rotating.wait_told("tls_certificate_not_reloaded", 1)
    assert refused["error"].startswith("--tls_key_file: is not the key of the first certificate")
    assert shown(rotating.gateway.address) == der(rotating.certificate)
    rotating.files.swap(tls_crt=b"no certificate")
    assert "holds no certificate" in rotating.wait_told("tls_certificate_not_reloaded", 2)["error"]
    rotating.files.swap(tls_crt=content, tls_key=key[:-40])
    assert "holds no private key" in rotating.wait_told("tls_certificate_not_reloaded", 3)["error"]
    assert shown(rotating.gateway.address) == der(rotating.certificate)
    rotating.gateway.create(person(), channel=rotating.channel()).ok()
    rotating.files.swap(tls_key=key)
    rotating.shows(certificate)


def test_an_expired_certificate_replaces_none_that_holds(rotating):
    key, content, certificate = rotating.issue("gateway2", days=-1)
    rotating.files.swap(tls_crt=content, tls_key=key)
    assert "has expired" in rotating.wait_told("tls_certificate_not_reloaded", 1)["error"]
    assert shown(rotating.gateway.address) == der(rotating.certificate)


def test_a_certificate_of_another_kind_of_key_and_its_chain(rotating):
    """Neither the first certificate nor what stood beside it is shown again."""
    key, content, certificate = rotating.issue("rsa", key="rsa:2048")
    rotating.files.swap(tls_crt=content, tls_key=key)
    rotating.shows(certificate)
    between = rotating.authority.between("between CA")
    key, content, certificate = rotating.issue("gateway3", authority=between)
    rotating.files.swap(tls_crt=content + between.ca_file.read_bytes(), tls_key=key)
    rotating.shows(certificate)
    rotating.gateway.create(person(), channel=rotating.channel()).ok()  # believes the root only


def test_the_authorities_of_callers_change(rotating):
    """Old, both, new: who is vouched for by one of them gets in, and who stands stays."""
    gateway, old, new = rotating.gateway, rotating.authority, rotating.another_authority()
    first = rotating.channel(name="first")
    gateway.create(person(), channel=first).ok()

    def enters(authority, name):
        channel = rotating.channel(authority, roots=old.ca_file.read_bytes(), name=name)
        reply = gateway.create(person(), channel=channel, timeout=30)
        return reply.response is not None

    assert not enters(new, "early")
    rotating.files.swap(ca_crt=old.ca_file.read_bytes() + new.ca_file.read_bytes())
    rotating.wait_told("tls_client_ca_reloaded", 1)
    assert enters(old, "old") and enters(new, "new")
    rotating.files.swap(ca_crt=b"-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n")
    rotating.wait_told("tls_client_ca_not_reloaded", 1)
    assert enters(old, "old2") and enters(new, "new2")
    rotating.files.swap(ca_crt=new.ca_file.read_bytes())
    rotating.wait_told("tls_client_ca_reloaded", 2)
    assert enters(new, "late") and not enters(old, "gone")
    gateway.create(person(), channel=first).ok()
