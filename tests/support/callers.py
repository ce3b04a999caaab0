"""Callers by certificates of every kind, and what their handshakes come to."""

import contextlib
import ssl

import grpc

from support.certs import Authority
from support.gateway import GET, Gateway
from support.people import person
from support.process import wait_for
from support.protos import pb
from support.wire import Call, frame

NOBODY = "CALLER_UNAUTHENTICATED"


class Caller:
    """A certificate on connections of its own, each with one call."""

    def __init__(self, gateway, certificate=None, chain=(), version=None):
        self._gateway = gateway
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE
        self._tls.set_alpn_protocols(["h2"])
        self._tls.set_ciphers("DEFAULT:@SECLEVEL=0")  # the gateway judges, not this side
        if version is not None:
            self._tls.minimum_version = self._tls.maximum_version = version
        if certificate is not None:
            key, file = certificate
            if chain:
                file = file.with_suffix(".chain")
                file.write_bytes(b"".join(part.read_bytes() for part in (certificate[1], *chain)))
            self._tls.load_cert_chain(file, key)

    def call(self, path, message):
        """The code and the reason of the answer; None: the handshake failed."""
        self._gateway.handshakes += 1
        try:
            call = Call(self._gateway.address, path, frame(message.SerializeToString()), tls=self._tls)
        except (ssl.SSLError, OSError):
            return None
        call.wait()
        call.close()
        return None if call.grpc_status is None else (call.grpc_status, call.reason)

    def sees(self, request_id):
        """Whether the request is one of this caller's; None: the handshake failed."""
        answer = self.call(GET, pb.GetCreationRequest(request_id=request_id))
        if answer is None:
            return None
        assert answer[0] == 0 or answer[1] == "REQUEST_NOT_FOUND", answer
        return answer[0] == 0


class Callers:
    """A gateway, the authority of its callers, and who they are."""

    def __init__(self, sandbox, authority=None, **flags):
        self.authority = authority or Authority()
        key, certificate = self.authority.issue("gateway", ["DNS:localhost"])
        self.gateway = Gateway(sandbox, tls_cert_file=certificate, tls_key_file=key,
                               **{"tls_client_ca_file": self.authority.ca_file, **flags})
        self.gateway.handshakes = 0  # that this side knows of
        self._known = {}
        self._number = 0

    def close(self):
        self.gateway.close()
        self.authority.close()

    def issue(self, *sans, authority=None, **how):
        self._number += 1
        return (authority or self.authority).issue(f"caller{self._number}", sans, **how)

    def request_of(self, san):
        """The id of a request that the caller of this name made."""
        if san not in self._known:
            key, certificate = self.issue(san)
            channel = self.gateway.new_channel(grpc.ssl_channel_credentials(
                self.authority.ca_file.read_bytes(), key.read_bytes(), certificate.read_bytes()))
            request = person()
            self.gateway.create(request, channel=channel).ok()
            self.gateway.handshakes += 1
            self._known[san] = request.request_id
        return self._known[san]

    def results(self):
        """How many handshakes came to each result; without those that came to none."""
        prefix = 'grpc_server_tls_handshakes_total{result="'
        return {name[len(prefix):-2]: value for name, value in self.gateway.metrics().items()
                if name.startswith(prefix) and value}

    def refused(self):
        return [entry for entry in self.gateway.log() if entry["event"] == "tls_handshake_refused"][-3:]

    @contextlib.contextmanager
    def counted(self, result):
        """In the block there is one handshake, which comes to this result and no other."""
        known = self.gateway.handshakes
        wait_for(lambda: sum(self.results().values()) == known, "those before are counted")
        before = self.results()
        yield
        self.gateway.handshakes = known + 1
        wait_for(lambda: self.results() != before, f"a handshake that is counted as {result}")
        assert {name: value - before.get(name, 0) for name, value in self.results().items()
                if value != before.get(name, 0)} == {result: 1}, self.refused()
