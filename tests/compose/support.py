"""What the integration suite stands on: a client as a caller would write it (stock gRPC, stock error decoder), invented
people, and the sandbox's own account of what reached it."""

import dataclasses
import json
import os
import pathlib
import urllib.parse
import urllib.request
import uuid

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from userintent.v1 import user_intent_service_pb2 as pb
from userintent.v1 import user_intent_service_pb2_grpc as pb_grpc

GATEWAY = os.environ.get("GATEWAY_ADDRESS", "gateway:50051")
SANDBOX_ADMIN = os.environ.get("SANDBOX_ADMIN", "http://astra-sandbox:8444")
SECRETS = pathlib.Path(os.environ.get("CLIENT_SECRETS", "/secrets/client"))

# Longer than the gateway's own limit for Astra, so that the gateway is the one who answers.
DEADLINE = 40


def credentials(name: str | None) -> grpc.ChannelCredentials:
    """TLS with the certificate of this client; None: without any."""
    root = (SECRETS / "ca.crt").read_bytes()
    if name is None:
        return grpc.ssl_channel_credentials(root)
    key, chain = ((SECRETS / f"{name}.{kind}").read_bytes() for kind in ("key", "crt"))
    return grpc.ssl_channel_credentials(root, key, chain)


def channel(name: str | None) -> grpc.Channel:
    # A pool of its own: connections must not be shared between two identities.
    return grpc.secure_channel(GATEWAY, credentials(name), options=[("grpc.use_local_subchannel_pool", 1)])


@dataclasses.dataclass
class Failure:
    code: grpc.StatusCode
    info: error_details_pb2.ErrorInfo
    details: dict[str, object]
    pushback: str | None

    @property
    def reason(self) -> str:
        return self.info.reason


def failure(error: grpc.RpcError) -> Failure:
    """An error as decoded by grpc_status; checks what holds for every error of the gateway."""
    status = rpc_status.from_call(error)
    assert status is not None, f"no details: {error.code()} {error.details()}"
    assert status.code == error.code().value[0]
    details = {}
    for packed in status.details:
        name = packed.TypeName().rpartition(".")[2]
        details[name] = message = getattr(error_details_pb2, name)()
        assert packed.Unpack(message)
    info = details["ErrorInfo"]
    assert info.domain == "userintent.v1"
    assert info.metadata["sent"] in ("no", "maybe", "yes")
    trailers = dict(error.trailing_metadata() or ())
    pushback = trailers.get("grpc-retry-pushback-ms")
    assert ("RetryInfo" in details) != (pushback == "-1"), "either RetryInfo or pushback -1"
    return Failure(error.code(), info, details, pushback)


class Client:
    def __init__(self, name: str):
        self.channel = channel(name)
        self.stub = pb_grpc.UserIntentServiceStub(self.channel)

    def create(self, request: pb.CreateUserIntentRequest) -> pb.CreateUserIntentResponse:
        return self.stub.CreateUserIntent(request, timeout=DEADLINE)

    def create_fails(self, request: pb.CreateUserIntentRequest) -> Failure:
        try:
            self.create(request)
        except grpc.RpcError as error:
            return failure(error)
        raise AssertionError("the call succeeded")

    def get(self, request_id: str) -> pb.Creation:
        return self.stub.GetCreation(pb.GetCreationRequest(request_id=request_id), timeout=DEADLINE).creation


def person(**fields) -> pb.CreateUserIntentRequest:
    """An invented person with an address and a request_id of its own."""
    request_id = fields.pop("request_id", None) or str(uuid.uuid4())
    values = {
        "email": f"grace.{uuid.uuid4().hex[:12]}@example.com",
        "phone": "+12025550147",
        "first_name": "Grace",
        "last_name": "Approved",
        "address1": "2 Example Street",
        "city": "Springfield",
        "state": "IL",
        "postal_code": "62701",
        "date_of_birth": "1985-12-09",
        "ssn_last_four": "4321",
        "ip_address": "8.8.8.8",
    }
    return pb.CreateUserIntentRequest(request_id=request_id, **(values | fields))


class Sandbox:
    """The admin API of astra-sandbox (tests/astra_sandbox/README.md)."""

    def _call(self, method: str, path: str, body: dict | None = None) -> dict:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(SANDBOX_ADMIN + path, data=data, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            text = answer.read()
        return json.loads(text) if text.strip() else {}

    def posts(self, email: str) -> list[dict]:
        return self._call("GET", "/accounting?" + urllib.parse.urlencode({"email": email.lower()}))["posts"] or []

    def summary(self) -> dict:
        return self._call("GET", "/accounting/summary")

    def fault(self, email: str, kind: str, times: int = 1, **parameters) -> None:
        self._call("POST", "/faults", {"match": {"email": email}, "times": times, "kind": kind, **parameters})
