#!/usr/bin/env python3
"""Starts sandboxes and gateways as scenarios.json says, and lets every client library's runner perform it (README.md).

Needs grpcio, protobuf and googleapis-common-protos (build/tools/venv has them; run.py starts itself again with that
Python when it is there), openssl, and the programs in GATEWAY_BIN_DIR.
"""

import argparse
import base64
import concurrent.futures
import contextlib
import copy
import hashlib
import http.server
import json
import os
import pathlib
import random
import re
import resource
import secrets
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
import uuid

HERE = pathlib.Path(__file__).resolve().parent
REPO = HERE.parents[1]
VENV = REPO / "build" / "tools" / "venv" / "bin" / "python"

try:
    import grpc
    from google.protobuf import any_pb2, duration_pb2, json_format
    from google.rpc import code_pb2, error_details_pb2, status_pb2
except ImportError:
    if VENV.exists() and pathlib.Path(sys.executable) != VENV:
        os.execv(VENV, [str(VENV), *sys.argv])
    raise

sys.path.insert(0, str(HERE.parent))
from support import postgres  # noqa: E402
from support.certs import Authority  # noqa: E402
from support.people import PERSON  # noqa: E402
from support.process import missing, wait_for  # noqa: E402
from support.protos import SERVICE, pb  # noqa: E402
from support.sandbox import Admin, Sandbox  # noqa: E402
from support.server import Server  # noqa: E402

RUNNER_TIMEOUT = float(os.environ.get("CONFORMANCE_TIMEOUT", "900"))


# -- the plan --------------------------------------------------------------------------------------------------------------

class Expander:
    """Expands the macros of scenarios.json. The same seed gives the same ids and addresses."""

    def __init__(self, seed, upper=False):
        self.seed, self.upper = seed, upper

    def _id(self, scenario, name):
        digest = bytearray(hashlib.sha256(f"{self.seed}/{scenario}/{name}".encode()).digest()[:16])
        digest[6], digest[8] = digest[6] & 0x0F | 0x40, digest[8] & 0x3F | 0x80
        return str(uuid.UUID(bytes=bytes(digest)))

    def text(self, value, scenario):
        def one(match):
            kind, name = match.groups()
            if kind == "email":
                return f"zorblatt.{self._id(scenario, 'email ' + name)[:18]}.{name}@quillfeather.example.com"
            identity = self._id(scenario, name)
            return identity.upper() if (kind == "ID") != self.upper else identity
        return re.sub(r"\{(email|id|ID):([a-z]+)\}", one, value)

    def value(self, value, scenario):
        if isinstance(value, str):
            return self.text(value, scenario)
        if isinstance(value, list):
            return [self.value(entry, scenario) for entry in value]
        if not isinstance(value, dict):
            return value
        if "$repeat" in value:
            text, count = value["$repeat"]
            return text * count
        if "$times" in value:
            one, count = value["$times"]
            return [self.value(one, scenario)] * count
        if "$keys" in value:
            return {f"canary_key_{number}": self.value(value["value"], scenario) for number in range(value["$keys"])}
        return {self.text(key, scenario): self.value(entry, scenario) for key, entry in value.items()}

    def scenario(self, scenario, person, storm_calls):
        scenario = self.value(copy.deepcopy(scenario), scenario["name"])
        for step in scenario["steps"]:
            if "request" in step:
                request = {**person, **step["request"]}
                step["request"] = {name: entry for name, entry in request.items() if entry is not None}
            if step["do"] == "storm" and storm_calls:
                step["min_ok"] = step["min_ok"] * storm_calls // step["calls"]
                step["calls"] = storm_calls
        return scenario


# -- processes -------------------------------------------------------------------------------------------------------------

class Running:
    """A sandbox and gateways that run already, as a file says (README.md). Nothing here starts or stops them."""

    def __init__(self, path):
        told = json.loads(path.read_text())
        self.sandbox, self.gateways, self.server_name = Admin(told["sandbox"]), told["gateways"], told["server_name"]
        self.ca, self._certificates, self.webhooks = told["ca_file"], told["certificates"], told.get("webhooks", {})

    def certificate(self, name):
        return self._certificates[name]["cert_file"]

    def key(self, name):
        return self._certificates[name]["key_file"]

    def serves(self, scenarios, scenario):
        """Whether this scenario needs gateways, and no others than these."""
        needed = gateways_of(scenarios, clients_of([scenario]))
        return bool(needed) and needed <= set(self.gateways)


class RunningGateway:
    def __init__(self, address):
        self.address = address

    def stop(self):
        pass


class Certificates:
    """A CA, the gateway's certificate and those of its callers."""

    def __init__(self, directory):
        directory.mkdir()
        authority = Authority("conformance CA", directory)
        self.ca = authority.ca_file
        self._issued = {name: authority.issue(name, sans) for name, sans in (
            ("gateway", ["DNS:localhost", "IP:127.0.0.1"]), ("a", ["URI:spiffe://example.test/a"]),
            ("b", ["URI:spiffe://example.test/b"]), ("nobody", []))}

    def key(self, name):
        return self._issued[name][0]

    def certificate(self, name):
        return self._issued[name][1]


class Gateway(Server):
    """A gateway that scenarios may drain, restart and keep from writing."""

    def __init__(self, name, settings, sandbox, directory, certificates, database):
        own = directory / f"gateway-{name}"
        own.mkdir()
        flags = {"ledger": f"sqlite:{own / 'data' / 'ledger.db'}"}
        if database:
            # The shortest that are allowed: what a killed one had under way is unknown once it is fenced and quiet.
            flags = {"ledger": database, "ledger_migrate": True, "ledger_single_node": True, "ledger_lease": "2s",
                     "ledger_fence": "5s"}
        if settings.get("tls"):
            flags.update(tls_cert_file=certificates.certificate("gateway"), tls_key_file=certificates.key("gateway"),
                         tls_client_ca_file=certificates.ca)
        super().__init__(sandbox, directory=own, log=own / "log", **{**flags, **settings.get("flags", {})})
        self.flags["listen"] = self.address  # the same one after a restart

    def drain(self):
        self.signal(signal.SIGTERM)
        wait_for(lambda: self.http("/readyz")[0] == 503, "readyz to say no")

    def disk(self, full):
        limit = 0 if full else resource.RLIM_INFINITY
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def stop(self, timeout=25):
        """A scenario may leave calls and a ledger that is full behind, so how it ends is not judged."""
        self.process.terminate(timeout)
        self.stopped = True

    def start_again(self, killed):
        if killed:
            self.kill()
        self.restart()


# -- a TCP proxy that breaks connections -----------------------------------------------------------------------------------

RST = struct.pack("ii", 1, 0)


class Tap:
    """Forwards TCP to target() until it is told otherwise. One thread per connection and direction."""

    def __init__(self, target, seed):
        self._target, self.mode = target, "forward"
        self._random, self._open, self._lock = random.Random(seed), set(), threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def set(self, mode):
        if mode in ("drop", "reset"):
            self._break_all(mode == "reset")
            return
        self.mode = mode
        if mode == "close":
            self._break_all(False)

    def _break_all(self, hard):
        with self._lock:
            pairs, self._open = self._open, set()
        for pair in pairs:
            self._end(pair, hard)

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            mode, luck = self.mode, self._random.random()
            if mode == "close" or (mode == "chaos" and luck < 0.08):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST if luck < 0.04 else struct.pack("ii", 0, 0))
                client.close()
                continue
            threading.Thread(target=self._forward, args=(client, mode == "chaos"), daemon=True).start()

    def _forward(self, client, chaos):
        host, _, port = self._target().rpartition(":")
        try:
            server = socket.create_connection((host, int(port)), timeout=5)
        except OSError:
            client.close()
            return
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = (client, server)
        with self._lock:
            self._open.add(pair)
            # After so many bytes of requests (or of answers) the connection breaks: in the middle of a frame, too.
            up = self._random.randrange(300, 16000) if chaos and self._random.random() < 0.6 else None
            down = self._random.randrange(300, 8000) if chaos and up is None else None
            hard = self._random.random() < 0.5
        sides = {client: (server, [up]), server: (client, [down])}
        try:
            while True:
                ready, _, _ = select.select([client, server], [], [], 60)
                for source in ready:
                    sink, left = sides[source]
                    data = source.recv(65536)
                    if not data:
                        return
                    if left[0] is not None and len(data) >= left[0]:
                        sink.sendall(data[:left[0]])
                        self._end(pair, hard)
                        return
                    if left[0] is not None:
                        left[0] -= len(data)
                    sink.sendall(data)
        except (OSError, ValueError):
            pass
        finally:
            with self._lock:
                self._open.discard(pair)
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    @staticmethod
    def _end(pair, hard):
        # The forwarding thread closes; here both ends only stop, so that no other file gets their number meanwhile.
        for end in pair:
            with contextlib.suppress(OSError):
                if hard:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
                    _disconnect(end)
                else:
                    end.shutdown(socket.SHUT_RDWR)

    def await_target(self):
        def reachable():
            host, _, port = self._target().rpartition(":")
            try:
                socket.create_connection((host, int(port)), timeout=5).close()
                return True
            except OSError:
                return False
        wait_for(reachable, "the gateway behind the tap")

    def stop(self):
        self._listener.close()
        self._break_all(False)


def _disconnect(end):
    """RST without giving up the file descriptor: connect() to AF_UNSPEC."""
    import ctypes
    address = struct.pack("H14x", socket.AF_UNSPEC)
    if ctypes.CDLL(None, use_errno=True).connect(end.fileno(), address, len(address)) != 0:
        end.shutdown(socket.SHUT_RDWR)


# -- a gateway that says what it is told -----------------------------------------------------------------------------------

class Scripted:
    def __init__(self, stubs):
        self.pb = stubs
        self.tap = None
        self._scripts, self._calls, self._tokens, self._lock = {}, {}, {}, threading.Lock()
        handlers = grpc.method_handlers_generic_handler(SERVICE, {
            "CreateUserIntent": grpc.unary_unary_rpc_method_handler(
                self._create, stubs.CreateUserIntentRequest.FromString, stubs.CreateUserIntentResponse.SerializeToString),
            "GetUserIntent": grpc.unary_unary_rpc_method_handler(
                self._read, stubs.GetUserIntentRequest.FromString, stubs.GetUserIntentResponse.SerializeToString),
            "WatchUserIntents": grpc.unary_stream_rpc_method_handler(
                self._watch, stubs.WatchUserIntentsRequest.FromString, stubs.WatchUserIntentsResponse.SerializeToString)})
        self._server = grpc.server(concurrent.futures.ThreadPoolExecutor(16), handlers=[handlers], options=[
            ("grpc.so_reuseport", 0), ("grpc.http2.min_ping_interval_without_data_ms", 10000)])
        self.address = "127.0.0.1:%d" % self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def script(self, body):
        key = body.get("key") or body["email"]
        with self._lock:
            self._scripts[key] = body
            self._calls[key], self._tokens[key] = [], []

    def calls(self, email):
        with self._lock:
            calls = list(self._calls.get(email, []))
        return {"count": len(calls), "ids": sorted({call[0] for call in calls}), "timeouts_ms": [call[1] for call in calls]}

    def tokens(self, key):
        with self._lock:
            return list(self._tokens.get(key, []))

    def _create(self, request, context):
        return self._answer(request.email, request.request_id, context, self.pb.CreateUserIntentResponse())

    def _read(self, request, context):
        key = request.request_id or request.user_intent_id
        return self._answer(key, key, context, self.pb.GetUserIntentResponse())

    def _watch(self, request, context):
        """One stream, as the script of its first request_id says."""
        key = request.request_ids[0] if request.request_ids else "all"
        with self._lock:
            self._tokens.setdefault(key, []).append(request.resume_token.decode())
        answer = self._next(key, key, context)
        for event in answer.get("events", []):
            message = json_format.ParseDict({name: value for name, value in event.items() if name != "token"},
                                            self.pb.WatchUserIntentsResponse())
            message.resume_token = event.get("token", "").encode()
            yield message
        time.sleep(answer.get("delay_ms", 0) / 1000)
        if answer.get("hold"):
            gone = threading.Event()
            if context.add_callback(gone.set):
                gone.wait()
        elif not answer.get("end"):
            self._break_or_fail(context, answer)

    def _answer(self, key, identity, context, response):
        """What the script of this key (the e-mail address of a creation, the id of a read) says next."""
        answer = self._next(key, identity, context)
        if "delay_ms" in answer:
            time.sleep(answer["delay_ms"] / 1000)
        if "ok" in answer and not answer.get("drop") and not answer.get("reset"):
            return json_format.ParseDict(answer["ok"], response)
        self._break_or_fail(context, answer)

    def _next(self, key, identity, context):
        left = context.time_remaining()
        timeout_ms = int(left * 1000) if left is not None and left < 1e6 else -1
        with self._lock:
            script = self._scripts.get(key)
            if script is None:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, "no script for this request")
            calls = self._calls[key]
            answer = script["answers"][min(len(calls), len(script["answers"]) - 1)]
            calls.append((identity, timeout_ms))
        wanted = script.get("timeout_ms")
        if wanted and not wanted["min"] <= timeout_ms <= wanted["max"]:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the timeout is {timeout_ms} ms")
        return answer

    def _break_or_fail(self, context, answer):
        if answer.get("drop") or answer.get("reset"):
            self.tap.set("reset" if answer.get("reset") else "drop")
            context.abort(grpc.StatusCode.INTERNAL, "nobody hears this")
        self._fail(context, answer)

    @staticmethod
    def _fail(context, answer):
        code = getattr(grpc.StatusCode, answer["code"])
        details = []
        if "reason" in answer:
            details.append(error_details_pb2.ErrorInfo(reason=answer["reason"], domain=answer.get("domain", "userintent.v1"),
                                                       metadata=answer.get("metadata", {})))
        if "retry_ms" in answer:
            delay = duration_pb2.Duration(seconds=answer["retry_ms"] // 1000, nanos=answer["retry_ms"] % 1000 * 1000000)
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        if "violations" in answer:
            details.append(error_details_pb2.BadRequest(field_violations=[
                {"field": field, "description": "broken"} for field in answer["violations"]]))
        trailers = []
        if details:
            packed = []
            for message in details:
                packed.append(any_pb2.Any())
                packed[-1].Pack(message)
            status = status_pb2.Status(code=code_pb2.Code.Value(answer["code"]), message=answer["message"], details=packed)
            trailers.append(("grpc-status-details-bin", status.SerializeToString()))
        if "details_base64" in answer:
            trailers.append(("grpc-status-details-bin", base64.b64decode(answer["details_base64"])))
        if "pushback" in answer:
            trailers.append(("grpc-retry-pushback-ms", answer["pushback"]))
        context.set_trailing_metadata(trailers)
        context.abort(code, answer["message"])

    def stop(self):
        self._server.stop(0).wait(5)


# -- everything that one runner talks to -----------------------------------------------------------------------------------

def clients_of(scenarios):
    return sorted({step["client"] for scenario in scenarios for step in scenario["steps"] if "client" in step})


def gateways_of(scenarios, clients):
    return {scenarios["clients"][name]["gateway"] for name in clients}


def has_ledger(scenarios, scenario):
    """Whether it needs a gateway whose ledger can be another one. The disk that fills is that of SQLite's file."""
    gateways = gateways_of(scenarios, clients_of([scenario]))
    return any(name != "full" and scenarios["gateways"][name].get("kind") != "scripted" for name in gateways)


class Stage:
    """Sandbox, gateways, taps and the control address for one plan (or, in the cross-language pass, for several)."""

    def __init__(self, scenarios, directory, wanted, running=None, cluster=None):
        directory.mkdir()
        self.scenarios, self.running, self._cluster = scenarios, running, cluster
        self._end = contextlib.ExitStack()
        self._seen, self._lock = set(), threading.Lock()
        try:
            if running:
                self.sandbox, self.certificates = running.sandbox, running
            else:
                self.sandbox = Sandbox(directory=directory, log=directory / "sandbox.log")
                self._end.callback(self.sandbox.stop)
                self.certificates = Certificates(directory / "certificates")
            self.gateways, self.taps, self.scripted = {}, {}, None
            needed = gateways_of(scenarios, wanted)
            for name, settings in scenarios["gateways"].items():
                if name in needed:
                    self._start(name, settings, directory)
            self._control = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
            self._control.daemon_threads = True
            threading.Thread(target=self._control.serve_forever, daemon=True).start()
            self._end.callback(self._control.server_close)
            self._end.callback(self._control.shutdown)
            self.control = "http://127.0.0.1:%d" % self._control.server_address[1]
        except BaseException:
            self._end.close()
            raise

    def _start(self, name, settings, directory):
        if self.running:
            gateway = RunningGateway(self.running.gateways[name])
        elif settings.get("kind") == "scripted":
            gateway = self.scripted = Scripted(pb)
        else:
            database = self._cluster.database() if self._cluster else None
            gateway = Gateway(name, settings, self.sandbox, directory, self.certificates, database)
        self.gateways[name] = gateway
        self._end.callback(gateway.stop)
        if settings.get("tap"):
            tap = self.taps[name] = Tap(lambda: gateway.address, name)
            self._end.callback(tap.stop)
            if gateway is self.scripted:
                gateway.tap = tap

    def clients(self, wanted):
        out = {}
        for name in wanted:
            settings = self.scenarios["clients"][name]
            gateway = settings["gateway"]
            client = {"address": (self.taps.get(gateway) or self.gateways[gateway]).address}
            cert = settings.get("cert")
            if self.running and not cert:
                cert = "a"  # there all gateways are behind mutual TLS
            if cert:
                client.update(ca_file=str(self.certificates.ca),
                              server_name=self.running.server_name if self.running else "localhost")
                if cert != "none":
                    client.update(cert_file=str(self.certificates.certificate(cert)),
                                  key_file=str(self.certificates.key(cert)))
            if "max_tries" in settings:
                client["max_tries"] = settings["max_tries"]
            out[name] = client
        return out

    def do(self, path, query, body):
        if path == "/script":
            self.scripted.script(body)
        elif path == "/calls":
            return self.scripted.calls(query["email"][0])
        elif path == "/wait_calls":
            wait_for(lambda: self.scripted.calls(body["email"])["count"] >= body["count"], "calls")
        elif path == "/shrinking":
            timeouts = self.scripted.calls(body["email"])["timeouts_ms"]
            if len(timeouts) < 2 or any(a - b < body["by_ms"] for a, b in zip(timeouts, timeouts[1:], strict=False)):
                raise RuntimeError(f"the timeouts are {timeouts}")
        elif path == "/tokens":
            tokens = self.scripted.tokens(body["key"])
            if tokens != body["tokens"]:
                raise RuntimeError(f"the tokens are {tokens}")
        elif path == "/sleep":
            time.sleep(body["ms"] / 1000)
        elif path == "/webhooks":
            self.sandbox.webhooks(**self._door(body["gateway"]), retry_ms=100)
        elif path == "/tap":
            self.taps[self.scenarios["clients"][body["client"]]["gateway"]].set(body["mode"])
        elif path == "/await":
            self.taps[self.scenarios["clients"][body["client"]]["gateway"]].await_target()
        elif path == "/drain":
            self.gateways[body["gateway"]].drain()
        elif path == "/disk":
            self.gateways[body["gateway"]].disk(body["full"])
        elif path == "/restart":
            self.gateways[body["gateway"]].start_again(body["kill"])
        elif path == "/once":
            with self._lock:
                if body["key"] not in self._seen:
                    self.sandbox.call("POST", "/faults", body["fault"])
                    self._seen.add(body["key"])
        else:
            raise RuntimeError(f"no such path: {path}")
        return {}

    def _door(self, gateway):
        """Where the sandbox sends webhooks for this gateway, as POST /webhooks takes it."""
        if not gateway:
            return {"url": ""}
        if self.running:
            return self.running.webhooks[gateway]
        return {"url": f"http://{self.gateways[gateway].webhook_address}/astra/webhooks"}

    def _handler(stage):  # noqa: N805 - `self` is the handler's
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self):
                url = urllib.parse.urlparse(self.path)
                data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                try:
                    status, out = 200, stage.do(url.path, urllib.parse.parse_qs(url.query), json.loads(data or b"{}"))
                except Exception as error:  # the runner's step fails with this text
                    status, out = 500, {"error": f"{type(error).__name__}: {error}"}
                text = json.dumps(out).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = _answer

            def log_message(self, *_):
                pass
        return Handler

    def close(self):
        self._end.close()


# -- runners ---------------------------------------------------------------------------------------------------------------

def write_plan(path, name, stage, scenarios, expander, storm_calls):
    chosen = [expander.scenario(scenario, PERSON, storm_calls) for scenario in scenarios]
    path.write_text(json.dumps({
        "name": name, "sandbox": stage.sandbox.admin.geturl(), "control": stage.control,
        "clients": stage.clients(clients_of(scenarios)), "never_in_text": stage.scenarios["never_in_text"],
        "scenarios": chosen}, ensure_ascii=False, indent=1))
    return path


class Runner:
    """One runner at work. Its output is shown when it ends."""

    def __init__(self, command, plan):
        self.command = command
        self.process = subprocess.Popen([*command, str(plan)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                        errors="replace", start_new_session=True)
        self.lines = []
        self._thread = threading.Thread(target=lambda: self.lines.extend(self.process.stdout), daemon=True)
        self._thread.start()

    def finish(self, expected):
        """(passed, failed, answers, text); what the runner did not report counts as failed."""
        try:
            code = self.process.wait(RUNNER_TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            code = self.process.wait()
            self.lines.append(f"the runner was stopped after {RUNNER_TIMEOUT:.0f} s\n")
        self._thread.join(10)
        text = "".join(self.lines)
        passed = len(re.findall(r"^ok ", text, re.M))
        failed = len(re.findall(r"^FAILED ", text, re.M))
        last = next((line.strip() for line in reversed(self.lines) if line.strip()), "")
        honest = last == f"{passed} passed, {failed} failed" and (code == 0) == (failed == 0 and passed > 0)
        missing = max(expected - passed - failed, 0)
        if not honest and failed == 0 and missing == 0:
            missing = 1
        if missing or not honest:
            text += f"run.py: {missing} scenarios not reported; exit status {code}, last line {last!r}\n"
        reported = [line[len("answer "):].rstrip("\n").rsplit(" ", 2) for line in self.lines if line.startswith("answer ")]
        answers = {(scenario, step): value for scenario, step, value in reported}
        return passed, failed + missing, answers, text


def find_runners(only):
    """name -> command: every directory with an executable `run`, and the variants it names in a file `variants`."""
    found = {}
    for run in sorted(HERE.glob("*/run")):
        if os.access(run, os.X_OK):
            variants = run.parent / "variants"
            for variant in variants.read_text().split() if variants.exists() else [""]:
                name = run.parent.name + (f"-{variant}" if variant else "")
                found[name] = [str(run), *([f"--{variant}"] if variant else [])]
    if only:
        unknown = [name for name in only if not any(found_name.startswith(name) for found_name in found)]
        if unknown:
            raise SystemExit(f"no such runner: {', '.join(unknown)}; there is {', '.join(found)}")
        found = {name: command for name, command in found.items() if any(name.startswith(prefix) for prefix in only)}
    if not found:
        raise SystemExit("no runner")
    return found


def junit(path, cases):
    import xml.sax.saxutils as escape
    body = "".join(
        f"<testcase classname=\"conformance.{suite}\" name={escape.quoteattr(name)}>"
        + ("" if ok else f"<failure message={escape.quoteattr(why[:500])}/>") + "</testcase>" for suite, name, ok, why in cases)
    failures = sum(not case[2] for case in cases)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<testsuite name=\"conformance\" tests=\"{len(cases)}\" failures=\"{failures}\">{body}</testsuite>\n")


def cross_pass(runners, data, directory, seed, cases, running, cluster):
    """Every runner repeats the same ids against the same gateways, all at once, then one after the other."""
    scenarios = [scenario for scenario in data["scenarios"] if scenario.get("cross")]
    if not scenarios:
        return
    if running and not all(running.serves(data, scenario) for scenario in scenarios):
        raise SystemExit("the running gateways do not serve the pass in which all runners share their ids")
    stage = Stage(data, directory / "cross", clients_of(scenarios), running, cluster)
    try:
        heard = {}
        for turn in ("at once", "in turn"):
            started = []
            for number, (name, command) in enumerate(runners.items()):
                expander = Expander(f"{seed} cross", upper=number % 2 == 1)
                plan = write_plan(directory / f"cross.{turn.replace(' ', '-')}.{name}.json", name, stage, scenarios, expander, 0)
                runner = Runner(command, plan)
                if turn == "at once":
                    started.append((name, runner))
                else:
                    started.append((name, runner.finish(len(scenarios))))
            for name, runner in started:
                passed, failed, answers, text = runner.finish(len(scenarios)) if turn == "at once" else runner
                good = failed == 0 and passed == len(scenarios)
                cases.append(("cross", f"{name}, {turn}", good, text))
                print(f"{'ok' if good else 'FAILED'} cross: {name}, {turn}" + ("" if good else f"\n{text}"))
                for where, value in answers.items():
                    heard.setdefault(where, {})[f"{name}, {turn}"] = value
        wanted = len(runners) * 2
        for where, values in sorted(heard.items()):
            good = len(set(values.values())) == 1 and len(values) == wanted
            cases.append(("cross", f"same answer: {' '.join(where)}", good, str(values)))
            if not good:
                print(f"FAILED cross: answers of {where} differ or are missing: {values}")
        if not heard:
            cases.append(("cross", "answers", False, "no runner reported an answer"))
    finally:
        stage.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="runners whose name begins so")
    parser.add_argument("--match", nargs="+", default=[""], help="scenarios whose name holds one of these texts")
    parser.add_argument("--keep", action="store_true", help="keep plans and logs")
    parser.add_argument("--serve", metavar="NAME", help="start everything, print the path of NAME's plan, wait for a signal")
    cross = parser.add_mutually_exclusive_group()
    cross.add_argument("--no-cross", action="store_true", help="leave out the pass in which all runners share their ids")
    cross.add_argument("--cross-only", action="store_true", help="nothing but that pass")
    parser.add_argument("--jobs", type=int, default=2, help="runners at a time")
    parser.add_argument("--running", type=pathlib.Path, metavar="FILE",
                        help="sandbox and gateways that run already; only for other scenarios some are started")
    parser.add_argument("--postgres", action="store_true", help="gateways that are started here have their ledger in PostgreSQL")
    parser.add_argument("--junit", type=pathlib.Path, help="write a report")
    arguments = parser.parse_args()
    if absent := missing("astra-sandbox", "userintent-server"):
        raise SystemExit(absent)
    data = json.loads((HERE / "scenarios.json").read_text())
    chosen = [scenario for scenario in data["scenarios"] if any(text in scenario["name"] for text in arguments.match)]
    if arguments.postgres:  # the others would show nothing of it
        chosen = [scenario for scenario in chosen if has_ledger(data, scenario)]
    if not chosen:
        raise SystemExit("no scenario of that name")
    running = Running(arguments.running) if arguments.running else None
    storm_calls = int(os.environ.get("CONFORMANCE_STORM_CALLS") or "0")
    seed = secrets.token_hex(8)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="conformance-"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cases = []
    cluster = postgres.Cluster(memory=True) if arguments.postgres else None
    try:
        if arguments.serve:
            stage = Stage(data, directory / arguments.serve, clients_of(chosen), cluster=cluster)
            try:
                print(write_plan(directory / f"{arguments.serve}.json", arguments.serve, stage, chosen, Expander(seed),
                                 storm_calls), flush=True)
                threading.Event().wait()
            finally:
                stage.close()
        runners = find_runners(arguments.only)

        def perform(name, label, scenarios, running):
            """Each runner has a sandbox and gateways of its own, except where they run already."""
            stage = Stage(data, directory / label, clients_of(scenarios), running, cluster)
            try:
                plan = write_plan(directory / f"{label}.json", name, stage, scenarios, Expander(f"{seed} {name}"), storm_calls)
                started = time.monotonic()
                return Runner(runners[name], plan).finish(len(scenarios)), time.monotonic() - started
            finally:
                stage.close()

        parts = {"": (chosen, None)}
        if running:
            served = [scenario for scenario in chosen if running.serves(data, scenario)]
            parts = {"-running": (served, running), "-own": ([other for other in chosen if other not in served], None)}
        # What runs already is shared: a connection to Astra that one runner's scenario breaks carries the others' calls, too.
        one, several = concurrent.futures.ThreadPoolExecutor(1), concurrent.futures.ThreadPoolExecutor(arguments.jobs)
        performed = {} if arguments.cross_only else {
            name + part: (one if where else several).submit(perform, name, name + part, scenarios, where)
            for name in runners for part, (scenarios, where) in parts.items() if scenarios}
        for name, future in performed.items():
            (passed, failed, _, text), seconds = future.result()
            for verdict, scenario, why in re.findall(r"^(ok|FAILED) (.*?)(?:$|: (step .*|end: .*)$)", text, re.M):
                cases.append((name, scenario, verdict == "ok", why))
            for _ in range(passed + failed - sum(case[0] == name for case in cases)):
                cases.append((name, "not reported", False, text[-2000:]))
            if failed:
                print("".join(line for line in text.splitlines(True) if not line.startswith(("ok ", "answer "))), end="")
            print(f"{'ok' if not failed else 'FAILED'} {name}: {passed} passed, {failed} failed, "
                  f"{seconds:.0f} s", flush=True)
        if arguments.cross_only or not arguments.no_cross and not any(arguments.match):
            cross_pass(runners, data, directory, seed, cases, running, cluster)
    finally:
        if cluster:
            cluster.close()
        if arguments.keep:
            print(f"plans and logs: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    if arguments.junit:
        junit(arguments.junit, cases)
    failed = sum(not case[2] for case in cases)
    print(f"{len(cases) - failed} passed, {failed} failed")
    return 0 if cases and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
