"""Nothing of a person, of a credential or of Astra's answers gets out, whichever way a call, a webhook or the process goes, and
however it is written: tests/support/canaries.py says what is looked for, needles.py how.

After each test everything that was heard and left behind is searched: the log at the most talkative levels, /metrics and its
neighbours, every message, detail and trailer, tokens of watches, the operators' tool, the ledger with its log and a backup,
what /proc shows, files where a core would be.
"""

import base64
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import ssl
import struct
import subprocess
import uuid

import grpc
import pytest

from support import canaries
from support.canaries import fields, person
from support.canary_stage import (AUTHORIZE, CREATE, GET, NO_ANSWER, READ, REDIRECT_URI, WATCH, Stage, log_events, wait_event)
from support.certs import Authority
from support.gateway import SERVER
from support.people import again
from support.process import PATIENCE, as_arguments, clean_environment, wait_for, write_secret
from support.protos import errors_pb2, pb
from support.webhook_door import Door, ask, body_of, post
from support.wire import TcpTap, connect, frame, split
from support.wire import Call as CallByHand

LEVELS = {"nghttp2": "trace", "libcurl": "debug"}  # both transports, and both levels that are for the curious
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.fixture(scope="module", params=LEVELS)
def whole_stage(request):
    stage = Stage(log_level=LEVELS[request.param], upstream_transport=request.param, oauth_redirect_uri=REDIRECT_URI,
                  astra_read_rate=200)
    yield stage
    stage.close()


@pytest.fixture
def stage(whole_stage):
    whole_stage.sandbox.clear_faults()
    yield whole_stage
    found = whole_stage.search()
    assert not found, f"{len(found)} canaries got out: {found[:20]}"


@pytest.fixture(scope="module")
def shared(whole_stage):
    """A gateway for whatever leaves no trace in others."""
    return whole_stage.gateway(webhook_listen="127.0.0.1:0", webhook_secret_file=whole_stage.webhook_secret_file, upstream_breaker=False)


def created(stage, gateway, **changes):
    request = person(**changes)
    assert stage.create(gateway, request) == "OK"
    return request


def other_id(request, **changes):
    return again(request, request_id=str(uuid.uuid4()), **changes)


def key_of(request, kind=pb.GetUserIntentRequest, **more):
    return kind(request_id=request.request_id, **more)


def delayed(stage, gateway, request, delay_ms=2500):
    """A call that is with Astra."""
    stage.sandbox.fault("delay", request.email, delay_ms=delay_ms)
    running = stage.begin(gateway, CREATE, request)
    stage.sandbox.wait_posts(request.email)
    return running


# -- calls -----------------------------------------------------------------------------------------------------------------

def test_all_is_well(stage, shared):
    """All five methods, answered OK."""
    request = created(stage, shared)
    assert stage.create(shared, request) == "OK"
    assert stage.create(shared, person(validate_only=True)) == "OK"
    assert stage.call(shared, GET, key_of(request, pb.GetCreationRequest)) == "OK"
    for more in ({}, {"allow_stale": True}, {"max_age": {"seconds": 60}}):
        assert stage.call(shared, READ, key_of(request, **more)) == "OK"
    question = key_of(request, pb.GetAuthorizationUrlRequest, redirect_uri=REDIRECT_URI, state=canaries.AUTH_STATE)
    # The URL is made of these two, and the caller gave one of them.
    assert stage.call(shared, AUTHORIZE, question, told_by_design=("CLIENT_ID", "AUTH_STATE")) == "OK"
    watch = stage.begin(shared, WATCH, pb.WatchUserIntentsRequest(request_ids=[request.request_id])).read(2)
    token = pb.WatchUserIntentsResponse.FromString(watch.answers[-1]).resume_token
    watch.leave()
    stage.hear("a token", token)
    stage.begin(shared, WATCH, pb.WatchUserIntentsRequest(resume_token=token)).read(1).leave()


BROKEN = {"email": lambda v: v.replace("@", " @"), "phone": lambda v: v + "9", "state": lambda v: v + canaries.CITY,
          "postal_code": lambda v: v + "8", "date_of_birth": lambda v: v + "1", "ssn_last_four": lambda v: v + canaries.SSN,
          "ip_address": lambda v: v + "::", "metadata": lambda v: {k + " /": t + "\n" for k, t in v.items()},
          "address1": lambda v: "PO Box " + v, "address2": lambda v: "PO Box " + v}


def test_fields_that_break_a_rule(stage, shared):
    """Each alone, with its canary in it, and all together."""
    values = fields()
    broken = {name: BROKEN.get(name, lambda v: v + "\n")(values[name]) for name in canaries.PERSON | {"email": ""}}
    for changes in [*({name: value} for name, value in broken.items()), broken,
                    {"request_id": canaries.FIRST_NAME}, {"supersedes_request_id": canaries.LAST_NAME}]:
        assert stage.create(shared, person(**changes)) == "FIELD_INVALID"
    for method, kind in ((GET, pb.GetCreationRequest), (READ, pb.GetUserIntentRequest)):
        assert stage.call(shared, method, kind(request_id=canaries.FIRST_NAME)) == "FIELD_INVALID"
    known = created(stage, shared)
    for uri, state in ((REDIRECT_URI, canaries.AUTH_STATE + "/"), (REDIRECT_URI + "/" + canaries.AUTH_STATE, canaries.AUTH_STATE)):
        question = key_of(known, pb.GetAuthorizationUrlRequest, redirect_uri=uri, state=state)
        assert stage.call(shared, AUTHORIZE, question) == "FIELD_INVALID"
    for watch in (pb.WatchUserIntentsRequest(request_ids=[canaries.FIRST_NAME]),
                  pb.WatchUserIntentsRequest(resume_token=canaries.FIRST_NAME.encode())):
        assert stage.call(shared, WATCH, watch) == "FIELD_INVALID"


def test_bytes_that_are_no_request(stage, shared):
    data = person().SerializeToString()
    for method in (CREATE, GET, READ, AUTHORIZE, WATCH):
        assert stage.call(shared, method, data[:-3]) == "MALFORMED_REQUEST"
    for method in (CREATE, GET, READ, AUTHORIZE, WATCH):
        unknown = data + b"\xba\x7e" + bytes([len(canaries.FIRST_NAME.encode())]) + canaries.FIRST_NAME.encode()
        assert stage.call(shared, method, unknown if method == CREATE else unknown[len(data):]) == "UNKNOWN_FIELDS"
    assert stage.call(shared, CREATE, data.replace(b"Quorvendal", b"Quorven\xff\xfel")) == "MALFORMED_REQUEST"
    assert stage.call(shared, CREATE, canaries.FIRST_NAME.encode() * 3000) == NO_ANSWER  # over 64 KiB


def test_what_the_record_refuses(stage, shared):
    first = created(stage, shared)
    assert stage.create(shared, again(first, city=canaries.CITY + " x")) == "REQUEST_ID_REUSED"
    assert stage.create(shared, other_id(first)) == "PERSON_EXISTS"
    for _ in range(2):
        assert stage.create(shared, other_id(first, allow_repeat=True)) == "OK"
    assert stage.create(shared, other_id(first, allow_repeat=True)) == "EMAIL_ATTEMPTS_EXHAUSTED"

    running = person()
    call = delayed(stage, shared, running)
    assert stage.create(shared, running, timeout=0.6) in ("REQUEST_IN_PROGRESS", NO_ANSWER)
    assert stage.create(shared, other_id(running)) == "EMAIL_BUSY"
    assert call.end() == "OK"

    lost = person()
    stage.sandbox.answer(lost.email, 500, canaries.body(), canaries.headers())
    assert stage.create(shared, lost) == "OUTCOME_UNKNOWN"
    assert stage.create(shared, lost) == "OUTCOME_UNKNOWN"  # from the record
    assert stage.create(shared, other_id(lost)) == "EMAIL_UNRESOLVED"
    assert stage.create(shared, other_id(lost, supersedes_request_id=str(uuid.uuid4()))) == "SUPERSEDES_INVALID"
    assert stage.call(shared, READ, key_of(lost)) == "NOT_CREATED"
    assert stage.create(shared, other_id(lost, supersedes_request_id=lost.request_id)) == "OK"

    nobody = str(uuid.uuid4())
    for method, kind in ((GET, pb.GetCreationRequest), (READ, pb.GetUserIntentRequest)):
        assert stage.call(shared, method, kind(request_id=nobody)) == "REQUEST_NOT_FOUND"
    assert stage.call(shared, READ, pb.GetUserIntentRequest(user_intent_id=canaries.FIRST_NAME)) == "USER_INTENT_NOT_FOUND"


# -- Astra's answers ---------------------------------------------------------------------------------------------------------

ANSWERS = [(400, "UPSTREAM_REJECTED"), (422, "UPSTREAM_REJECTED"), (401, "UPSTREAM_CREDENTIALS_REJECTED"),
           (403, "UPSTREAM_CREDENTIALS_REJECTED"), (404, "UPSTREAM_MISCONFIGURED"), (302, "UPSTREAM_MISCONFIGURED"),
           (303, "OUTCOME_UNKNOWN"), (409, "OUTCOME_UNKNOWN"), (500, "OUTCOME_UNKNOWN"), (503, "OUTCOME_UNKNOWN"),
           (201, "OUTCOME_UNKNOWN")]


@pytest.mark.parametrize("status, reason", ANSWERS)
def test_answers_to_a_creation(stage, shared, status, reason):
    """Each says all that it knows of the person, as JSON, as text and in its head."""
    for body in (canaries.body(), str(canaries.body())):
        request = person()
        stage.sandbox.answer(request.email, status, body, canaries.headers(), times=0)
        assert stage.create(shared, request) == reason
        assert stage.call(shared, GET, key_of(request, pb.GetCreationRequest)) == "OK"
        stage.sandbox.clear_faults()


def test_an_answer_that_is_good_and_says_too_much(stage, shared):
    request = person()
    stage.sandbox.answer(request.email, 201, {**canaries.body(), "id": "an-intent", "status": canaries.BODY * 4}, canaries.headers())
    assert stage.create(shared, request) == "OK"
    assert stage.create(shared, request) == "OK"


KINDS = [("cut_body", dict(status=200)), ("cut_body", dict(status=400)), ("cut_head", dict(status=201)), ("close", {}),
         ("reset", {}), ("garbage", {}), ("huge_body", dict(bytes=200_000)), ("html", dict(status=502)), ("early", {}),
         ("rst_stream", dict(code="INTERNAL_ERROR")), ("second_answer", dict(second_ms=10))]


def test_exchanges_that_break(stage, shared):
    for kind, parameters in KINDS:
        request = person()
        match = {} if kind == "early" else {"email": request.email}
        with contextlib.suppress(AssertionError):  # not every kind takes a body
            stage.sandbox.fault(kind, **match, **parameters, body=canaries.body(), headers=canaries.headers())
        assert stage.create(shared, request) in ("OK", "OUTCOME_UNKNOWN", "UPSTREAM_REJECTED"), kind
        stage.sandbox.clear_faults()
    raw = ("HTTP/1.1 200 " + canaries.BODY + "\r\n" + canaries.HEADER + "\r\n\r\n" + str(canaries.body())).encode()
    request = person()
    stage.sandbox.raw(request.email, raw)
    assert stage.create(shared, request) == "OUTCOME_UNKNOWN"


def test_answers_to_a_read(stage, shared):
    request = created(stage, shared)
    [intent] = [one["id"] for one in stage.sandbox.intents(request.email)]
    good = {**canaries.body(), "id": intent, "status": "approved", "user_id": None}
    heard = set()
    for status in (200, 400, 401, 404, 418, 429, 500, 503):
        for body in (good, {**good, "id": canaries.BODY}, {**good, "status": canaries.BODY * 4}, str(good)):
            head = {**canaries.headers(), **({"Retry-After": canaries.HEADER} if status in (429, 503) else {})}
            stage.sandbox.answer_get(intent, status, body, head, times=3)
            heard.add(stage.call(shared, READ, key_of(request), timeout=3))
            stage.sandbox.clear_faults()
    assert heard >= {"OK", "UPSTREAM_CREDENTIALS_REJECTED", "USER_INTENT_NOT_FOUND", "UPSTREAM_MISCONFIGURED",
                     "UPSTREAM_UNAVAILABLE"}, heard
    stage.sandbox.review(intent, status="rejected")
    question = key_of(request, pb.GetAuthorizationUrlRequest, redirect_uri=REDIRECT_URI, state=canaries.AUTH_STATE)
    assert stage.call(shared, AUTHORIZE, question) == "USER_INTENT_NOT_ELIGIBLE"


def test_the_breaker_opens(stage):
    """For either cause, by answers that hold all there is to know; and its probes are answered so, too."""
    for status, times, reason in ((500, 20, "OUTCOME_UNKNOWN"), (401, 1, "UPSTREAM_CREDENTIALS_REJECTED")):
        gateway = stage.gateway()
        for method in ("POST", "GET"):
            stage.sandbox.call("POST", "/faults", {"match": {"method": method}, "times": 0, "kind": "status", "status": status,
                                                   "body": json.dumps(canaries.body()), "headers": canaries.headers()})
        for _ in range(times):
            assert stage.create(gateway, person()) == reason
        assert stage.create(gateway, person()) == "UPSTREAM_SUSPENDED"
        wait_for(lambda: gateway.metric("userintent_upstream_breaker_probes_total") > 0, "a probe")
        stage.sandbox.clear_faults()
        gateway.stop()


def test_astra_holds_back(stage):
    """429 and 503 with a Retry-After that parses, and one that is a canary; then every call is held back."""
    for status, reason in ((503, "UPSTREAM_UNAVAILABLE"), (429, "UPSTREAM_RATE_LIMITED")):
        gateway = stage.gateway()
        request = person()
        stage.sandbox.answer(request.email, status, canaries.body(), {**canaries.headers(), "Retry-After": "60"}, times=0)
        assert stage.create(gateway, request, timeout=10) == reason
        stage.create(gateway, person(), timeout=10)
        gateway.stop()
    gateway, request = stage.gateway(), person()
    stage.sandbox.answer(request.email, 429, canaries.body(), {**canaries.headers(), "Retry-After": canaries.HEADER}, times=0)
    assert stage.create(gateway, request, timeout=10) == "UPSTREAM_RATE_LIMITED"
    gateway.stop()


def test_astra_is_not_reached(stage):
    tap = TcpTap.before(stage.sandbox, "garbage")
    gateway = stage.gateway(astra_base_url=tap.url)
    assert stage.create(gateway, person()) == "UPSTREAM_UNREACHABLE"
    tap.close()
    assert stage.create(gateway, person()) == "UPSTREAM_UNREACHABLE"
    gateway.stop()


def test_a_wrong_secret(stage):
    """Astra refuses the credentials; then the file is broken in every way, and mended."""
    secret = write_secret(stage.directory / "operator" / "wrong", canaries.WRONG_SECRET)
    gateway = stage.gateway(astra_client_secret_file=secret)
    request = person()
    assert stage.create(gateway, request) == "UPSTREAM_CREDENTIALS_REJECTED"
    for data in (b"", b"\n\n", canaries.WRONG_SECRET.encode() + b"\n\nmore\n", b"\0" + canaries.WRONG_SECRET.encode(), b"x" * 100_000):
        write_secret(secret, data)
        gateway.signal(signal.SIGHUP)
    secret.chmod(0o644)
    gateway.signal(signal.SIGHUP)
    wait_event(gateway, "credentials_not_reloaded")
    write_secret(secret, canaries.CLIENT_SECRET)
    gateway.signal(signal.SIGHUP)
    wait_for(lambda: stage.create(gateway, request) == "OK", "the right secret to be used")
    gateway.stop()


def test_a_late_answer(stage):
    """The answer comes when the caller has heard that it is unknown."""
    gateway = stage.gateway(upstream_timeout="1500ms", connect_timeout="700ms")
    for status in (201, 400):
        request = person()
        stage.sandbox.answer(request.email, status, {**canaries.body(), "id": f"late-{status}"}, canaries.headers(), delay_ms=3000)
        assert stage.create(gateway, request) == "OUTCOME_UNKNOWN"
        wait_for(lambda: stage.create(gateway, request) == ("OK" if status == 201 else "UPSTREAM_REJECTED"), "the late answer")
    assert stage.create(gateway, delayed_then_left(stage, gateway)) in ("OK", "OUTCOME_UNKNOWN", "REQUEST_IN_PROGRESS")
    gateway.stop()


def delayed_then_left(stage, gateway):
    request = person()
    delayed(stage, gateway, request, 800).leave()
    return request


# -- a gateway that says no -------------------------------------------------------------------------------------------------

def test_a_full_house(stage):
    gateway = stage.gateway(max_in_flight=1, watch_streams=1, watch_streams_per_caller=1)
    running = delayed(stage, gateway, person())
    assert stage.create(gateway, person()) == "OVERLOADED"
    assert running.end() == "OK"
    watch = stage.begin(gateway, WATCH, pb.WatchUserIntentsRequest()).read(1)
    assert stage.call(gateway, WATCH, pb.WatchUserIntentsRequest()) == "CALLER_RATE_LIMITED"
    watch.leave()
    gateway.stop()


def test_too_little_time(stage):
    gateway = stage.gateway(min_deadline="60s", default_deadline="120s")
    assert stage.create(gateway, person(), timeout=40) == "DEADLINE_TOO_SHORT"
    gateway.stop()


def test_a_drain(stage):
    """SIGTERM while calls, a watch and a wait for another try are under way."""
    gateway = stage.gateway()
    running = delayed(stage, gateway, person(), 3000)
    watch = stage.begin(gateway, WATCH, pb.WatchUserIntentsRequest()).read(1)
    gateway.signal(signal.SIGTERM)
    wait_event(gateway, "draining")
    heard = set()

    def refused():
        heard.add(stage.create(gateway, person(), timeout=5))
        return heard & {"DRAINING", NO_ANSWER}

    wait_for(refused, "a refusal")
    assert watch.end() in ("DRAINING", NO_ANSWER)
    assert running.end() == "OK"
    gateway.process.wait()
    gateway.stopped = True


def test_the_ledger_is_away(stage):
    gateway = stage.gateway()
    created(stage, gateway)
    ledger = gateway.directory / "ledger"
    for file in list(ledger.iterdir()):
        if not file.name.endswith((".lock", ".admin")):
            file.rename(gateway.directory / file.name)
    wait_for(lambda: gateway.http("/readyz")[0] == 503, "/readyz to say so")
    assert stage.create(gateway, person()) == "LEDGER_UNAVAILABLE"
    gateway.kill()


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGKILL, signal.SIGQUIT],
                         ids=lambda number: number.name)
def test_a_crash(stage, number):
    """With a person on the way to Astra and others waiting: nothing on stderr, no core file, nothing in the log of the ledger;
    the next start says what it found."""
    gateway = stage.gateway()
    created(stage, gateway)
    request = person()
    running = delayed(stage, gateway, request, 20000)
    waiting = stage.begin(gateway, CREATE, request)
    gateway.signal(number)
    ended = os.waitid(os.P_PID, gateway.process.pid, os.WEXITED | os.WNOWAIT)
    assert ended.si_code != os.CLD_DUMPED, "there is a core file"
    gateway.process.wait()
    gateway.stopped = True
    assert {running.end(), waiting.end()} == {NO_ANSWER}
    found = stage.search()
    assert not found, found
    gateway.restart()
    assert stage.create(gateway, request) == "OUTCOME_UNKNOWN"
    gateway.stop()


# -- who calls -----------------------------------------------------------------------------------------------------------------

@pytest.fixture
def secured(stage):
    """mTLS, with the keys among what is searched for: (gateway, authority)."""
    authority = Authority(directory=None)
    key, certificate = authority.issue("gateway", ["DNS:localhost", "IP:127.0.0.1"])
    stage.keys.append(key)
    gateway = stage.gateway(tls_cert_file=certificate, tls_key_file=key, tls_client_ca_file=authority.ca_file)
    yield gateway, authority
    gateway.stop()
    assert not stage.search()
    authority.close()
    stage.keys.remove(key)


def channel_of(gateway, roots, issuer, name, *sans):
    key, certificate = issuer.issue(name, sans)
    return gateway.new_channel(grpc.ssl_channel_credentials(roots.ca_file.read_bytes(), key.read_bytes(), certificate.read_bytes()))


def test_certificates(stage, secured):
    """A good one, one without a name, one of a stranger, none; and a hello that names a person."""
    gateway, authority = secured
    good = channel_of(gateway, authority, authority, "caller", "URI:spiffe://test.example/caller")
    assert stage.create(gateway, person(), channel=good) == "OK"
    nameless = channel_of(gateway, authority, authority, "nameless", "email:somebody@example.com")
    assert stage.create(gateway, person(), channel=nameless) == "CALLER_UNAUTHENTICATED"
    strangers = Authority()
    stranger = channel_of(gateway, authority, strangers, canaries.STREAM, "DNS:" + canaries.STREAM)
    assert stage.create(gateway, person(), channel=stranger, timeout=5) == NO_ANSWER
    strangers.close()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for hello in ([], ["h2"], [canaries.STREAM]):
        if hello:
            context.set_alpn_protocols(hello)
        with contextlib.suppress(OSError), connect(gateway.address) as plain:
            with context.wrap_socket(plain, server_hostname=canaries.STREAM + ".example.com") as wrapped:
                wrapped.sendall(PREFACE + canaries.STREAM.encode())
                wrapped.recv(100)
    shout(gateway.address, canaries.STREAM.encode() * 40)


# -- settings and files --------------------------------------------------------------------------------------------------------

FILE_FLAGS = ["astra_client_id_file", "astra_client_secret_file", "ledger_key_file", "ledger_previous_key_file", "astra_ca_file",
              "tls_cert_file", "tls_key_file", "tls_client_ca_file", "tls_client_crl_file", "policy_file", "webhook_secret_file",
              "webhook_previous_secret_file", "webhook_tls_cert_file", "webhook_tls_key_file"]
PLACES = dict(listen="127.0.0.1:0", metrics_listen="", webhook_listen="127.0.0.1:0", ledger="memory:")


def contents():
    """What a file may hold by mistake: another secret, a person, PEM around them, a policy with them."""
    mark = canaries.FILE
    yield f"{mark}\n{canaries.CLIENT_SECRET}:{canaries.FIRST_NAME}\n".encode()
    yield b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(mark.encode() * 9) + b"-----END CERTIFICATE-----\n"
    yield b"-----BEGIN PRIVATE KEY-----\n" + base64.encodebytes(mark.encode() * 9) + b"-----END PRIVATE KEY-----\n"
    yield b"-----BEGIN X509 CRL-----\n" + base64.encodebytes(mark.encode() * 9) + b"-----END X509 CRL-----\n"
    for policy in ({mark: 1}, {"version": mark}, {"version": 1, "callers": [{"name": mark}]},
                   {"version": 1, "callers": [{"name": "dns/*", mark: mark}]},
                   {"version": 1, "callers": [{"name": "local", "methods": [mark]}]},
                   {"version": 1, "callers": [{"name": "local", "methods": [], "redirect_uris": [mark]}]}):
        yield json.dumps(policy).encode()
    yield json.dumps({"version": 1, "callers": []}).encode()[:-1] + mark.encode()


def run_server(stage, *words, flags, environment=None):
    ended = subprocess.run([str(SERVER), *words, *as_arguments(flags)], capture_output=True, timeout=PATIENCE + 30,
                           env=clean_environment(**(environment or {})), cwd=stage.directory)
    stage.hear("a start that fails", ended.stdout)
    stage.hear("a start that fails", ended.stderr)
    return ended.returncode


def flags_that_there_are():
    text = subprocess.run([str(SERVER), "--help"], capture_output=True, text=True, check=True, env=clean_environment()).stdout
    return re.findall(r"^  --(\w+)=", text, re.MULTILINE)


def test_settings_that_are_secrets_or_persons(stage):
    """In place of every flag's value, and as its twin of the environment: neither a start nor --check_config repeats it."""
    files = {**stage.secrets, **PLACES}
    for flag in flags_that_there_are():
        for value in (canaries.CLIENT_SECRET, canaries.FIRST_NAME):
            run_server(stage, "--check_config", flags={**files, flag: value})
        run_server(stage, "--check_config", flags={name: value for name, value in files.items() if name != flag},
                   environment={f"USERINTENT_{flag.upper()}": canaries.VARIABLE})
    # The name of an unknown flag, --NAME, is told: it is no value.
    for words in ([canaries.CLIENT_SECRET], ["--check_config=" + canaries.CLIENT_SECRET],
                  ["--check_policy=" + canaries.CLIENT_SECRET], ["--check_policy", canaries.FIRST_NAME]):
        assert run_server(stage, *words, flags=files) == 1


def test_files_that_hold_something_else(stage):
    """In place of every file that a setting names, the ledger included."""
    files = {**stage.secrets, **PLACES}
    wrong = stage.directory / "operator" / "something-else"
    known = flags_that_there_are()
    for content in contents():
        write_secret(wrong, content)
        for flag in FILE_FLAGS:
            if flag in known:
                run_server(stage, "--check_config", flags={**files, flag: wrong})
        assert run_server(stage, "--check_config", flags={**files, "ledger": f"sqlite:{wrong}"}) == 1
        assert run_server(stage, flags={**files, "ledger": f"sqlite:{wrong}"}) == 1
        stage.tool(None, "stats", ledger=f"sqlite:{wrong}")
        stage.tool(None, "check", str(wrong), ledger="sqlite:/nowhere")
    wrong.unlink()


def test_files_that_break_while_it_runs(stage, secured):
    """Each of those that are read again, one after the other; the last good ones stay in use."""
    gateway, authority = secured
    good = channel_of(gateway, authority, authority, "caller", "URI:spiffe://test.example/caller")
    assert stage.create(gateway, person(), channel=good) == "OK"
    for name in ("tls_cert_file", "tls_key_file", "tls_client_ca_file"):
        path = pathlib.Path(gateway.flags[name])
        before = path.read_bytes()
        for content in contents():
            write_secret(path, content)
            gateway.signal(signal.SIGHUP)
            assert stage.create(gateway, person(), channel=good) == "OK"
        wait_for(lambda: any("not_reloaded" in str(event) for event in log_events(gateway)), "a line about a file")
        write_secret(path, before)


def test_who_may_not(stage):
    """Denied before the request is read, by a rule and for want of one; a rule on trial; a new file, a broken one."""
    policy = write_secret(stage.directory / "operator" / "policy", json.dumps(
        {"version": 1, "callers": [{"name": "local", "methods": ["GetCreation"]}]}))
    gateway = stage.gateway(policy_file=policy)
    assert stage.create(gateway, person()) == "CALLER_NOT_ALLOWED"
    assert stage.create(gateway, person().SerializeToString()[:-3]) == "CALLER_NOT_ALLOWED"
    for method in (READ, AUTHORIZE, WATCH):
        assert stage.call(gateway, method, canaries.FIRST_NAME.encode()) == "CALLER_NOT_ALLOWED"
    for content in contents():
        write_secret(policy, content)
        gateway.signal(signal.SIGHUP)
    wait_event(gateway, "policy_not_reloaded")
    write_secret(policy, json.dumps({"version": 1, "callers": [{"name": "local", "methods": [], "enforce": False}]}))
    gateway.signal(signal.SIGHUP)
    wait_for(lambda: stage.create(gateway, person()) == "OK", "the rule on trial")
    gateway.stop()


# -- bytes that are no calls ---------------------------------------------------------------------------------------------------

def shout(address, data):
    """The bytes, and all that comes back."""
    with contextlib.suppress(OSError), socket.create_connection(split(address), timeout=5) as plain:
        plain.sendall(data)
        plain.shutdown(socket.SHUT_WR)
        heard = b""
        with contextlib.suppress(OSError):
            while chunk := plain.recv(65536):
                heard += chunk
        return heard
    return b""


def h2_frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A header for HPACK that enters no table."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def test_http2_that_is_none(stage, shared):
    mark = canaries.STREAM.encode()
    settings = h2_frame(4, 0, 0, b"")
    head = b"\x83\x86" + literal(b":path", CREATE.encode()) + literal(b"content-type", b"application/grpc") + literal(b"te", b"trailers")
    for frames in (mark * 20, settings + mark * 20, settings + h2_frame(1, 5, 1, literal(mark, mark)),
                   settings + h2_frame(1, 5, 1, head + literal(b"grpc-timeout", mark) + literal(b"x-mark", mark)),
                   settings + h2_frame(1, 4, 1, head + literal(b"grpc-encoding", mark)) + h2_frame(0, 1, 1, mark),
                   settings + h2_frame(1, 4, 1, head) + h2_frame(0, 1, 1, frame(mark, 1)),
                   settings + h2_frame(1, 4, 1, head) + h2_frame(0, 1, 1, frame(mark, length=5_000_000)),
                   settings + h2_frame(1, 0, 1, head) + h2_frame(9, 0, 1, literal(b"x", mark)) + h2_frame(0, 1, 1, mark),
                   settings + h2_frame(1, 4, 1, head + b"\x40\x7f\xff\xff" + mark),
                   settings + h2_frame(7, 0, 0, bytes(8) + mark), settings + h2_frame(0xfa, 0, 0, mark)):
        stage.hear("the gRPC port", shout(shared.address, PREFACE + frames))
    for data in (b"GET /" + mark + b" HTTP/1.1\r\nHost: " + mark + b"\r\nX: " + mark + b"\r\n\r\n", mark * 100, b"\x16\x03\x01" + mark):
        stage.hear("the gRPC port", shout(shared.address, data))
    shared.assert_alive()


BAD_METADATA = [("x-mark", "{}"), ("user-agent", "{}"), ("grpc-timeout", "{}"), ("grpc-encoding", "{}"), ("content-type", "application/{}"),
                ("x-mark-bin", "{}"), ("grpc-trace-bin", "!{}!"), ("grpc-tags-bin", "{}"), ("authorization", "Basic {}"),
                ("grpc-previous-rpc-attempts", "{}"), ("te", "{}"), ("grpc-status", "{}"), ("grpc-message", "{}"), ("host", "{}"),
                ("lb-token", "{}"), ("lb-cost-bin", "{}"), ("endpoint-load-metrics-bin", "{}"), ("grpc-accept-encoding", "{}"),
                ("traceparent", "00-{}"), ("cookie", "a={}"), ("connection", "{}")]


def test_metadata_of_calls(stage, shared):
    """Headers that gRPC itself reads, good and broken; it tells its own log of them."""
    assert stage.create(shared, person(), metadata=[("x-mark", "Fremulqvadic Lobstrunquay"), ("x-mark-bin", canaries.FIRST_NAME.encode())]) == "OK"
    for name, form in BAD_METADATA:
        value = form.format(canaries.CALL_METADATA)
        given = {} if name != "content-type" else {"content_type": value}
        call = CallByHand(shared.address, CREATE, frame(person().SerializeToString()),
                          [] if given else [(name, value)], lawful=False, **given).wait()
        for key, text in [*call.headers.items(), *call.trailers.items()]:
            stage.hear("an answer's head", f"{key}: {text}")
        stage.hear("an answer", call.data)
        call.close()
    for path in ("/" + canaries.CALL_METADATA, CREATE + canaries.CALL_METADATA, "/userintent.v1." + canaries.STREAM + "/x"):
        call = CallByHand(shared.address, path, frame(person().SerializeToString())).wait()
        for key, text in [*call.headers.items(), *call.trailers.items()]:
            stage.hear("an answer's head", f"{key}: {text}")
        call.close()
    shared.assert_alive()


def test_the_doors_for_machines(stage, shared):
    mark = canaries.STREAM.encode()
    for data in (b"GET /metrics?" + mark + b" HTTP/1.1\r\nHost: " + mark + b"\r\n\r\n", b"GET /" + mark + b" HTTP/1.1\r\nHost: x\r\n\r\n",
                 mark + b" / HTTP/1.1\r\n\r\n", mark * 3000, b"POST /readyz HTTP/1.1\r\nContent-Length: 5\r\n\r\n" + mark):
        stage.hear("the metrics port", shout(shared.metrics_address, data))


# -- webhooks ------------------------------------------------------------------------------------------------------------------

def test_webhooks(stage, shared):
    """Genuine ones with all that Astra may add, forged ones, and what is none."""
    request = created(stage, shared)
    [intent] = [one["id"] for one in stage.sandbox.intents(request.email)]
    mark, secret = canaries.WEBHOOK_BODY, canaries.WEBHOOK_SECRET
    full = {"user_id": mark, "metadata": {mark: mark, **canaries.PERSON["metadata"]}, "email": fields()["email"], "note": mark}
    for number, (given, expected) in enumerate([({}, 200), (full, 200), ({**full, "resource_id": "i" * 300 + mark}, 400)]):
        body = body_of(f"canary-{number}-{uuid.uuid4()}", intent, **given)
        assert ask(shared, post(body, secret=secret)) == expected
        assert ask(shared, post(body, secret="another")) == 401
    wait_for(lambda: shared.metric("userintent_webhook_unprocessed") == 0, "the GETs")
    good = body_of("canary", intent, **full)
    for data in (post(mark.encode(), secret=secret), post(good[:-2], secret=secret), post(good, signature=mark), post(good, path="/" + mark),
                 post(good, method=mark), post(good, version=mark), post(good, fields=[f"{mark.replace('/', '-')}: {mark}", "Host: x"]),
                 post(good, fields=["Transfer-Encoding: " + mark]), post(good, length=mark), mark.encode() * 2000,
                 b"\x16\x03\x01" + mark.encode()):
        with Door(shared) as door:
            door.send(data)
            door.end()
            answer = door.answer()
            stage.hear("the webhook door", repr(answer))


def test_a_webhook_that_settles(stage, shared):
    """An outcome that was lost; then a webhook that contradicts it."""
    request = person()
    stage.sandbox.fault("status", request.email, status=500, commit=True, body=canaries.body(), headers=canaries.headers())
    assert stage.create(shared, request) == "OUTCOME_UNKNOWN"
    [intent] = [one["id"] for one in stage.sandbox.intents(request.email)]
    attempt = stage.sandbox.posts(request.email)[0]["attempt_id"]
    for name in (intent, [one["id"] for one in stage.sandbox.intents(created(stage, shared).email)][0]):
        body = body_of(str(uuid.uuid4()), name, attempt, user_id=canaries.WEBHOOK_BODY)
        assert ask(shared, post(body, secret=canaries.WEBHOOK_SECRET)) == 200
        wait_for(lambda: stage.create(shared, request) == "OK", "the settled outcome")
    wait_for(lambda: "conflict" in str(log_events(shared)), "the conflict")
    for words in (("conflicts",), ("show", request.request_id), ("audit",)):
        stage.tool(shared, *words)


# -- operators -------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("beside", [True, False], ids=["beside the server", "on the file"])
def test_the_operators_tool(stage, beside):
    """Every command, right and wrong, beside the server and on the file; the address is told to `find` on stdin."""
    gateway = stage.gateway()
    request = created(stage, gateway)
    lost = [person(), person()]
    for one in lost:
        stage.sandbox.answer(one.email, 500, canaries.body(), canaries.headers())
        assert stage.create(gateway, one) == "OUTCOME_UNKNOWN"
    if not beside:
        gateway.stop()
    keys = [] if beside else [f"--ledger_key_file={stage.secrets['ledger_key_file']}"]
    backup = gateway.directory / "backup.db"
    by = ["--actor=operator", "--evidence=ticket 4711"]
    for words in (["show", request.request_id], ["unresolved"], ["unresolved", "--sending"], ["stats"], ["audit"], ["conflicts"],
                  ["resolve", lost[0].request_id, "--caller=local", *by],
                  ["resolve", lost[0].request_id, "--caller=local", "--not_created", *by],
                  ["resolve", lost[1].request_id, "--caller=local", "--created=an-intent-of-astra", *by],
                  ["audit", lost[0].request_id], ["backup", str(backup)], ["check", str(backup)]):
        for form in ([], ["--json"]):
            stage.tool(gateway, *words, *form)
    assert backup.exists()
    for address in (request.email, request.email.upper(), canaries.FIRST_NAME, canaries.FIRST_NAME + "@", "x" * 300 + canaries.EMAIL_DOMAIN):
        for form in ([], ["--json"]):
            stage.tool(gateway, "find", "--email", *keys, *form, stdin=address + "\n")
    # What somebody may give by mistake in place of a word, an id or a number.
    for words in (["show", canaries.FIRST_NAME], [canaries.FIRST_NAME], ["find", f"--email={canaries.EMAIL_LOCAL}@example.com"],
                  ["resolve", canaries.FIRST_NAME, "--caller=local", "--not_created", *by], ["unresolved", f"--limit={canaries.SSN}{canaries.CITY}"],
                  ["stats", f"--ledger_key_file={canaries.CLIENT_SECRET}"], ["find", "--email", f"--ledger_key_file={canaries.CLIENT_SECRET}"],
                  [f"--{canaries.FIRST_NAME}", "stats"]):
        assert stage.tool(gateway, *words).code != 0
    if beside:
        gateway.stop()
    assert stage.tool(gateway, "restore", str(backup), f"--ledger_key_file={stage.secrets['ledger_key_file']}").code == 0


def test_every_reason_was_met(whole_stage):
    """After all of the tests above: each reason that there is was heard by a caller, but for those named here."""
    not_to_be_met = {"UNSPECIFIED", "INTERNAL"}  # a bug of the gateway's
    every = {name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.keys()}
    assert every - whole_stage.reasons == not_to_be_met
