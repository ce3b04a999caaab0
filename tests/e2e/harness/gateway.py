"""The gateway as its callers and operators see it: the real program, on ports of its own choice."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import secrets
import signal
import tempfile
import urllib.error
import urllib.request

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from harness import canary, errors
from harness.process import BIN_DIR, PATIENCE, Process, wait_for
from harness.protos import CREATE, GET, pb, pb_grpc
from harness.sandbox import CLIENT_ID, CLIENT_SECRET

SERVER = BIN_DIR / "userintent-server"

# One channel must not share connections with another, or a test of two callers would be a test of one.
CHANNEL_OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]


def clean_environment(**extra):
    """This process's environment without settings of the gateway and of proxies."""
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith("USERINTENT_") and not name.lower().endswith("_proxy")}
    environment.update(extra)
    return environment


def write_secret(path, data):
    """Puts a secret in place as an operator should: 0600, replaced in one step."""
    path = pathlib.Path(path)
    temporary = path.with_suffix(path.suffix + ".new")
    temporary.write_bytes(data if isinstance(data, bytes) else data.encode())
    temporary.chmod(0o600)
    temporary.rename(path)
    return path


def as_arguments(flags):
    words = []
    for name, value in flags.items():
        if value is None:
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        words.append(f"--{name}={text}")
    return words


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

    def __init__(self, future, request, allowed_words):
        self.future = future
        self._request = request
        self._allowed_words = allowed_words

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
                return Reply(error=errors.decode(error, self._request, self._allowed_words))
            return Reply(raw=errors.bare(error))


class Gateway:
    """`flags` are the flags of the program without their dashes; None drops one of the defaults used here."""

    def __init__(self, sandbox=None, *, start=True, environment=None, wrapper=(), **flags):
        self._directory = tempfile.TemporaryDirectory(prefix="e2e-gateway-")
        self.directory = pathlib.Path(self._directory.name)
        self.client_id_file = write_secret(self.directory / "client_id", CLIENT_ID)
        self.client_secret_file = write_secret(self.directory / "client_secret", CLIENT_SECRET + "\n")
        self.ledger_key_file = write_secret(self.directory / "ledger.key", secrets.token_bytes(48))
        self.flags = dict(
            listen="127.0.0.1:0",
            metrics_listen="127.0.0.1:0",
            astra_client_id_file=self.client_id_file,
            astra_client_secret_file=self.client_secret_file,
            ledger_key_file=self.ledger_key_file,
            ledger="memory:",
            drain_timeout="15s",
        )
        if sandbox is not None:
            self.flags.update(astra_base_url=sandbox.url, astra_ca_file=sandbox.ca_file)
        self.flags.update(flags)
        self.environment = clean_environment(**(environment or {}))
        self._wrapper = list(wrapper)
        self.process = None
        self.address = None
        self.metrics_address = None
        self.stopped = True
        self._channels = []
        self._checked_lines = 0
        self._old_output = []
        self.exit_code = None
        if start:
            self.start()

    # -- the process ---------------------------------------------------------------------------------------------------

    def arguments(self):
        return as_arguments(self.flags)

    def start(self):
        command = [*self._wrapper, str(SERVER), *self.arguments()]
        self.process = Process(command[0], command[1:], env=self.environment, cwd=self.directory)
        self.stopped = False
        self._checked_lines = 0
        canary.watch(self)
        try:
            self.address = self._announced("listening")
            if self.flags.get("metrics_listen"):
                self.metrics_address = self._announced("metrics_listening")
        except BaseException:
            self.process.kill()
            self.stopped = True
            raise
        self.channel = self.new_channel()
        self.stub = pb_grpc.UserIntentServiceStub(self.channel)
        return self

    def _announced(self, event):
        def look(line):
            entry = parse_log_line(line)
            return entry.get("address") if entry and entry.get("event") == event else None
        return self.process.wait_line("stderr", look)

    def log(self):
        """Every line of the log as an object; lines that are none are left out."""
        return [entry for entry in map(parse_log_line, self.process.lines()) if entry is not None]

    def new_output(self):
        """What the log and the metrics say that was not asked for before."""
        text = "\n".join([*self._old_output, *self.process.lines(start=self._checked_lines)])
        self._old_output = []
        self._checked_lines = len(self.process.lines())
        if not self.stopped and self.metrics_address:
            with contextlib.suppress(OSError):
                text += "\n" + self.http("/metrics")[1]
        return text

    def assert_alive(self):
        assert self.process.running(), f"the gateway ended with {self.process.popen.poll()}: " \
            f"{self.process.text()[-3000:]}"

    def _close_channels(self):
        for channel in self._channels:
            channel.close()
        self._channels = []

    def _before_end(self):
        if self.metrics_address and self.process.running():
            with contextlib.suppress(OSError):
                self._old_output.append(self.http("/metrics")[1])

    def kill(self):
        """kill -9."""
        self._before_end()
        self.process.kill()
        self._close_channels()  # not before: the calls on them would be cancelled first
        self.stopped = True

    def stop(self, timeout=None):
        """SIGTERM, and the program must end with 0 by itself."""
        if self.stopped:
            return
        self._before_end()
        self._close_channels()
        code = self.process.terminate(PATIENCE + 20 if timeout is None else timeout)
        self.stopped = True
        self.exit_code = code
        assert code == 0, f"the gateway's exit status after SIGTERM: {code}; log ends: {self.process.text()[-3000:]}"
        # Every test leaves no call behind, so nothing may have been given up.
        left = [entry.get("in_flight") for entry in self.log() if entry.get("event") == "drained"]
        assert left in ([], [0]), f"calls left when it drained: {left}"

    def restart(self, **flags):
        """A new process with the same files."""
        if not self.stopped:
            self.stop()
        self._old_output += self.process.lines(start=self._checked_lines)
        self.flags.update(flags)
        return self.start()

    def close(self):
        try:
            self.stop()
        finally:
            self._directory.cleanup()

    def signal(self, number=signal.SIGTERM):
        self.process.signal(number)

    # -- HTTP: metrics, livez, readyz ----------------------------------------------------------------------------------

    def http(self, path):
        try:
            with urllib.request.urlopen(f"http://{self.metrics_address}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self):
        """{name{labels}: value} of every sample."""
        status, text = self.http("/metrics")
        assert status == 200
        samples = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                samples[name] = float(value)
        return samples

    def metric(self, name):
        """The sum of all samples of that name."""
        values = [value for key, value in self.metrics().items() if re.split(r"[{ ]", key)[0] == name]
        assert values, f"no metric {name}"
        return sum(values)

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


def parse_log_line(line):
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


__all__ = ["CREATE", "GET", "Gateway", "Reply", "Running", "SERVER", "clean_environment", "write_secret"]
