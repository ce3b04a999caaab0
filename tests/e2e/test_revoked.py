"""Revoked certificates, and names that only one authority may give out."""

import signal
import subprocess

import grpc
import pytest

from support.callers import NOBODY, Caller, Callers
from support.certs import Authority
from support.gateway import GET, SERVER, as_arguments, clean_environment
from support.people import person
from support.process import wait_for
from support.protos import pb
from support.rotation import Files

SPIFFE = "URI:spiffe://example.test/caller"


class Revoking(Callers):
    """The authorities, a root and one below it, and their lists are in files that the gateway watches."""

    def __init__(self, sandbox, directory):
        root = Authority()
        self.between = root.between("between CA")
        self.files = Files(directory / "trust", ca_pem=root.ca_file.read_bytes() + self.between.ca_file.read_bytes(),
                           crl_pem=root.revoked().read_bytes() + self.between.revoked().read_bytes())
        super().__init__(sandbox, root, tls_client_ca_file=self.files.path("ca_pem"),
                         tls_client_crl_file=self.files.path("crl_pem"))
        self.any = self.request_of(SPIFFE)

    def lists(self, **how):
        return self.authority.revoked(**how).read_bytes() + self.between.revoked(**how).read_bytes()

    def told(self, event):
        return [entry for entry in self.gateway.log() if entry["event"] == event]

    def revoke(self, authority, certificate):
        """And waits until it counts."""
        before = len(self.told("tls_client_ca_reloaded"))
        authority.revoke(certificate)
        self.files.swap(crl_pem=self.lists())
        wait_for(lambda: len(self.told("tls_client_ca_reloaded")) > before, "the lists read again")

    def refused_file(self, content, words):
        before = len(self.told("tls_client_ca_not_reloaded"))
        self.files.swap(crl_pem=content)
        line = wait_for(lambda: self.told("tls_client_ca_not_reloaded")[before:], f"refused: {words}")[0]
        assert line["error"].startswith("--tls_client_crl_file: ") and words in line["error"], line

    def enters(self, certificate, chain=()):
        return Caller(self.gateway, certificate, chain).call(GET, pb.GetCreationRequest(request_id=self.any))


@pytest.fixture
def revoking(sandbox, tmp_path):
    revoking = Revoking(sandbox, tmp_path)
    yield revoking
    revoking.gateway.assert_alive()
    revoking.close()


def test_a_revoked_certificate_does_not_get_in(revoking):
    good, bad = revoking.issue(SPIFFE), revoking.issue(SPIFFE)
    below_good, below_bad = (revoking.issue(SPIFFE, authority=revoking.between) for _ in range(2))
    for certificate in (good, bad, below_good, below_bad):
        with revoking.counted("SUCCESS"):
            assert revoking.enters(certificate) == (0, None)
    revoking.revoke(revoking.authority, bad[1])
    revoking.revoke(revoking.between, below_bad[1])
    for certificate in (bad, below_bad):
        with revoking.counted("CERTIFICATE_REVOKED"):
            assert revoking.enters(certificate) is None
    for certificate in (good, below_good):
        with revoking.counted("SUCCESS"):
            assert revoking.enters(certificate) == (0, None)


def test_a_revoked_authority_vouches_for_nobody(revoking):
    certificate = revoking.issue(SPIFFE, authority=revoking.between)
    assert revoking.enters(certificate) == (0, None)
    revoking.revoke(revoking.authority, revoking.between.ca_file)
    with revoking.counted("CERTIFICATE_REVOKED"):
        assert revoking.enters(certificate) is None
    assert revoking.enters(revoking.issue(SPIFFE)) == (0, None)


def test_an_authority_without_a_list_vouches_for_nobody(revoking):
    """Sent by the caller, and in no file: whether it revoked something nobody knows."""
    silent = revoking.authority.between("silent CA")
    certificate = revoking.issue(SPIFFE, authority=silent)
    with revoking.counted("CRL_NOT_FOUND"):
        assert revoking.enters(certificate, [silent.ca_file]) is None


def test_a_connection_that_stands_ends_with_its_certificate(revoking):
    """The handshake is long over; calls of the revoked caller are refused on the same connection, others go on."""
    def channel(certificate):
        key, file = certificate
        return revoking.gateway.new_channel(grpc.ssl_channel_credentials(
            revoking.authority.ca_file.read_bytes(), key.read_bytes(), file.read_bytes()))

    good, bad = revoking.issue(SPIFFE), revoking.issue(SPIFFE)
    stays, goes = channel(good), channel(bad)
    request = person()
    revoking.gateway.create(request, channel=goes).ok()
    revoking.gateway.create(person(), channel=stays).ok()
    revoking.revoke(revoking.authority, bad[1])
    for again in (request, person()):
        revoking.gateway.create(again, channel=goes).failed(NOBODY, sent="no", recovery="STOP")
    revoking.gateway.get(request.request_id, channel=goes).failed(NOBODY)
    assert revoking.gateway.health(channel=goes) == "SERVING"  # on the same connection: a new one finds no entry
    assert revoking.gateway.state(request.request_id, channel=stays) == "CREATED"


def test_lists_that_do_not_fit_are_never_taken(revoking):
    """The last good ones stay, and with them who was revoked."""
    bad, good = revoking.issue(SPIFFE), revoking.issue(SPIFFE)
    revoking.revoke(revoking.authority, bad[1])
    other = Authority("e2e CA")
    first, second = revoking.authority.revoked().read_bytes(), revoking.between.revoked().read_bytes()
    revoking.refused_file(b"", "holds no list")
    revoking.refused_file(first[:-60], "damaged")
    revoking.refused_file(other.revoked().read_bytes(), "no authority in --tls_client_ca_file signed")
    revoking.refused_file(first, "no list of an authority")
    old = revoking.authority.revoked("old.crl", seconds=1).read_bytes()
    revoking.gateway.signal(signal.SIGHUP)
    wait_for(lambda: revoking.authority.has_ended(revoking.authority.directory / "old.crl"), "the list has expired")
    revoking.refused_file(old + second, "has expired")
    other.close()
    assert revoking.enters(bad) is None and revoking.enters(good) == (0, None)
    # Certificates of the server are another matter, and the listener is not held up.
    revoking.files.swap(crl_pem=first + second)
    assert revoking.enters(bad) is None and revoking.enters(good) == (0, None)


def test_from_a_lists_end_on_nobody_gets_in(revoking):
    """What was revoked since is not known. The metric tells of the end before; a new list opens the door again."""
    certificate = revoking.issue(SPIFFE)
    assert revoking.enters(certificate) == (0, None)
    metric = 'userintent_certificate_not_after_seconds{which="client_crl"}'
    far = revoking.gateway.metrics()[metric]
    crl = revoking.authority.revoked("soon.crl", seconds=8)
    revoking.files.swap(crl_pem=crl.read_bytes() + revoking.between.revoked().read_bytes())
    soon = wait_for(lambda: 0 < revoking.gateway.metrics()[metric] < far and revoking.gateway.metrics()[metric],
                    "the metric")
    assert soon == revoking.authority.end_of(crl)
    wait_for(lambda: revoking.authority.has_ended(crl), "the list has expired")
    with revoking.counted("CRL_EXPIRED"):
        assert revoking.enters(certificate) is None
    revoking.files.swap(crl_pem=revoking.lists())
    wait_for(lambda: revoking.enters(certificate) == (0, None), "a list that holds")


def test_an_expired_list_stops_the_start(revoking):
    crl = revoking.authority.revoked("old.crl", seconds=1)
    wait_for(lambda: revoking.authority.has_ended(crl), "the list has expired")
    flags = {**revoking.gateway.flags, "tls_client_crl_file": crl, "tls_client_ca_file": revoking.authority.ca_file}
    ended = subprocess.run([SERVER, *as_arguments(flags), "--check_config"], capture_output=True, text=True, timeout=30,
                           env=clean_environment())
    assert ended.returncode == 1
    assert ended.stderr == "userintent-server: --tls_client_crl_file: holds a list that has expired (nextUpdate)\n"


# -- trust domains ---------------------------------------------------------------------------------------------------------

class Pinned(Callers):
    """Two authorities in one bundle. Names of one.test may come from the first only, of any.test from both."""

    def __init__(self, sandbox):
        first = Authority("first CA")
        self.second = Authority("second CA")
        bundle = first.directory / "bundle.pem"
        bundle.write_bytes(first.ca_file.read_bytes() + self.second.ca_file.read_bytes())
        super().__init__(sandbox, first, tls_client_ca_file=bundle, trust_domain=f"one.test={first.ca_file},any.test")

    def close(self):
        super().close()
        self.second.close()

    def comes_to(self, result, *sans, authority=None, chain=(), **how):
        request_id = self.request_of("URI:spiffe://one.test/caller")
        caller = Caller(self.gateway, self.issue(*sans, authority=authority, **how), chain)
        with self.counted(result):
            answer = caller.call(GET, pb.GetCreationRequest(request_id=request_id))
        assert (answer is None) == (result != "SUCCESS")
        return answer


@pytest.fixture(scope="module")
def pinned(sandbox):
    pinned = Pinned(sandbox)
    yield pinned
    pinned.gateway.assert_alive()
    pinned.close()


def test_names_of_the_listed_domains_are_callers(pinned):
    assert pinned.comes_to("SUCCESS", "URI:spiffe://one.test/caller") == (0, None)
    assert pinned.comes_to("SUCCESS", "URI:spiffe://any.test/caller")[1] == "REQUEST_NOT_FOUND"
    assert pinned.comes_to("SUCCESS", "URI:spiffe://any.test/caller", authority=pinned.second)[1] == "REQUEST_NOT_FOUND"
    between = pinned.authority.between("between CA")
    assert pinned.comes_to("SUCCESS", "URI:spiffe://one.test/caller", authority=between,
                           chain=[between.ca_file]) == (0, None)


@pytest.mark.parametrize("sans", [
    ["URI:spiffe://other.test/caller"],
    ["URI:spiffe://sub.one.test/caller"],
    ["URI:spiffe://one.test.other.test/caller"],
    ["URI:spiffe://one.test:443/caller"],
    ["URI:spiffe://ONE.test/caller"],
    ["URI:https://one.test/caller"],
    ["URI:spiffe://one.test/caller", "URI:spiffe://any.test/caller"],
    ["DNS:one.test"],
    ["email:caller@one.test"],
    [],
], ids=["another", "below a listed one", "begins like one", "with a port", "in capitals", "no SPIFFE name", "two",
        "a DNS name", "an e-mail address", "none"])
def test_other_names_are_refused(pinned, sans):
    """DNS names too: an authority that may not give out one kind of name must not give out another."""
    pinned.comes_to("TRUST_DOMAIN_MISMATCH", *sans)


def test_an_authority_gives_out_names_of_its_own_domain_only(pinned):
    pinned.comes_to("TRUST_DOMAIN_MISMATCH", "URI:spiffe://one.test/caller", authority=pinned.second)
    line = [entry for entry in pinned.gateway.log() if entry["event"] == "tls_handshake_refused"][-1]
    assert line["result"] == "TRUST_DOMAIN_MISMATCH" and "may not name callers of this trust domain" in line["detail"]
    between = pinned.second.between("between CA")
    pinned.comes_to("TRUST_DOMAIN_MISMATCH", "URI:spiffe://one.test/caller", authority=between, chain=[between.ca_file])


def test_what_may_vouch_for_others_is_no_caller(pinned):
    pinned.comes_to("CERTIFICATE_MALFORMED", "URI:spiffe://one.test/caller",
                    extensions=["basicConstraints=critical,CA:TRUE"])
