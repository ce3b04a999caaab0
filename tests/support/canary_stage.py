"""A sandbox, gateways and callers whose every personal value and every credential is a canary (canaries.py), and everything
that they left behind."""

import hashlib
import pathlib
import tempfile

import grpc
from google.rpc import error_details_pb2, status_pb2

from support import canaries
from support.gateway import CHANNEL_OPTIONS, Gateway
from support.ledger_tool import run as run_tool
from support.process import PATIENCE, wait_for, write_secret
from support.protos import CREATE, GET, READ, SERVICE
from support.sandbox import Sandbox

WATCH = f"/{SERVICE}/WatchUserIntents"
AUTHORIZE = f"/{SERVICE}/GetAuthorizationUrl"
REDIRECT_URI = "https://app.example.com/astra/done"
NO_ANSWER = "without details"  # in place of a reason: the error is a library's


class Call:
    """One call on its way. Everything that the caller hears is kept on the stage."""

    def __init__(self, stage, channel, method, message, metadata, timeout, told_by_design):
        self._stage, self._method, self._told = stage, method.rpartition("/")[2], told_by_design
        data = message if isinstance(message, bytes) else message.SerializeToString()
        begin = channel.unary_stream if method == WATCH else channel.unary_unary
        stub = begin(method, request_serializer=None, response_deserializer=None)
        self._stream = method == WATCH
        self.answers = []
        self.call = (stub(data, timeout=timeout, metadata=metadata) if self._stream
                     else stub.future(data, timeout=timeout, metadata=metadata))

    def read(self, count):
        """So many messages of a stream."""
        for _ in range(count):
            self._hear(next(self.call))
        return self

    def _hear(self, data):
        self.answers.append(data)
        self._stage.hear(f"an answer of {self._method}", data, self._told)

    def end(self):
        """The reason of the error, or OK."""
        try:
            if self._stream:
                for data in self.call:
                    self._hear(data)
            else:
                self._hear(self.call.result(timeout=PATIENCE + 60))
        except grpc.RpcError:
            pass
        except grpc.FutureCancelledError:
            return NO_ANSWER
        return self._hear_end()

    def leave(self):
        self.call.cancel()
        return self.end()

    def _hear_end(self):
        call = self.call
        reason = "OK" if call.code() is grpc.StatusCode.OK else NO_ANSWER
        self._stage.hear(f"the message of {self._method}", call.details() or "")
        for kind, pairs in (("initial", call.initial_metadata()), ("trailing", call.trailing_metadata())):
            for key, value in pairs or ():
                self._stage.hear(f"{kind} metadata of {self._method}", key)
                self._stage.hear(f"{kind} metadata of {self._method}", value)
                if key == "grpc-status-details-bin":
                    for detail in status_pb2.Status.FromString(value).details:
                        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                            reason = error_details_pb2.ErrorInfo.FromString(detail.value).reason
        self._stage.reasons.add(reason)
        return reason


class Stage:
    """`flags` are those of every gateway of it. search() looks through all that was heard and left since the last time."""

    def __init__(self, **flags):
        self._files = tempfile.TemporaryDirectory(prefix="e2e-canaries-")
        self.directory = pathlib.Path(self._files.name)
        self.sandbox = Sandbox(client_id=canaries.CLIENT_ID, client_secret=canaries.CLIENT_SECRET)
        secret = self.directory / "operator"
        secret.mkdir(mode=0o700)
        self.secrets = {"astra_client_id_file": write_secret(secret / "id", canaries.CLIENT_ID),
                        "astra_client_secret_file": write_secret(secret / "secret", canaries.CLIENT_SECRET + "\n"),
                        "ledger_key_file": write_secret(secret / "key", canaries.LEDGER_KEY)}
        self.webhook_secret_file = write_secret(secret / "webhook", canaries.WEBHOOK_SECRET)
        self._flags = flags
        self._gateways = []
        self._heard = []
        self._clean = set()  # digests of what was searched already, and is left behind again
        self._read = {}      # how far each log was searched
        self.keys = []       # files of private keys, in PEM
        self._needles = None
        self.reasons = set()  # that callers heard

    def gateway(self, upstream=None, environment=None, wrapper=(), **flags):
        name = f"gateway-{len(self._gateways)}"
        directory = self.directory / name
        directory.mkdir()
        gateway = Gateway(upstream or self.sandbox, directory=directory, log=self.directory / f"{name}.log",
                          environment=environment, wrapper=wrapper,
                          **{**self.secrets, "ledger": f"sqlite:{directory}/ledger/ledger.db", **self._flags, **flags})
        self._gateways.append(gateway)
        return gateway

    def put_back_secret(self):
        write_secret(self.secrets["astra_client_secret_file"], canaries.CLIENT_SECRET + "\n")

    # -- calls -------------------------------------------------------------------------------------------------------------

    def begin(self, gateway, method, message, metadata=None, timeout=30, channel=None, told_by_design=()):
        return Call(self, channel or gateway.channel, method, message, metadata, timeout, told_by_design)

    def call(self, gateway, method, message, **how):
        return self.begin(gateway, method, message, **how).end()

    def create(self, gateway, request, **how):
        return self.call(gateway, CREATE, request, **how)

    def tool(self, gateway, *words, stdin="", ledger=None):
        """userintent-ledger on the gateway's ledger: what it says is heard, too."""
        ended = run_tool(f"--ledger={ledger or gateway.flags['ledger']}", *words, stdin=stdin)
        self.hear(f"userintent-ledger {words[0]}", ended.out)
        self.hear(f"userintent-ledger {words[0]}", ended.err)
        return ended

    # -- the search ----------------------------------------------------------------------------------------------------------

    def hear(self, where, data, told_by_design=()):
        self._heard.append((where, data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"), told_by_design))

    def left_behind(self):
        """(where, bytes) of all that the processes show and have written."""
        secrets = [*self.secrets.values(), self.webhook_secret_file, *self.keys]
        for gateway in self._gateways:
            if not gateway.stopped and gateway.process.running():
                yield from canaries.of_process(gateway.process.pid)
                for path in ("/metrics", "/livez", "/readyz", "/status") if gateway.metrics_address else ():
                    yield path, gateway.http(path)[1].encode()
            yield "stdout", gateway.process.text("stdout").encode()
        for path in sorted(self.directory.glob("*.log")):
            with path.open("rb") as log:
                log.seek(max(0, self._read.get(path, 0) - 4096))  # a line may have been cut in two
                yield "stderr", log.read()
                self._read[path] = log.tell()
        for path in sorted(self.directory.glob("gateway-*")):
            # Server puts sandbox's ordinary credentials beside, which no program is told of.
            yield from canaries.of_directory(path, secrets)

    def search(self):
        """[(where, what)] of each canary found, never the canary itself."""
        if self._needles is None or self._needles[0] != self.keys:
            self._needles, self._clean = (list(self.keys), canaries.needles(self.keys)), set()
        needles = self._needles[1]
        found = set()
        for where, data, told in [*self._heard, *((where, data, ()) for where, data in self.left_behind())]:
            digest = hashlib.sha256(data).digest()
            if digest in self._clean:
                continue
            what = needles.find(data)
            if not what:
                self._clean.add(digest)
            found |= {(where, one) for one in what if not one.startswith(tuple(told) or ("\0",))}
        self._heard = []
        return sorted(found)

    def close(self):
        for gateway in self._gateways:
            if not gateway.stopped:
                gateway.kill()
        self.sandbox.stop()
        self._files.cleanup()


def log_events(gateway):
    return [entry.get("event") for entry in gateway.log()]


def wait_event(gateway, event, count=1):
    wait_for(lambda: log_events(gateway).count(event) >= count, f"the log line {event}")


__all__ = ["AUTHORIZE", "CHANNEL_OPTIONS", "CREATE", "Call", "GET", "NO_ANSWER", "READ", "REDIRECT_URI", "Stage", "WATCH",
           "log_events", "wait_event"]
