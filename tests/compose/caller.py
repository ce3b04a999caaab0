"""A caller as one would write it (stock gRPC, stock error decoder), over mutual TLS."""

import dataclasses
import os
import pathlib

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from support.protos import pb, pb_grpc

GATEWAY = os.environ.get("GATEWAY_ADDRESS", "gateway:50051")
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
