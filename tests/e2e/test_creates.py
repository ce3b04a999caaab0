"""Creating: what Astra is sent, and what the caller hears, now and on every repeat."""

import re
import time
import uuid

import grpc
import pytest

from support import names
from support.check import assert_posts
from support.people import again, email, other_id, person, same_email
from support.protos import pb

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def test_success(gateway, sandbox):
    """A creation is one POST, and the answer is what Astra said of it."""
    request = person()
    before = time.time()
    response = gateway.create(request).ok()
    after = time.time()
    [post] = assert_posts(sandbox, request.email, 1)
    [intent] = sandbox.intents(request.email)
    assert response.user_intent.id == post["intent_id"] == intent["id"]
    assert response.user_intent.status == pb.USER_INTENT_STATUS_PENDING
    assert response.user_intent.astra_status == "pending"
    # A minute of slack: the clock may be stepped while the test runs.
    assert before - 60 < response.user_intent.create_time.seconds < after + 60
    assert not response.replayed
    assert (response.attempts.used_min, response.attempts.used_max, response.attempts.limit) == (1, 1, 3)
    assert response.astra_request_id


def test_body_of_the_required_fields(gateway, sandbox):
    """The POST's body holds the required fields and the gateway's attempt id, and nothing else."""
    request = person(metadata=None)
    gateway.create(request).ok()
    [post] = assert_posts(sandbox, request.email, 1)
    attempt = post["body"]["metadata"]["gateway_attempt_id"]
    assert UUID.fullmatch(attempt) and attempt == post["attempt_id"]
    assert post["body"] == {
        "email": request.email,
        "phone": request.phone,
        "first_name": request.first_name,
        "last_name": request.last_name,
        "address1": request.address1,
        "address2": "",
        "city": request.city,
        "state": "CA",
        "postal_code": "94107",
        "date_of_birth": "1987-03-14",
        "ssn": request.ssn_last_four,
        "ip_address": "8.8.4.4",
        "metadata": {"gateway_attempt_id": attempt},
    }


def test_body_of_all_fields(gateway, sandbox):
    """The POST's body holds every field as the caller wrote it."""
    request = person(
        email=email().replace("zorblatt", "ZorBlatt"),
        preferred_first_name="Mirandolyn P", preferred_last_name="Brackenwhistle P", preferred_pronouns="they/them",
        address2="Apt 4", postal_code="94107-1234", verification_type=pb.VERIFICATION_TYPE_VERIFIED,
        ip_address="2001:4860:4860::8888",
        metadata={"canary_key": "canary-value", "a.B-9_z": "x"})
    gateway.create(request).ok()
    [post] = assert_posts(sandbox, request.email, 1)
    attempt = post["body"]["metadata"]["gateway_attempt_id"]
    assert post["body"] == {
        "email": request.email,  # neither lower-cased nor trimmed on the way
        "phone": request.phone,
        "first_name": request.first_name,
        "last_name": request.last_name,
        "preferred_first_name": "Mirandolyn P",
        "preferred_last_name": "Brackenwhistle P",
        "preferred_pronouns": "they/them",
        "address1": request.address1,
        "address2": "Apt 4",
        "city": request.city,
        "state": "CA",
        "postal_code": "94107-1234",
        "date_of_birth": "1987-03-14",
        "ssn": request.ssn_last_four,
        "ip_address": "2001:4860:4860::8888",
        "kyc_type": "verified",
        "metadata": {"canary_key": "canary-value", "a.B-9_z": "x", "gateway_attempt_id": attempt},
    }


@pytest.mark.parametrize("value", [
    "Zoë-Łukasz", "李小龙", "O'Brien \"Q\" \\ / & <b>", "🧑🏽‍🚀 Mirandolyn", "  padded  ", "e\u0301 not composed",
    "\u00a0 no-break", "\U0010ffff last"], ids=names.of)
def test_text_arrives_as_given(gateway, sandbox, value):
    """Text in any script reaches Astra as the caller wrote it: nothing is trimmed, folded or composed."""
    request = person(first_name=value, city=value, metadata={"canary_key": value})
    gateway.create(request).ok()
    [post] = assert_posts(sandbox, request.email, 1)
    assert post["body"]["first_name"] == value
    assert post["body"]["city"] == value
    assert post["body"]["metadata"]["canary_key"] == value


@pytest.mark.parametrize("kind, kyc_type", [
    (pb.VERIFICATION_TYPE_UNSPECIFIED, None), (pb.VERIFICATION_TYPE_VERIFIED, "verified"),
    (pb.VERIFICATION_TYPE_UNVERIFIED, "unverified"), (pb.VERIFICATION_TYPE_RECEIVE_ONLY, "receive-only")],
    ids=["unspecified", "verified", "unverified", "receive-only"])
def test_verification_type(gateway, sandbox, kind, kyc_type):
    """The verification type is sent as Astra's kyc_type; unspecified sends none."""
    request = person(verification_type=kind)
    gateway.create(request).ok()
    [post] = assert_posts(sandbox, request.email, 1)
    assert post["body"].get("kyc_type") == kyc_type
    assert post["body"]["ssn"] == request.ssn_last_four  # given, so checked and sent
    assert post["body"]["date_of_birth"] == request.date_of_birth


@pytest.mark.parametrize("kind, absent", [
    (pb.VERIFICATION_TYPE_UNVERIFIED, {"ssn_last_four"}),
    (pb.VERIFICATION_TYPE_RECEIVE_ONLY, {"ssn_last_four", "date_of_birth"})], ids=["unverified", "receive-only"])
def test_what_a_verification_type_may_leave_out(gateway, sandbox, kind, absent):
    """What a verification type does not need may be absent, and is then not sent."""
    request = person(verification_type=kind, **dict.fromkeys(absent))
    gateway.create(request).ok()
    [post] = assert_posts(sandbox, request.email, 1)
    assert ("ssn" in post["body"]) == ("ssn_last_four" not in absent)
    assert ("date_of_birth" in post["body"]) == ("date_of_birth" not in absent)


def test_kyc_delegation_makes_the_ssn_optional(new_gateway, sandbox):
    delegated = new_gateway(kyc_delegation=True)
    # Whether Astra takes it is a question of the program there; the sandbox's is not one.
    request = person(ssn_last_four=None)
    sandbox.answer(request.email, 201, {"id": "delegated", "status": "pending"})
    assert delegated.create(request).ok().user_intent.id == "delegated"
    [post] = assert_posts(sandbox, request.email, 1)
    assert "ssn" not in post["body"]
    # The date of birth stays required.
    reply = delegated.create(person(ssn_last_four=None, date_of_birth=None)).failed("FIELD_INVALID")
    assert set(reply.violations) == {"date_of_birth"}


@pytest.mark.parametrize("count, gets_attempt_id", [(0, True), (24, True), (25, False)], ids=["no key", "24 keys", "25 keys"])
def test_metadata_keys(gateway, sandbox, count, gets_attempt_id):
    """The caller's metadata is sent with the gateway's attempt id, which is left out when 25 keys leave no room."""
    metadata = {f"key{number}": f"canary-value-{number}" for number in range(count)}
    request = person(metadata=metadata)
    gateway.create(request).ok()
    [post] = assert_posts(sandbox, request.email, 1)
    sent = dict(post["body"]["metadata"])
    attempt_id = sent.pop("gateway_attempt_id", "")
    assert bool(attempt_id) == gets_attempt_id
    assert sent == metadata
    # Nobody can ask Astra for an id that it was not told, so none is shown.
    assert gateway.get(request.request_id).ok().gateway_attempt_id == attempt_id


def test_every_post_has_an_attempt_id_of_its_own(gateway, sandbox):
    requests = [person() for _ in range(5)]
    for request in requests:
        gateway.create(request).ok()
    ids = {sandbox.posts(request.email)[0]["attempt_id"] for request in requests}
    assert len(ids) == 5
    assert sandbox.summary()["duplicate_attempt_ids"] == 0


def assert_named_and_uncompressed(headers):
    """Edges refuse who does not name himself, and compress for whoever does not say no."""
    assert re.fullmatch(r"userintent-server/\d+\.\d+\.\d+", headers["user-agent"])
    assert headers["accept-encoding"] == "identity"


def test_headers(gateway, sandbox):
    """The POST carries the gateway's own credentials and headers, and none of the caller's."""
    request = person()
    gateway.create(request, metadata=[("x-canary", "from-the-caller"), ("authorization", "Bearer of-the-caller"),
                                      ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]).ok()
    [post] = assert_posts(sandbox, request.email, 1)
    headers = {name.lower(): value for name, value in post["headers"].items()}
    assert post["authorization_ok"] is True
    assert headers["content-type"] == "application/json"
    assert headers["accept"] == "application/json"
    assert_named_and_uncompressed(headers)
    assert int(headers["content-length"]) > 100
    for absent in ("transfer-encoding", "expect", "cookie", "x-canary", "traceparent", "grpc-timeout"):
        assert absent not in headers, absent
    assert not any("of-the-caller" in value or "from-the-caller" in value for value in headers.values())
    assert post["proto"] == "HTTP/2.0"
    assert post["body_complete"] is True


def test_headers_over_http1(new_gateway, sandbox_http1):
    """Over HTTP/1.1 the POST has a Content-Length and asks for no upgrade."""
    one = new_gateway(sandbox_http1)
    request = person()
    one.create(request).ok()
    [post] = assert_posts(sandbox_http1, request.email, 1)
    headers = {name.lower(): value for name, value in post["headers"].items()}
    assert_named_and_uncompressed(headers)
    assert post["proto"] == "HTTP/1.1"
    assert "content-length" in headers
    assert not headers.keys() & {"transfer-encoding", "expect", "upgrade", "http2-settings"}


def test_replay(gateway, sandbox):
    """A repeat gets the same answer, marked as replayed, and Astra sees one POST."""
    request = person()
    first = gateway.create(request).ok()
    for _ in range(3):
        repeat = gateway.create(request).ok()
        assert repeat.replayed
        assert repeat.user_intent == first.user_intent
        assert repeat.astra_request_id == first.astra_request_id
        assert repeat.attempts == first.attempts
    assert_posts(sandbox, request.email, 1)


def test_a_replay_shows_the_attempts_of_now(gateway, sandbox):
    request = person()
    gateway.create(request).ok()
    gateway.create(same_email(request)).ok()
    assert gateway.create(request).ok().attempts.used_min == 2


def test_request_ids_are_compared_without_case(gateway, sandbox):
    request = person(request_id=str(uuid.uuid4()).upper())
    first = gateway.create(request).ok()
    repeat = gateway.create(again(request, request_id=request.request_id.lower())).ok()
    assert repeat.replayed and repeat.user_intent.id == first.user_intent.id
    assert_posts(sandbox, request.email, 1)
    creation = gateway.get(request.request_id).ok()
    assert creation.request_id == request.request_id.lower()


CHANGES = dict(
    phone="+14159999999", first_name="Mirandolyn Other", last_name="Brackenwhistle Other",
    preferred_first_name="Mirandolyn", preferred_last_name="Mirandolyn", preferred_pronouns="she/her",
    address1="1 Other Quillfeather Way", address2="Apt 1", city="Vexmoor Other", state="NY", postal_code="10001",
    date_of_birth="1987-03-15", ssn_last_four="1235", ip_address="8.8.8.8",
    verification_type=pb.VERIFICATION_TYPE_VERIFIED, metadata={"canary_key": "canary-value-other"})


@pytest.mark.parametrize("field", CHANGES)
def test_other_content_under_the_same_id(gateway, sandbox, field):
    """A request_id with any other content is refused, and its record stays as it is."""
    request = person()
    gateway.create(request).ok()
    gateway.create(again(request, **{field: CHANGES[field]})).failed("REQUEST_ID_REUSED", sent="no")
    assert_posts(sandbox, request.email, 1)
    assert gateway.create(request).ok().replayed  # the row is as it was


def test_another_address_under_the_same_id(gateway, sandbox):
    """A request_id with another e-mail address is refused, and nothing is sent for that address."""
    request = person()
    gateway.create(request).ok()
    other = again(request, email=email())
    gateway.create(other).failed("REQUEST_ID_REUSED", sent="no")
    assert_posts(sandbox, other.email, 0)


def test_what_is_not_content(gateway, sandbox):
    """The case of the e-mail address, allow_repeat and supersedes_request_id make no other request."""
    request = person()
    gateway.create(request).ok()
    upper = request.email.replace("zorblatt", "ZORBLATT").replace("example.com", "EXAMPLE.com")
    for same in (again(request, email=upper), again(request, allow_repeat=True),
                 again(request, supersedes_request_id=str(uuid.uuid4()))):
        assert gateway.create(same).ok().replayed
    assert_posts(sandbox, request.email, 1)


def test_validate_only_sends_and_records_nothing(gateway, sandbox):
    request = person(validate_only=True)
    response = gateway.create(request).ok()
    assert not response.HasField("user_intent")
    assert (response.attempts.used_min, response.attempts.used_max, response.attempts.limit) == (0, 0, 3)
    assert_posts(sandbox, request.email, 0)
    assert gateway.state(request.request_id) is None
    # The id is not bound to this content, and the real call is the first.
    real = again(request, validate_only=None, city="Vexmoor Other")
    assert not gateway.create(real).ok().replayed
    assert_posts(sandbox, request.email, 1)
    # validate_only is not content; and it looks at the record.
    response = gateway.create(again(real, validate_only=True)).ok()
    assert not response.HasField("user_intent")
    assert response.attempts.used_min == 1
    gateway.create(again(real, validate_only=True, city="Vexmoor")).failed("REQUEST_ID_REUSED")
    gateway.create(other_id(real, validate_only=True)).failed("PERSON_EXISTS")
    gateway.create(again(real, validate_only=True, state="XX")).failed("FIELD_INVALID")
    assert_posts(sandbox, request.email, 1)


def test_attempts_count_up_to_the_limit(gateway, sandbox):
    first = person()
    requests = [first, same_email(first), same_email(first, email=first.email.upper())]
    for number, request in enumerate(requests, 1):
        attempts = gateway.create(request).ok().attempts
        assert (attempts.used_min, attempts.used_max, attempts.limit) == (number, number, 3)
    fourth = same_email(first)
    gateway.create(fourth).failed("EMAIL_ATTEMPTS_EXHAUSTED", sent="no", attempts_used_min=3, attempts_used_max=3)
    assert_posts(sandbox, first.email, 3)
    # Replays are served with the budget used up.
    for request in requests:
        assert gateway.create(request).ok().replayed


def test_a_rejected_post_counts_as_possibly_used(gateway, sandbox):
    first = person()
    sandbox.answer(first.email, 400, {"code": 400, "name": "Bad Request", "description": "no"})
    gateway.create(first).failed("UPSTREAM_REJECTED", attempts_used_min=0, attempts_used_max=1)
    attempts = gateway.create(same_email(first)).ok().attempts
    assert (attempts.used_min, attempts.used_max) == (1, 2)


def test_only_what_is_surely_used_is_refused(gateway, sandbox):
    """Wrongly refusing locks a real person out; wrongly sending costs one refused call."""
    first = person()
    sandbox.answer(first.email, 422, {"code": 422}, times=4)
    for _ in range(4):
        gateway.create(same_email(first)).failed("UPSTREAM_REJECTED")
    assert gateway.create(first).ok().attempts.used_min == 1
    assert_posts(sandbox, first.email, 5)


def test_no_limit_of_its_own(new_gateway, sandbox):
    """With --email_attempt_limit=0 the gateway counts attempts and refuses none."""
    unlimited = new_gateway(email_attempt_limit=0)
    first = person()
    sandbox.answer(first.email, 201, {"id": "x"}, times=0)
    for number in range(1, 6):
        attempts = unlimited.create(same_email(first)).ok().attempts
        assert (attempts.used_min, attempts.limit) == (number, 0)
    sandbox.clear_faults()


@pytest.mark.parametrize("intent_id", [
    "1a908838d703473ab52e6884c001e447", "x", "i" * 256, "with space / ? # % ü 李", "{}", "00000000-0000-0000-0000"],
    ids=names.of)
def test_intent_ids_are_opaque(gateway, sandbox, intent_id):
    """Whatever text Astra gives as an id comes back unchanged, now, on a repeat and in GetCreation."""
    request = person()
    sandbox.answer(request.email, 201, {"id": intent_id})
    assert gateway.create(request).ok().user_intent.id == intent_id
    assert gateway.create(request).ok().user_intent.id == intent_id
    assert gateway.get(request.request_id).ok().user_intent.id == intent_id


@pytest.mark.parametrize("status, expected, word", [
    ("pending", "PENDING", "pending"), ("approved", "APPROVED", "approved"), ("retry", "RETRY", "retry"),
    ("document", "DOCUMENT", "document"), ("rejected", "REJECTED", "rejected"),
    ("suspended", "SUSPENDED", "suspended"), ("converted_to_user", "CONVERTED_TO_USER", "converted_to_user"),
    (None, "UNSPECIFIED", ""), ("brand_new", "UNSPECIFIED", "brand_new"), ("x" * 64, "UNSPECIFIED", "x" * 64),
    ("x" * 65, "UNSPECIFIED", ""), ("with\nnewline", "UNSPECIFIED", ""), (7, "UNSPECIFIED", ""), ("", "UNSPECIFIED", "")],
    ids=names.of)
def test_status_words(gateway, sandbox, status, expected, word):
    """Astra's status becomes the enum value of that name; an unknown word is passed on, an unfit one is not."""
    request = person()
    sandbox.answer(request.email, 201, {"id": "an-id"} if status is None else {"id": "an-id", "status": status})
    for response in (gateway.create(request).ok(), gateway.create(request).ok()):
        assert pb.UserIntentStatus.Name(response.user_intent.status) == f"USER_INTENT_STATUS_{expected}"
        assert response.user_intent.astra_status == word


@pytest.mark.parametrize("status", [200, 201, 202, 299])
def test_any_2xx_with_an_id_is_a_success(gateway, sandbox, status):
    request = person()
    sandbox.answer(request.email, status, {"id": "any-2xx", "unknown": {"deep": [1, None]}})
    assert gateway.create(request).ok().user_intent.id == "any-2xx"


@pytest.mark.parametrize("value, expected", [
    ("req-123", "req-123"), ("r" * 128, "r" * 128), ("r" * 129, ""), ("tab\there", "")], ids=names.of)
def test_astra_request_id(gateway, sandbox, value, expected):
    """Astra's Request-Id is passed on and recorded, unless it is too long or not printable."""
    request = person()
    sandbox.answer(request.email, 201, {"id": "an-id"}, headers={"Request-Id": value})
    assert gateway.create(request).ok().astra_request_id == expected
    assert gateway.create(request).ok().astra_request_id == expected
    assert gateway.get(request.request_id).ok().astra_request_id == expected


def test_get_creation_of_a_success(gateway, sandbox):
    """GetCreation tells of a success what the creation's answer told."""
    request = person()
    response = gateway.create(request).ok()
    creation = gateway.get(request.request_id.upper()).ok()
    [post] = sandbox.posts(request.email)
    assert creation.state == pb.CREATION_STATE_CREATED
    assert creation.request_id == request.request_id
    assert creation.user_intent == response.user_intent
    assert creation.attempts == response.attempts
    assert creation.astra_request_id == response.astra_request_id
    assert creation.gateway_attempt_id == post["attempt_id"]
    assert not creation.HasField("error")
    assert not creation.superseded_by_request_id
    assert 0 < creation.create_time.ToNanoseconds() <= creation.update_time.ToNanoseconds()


def test_get_creation_while_it_runs(gateway, sandbox):
    """GetCreation says IN_PROGRESS while the POST is under way."""
    request = person()
    sandbox.fault("delay", request.email, delay_ms=1500)
    running = gateway.begin(request)
    sandbox.wait_posts(request.email)
    creation = gateway.get(request.request_id).ok()
    assert creation.state == pb.CREATION_STATE_IN_PROGRESS
    assert (creation.attempts.used_min, creation.attempts.used_max) == (0, 1)
    assert not creation.HasField("user_intent") and not creation.HasField("error")
    running.reply().ok()
    assert gateway.state(request.request_id) == "CREATED"


def test_get_creation_of_a_rejection(gateway, sandbox):
    """GetCreation tells of a rejection the error that the caller got."""
    request = person()
    sandbox.answer(request.email, 400, {"code": 400}, headers={"Request-Id": "req-400"})
    gateway.create(request).failed("UPSTREAM_REJECTED", astra_request_id="req-400", http_status=400)
    creation = gateway.get(request.request_id).ok()
    assert creation.state == pb.CREATION_STATE_REJECTED
    assert creation.error.reason == "UPSTREAM_REJECTED" and creation.error.domain == "userintent.v1"
    assert creation.error.metadata["sent"] == "yes"
    assert creation.error.metadata["recovery"] == "FIX_WITH_NEW_ID"
    assert creation.error.metadata["http_status"] == "400"
    assert creation.astra_request_id == "req-400"


def test_get_creation_of_an_unknown_outcome(gateway, sandbox):
    """GetCreation says UNKNOWN where Astra may have created the intent."""
    request = person()
    sandbox.answer(request.email, 500, {"code": 500})
    gateway.create(request).failed("OUTCOME_UNKNOWN", http_status=500)
    creation = gateway.get(request.request_id).ok()
    assert creation.state == pb.CREATION_STATE_UNKNOWN
    assert creation.error.reason == "OUTCOME_UNKNOWN"
    assert creation.error.metadata["recovery"] == "ASK_SAME_ID"


def test_get_creation_of_what_was_not_sent(gateway, sandbox):
    """GetCreation says NOT_SENT where Astra refused unprocessed."""
    request = person()
    sandbox.answer(request.email, 404, {"code": 404})
    gateway.create(request).failed("UPSTREAM_MISCONFIGURED")
    creation = gateway.get(request.request_id).ok()
    assert creation.state == pb.CREATION_STATE_NOT_SENT
    assert creation.error.reason == "UPSTREAM_MISCONFIGURED"


def test_get_creation_of_nothing(gateway):
    """GetCreation of an id without a record is REQUEST_NOT_FOUND; of no UUID, FIELD_INVALID."""
    gateway.get(str(uuid.uuid4())).failed("REQUEST_NOT_FOUND")
    for wrong in ("", "x", "0" * 32, "0" * 36, str(uuid.uuid4()) + " "):
        error = gateway.get(wrong).failed("FIELD_INVALID")
        assert set(error.violations) == {"request_id"}


def test_the_same_error_is_the_same_bytes(gateway):
    request = person(email="no address")
    details = set()
    for _ in range(8):
        with pytest.raises(grpc.RpcError) as caught:
            gateway.stub.CreateUserIntent(request, timeout=20)
        details.add(dict(caught.value.trailing_metadata())["grpc-status-details-bin"])
    assert len(details) == 1
