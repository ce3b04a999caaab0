"""Fixtures of the library's own tests: a gateway that answers what the test says."""

import concurrent.futures
import subprocess
import threading
import time

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

import userintent
from userintent.v1 import user_intent_service_pb2_grpc as pb_grpc


def trailers(code, reason="", retry_s=None, pushback=None, domain="userintent.v1", **metadata):
    """The trailers of an error as the gateway makes them."""
    details = []
    if reason:
        details.append(error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata))
    if retry_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(retry_s * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for message in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(message)
    status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message="told by the test", details=packed)
    out = [("grpc-status-details-bin", status.SerializeToString())] if packed else []
    return out + ([("grpc-retry-pushback-ms", pushback)] if pushback is not None else [])


class Gateway(pb_grpc.UserIntentServiceServicer):
    """`answers` are functions of (request, context), used up in order; the last one stays."""

    def __init__(self, credentials=None):
        self.answers = []
        self.calls = []  # (request, context) of every CreateUserIntent and GetUserIntent
        self.streams = []  # generators of (request, context), used up in order by WatchUserIntents; the last one stays
        self.watched = []  # every request of it
        self.began = []  # when
        self.open = 0  # streams that have not ended
        self.arrived = threading.Semaphore(0)
        self.cancelled = threading.Event()
        self._lock = threading.Lock()
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
        pb_grpc.add_UserIntentServiceServicer_to_server(self, self.server)
        if credentials is None:
            self.port = self.server.add_insecure_port("127.0.0.1:0")
        else:
            self.port = self.server.add_secure_port("127.0.0.1:0", credentials)
        self.address = f"127.0.0.1:{self.port}"
        self.server.start()

    def CreateUserIntent(self, request, context):
        with self._lock:
            number = len(self.calls)
            self.calls.append((request, context))
        answer = self.answers[min(number, len(self.answers) - 1)]
        self.arrived.release()
        return answer(request, context)

    def GetUserIntent(self, request, context):
        answered = self.CreateUserIntent(request, context)
        return userintent.GetUserIntentResponse(user_intent=answered.user_intent, stale=request.allow_stale)

    def _ended(self):
        with self._lock:
            self.open -= 1

    def nothing_open(self):
        """Whether all streams have ended, in the end."""
        end = time.monotonic() + 20
        while self.open and time.monotonic() < end:
            time.sleep(0.005)
        return self.open == 0

    def GetAuthorizationUrl(self, request, context):
        answered = self.CreateUserIntent(request, context)
        return userintent.GetAuthorizationUrlResponse(url="https://app.example.com/", user_intent=answered.user_intent)

    def WatchUserIntents(self, request, context):
        with self._lock:
            number = len(self.watched)
            self.watched.append(request)
            self.began.append(time.monotonic())
            self.open += 1
        if not context.add_callback(self._ended):
            self._ended()
        self.arrived.release()
        yield from self.streams[min(number, len(self.streams) - 1)](request, context)

    def GetCreation(self, request, context):
        fail(grpc.StatusCode.NOT_FOUND, "REQUEST_NOT_FOUND", pushback="-1", sent="no", recovery="STOP")(request, context)


def ok(request=None, context=None):
    return userintent.CreateUserIntentResponse(user_intent=userintent.UserIntent(id="intent-1"), replayed=False)


def fail(code, reason="", **more):
    def answer(request, context):
        context.set_trailing_metadata(trailers(code, reason, **more))
        context.abort(code, "told by the test")
    return answer


def busy(retry_s=0.01):
    return fail(grpc.StatusCode.UNAVAILABLE, "OVERLOADED", retry_s=retry_s, sent="no", recovery="RETRY_SAME_ID")


def until_the_caller_leaves(gateway):
    def answer(request, context):
        context.add_callback(gateway.cancelled.set)
        gateway.cancelled.wait(30)
        return ok()
    return answer


@pytest.fixture
def gateway():
    made = Gateway()
    yield made
    made.cancelled.set()
    made.server.stop(0).wait(5)


class Authority:
    """A CA in a directory, by the openssl command.

    All certificates are made before gRPC runs: with Python 3.9 a child process of a process with gRPC's threads may
    abort before it becomes another program.
    """

    def __init__(self, directory):
        self.directory = directory
        self._run("req", "-x509", *self.KEY, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=test CA",
                  "-addext", "basicConstraints=critical,CA:TRUE")

    KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")

    def _run(self, *words):
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=self.directory)

    def issue(self, name, sans=None):
        """Paths of certificate and key; those of `one` to `six` name the caller spiffe://example.test/NAME."""
        certificate, key = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        if certificate.exists():
            return certificate, key
        (self.directory / f"{name}.ext").write_text(f"basicConstraints=CA:FALSE\nsubjectAltName={sans}\n")
        self._run("req", *self.KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        self._run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
                  "-extfile", f"{name}.ext", "-out", f"{name}.crt")
        return certificate, key

    @property
    def ca_file(self):
        return self.directory / "ca.crt"


@pytest.fixture(scope="session", autouse=True)
def authority(tmp_path_factory):
    made = Authority(tmp_path_factory.mktemp("ca"))
    made.issue("server", "DNS:localhost")
    for name in ("one", "two", "three", "four", "five", "six"):
        made.issue(name, f"URI:spiffe://example.test/{name}")
    return made
