"""The listener's certificate, and the authorities of its callers, change while the gateway runs."""

import signal
import ssl
import threading

import grpc
import pytest

from support.certs import Authority
from support.gateway import CHANNEL_OPTIONS, Gateway
from support.people import person
from support.process import wait_for
from support.protos import pb, pb_grpc
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


# -- under load ------------------------------------------------------------------------------------------------------------

class Client(threading.Thread):
    """Calls without a pause, over a new connection each few calls, and with what the test hands it from time to time."""

    def __init__(self, gateway, request, credentials):
        super().__init__(daemon=True)
        self._gateway, self._request, self._ending = gateway, request, threading.Event()
        self._wanted = self.used = credentials
        self.good, self.bad, self.connections = 0, [], 0

    def give(self, credentials):
        self._wanted = credentials

    def run(self):
        while not self._ending.is_set():
            self.used = self._wanted
            with grpc.secure_channel(self._gateway.address, grpc.ssl_channel_credentials(*self.used), [
                    *CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", "localhost")]) as channel:
                self.connections += 1
                stub = pb_grpc.UserIntentServiceStub(channel)
                for _ in range(5):
                    try:
                        stub.GetCreation(pb.GetCreationRequest(request_id=self._request), timeout=60)
                        self.good += 1
                    except grpc.RpcError as error:
                        self.bad.append((error.code(), error.details()))

    def end(self):
        self._ending.set()
        self.join(90)
        assert not self.is_alive()


def test_twenty_rotations_under_load_without_a_failed_call(sandbox, tmp_path):
    """Certificate and authority of the gateway, authority and certificates of its callers: as an operator changes them,
    first what is believed, then what is shown, then what is believed no longer. Connections age meanwhile."""
    rotating = Rotating(sandbox, tmp_path, max_connection_age="10s")
    gateway, current = rotating.gateway, rotating.authority

    def credentials(authority, *roots):
        key, certificate = authority.issue("caller", [CALLER])
        return b"".join(root.ca_file.read_bytes() for root in roots), key.read_bytes(), certificate.read_bytes()

    request = person()
    gateway.create(request, channel=rotating.channel()).ok()
    clients = [Client(gateway, request.request_id, credentials(current, current)) for _ in range(4)]
    for client in clients:
        client.start()

    def change(number, **contents):
        rotating.files.swap(**contents)
        if number > 1:  # the first ones are found by the gateway itself
            gateway.signal(signal.SIGHUP)

    for number in range(20):
        following = rotating.another_authority(f"CA {number}")
        both = current.ca_file.read_bytes() + following.ca_file.read_bytes()
        change(number, ca_crt=both)
        rotating.wait_told("tls_client_ca_reloaded", 2 * number + 1)
        handed = credentials(following, current, following)
        for client in clients:
            client.give(handed)
        for client in clients:
            wait_for(lambda client=client: client.used is handed, "every client has its new certificate", 60)
        key, content, certificate = rotating.issue("gateway", authority=following)
        change(number, tls_key=key, tls_crt=content)
        rotating.wait_told("tls_certificate_reloaded", number + 1)
        assert shown(gateway.address) == der(certificate)
        before = [client.connections for client in clients]
        change(number, ca_crt=following.ca_file.read_bytes())
        rotating.wait_told("tls_client_ca_reloaded", 2 * number + 2)
        for client, connections in zip(clients, before):  # over connections that were made since
            wait_for(lambda client=client, least=connections + 2: client.connections >= least, "new connections", 60)
        current = following
    for client in clients:
        client.end()
    assert [client.bad for client in clients] == [[]] * len(clients)
    assert sum(client.good for client in clients) >= 20 * len(clients)
    # The looks of shown() have no certificate, and a client that is done may leave during a handshake.
    expected = ("SUCCESS", "PEER_CERTIFICATE_REQUIRED_BUT_MISSING", "PEER_CONNECTION_CLOSED")
    failed = {name: value for name, value in gateway.metrics().items()
              if name.startswith("grpc_server_tls_handshakes_total") and value and name.split('"')[1] not in expected}
    assert failed == {}
    rotating.close()


def test_a_connection_ends_when_it_is_old(sandbox, tmp_path):
    """The next call shows its certificate again, to the authorities of then; a call that runs is not cut off."""
    rotating = Rotating(sandbox, tmp_path, max_connection_age="10s")
    gateway = rotating.gateway
    channel = rotating.channel()
    gateway.create(person(), channel=channel).ok()
    rotating.files.swap(ca_crt=rotating.another_authority().ca_file.read_bytes())
    rotating.wait_told("tls_client_ca_reloaded", 1)
    gateway.create(person(), channel=channel).ok()  # it stands
    slow = person()
    sandbox.fault("delay", slow.email, delay_ms=14000)
    running = gateway.begin(slow, channel=channel, timeout=60)
    states = []
    channel.subscribe(states.append)
    wait_for(lambda: grpc.ChannelConnectivity.IDLE in states or grpc.ChannelConnectivity.TRANSIENT_FAILURE in states,
             "the end of the connection", 60)
    running.reply().ok()
    reply = gateway.create(person(), channel=channel, timeout=20)
    assert reply.raw and reply.raw[0] is grpc.StatusCode.UNAVAILABLE, reply
    refused = 'grpc_server_tls_handshakes_total{result="CERTIFICATE_AUTHORITY_INVALID"}'
    wait_for(lambda: gateway.metrics()[refused] >= 1, "the refused handshake is counted")
    rotating.close()


ENDS = 'userintent_certificate_not_after_seconds{which="%s"}'


@pytest.mark.parametrize("transport", ["nghttp2", "libcurl"])
def test_when_each_certificate_ends(sandbox, tmp_path, transport):
    """Of both doors, of the authorities in files, and of what Astra shows from the first connection on; a door's new
    certificate counts at once."""
    door = Authority("door CA")
    key, certificate = door.issue("door", GATEWAY_NAMES, days=5)
    files = Files(tmp_path / "door", tls_key=key.read_bytes(), tls_crt=certificate.read_bytes())
    rotating = Rotating(sandbox, tmp_path, webhook_listen="127.0.0.1:0", webhook_tls_cert_file=files.path("tls_crt"),
                        webhook_tls_key_file=files.path("tls_key"), upstream_transport=transport)
    try:
        authority = rotating.authority
        expected = {"server": authority.not_after(rotating.certificate), "client_ca": authority.not_after(authority.ca_file),
                    "client_crl": 0, "webhook": authority.not_after(certificate), "astra": 0,
                    "astra_ca": authority.not_after(sandbox.ca_file)}
        gateway = rotating.gateway
        assert {which: gateway.metrics()[ENDS % which] for which in expected} == expected
        gateway.create(person(), channel=rotating.channel()).ok()
        shown_by_astra = tmp_path / "astra.crt"
        shown_by_astra.write_text(ssl.DER_cert_to_PEM_cert(shown(sandbox.url.removeprefix("https://"))))
        end = authority.not_after(shown_by_astra)
        wait_for(lambda: gateway.metrics()[ENDS % "astra"] == end, "the end of Astra's certificate")
        key, certificate = door.issue("door2", GATEWAY_NAMES, days=9)
        files.swap(tls_key=key.read_bytes(), tls_crt=certificate.read_bytes())
        wait_for(lambda: gateway.metrics()[ENDS % "webhook"] == door.not_after(certificate), "the end of the new one")
    finally:
        rotating.close()
        door.close()
