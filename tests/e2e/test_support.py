"""The support can fail: what it must notice, shown to it."""

import http.server
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2, json_format
from google.rpc import error_details_pb2, status_pb2

from support import canary, errors
from support.people import STEMS, person
from support.process import PATIENCE, REPO, clean_environment, wait_for
from support.protos import pb, pb_grpc
from support.sandbox import Admin, Sandbox, webhook_signature


class Failure:
    """What a library hands over for a failed call."""

    def __init__(self, code, status, trailers=(), message=None):
        self._code, self._message = code, status.message if message is None else message
        self._trailers = [("grpc-status-details-bin", status.SerializeToString()), *trailers]

    def code(self):
        return self._code

    def details(self):
        return self._message

    def trailing_metadata(self):
        return self._trailers


def packed(message):
    any_ = any_pb2.Any()
    any_.Pack(message)
    return any_


NEVER = [("grpc-retry-pushback-ms", "-1")]


def failure(reason="REQUEST_ID_REUSED", sent="no", recovery="FIX_WITH_NEW_ID", details=(), trailers=NEVER,
            message="A fixed text.", code=grpc.StatusCode.FAILED_PRECONDITION, domain="userintent.v1", **metadata):
    known = {"sent": sent, "recovery": recovery, **metadata}
    info = error_details_pb2.ErrorInfo(reason=reason, domain=domain,
                                       metadata={key: value for key, value in known.items() if value is not None})
    return Failure(code, status_pb2.Status(code=code.value[0], message=message,
                                           details=[packed(info), *map(packed, details)]), trailers)


RETRY = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=1))


def test_a_good_error_passes():
    """An error that keeps every rule is accepted."""
    error = errors.decode(failure(), person())
    error.expect("REQUEST_ID_REUSED", sent="no", replayed=None)
    errors.decode(failure("EMAIL_BUSY", recovery="RETRY_SAME_ID", details=[RETRY], trailers=[],
                          code=grpc.StatusCode.ABORTED))


BROKEN = {
    "neither RetryInfo nor pushback": dict(trailers=[]),
    "both": dict(details=[RETRY]),
    "another pushback": dict(trailers=[("grpc-retry-pushback-ms", "100")]),
    "two ErrorInfo": dict(details=[error_details_pb2.ErrorInfo(reason="INTERNAL", domain="userintent.v1")]),
    "another domain": dict(domain="example.com"),
    "a reason that is not in the enum": dict(reason="NO_SUCH_REASON"),
    "a reason with its prefix": dict(reason="ERROR_REASON_REQUEST_ID_REUSED"),
    "another code": dict(code=grpc.StatusCode.UNKNOWN),
    "sent is a new word": dict(sent="perhaps"),
    "sent is not that of the row": dict(sent="yes"),
    "recovery is not that of the row": dict(recovery="STOP"),
    "metadata that is not in the contract": dict(email_hash="x"),
    "a detail of another row": dict(details=[error_details_pb2.BadRequest()]),
    "an unknown detail": dict(details=[error_details_pb2.DebugInfo(detail="x")]),
    "RetryInfo where there is none": dict(details=[RETRY], trailers=[]),
    "too large": dict(message="x" * 4000),
    "no message": dict(message=""),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_error_does_not(name):
    """An error that breaks one rule is noticed."""
    with pytest.raises(AssertionError):
        errors.decode(failure(**BROKEN[name]), person())


def read_failure(reason="NOT_CREATED", sent=None, recovery="STOP", **more):
    return failure(reason, sent, recovery, **more)


def test_a_good_error_of_a_read_passes():
    errors.decode(read_failure(), read=True).expect("NOT_CREATED", recovery="STOP", http_status=None)
    errors.decode(read_failure("UPSTREAM_RATE_LIMITED", recovery="RETRY_SAME_ID", details=[RETRY], trailers=[], http_status="429",
                               astra_request_id="x", code=grpc.StatusCode.RESOURCE_EXHAUSTED), read=True)


@pytest.mark.parametrize("change", [
    dict(sent="no"), dict(attempts_used_min="0"), dict(user_intent_id="x"), dict(replayed="true"), dict(recovery="FIX_REQUEST"),
    dict(reason="REQUEST_ID_REUSED"), dict(code=grpc.StatusCode.NOT_FOUND), dict(details=[RETRY], trailers=[]), dict(trailers=[])],
    ids=["sent", "attempts", "an intent's id", "replayed", "recovery", "reason", "code", "RetryInfo", "no pushback"])
def test_a_broken_error_of_a_read_does_not(change):
    with pytest.raises(AssertionError):
        errors.decode(read_failure(**change), read=True)


def test_an_error_of_a_read_is_none_of_a_creation():
    with pytest.raises((AssertionError, KeyError)):
        errors.decode(read_failure())


def test_a_code_that_differs_within_does_not():
    """A call's code that is not the one in its details is noticed."""
    wrong = failure()
    wrong._code = grpc.StatusCode.UNKNOWN
    with pytest.raises(AssertionError):
        errors.decode(wrong)
    with pytest.raises(AssertionError):
        errors.decode(Failure(grpc.StatusCode.FAILED_PRECONDITION, status_pb2.Status.FromString(
            failure()._trailers[0][1]), NEVER, message="another"))


@pytest.mark.parametrize("field", ["email", "phone", "first_name", "last_name", "address1", "city", "date_of_birth",
                                   "ip_address", "state", "ssn_last_four", "metadata key", "metadata value"])
@pytest.mark.parametrize("where", ["message", "violation", "metadata"])
def test_an_error_with_a_value_of_the_request_does_not(field, where):
    """A personal value in any part of an error is noticed."""
    request = person(city="Elsewhere Town")
    if field == "metadata key":
        value = next(iter(request.metadata))
    elif field == "metadata value":
        value = next(iter(request.metadata.values()))
    else:
        value = getattr(request, field)
    if where == "message":
        # A short value within a sentence may be an accident; alone, or in quotes, it is none.
        text = f'refused: "{value}"' if len(value) > 2 else value
        leaky = failure(message=text)
    elif where == "metadata":
        leaky = failure(astra_request_id="x", http_status=value)
    else:
        leaky = failure("FIELD_INVALID", recovery="FIX_REQUEST", code=grpc.StatusCode.INVALID_ARGUMENT, details=[
            error_details_pb2.BadRequest(field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field="city", description=value)])])
    with pytest.raises(AssertionError):
        errors.decode(leaky, request)


class Output:
    stopped = True

    def __init__(self, text):
        self._text = text

    def new_output(self):
        return self._text


@pytest.mark.parametrize("make", [
    lambda r: r.email, lambda r: r.phone, lambda r: f"name={r.first_name};", lambda r: r.email.upper(),
    lambda r: f'"ssn":"{r.ssn_last_four}"', lambda r: f"{r}", lambda r: next(canary.spellings("Zoë Łukasz")),
    lambda r: list(canary.spellings("Zoë Łukasz"))[1], lambda r: list(canary.spellings("Zoë Łukasz"))[2],
    lambda r: list(canary.spellings("Zoë Łukasz"))[3]], ids=[
        "e-mail address", "phone", "name", "e-mail address in capitals", "SSN digits", "the whole request", "a name as it is",
        "a name in JSON", "a name in a URL", "a name in base64"])
def test_a_log_with_a_value_of_a_request_is_noticed(make):
    request = person(preferred_first_name="Zoë Łukasz")
    canary.record(request)
    canary.watch(Output('{"event":"x","text":"' + make(request) + '"}'))
    with pytest.raises(AssertionError):
        canary.check()


def test_a_log_without_is_not():
    """A log without personal values is accepted."""
    request = person()
    canary.record(request)
    canary.watch(Output('{"event":"listening","address":"127.0.0.1:50051","latency_ms":8259}'))
    canary.check()


def test_the_factory_gives_everyone_an_address_of_their_own():
    people = [person() for _ in range(1000)]
    assert len({p.email for p in people}) == len({p.request_id for p in people}) == 1000
    for request in people[:5]:
        values = [value.lower() for value in canary.personal_values(request)]
        stems = [value for value in values if any(stem in value for stem in STEMS)]
        # Only the state, the postal code and the SSN digits are too short to hold one.
        assert len(values) - len(stems) == 3


# -- support.stage --------------------------------------------------------------------------------------------------------

class Staged:
    """`python -m support.stage` as a suite in another language starts it."""

    def __init__(self, *words):
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "support.stage", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env=clean_environment(PYTHONPATH=str(REPO / "tests")))
        line = self.popen.stdout.readline()
        self.told = json.loads(line) if line else None

    def pids(self):
        """Of the programs that it started."""
        return [int(path.name) for path in pathlib.Path("/proc").iterdir() if path.name.isdigit() and self._started(path)]

    def _started(self, path):
        try:
            return int((path / "stat").read_text().rpartition(")")[2].split()[1]) == self.popen.pid
        except OSError:  # ended meanwhile
            return False

    def end(self):
        """Closes its stdin; (exit status, stderr)."""
        _, said = self.popen.communicate(timeout=PATIENCE + 60)
        return self.popen.returncode, said


def gone(pids):
    return not any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_stage_serves_until_its_stdin_ends():
    """One line of JSON leads to a gateway that creates its person at its sandbox; then nothing is left."""
    staged = Staged("--gateway=max_in_flight=2", "--sandbox=delay=1ms")
    pids = staged.pids()
    assert len(pids) == 2
    with grpc.insecure_channel(staged.told["gateway"]) as channel:
        request = json_format.ParseDict(staged.told["person"], pb.CreateUserIntentRequest())
        created = pb_grpc.UserIntentServiceStub(channel).CreateUserIntent(request, timeout=PATIENCE)
    assert [post["intent_id"] for post in Admin(staged.told["admin"]).posts(request.email)] == [created.user_intent.id]
    assert staged.end() == (0, "")
    assert gone(pids) and not pathlib.Path(staged.told["directory"]).exists()


def test_a_stage_keeps_the_files_of_a_directory_that_is_named(tmp_path):
    """The ledger and the log are where the line says."""
    staged = Staged(f"--directory={tmp_path}")
    assert staged.end() == (0, "")
    assert staged.told["ledger"] == f"sqlite:{tmp_path}/ledger/ledger.db" and (tmp_path / "ledger" / "ledger.db").exists()
    assert '"event":"drained"' in pathlib.Path(staged.told["log"]).read_text()


def test_a_stage_that_is_killed_takes_its_programs_along(tmp_path):
    """The kernel ends them, so that a suite that is stopped by force leaves nothing that runs."""
    staged = Staged(f"--directory={tmp_path}")
    pids = staged.pids()
    staged.popen.kill()
    staged.end()
    wait_for(lambda: gone(pids), "the programs have ended")


def test_a_stage_whose_gateway_ends_fails():
    """It does not wait for its stdin then, and its exit status tells."""
    staged = Staged()
    pid = next(pid for pid in staged.pids() if "userintent-server" in pathlib.Path(f"/proc/{pid}/cmdline").read_text())
    os.kill(pid, signal.SIGKILL)
    assert staged.popen.wait(PATIENCE) == 1
    assert staged.end()[1].startswith("error: the gateway ended with -9")


def test_a_stage_that_cannot_start_fails():
    """Without a line on stdout, and with the program's own words on stderr."""
    staged = Staged("--gateway=nonsense=1")
    code, said = staged.end()
    assert staged.told is None and code == 1 and "--nonsense: there is no such flag" in said


def test_webhooks_of_the_sandbox():
    """Every form is signed as CPython's json.dumps and hmac have it, and the account tells what the receiver saw."""
    seen = []

    class Door(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            seen.append((self.headers["Astra-Verification"], self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    sandbox = Sandbox()
    door = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door)
    threading.Thread(target=door.serve_forever, daemon=True).start()
    try:
        sandbox.webhooks(f"http://127.0.0.1:{door.server_port}/", previous_secret="older")
        metadata = {"gateway_attempt_id": "a", "k": "Zo\u00eb \U0001f600\x7f\"\\/\n"}
        for form, key, secret in (("python", "current", "sandbox-secret"), ("raw", "previous", "older"),
                                  ("compact", "wrong", "not-the-secret")):
            account = sandbox.send_webhook("i", form=form, key=key, metadata=metadata)
            value = {"webhook_type": "user_intent_updated", "webhook_id": account["webhook_id"], "user_id": "i",
                     "resource_id": "i", "metadata": metadata}
            dumped, compact = json.dumps(value), json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            signature, body = seen[-1]
            assert body.decode() == (dumped if form == "python" else compact)
            assert signature == webhook_signature(compact if form == "raw" else dumped, secret)
            assert account["tries"][0]["status"] == 200 and account["attempt_id"] == "a"
        assert len(sandbox.wait_webhooks("i", 3)) == len(seen) == 3
        assert sandbox.webhook_summary()["sent"] == 3
        assert sandbox.webhook_fault("a@example.com", status="pending", lose=True) == {"id": 1}
        sandbox.clear_webhook_faults()
    finally:
        door.shutdown()
        door.server_close()
        sandbox.stop()
