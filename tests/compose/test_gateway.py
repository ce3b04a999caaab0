"""The gateway as a container, called over mTLS by a stock Python client, in front of the sandbox.

tests/e2e holds the contract row by row; this suite shows that the images, the compose file and a foreign gRPC library
work together, and that the promise holds there: what reached Astra is counted by the sandbox, never by the gateway.
"""

import concurrent.futures
import os
import re
import socket
import ssl
import time
import uuid

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from caller import DEADLINE, GATEWAY, SECRETS, channel, failure
from support.burst import burst
from support.hostile_headers import HEADERS, say
from support.people import person
from support.protos import pb, pb_grpc

C = grpc.StatusCode


def test_health(client):
    stub = health_pb2_grpc.HealthStub(client.channel)
    for service in ("", "userintent.v1.UserIntentService"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_create_and_replay(client, sandbox):
    request = person(metadata={"order": "A-17"}, verification_type=pb.VERIFICATION_TYPE_RECEIVE_ONLY)
    first = client.create(request)
    assert first.user_intent.id
    assert first.user_intent.status == pb.USER_INTENT_STATUS_PENDING
    assert abs(first.user_intent.create_time.seconds - time.time()) < 300
    assert not first.replayed
    assert first.astra_request_id
    assert (first.attempts.used_min, first.attempts.used_max, first.attempts.limit) == (1, 1, 3)

    (post,) = sandbox.posts(request.email)
    assert post["status"] == 201 and post["committed"] and post["body_complete"]
    assert post["intent_id"] == first.user_intent.id
    assert post["proto"] == "HTTP/2.0"
    body = post["body"]
    assert body["email"] == request.email
    assert body["ssn"] == request.ssn_last_four
    assert body["address2"] == ""
    assert body["kyc_type"] == "receive-only"
    assert body["metadata"].pop("gateway_attempt_id") == post["attempt_id"]
    assert body["metadata"] == {"order": "A-17"}
    assert str(uuid.UUID(post["attempt_id"])) == post["attempt_id"].lower()
    assert "request_id" not in body and "preferred_pronouns" not in body

    for request_id in (request.request_id, request.request_id.upper()):
        request.request_id = request_id
        again = client.create(request)
        assert again.replayed
        assert again.user_intent == first.user_intent
    assert len(sandbox.posts(request.email)) == 1


def test_get_creation_is_the_callers_own(client, other):
    request = person()
    made = client.create(request)
    recorded = client.get(request.request_id)
    assert recorded.state == pb.CREATION_STATE_CREATED
    assert recorded.user_intent == made.user_intent
    with pytest.raises(grpc.RpcError) as raised:
        other.get(request.request_id)
    error = failure(raised.value)
    assert (error.code, error.reason) == (C.NOT_FOUND, "REQUEST_NOT_FOUND")


def test_many_at_once_with_one_id_send_once(client, other, sandbox):
    request = person()
    sandbox.fault("delay", request.email, delay_ms=700)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: client.create(request), range(16)))
    assert len({answer.user_intent.id for answer in answers}) == 1
    assert sum(not answer.replayed for answer in answers) == 1
    assert len(sandbox.posts(request.email)) == 1


def test_all_broken_fields_at_once(client, sandbox):
    request = person(phone="5550100", state="Illinois", ssn_last_four="123")
    error = client.create_fails(request)
    assert (error.code, error.reason) == (C.INVALID_ARGUMENT, "FIELD_INVALID")
    violations = error.details["BadRequest"].field_violations
    assert {violation.field for violation in violations} == {"phone", "state", "ssn_last_four"}
    assert not any("Illinois" in violation.description for violation in violations)
    assert error.info.metadata["sent"] == "no"
    assert error.info.metadata["recovery"] == "FIX_REQUEST"
    assert error.pushback == "-1"
    assert sandbox.posts(request.email) == []


def test_request_id_with_other_content(client, sandbox):
    request = person()
    client.create(request)
    request.city = "Shelbyville"
    error = client.create_fails(request)
    assert (error.code, error.reason) == (C.FAILED_PRECONDITION, "REQUEST_ID_REUSED")
    assert len(sandbox.posts(request.email)) == 1


def test_validate_only_sends_nothing(client, sandbox):
    request = person(validate_only=True)
    answer = client.create(request)
    assert not answer.HasField("user_intent")
    assert (answer.attempts.used_min, answer.attempts.limit) == (0, 3)
    assert sandbox.posts(request.email) == []
    request.validate_only = False
    assert not client.create(request).replayed


def test_person_exists(client, other, sandbox):
    request = person()
    made = client.create(request)
    request.request_id = str(uuid.uuid4())
    error = client.create_fails(request)
    assert (error.code, error.reason) == (C.ALREADY_EXISTS, "PERSON_EXISTS")
    assert error.info.metadata["recovery"] == "USE_EXISTING"
    assert error.info.metadata["user_intent_id"] == made.user_intent.id
    assert error.details["ResourceInfo"].resource_name == made.user_intent.id
    # Another caller learns that the person exists, but not the id.
    error = other.create_fails(request)
    assert error.reason == "PERSON_EXISTS"
    assert error.info.metadata["recovery"] == "STOP"
    assert "user_intent_id" not in error.info.metadata
    assert len(sandbox.posts(request.email)) == 1


def test_three_attempts(client, sandbox):
    request = person(allow_repeat=True)
    for used in (1, 2, 3):
        request.request_id = str(uuid.uuid4())
        assert client.create(request).attempts.used_min == used
    request.request_id = str(uuid.uuid4())
    error = client.create_fails(request)
    assert (error.code, error.reason) == (C.FAILED_PRECONDITION, "EMAIL_ATTEMPTS_EXHAUSTED")
    (violation,) = error.details["QuotaFailure"].violations
    assert violation.subject == "email"
    assert len(sandbox.posts(request.email)) == 3


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500, "body": "{}"},
        {"kind": "close", "commit": True},
        {"kind": "cut_body", "status": 201, "commit": True},
        {"kind": "rst_stream", "code": "INTERNAL_ERROR"},
    ],
    ids=lambda fault: fault["kind"],
)
def test_unknown_outcome_is_never_sent_again(client, sandbox, fault):
    request = person()
    sandbox.fault(email=request.email, **fault)
    for _ in range(3):
        error = client.create_fails(request)
        assert (error.code, error.reason) == (C.UNKNOWN, "OUTCOME_UNKNOWN")
        assert error.info.metadata["sent"] == "maybe"
        assert error.info.metadata["recovery"] == "ASK_SAME_ID"
        assert error.pushback == "-1"
    assert len(sandbox.posts(request.email)) == 1
    assert client.get(request.request_id).state == pb.CREATION_STATE_UNKNOWN


def test_rejected_by_astra(client, sandbox):
    request = person()
    sandbox.fault("status", request.email, status=422, body='{"description": "not for callers"}')
    for _ in range(2):
        error = client.create_fails(request)
        assert (error.code, error.reason) == (C.INVALID_ARGUMENT, "UPSTREAM_REJECTED")
        assert error.info.metadata["recovery"] == "FIX_WITH_NEW_ID"
    assert len(sandbox.posts(request.email)) == 1


def test_refused_unprocessed_may_be_repeated(client, sandbox):
    request = person()
    sandbox.fault("status", request.email, times=0, status=503, body="{}", headers={"Retry-After": "3600"})
    error = client.create_fails(request)
    assert (error.code, error.reason) == (C.UNAVAILABLE, "UPSTREAM_UNAVAILABLE")
    assert error.info.metadata["recovery"] == "RETRY_SAME_ID"
    assert error.details["RetryInfo"].retry_delay.seconds > 3000
    assert len(sandbox.posts(request.email)) == 1


class Caller:
    """For frames that no library sends."""

    server_name = GATEWAY.rpartition(":")[0]

    def __init__(self, name):
        self.context = ssl.create_default_context(cafile=str(SECRETS / "ca.crt"))
        self.context.load_cert_chain(SECRETS / f"{name}.crt", SECRETS / f"{name}.key")
        self.context.set_alpn_protocols(["h2"])


def test_thousands_at_once_are_all_answered():
    """2,000 calls in one go, three times. A current libgrpc would throw many of them away, as overload of its own."""
    ended = burst(GATEWAY, Caller("client"), connections=4)
    assert ended == {"answered": 4 * 500 * 3}, ended


def test_too_large(client):
    with pytest.raises(grpc.RpcError) as raised:
        client.create(person(metadata={"k": "x" * 70_000}))
    assert raised.value.code() == C.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("name", [None, "stranger"], ids=["no-certificate", "certificate-of-another-ca"])
def test_refused_by_the_handshake(name):
    with channel(name) as strange, pytest.raises(grpc.RpcError) as raised:
        pb_grpc.UserIntentServiceStub(strange).CreateUserIntent(person(), timeout=10)
    assert raised.value.code() == C.UNAVAILABLE


def test_refused_without_tls():
    with grpc.insecure_channel(GATEWAY) as strange, pytest.raises(grpc.RpcError) as raised:
        pb_grpc.UserIntentServiceStub(strange).CreateUserIntent(person(), timeout=10)
    assert raised.value.code() == C.UNAVAILABLE


def test_certificate_without_a_name(sandbox):
    request = person()
    with channel("nameless") as strange, pytest.raises(grpc.RpcError) as raised:
        pb_grpc.UserIntentServiceStub(strange).CreateUserIntent(request, timeout=DEADLINE)
    error = failure(raised.value)
    assert (error.code, error.reason) == (C.UNAUTHENTICATED, "CALLER_UNAUTHENTICATED")
    assert error.info.metadata["recovery"] == "STOP"
    assert sandbox.posts(request.email) == []


def test_no_attempt_id_twice(sandbox):
    assert sandbox.summary()["duplicate_attempt_ids"] == 0


@pytest.mark.skipif("DEMO_REQUEST_ID" not in os.environ, reason="only when the runner restarts the gateway in between")
def test_replay_after_restart(client, sandbox):
    """The runner made this request before it restarted the gateway: the ledger answers, Astra is not asked again."""
    request_id = os.environ["DEMO_REQUEST_ID"]
    recorded = client.get(request_id)
    assert recorded.state == pb.CREATION_STATE_CREATED
    (post,) = sandbox.posts(f"ada.{re.match('[0-9a-f]+', request_id)[0]}@example.com")
    assert post["intent_id"] == recorded.user_intent.id


def test_bad_headers_hurt_nobody(client):
    """libgrpc prints such values as errors; scripts/compose-test.sh looks for this word in the gateway's log afterwards."""
    context = ssl.create_default_context(cafile=SECRETS / "ca.crt")
    context.load_cert_chain(SECRETS / "client.crt", SECRETS / "client.key")
    context.set_alpn_protocols(["h2"])
    host, _, port = GATEWAY.rpartition(":")
    for header in HEADERS:
        with socket.create_connection((host, int(port)), timeout=DEADLINE) as plain, \
                context.wrap_socket(plain, server_hostname=host) as connection:
            say(connection, "canaryword", header)
    assert client.create(person()).user_intent.id
