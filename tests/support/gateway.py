"""The gateway as its callers see it: server.py with calls."""

import contextlib
import dataclasses

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support import canary, errors
from support.process import PATIENCE, as_arguments, clean_environment, parse_log_line, wait_for, write_secret
from support.protos import CREATE, GET, READ, pb, pb_grpc
from support.server import SERVER, Server

# One channel must not share connections with another, or a test of two callers would be a test of one.
CHANNEL_OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]


@dataclasses.dataclass
class Reply:
    """What one call came to: exactly one of response and error (or raw, for an error that a library made)."""
    response: object = None
    error: errors.Error = None
    raw: tuple = None

    def ok(self):
        assert self.error is None and self.raw is None, f"expected OK, got {self.error or self.raw}"
        return self.response

    def failed(self, reason, **more):
        assert self.error is not None, f"expected {reason}, got {self}"
        return self.error.expect(reason, **more)

    def __repr__(self):  # a response holds ids only, an error was checked already
        return f"Reply(ok={self.response is not None}, error={self.error}, raw={self.raw})"


class Running:
    """A call on its way."""

    def __init__(self, future, request, allowed_words, read=False):
        self.future = future
        self._request = request
        self._allowed_words = allowed_words
        self._read = read

    def cancel(self):
        self.future.cancel()

    def done(self):
        return self.future.done()

    def reply(self):
        with contextlib.suppress(grpc.FutureTimeoutError, grpc.FutureCancelledError):
            self.future.exception(timeout=PATIENCE + 40)
        try:
            return Reply(response=self.future.result(timeout=0))
        except grpc.FutureCancelledError:
            return Reply(raw=(grpc.StatusCode.CANCELLED, "cancelled here"))
        except grpc.RpcError as error:
            if "grpc-status-details-bin" in dict(error.trailing_metadata() or ()):
                return Reply(error=errors.decode(error, self._request, self._allowed_words, self._read))
            return Reply(raw=errors.bare(error))


class Gateway(Server):
    """The gateway as its callers see it, too. What it logs and measures is searched for personal data (canary.py)."""

    def __init__(self, sandbox=None, **how):
        self._channels = []
        self._checked_lines = 0
        self._old_output = []
        super().__init__(sandbox, **how)

    def start(self):
        super().start()
        self.channel = self.new_channel()
        self.stub = pb_grpc.UserIntentServiceStub(self.channel)
        return self

    def _started(self):
        self._checked_lines = 0
        canary.watch(self)

    def new_output(self):
        """What the log and the metrics say that was not asked for before."""
        text = "\n".join([*self._old_output, *self.process.lines(start=self._checked_lines)])
        self._old_output = []
        self._checked_lines = len(self.process.lines())
        if not self.stopped and self.metrics_address:
            with contextlib.suppress(OSError):
                text += "\n" + self.http("/metrics")[1]
        return text

    def _close_channels(self):
        for channel in self._channels:
            channel.close()
        self._channels = []

    def _before_end(self):
        if self.metrics_address and self.process.running():
            with contextlib.suppress(OSError):
                self._old_output.append(self.http("/metrics")[1])

    def restart(self, **flags):
        if not self.stopped:
            self.stop()
        self._old_output += self.process.lines(start=self._checked_lines)
        return super().restart(**flags)

    # -- calls ---------------------------------------------------------------------------------------------------------

    def new_channel(self, credentials=None, options=()):
        if credentials is None:
            channel = grpc.insecure_channel(self.address, [*CHANNEL_OPTIONS, *options])
        else:
            channel = grpc.secure_channel(self.address, credentials,
                                          [*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", "localhost"), *options])
        self._channels.append(channel)
        return channel

    def begin(self, request, timeout=30, channel=None, metadata=None, allowed_words=(), note=True):
        """Starts CreateUserIntent. timeout None: without a deadline."""
        if note:
            canary.record(request)
        stub = self.stub if channel is None else pb_grpc.UserIntentServiceStub(channel)
        return Running(stub.CreateUserIntent.future(request, timeout=timeout, metadata=metadata), request,
                       allowed_words)

    def create(self, request, timeout=30, **more):
        return self.begin(request, timeout, **more).reply()

    def create_bytes(self, data, timeout=30, channel=None, method=CREATE):
        """The call with these bytes as its message."""
        call = (channel or self.channel).unary_unary(method, request_serializer=None,
                                                     response_deserializer=pb.CreateUserIntentResponse.FromString)
        return Running(call.future(data, timeout=timeout), None, ()).reply()

    def get(self, request_id, timeout=30, channel=None):
        """GetCreation as a Reply; its response is the Creation."""
        stub = self.stub if channel is None else pb_grpc.UserIntentServiceStub(channel)
        request = pb.GetCreationRequest(request_id=request_id)
        reply = Running(stub.GetCreation.future(request, timeout=timeout), None, ()).reply()
        if reply.response is not None:
            reply.response = reply.response.creation
        return reply

    def begin_read(self, key, timeout=30, channel=None, by="request_id", **fields):
        """Starts GetUserIntent for a CreateUserIntentRequest, or for an id of the kind that `by` says."""
        request = pb.GetUserIntentRequest(**{by: getattr(key, "request_id", key)}, **fields)
        stub = self.stub if channel is None else pb_grpc.UserIntentServiceStub(channel)
        return Running(stub.GetUserIntent.future(request, timeout=timeout), None, (), read=True)

    def read(self, key, timeout=30, **more):
        return self.begin_read(key, timeout, **more).reply()

    def read_bytes(self, data, timeout=30):
        """GetUserIntent with these bytes as its message."""
        call = self.channel.unary_unary(READ, request_serializer=None,
                                        response_deserializer=pb.GetUserIntentResponse.FromString)
        return Running(call.future(data, timeout=timeout), None, (), read=True).reply()

    def authorize(self, key, redirect_uri, state, timeout=30, channel=None, by="request_id"):
        """GetAuthorizationUrl for a CreateUserIntentRequest, or for an id of the kind that `by` says; None: no key."""
        keys = {} if key is None else {by: getattr(key, "request_id", key)}
        request = pb.GetAuthorizationUrlRequest(redirect_uri=redirect_uri, state=state, **keys)
        stub = self.stub if channel is None else pb_grpc.UserIntentServiceStub(channel)
        return Running(stub.GetAuthorizationUrl.future(request, timeout=timeout), None, (), read=True).reply()

    def state(self, request_id, **more):
        """The name of the recorded state; None: no record."""
        reply = self.get(request_id, **more)
        if reply.response is None:
            reply.failed("REQUEST_NOT_FOUND")
            return None
        return pb.CreationState.Name(reply.response.state).removeprefix("CREATION_STATE_")

    def wait_state(self, request_id, state, timeout=None, **more):
        return wait_for(lambda: self.state(request_id, **more) == state, f"state {state}", timeout)

    def health(self, service="", timeout=5, channel=None):
        stub = health_pb2_grpc.HealthStub(channel or self.channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)

    def watch_health(self, service="", timeout=None):
        """The stream of states, by their names."""
        return HealthWatch(health_pb2_grpc.HealthStub(self.channel).Watch(
            health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE + 40 if timeout is None else timeout))


class HealthWatch:
    def __init__(self, call):
        self.call = call

    def __iter__(self):
        return self

    def __next__(self):
        return health_pb2.HealthCheckResponse.ServingStatus.Name(next(self.call).status)


__all__ = ["CHANNEL_OPTIONS", "CREATE", "GET", "Gateway", "Reply", "Running", "SERVER", "as_arguments", "clean_environment",
           "parse_log_line", "write_secret"]
