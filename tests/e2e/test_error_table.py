"""The error table of the contract, a test per row, and the order of the checks.

support/errors.py holds every error to the table's code, RetryInfo and details; the tests say which row it must be, what
the ledger keeps, and how many POSTs arrived.
"""

import uuid

import grpc
import pytest

from support import canary, names
from support.certs import Authority
from support.check import FAILED, NONE, RELEASED, UNKNOWN, assert_posts, assert_row
from support.gateway import write_secret
from support.people import again, email, other_id, person, same_email
from support.process import wait_for
from support.wire import TcpTap


# -- never sent, by the request ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("data", [
    b"\xff", b"\x0a\xff", b"\x08", b"\x12\x05\xff\xfe\xfd\xfc\xfb", b"\x0a\x24" + b"\xc3\x28" * 18, b"\x0b",
    b"\x92\x01\x03\x0a\x01\xff"], ids=[
        "half a tag", "half a length", "a number without its value", "an e-mail address that is not UTF-8",
        "an id that is not UTF-8", "a group without an end", "a key of metadata that is not UTF-8"])
def test_malformed_request(gateway, data):
    """Bytes that are no message are MALFORMED_REQUEST."""
    gateway.create_bytes(data).failed("MALFORMED_REQUEST", sent="no", recovery="FIX_REQUEST")


def test_malformed_request_after_valid_fields(gateway, sandbox):
    """A message that breaks after valid fields is refused, and its id stays free."""
    request = person()
    canary.record(request)
    for bad in (b"\x1a\x02\xc3\x28", b"\x62\x05C"):
        gateway.create_bytes(request.SerializeToString() + bad).failed("MALFORMED_REQUEST")
    assert_row(gateway, sandbox, request, NONE)


def test_unknown_fields(gateway, sandbox):
    """A field that the gateway does not know is refused, and the id stays free."""
    request = person()
    canary.record(request)
    # Field 22, a newer caller's, say; and field 15000 with a group around nothing.
    for extra in (b"\xb0\x01\x01", b"\xc2\xaa\x07\x01a"):
        gateway.create_bytes(request.SerializeToString() + extra).failed("UNKNOWN_FIELDS", sent="no")
    assert_row(gateway, sandbox, request, NONE)


BROKEN = {
    "request_id": ["", "not-a-uuid", "0" * 32, "g0000000-0000-0000-0000-000000000000",
                   "{00000000-0000-0000-0000-00000000000}"],
    "email": ["", "nobody", "a@b", "a@@b.example.com", "@example.com", "a@.com", "a@example..com", "a b@example.com",
              "é@example.com", "l" * 65 + "@example.com", "a@" + "d" * 250 + ".com", "a@example.com\n"],
    "phone": ["", "4155551234", "+1415555123", "+141555512345", "+11155551234", "+10155551234", "+4915155551234",
              "+1 415 555 1234"],
    "first_name": ["", "   ", "\u2003", "x" * 101, "a\nb", "a\x00b", "a\u202eb", "a\u0085b"],
    "last_name": ["", " ", "é" * 101, "a\x7fb", "a\u2066b", "\u200b", "\u2060", "\ufeff", "\u00ad", "\u3164", "\u2800",
                  "\u180e", "\u200d\u200c", "\ufe0f", "\u0301", "\U000e0041", "\ufffe"],
    "preferred_first_name": ["x" * 101, "\t", "\u200b"],
    "preferred_last_name": ["x" * 101, "a\rb"],
    "preferred_pronouns": ["x" * 101, "a\u200eb\u202a"],
    "address1": ["", " ", "x" * 101, "PO Box 12", "p.o. box 7", "12 Main St, P.O. Box 9", "Post Office Box 3",
                 "Lockbox 1234", "Drawer 44", "Caller 44", "Firm Caller 44", "Bin 44", "P.O. Bin 12", "Apdo Postal 12",
                 "ＰＯ Ｂｏｘ 12", "P\u200bO Bo\u00adx 12", "\u2800"],
    "address2": ["x" * 101, "PO Box 12", "a\x1bb", "Drawer 44", "\ufeff"],
    "city": ["", " ", "x" * 101, "\u3164\u3164"],
    "state": ["", "ca", "California", "XX", "C", " CA"],
    "postal_code": ["", "9410", "941077", "94107-12", "941071234", "94107 1234", "ABCDE"],
    "date_of_birth": ["", "1987-02-29", "1899-12-31", "2999-01-01", "87-03-14", "14-03-1987", "1987-3-14",
                      "1987-03-14T00:00:00Z", "1987-13-01"],
    "ssn_last_four": ["", "0000", "123", "12345", "123456789", "12a4", "１２３４"],
    "ip_address": ["", "8.8.8", "8.8.8.8.8", "10.0.0.1", "192.168.1.1", "172.16.0.1", "127.0.0.1", "169.254.1.1",
                   "100.64.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1",
                   "255.255.255.255", "0.0.0.0", "::1", "::", "fe80::1", "fc00::1", "2001:db8::1", "ff02::1",
                   "::ffff:10.0.0.1", "::ffff:8.8.8.8", "8.8.8.8:80", "example.com", "fe80::1%eth0", "010.8.8.8"],
    "verification_type": [4, 99, -1],
    "metadata": [{f"k{n}": "v" for n in range(26)}, {"": "v"}, {"k" * 65: "v"}, {"two words": "v"}, {"ké": "v"},
                 {"k": ""}, {"k": "v" * 257}, {"k": "a\nb"}, {"k": "\u200b"}, {"gateway_attempt_id": "v"}],
    "supersedes_request_id": ["x", "0" * 36],
}
CASES = [(field, number) for field, values in BROKEN.items() for number in range(len(values))]


@pytest.mark.parametrize("field, number", CASES, ids=[f"{field}: {names.of(BROKEN[field][number])}" for field, number in CASES])
def test_field_invalid(gateway, sandbox, field, number):
    """Each value that a field may not have is refused, and that field alone is named."""
    request = person(**{field: BROKEN[field][number]})
    # The contract itself names this key, so the fixed text may.
    error = gateway.create(request, allowed_words=("gateway_attempt_id",)).failed("FIELD_INVALID", sent="no")
    assert set(error.violations) == {field}
    assert all(error.violations.values())


def test_field_invalid_lets_everything_valid_pass(gateway, sandbox):
    """Each value at the edge of its rule is accepted."""
    limits = [
        dict(first_name="x" * 100, last_name="é" * 100, city="李" * 100, address1="a" * 100, address2="b" * 100),
        dict(preferred_first_name="x" * 100, preferred_last_name="y" * 100, preferred_pronouns="z" * 100),
        dict(state="PR", postal_code="00901"), dict(state="AE", postal_code="09012"), dict(state="FM"),
        dict(date_of_birth="1900-01-01"), dict(date_of_birth="2000-02-29"),
        dict(ip_address="2606:4700:4700::1111"), dict(ssn_last_four="0001"),
        dict(address1="12 Postbox Lane"), dict(address1="12 Drawer Ln"), dict(address1="12 Boxwood Lane"),
        dict(address1="RR 2 Box 65"), dict(address1="500 Main St PMB 12"), dict(address2="PMB 12"),
        dict(last_name="\u0646\u0645\u06cc\u200c\u062f\u0627\u0646"), dict(preferred_pronouns=" "),
        dict(metadata={"k" * 64: "v" * 256, "._-": "李" * 256}),
        dict(email="l" * 64 + "@" + email().split("@")[0] + ".example.com"),
    ]
    for change in limits:
        response = gateway.create(person(validate_only=True, **change)).ok()
        assert response.attempts.limit == 3, change.keys()


def test_field_invalid_names_every_broken_field_at_once(gateway, sandbox):
    request = person(**{field: values[-1] for field, values in BROKEN.items()})
    error = gateway.create(request, allowed_words=("gateway_attempt_id",)).failed("FIELD_INVALID")
    fields = [violation.field for violation in error.details["BadRequest"].field_violations]
    assert sorted(fields) == sorted(BROKEN)  # each once


def test_field_invalid_of_an_empty_request(gateway):
    """An empty request breaks every required field."""
    error = gateway.create_bytes(b"").failed("FIELD_INVALID")
    assert set(error.violations) == {"request_id", "email", "phone", "first_name", "last_name", "address1", "city",
                                     "state", "postal_code", "date_of_birth", "ssn_last_four", "ip_address"}


def test_what_nobody_can_see_spends_no_attempt(gateway, sandbox):
    for field in ("first_name", "last_name", "address1", "city"):
        for text in ("\u200b", "\u2060", "\ufeff", "\u00ad", "\u3164", "\u2800", "\u180e", "\u00a0\u200d"):
            request = person(**{field: text})
            gateway.create(request).failed("FIELD_INVALID")
            assert gateway.state(request.request_id) is None
            assert_posts(sandbox, request.email, 0)


def test_a_mapped_address_is_told_to_be_written_as_ipv4(gateway):
    error = gateway.create(person(ip_address="::ffff:8.8.8.8")).failed("FIELD_INVALID")
    assert "write it as IPv4" in error.violations["ip_address"]


def test_field_invalid_leaves_the_id_free(gateway, sandbox):
    request = person()
    gateway.create(again(request, state="XX")).failed("FIELD_INVALID")
    assert_posts(sandbox, request.email, 0)
    assert_row(gateway, sandbox, request, NONE)


def test_non_public_addresses_where_they_are_allowed(new_gateway, sandbox):
    """--allow_non_public_ip lets private addresses pass, and no broken ones."""
    lenient = new_gateway(allow_non_public_ip=True)
    assert not lenient.create(person(ip_address="10.0.0.1", validate_only=True)).ok().HasField("user_intent")
    lenient.create(person(ip_address="10.0.0", validate_only=True)).failed("FIELD_INVALID")


# -- never sent, by the record -------------------------------------------------------------------------------------------

def test_request_id_reused(gateway, sandbox):
    """An id with other content is refused, and its own content is replayed."""
    request = person()
    gateway.create(request).ok()
    gateway.create(again(request, city="Vexmoor Other")).failed(
        "REQUEST_ID_REUSED", sent="no", recovery="FIX_WITH_NEW_ID")
    assert_posts(sandbox, request.email, 1)
    assert gateway.create(request).ok().replayed


def test_request_in_progress(new_gateway, sandbox):
    """Also for the call that sent it. The deadline is the gateway's own, so no client can be faster."""
    impatient = new_gateway(default_deadline="700ms")
    request = person()
    sandbox.fault("delay", request.email, delay_ms=2500)
    first = impatient.begin(request, timeout=None)
    sandbox.wait_posts(request.email)
    second = impatient.begin(request, timeout=None)
    for running in (first, second):
        running.reply().failed("REQUEST_IN_PROGRESS", sent="maybe", recovery="ASK_SAME_ID")
    assert impatient.state(request.request_id) == "IN_PROGRESS"
    impatient.wait_state(request.request_id, "CREATED")
    assert impatient.create(request).ok().replayed
    assert_posts(sandbox, request.email, 1)


def test_person_exists(gateway, sandbox):
    """The same person under another id gets the id of the intent that exists, and nothing is sent."""
    request = person()
    first = gateway.create(request).ok()
    second = other_id(request, ip_address="8.8.8.8", metadata={})
    error = gateway.create(second).failed("PERSON_EXISTS", sent="no", recovery="USE_EXISTING",
                                          user_intent_id=first.user_intent.id)
    assert error.details["ResourceInfo"].resource_type == "astra.UserIntent"
    assert error.details["ResourceInfo"].resource_name == first.user_intent.id
    assert gateway.state(second.request_id) is None
    assert_posts(sandbox, request.email, 1)
    gateway.create(again(second, allow_repeat=True)).ok()
    assert_posts(sandbox, request.email, 2)


def test_email_attempts_exhausted(gateway, sandbox):
    """The fourth attempt of an address is refused without a POST."""
    first = person()
    for request in (first, same_email(first), same_email(first)):
        gateway.create(request).ok()
    fourth = same_email(first)
    error = gateway.create(fourth).failed("EMAIL_ATTEMPTS_EXHAUSTED", sent="no", recovery="STOP")
    assert [v.subject for v in error.details["QuotaFailure"].violations] == ["email"]
    assert gateway.state(fourth.request_id) is None
    assert_posts(sandbox, first.email, 3)


def test_email_attempts_exhausted_says_astra(new_gateway, sandbox):
    """With --astra_limit_error, Astra's own words about its limit become EMAIL_ATTEMPTS_EXHAUSTED."""
    ruled = new_gateway(astra_limit_error="400:Maximum number of user intents")
    request = person()
    sandbox.answer(request.email, 400, {"code": 400, "name": "Bad Request",
                                        "description": "Maximum number of user intents reached for this email"})
    error = ruled.create(request).failed("EMAIL_ATTEMPTS_EXHAUSTED", sent="yes", recovery="STOP", http_status=400)
    assert [v.subject for v in error.details["QuotaFailure"].violations] == ["email"]
    assert_posts(sandbox, request.email, 1)
    assert_row(ruled, sandbox, request, FAILED, "EMAIL_ATTEMPTS_EXHAUSTED")
    # The same text under another status, and another text under this one, are plain answers.
    other = person()
    sandbox.answer(other.email, 422, {"description": "Maximum number of user intents reached"})
    ruled.create(other).failed("UPSTREAM_REJECTED")
    other = person()
    sandbox.answer(other.email, 400, {"description": "something else"})
    ruled.create(other).failed("UPSTREAM_REJECTED")


def test_the_sandbox_refuses_the_fourth_itself(new_gateway, sandbox):
    """Without a limit of the gateway's own, Astra's is the one that counts."""
    ruled = new_gateway(email_attempt_limit=0, astra_limit_error="400:Maximum number of user intents")
    first = person()
    for request in (first, same_email(first), same_email(first)):
        ruled.create(request).ok()
    ruled.create(same_email(first)).failed("EMAIL_ATTEMPTS_EXHAUSTED", sent="yes")
    assert_posts(sandbox, first.email, 4)
    assert len(sandbox.intents(first.email)) == 3


def test_email_busy(gateway, sandbox):
    """A second request of an address that is being sent is refused, and its id stays free."""
    first = person()
    sandbox.fault("delay", first.email, delay_ms=1500)
    running = gateway.begin(first)
    sandbox.wait_posts(first.email)
    second = same_email(first, email=first.email.upper())
    gateway.create(second).failed("EMAIL_BUSY", sent="no", recovery="RETRY_SAME_ID")
    assert gateway.state(second.request_id) is None
    running.reply().ok()
    assert_row(gateway, sandbox, second, NONE)
    assert_posts(sandbox, first.email, 2)


def test_email_unresolved(gateway, sandbox):
    """A request of an address with an unknown outcome is refused, and the id that blocks it is named."""
    first = person()
    sandbox.answer(first.email, 500, "")
    gateway.create(first).failed("OUTCOME_UNKNOWN")
    second = same_email(first)
    gateway.create(second).failed("EMAIL_UNRESOLVED", sent="no", recovery="STOP",
                                  unresolved_request_id=first.request_id)
    assert gateway.state(second.request_id) is None
    assert_posts(sandbox, first.email, 1)


def test_supersedes_invalid(gateway, sandbox):
    """A request that would supersede nothing is refused without a POST."""
    request = person(supersedes_request_id=str(uuid.uuid4()))
    gateway.create(request).failed("SUPERSEDES_INVALID", sent="no", recovery="FIX_REQUEST")
    assert_posts(sandbox, request.email, 0)
    assert_row(gateway, sandbox, again(request, supersedes_request_id=None), NONE)


# -- never sent, by the gateway's own state ------------------------------------------------------------------------------

def test_overloaded(new_gateway, sandbox):
    """A call over --max_in_flight is refused; one that joins needs no place."""
    small = new_gateway(max_in_flight=1)
    first, second = person(), person()
    sandbox.fault("delay", first.email, delay_ms=1500)
    running = small.begin(first)
    sandbox.wait_posts(first.email)
    small.create(second).failed("OVERLOADED", sent="no", recovery="RETRY_SAME_ID")
    small.create(again(second, validate_only=True)).failed("OVERLOADED")
    assert_posts(sandbox, second.email, 0)
    joined = small.begin(first)  # a join needs no place
    running.reply().ok()
    assert joined.reply().ok().replayed
    wait_for(lambda: small.create(again(second, validate_only=True)).response, "a free place")
    assert_row(small, sandbox, second, NONE)


def test_replays_are_served_while_overloaded(new_gateway, sandbox):
    small = new_gateway(max_in_flight=1)
    done, slow = person(), person()
    small.create(done).ok()
    sandbox.fault("delay", slow.email, delay_ms=1500)
    running = small.begin(slow)
    sandbox.wait_posts(slow.email)
    assert small.create(done).ok().replayed
    running.reply().ok()


def test_deadline_too_short(new_gateway, sandbox):
    """A call with less than --min_deadline left is not sent; its replay is served."""
    careful = new_gateway(min_deadline="60s", default_deadline="120s")
    request = person()
    careful.create(request, timeout=40).failed("DEADLINE_TOO_SHORT", sent="no", recovery="RETRY_SAME_ID")
    careful.create(again(request, validate_only=True), timeout=40).failed("DEADLINE_TOO_SHORT")
    assert_posts(sandbox, request.email, 0)
    assert careful.state(request.request_id) is None
    assert not careful.create(request, timeout=110).ok().replayed
    assert careful.create(request, timeout=40).ok().replayed  # not for replays


# -- not reached ---------------------------------------------------------------------------------------------------------

def test_upstream_unreachable(new_gateway, sandbox):
    """Three connections that fail are UPSTREAM_UNREACHABLE, and the id is free."""
    tap = TcpTap.before(sandbox, "close")
    behind = new_gateway(astra_base_url=tap.url)
    request = person()
    behind.create(request).failed("UPSTREAM_UNREACHABLE", sent="no", recovery="RETRY_SAME_ID")
    assert_posts(sandbox, request.email, 0)
    assert tap.accepted == 3
    tap.mode = "forward"
    assert_row(behind, sandbox, request, RELEASED, "UPSTREAM_UNREACHABLE")
    tap.close()


def test_upstream_unreachable_recovers_within_the_call(new_gateway, sandbox):
    """Up to three connection attempts inside the deadline."""
    request = person()
    tap = TcpTap.before(sandbox, "close")
    behind = new_gateway(astra_base_url=tap.url)
    running = behind.begin(request)
    wait_for(lambda: tap.accepted >= 1, "the first connection")
    tap.mode = "forward"
    running.reply().ok()
    assert_posts(sandbox, request.email, 1)
    assert tap.accepted in (2, 3)
    tap.close()


# -- answers of Astra ----------------------------------------------------------------------------------------------------

def test_upstream_rate_limited(new_gateway, sandbox):
    """A 429 that asks for more patience than the caller has is passed on, with the wait."""
    limited = new_gateway()
    request = person()
    sandbox.answer(request.email, 429, "", headers={"Retry-After": "60"})
    error = limited.create(request, timeout=10).failed("UPSTREAM_RATE_LIMITED", sent="yes", recovery="RETRY_SAME_ID",
                                                       http_status=429)
    assert 40 < error.retry_after <= 60
    assert_posts(sandbox, request.email, 1)
    creation = limited.get(request.request_id).ok()
    assert creation.error.reason == "UPSTREAM_RATE_LIMITED"
    assert limited.state(request.request_id) == "NOT_SENT"
    # Held back: another call is not even sent.
    other = person()
    held = limited.create(other, timeout=10).failed("UPSTREAM_RATE_LIMITED", sent="no", recovery="RETRY_SAME_ID")
    assert held.retry_after <= 60
    assert_posts(sandbox, other.email, 0)
    assert limited.state(other.request_id) is None


def test_upstream_rate_limited_row(new_gateway, sandbox):
    """The row is RELEASED: a repeat, when the time has come, is sent."""
    limited = new_gateway()
    request = person()
    sandbox.answer(request.email, 429, "", headers={"Retry-After": "1"}, times=2)
    error = limited.create(request, timeout=30).failed("UPSTREAM_RATE_LIMITED", sent="yes")
    assert error.retry_after <= 1.5
    assert_posts(sandbox, request.email, 2)
    wait_for(lambda: limited.create(person(validate_only=True)).response, "the end of the hold")
    assert_row(limited, sandbox, request, RELEASED, "UPSTREAM_RATE_LIMITED")


def test_upstream_unavailable(gateway, sandbox):
    """A 503 that asks for more patience than the caller has is passed on, with the wait."""
    request = person()
    sandbox.answer(request.email, 503, "", headers={"Retry-After": "50"})
    error = gateway.create(request, timeout=10).failed("UPSTREAM_UNAVAILABLE", sent="yes", recovery="RETRY_SAME_ID",
                                                       http_status=503)
    assert 30 < error.retry_after <= 50
    assert_posts(sandbox, request.email, 1)
    assert_row(gateway, sandbox, request, RELEASED, "UPSTREAM_UNAVAILABLE")


@pytest.mark.parametrize("status", [400, 422])
def test_upstream_rejected(gateway, sandbox, status):
    """Astra's refusal of the person is final for the id, and its words are not passed on."""
    request = person()
    # Astra's words about the person stay with Astra.
    sandbox.answer(request.email, status, {"code": status, "description": f"bad phone {request.phone}"})
    gateway.create(request).failed("UPSTREAM_REJECTED", sent="yes", recovery="FIX_WITH_NEW_ID", http_status=status)
    assert_posts(sandbox, request.email, 1)
    assert_row(gateway, sandbox, request, FAILED, "UPSTREAM_REJECTED")


@pytest.mark.parametrize("status", [401, 403])
def test_upstream_credentials_rejected(gateway, sandbox, status):
    """Astra's refusal of the gateway's credentials is for the operator, and the id is free."""
    request = person()
    sandbox.answer(request.email, status, {"code": status})
    gateway.create(request).failed("UPSTREAM_CREDENTIALS_REJECTED", sent="yes", recovery="WAIT_FOR_OPERATOR",
                                   http_status=status)
    assert_posts(sandbox, request.email, 1)  # the files hold no other credentials, so no other try
    assert_row(gateway, sandbox, request, RELEASED, "UPSTREAM_CREDENTIALS_REJECTED")


@pytest.mark.parametrize("status", [401, 403])
def test_an_edges_refusal_is_told_apart(new_gateway, sandbox, status):
    """The caller hears the same; log and metrics say that it was not Astra who spoke."""
    own = new_gateway(upstream_breaker=False)
    request = person()
    sandbox.answer(request.email, status, {"code": status, "name": "Forbidden"})
    own.create(request).failed("UPSTREAM_CREDENTIALS_REJECTED", http_status=status)
    request = person()
    sandbox.fault("html", request.email, status=status)
    own.create(request).failed("UPSTREAM_CREDENTIALS_REJECTED", sent="yes", recovery="WAIT_FOR_OPERATOR",
                               http_status=status)
    assert_row(own, sandbox, request, RELEASED, "UPSTREAM_CREDENTIALS_REJECTED")
    assert "userintent_upstream_edge_rejections_total 1\n" in own.http("/metrics")[1]
    details = [line["detail"] for line in own.log() if line["event"] == "post_ended"]
    assert details[:2] == ["credentials rejected",
                           "refused without an error of Astra's: perhaps by an edge in front of it"]


def test_upstream_credentials_repaired(new_gateway, sandbox):
    """401 once, the file was repaired meanwhile: the call itself tries again and succeeds."""
    wrong = new_gateway()
    write_secret(wrong.client_secret_file, "not-the-secret")

    def refused():
        # Faster than the reload by itself or not: in the end a call meets a 401 and no better file.
        reply = wrong.create(person())
        return reply.error

    wait_for(refused, "the wrong secret to be used").expect("UPSTREAM_CREDENTIALS_REJECTED", sent="yes",
                                                            http_status=401)
    write_secret(wrong.client_secret_file, "sandbox-secret")
    request = person()
    assert not wrong.create(request).ok().replayed
    statuses = [post["status"] for post in sandbox.posts(request.email)]
    assert statuses in ([401, 201], [201])  # 201 alone where the reload came first


@pytest.mark.parametrize("status", [300, 301, 302, 304, 305, 306, 307, 308, 399, 404, 405, 406, 410, 418])
def test_upstream_misconfigured(gateway, sandbox, status):
    """An answer that only a wrong address can give is for the operator, and the id is free."""
    request = person()
    sandbox.answer(request.email, status, "", headers={"Location": sandbox.url + "/v1/user_intent"})
    gateway.create(request).failed("UPSTREAM_MISCONFIGURED", sent="yes", recovery="WAIT_FOR_OPERATOR",
                                   http_status=status)
    assert_posts(sandbox, request.email, 1)
    assert_row(gateway, sandbox, request, RELEASED, "UPSTREAM_MISCONFIGURED")


@pytest.mark.parametrize("status", [303, 402, 407, 408, 409, 411, 412, 413, 414, 415, 417, 421, 423, 425, 428, 431, 451, 499,
                                    500, 501, 502, 503, 504, 505, 507, 511, 520, 599])
def test_outcome_unknown(gateway, sandbox, status):
    """After every other status Astra may have created the intent: it is unknown, and not sent again."""
    request = person()
    sandbox.answer(request.email, status, "")
    gateway.create(request).failed("OUTCOME_UNKNOWN", sent="maybe", recovery="ASK_SAME_ID", http_status=status,
                                   attempts_used_min=0, attempts_used_max=1)
    assert_posts(sandbox, request.email, 1)
    assert_row(gateway, sandbox, request, UNKNOWN, "OUTCOME_UNKNOWN")


@pytest.mark.parametrize("body", ["", "{}", "[]", "null", "not json", '{"id":""}', '{"id":null}', '{"id":7}',
                                  '{"id":"x"', '{"id":"x"} {"id":"y"}', '{"id":"' + "i" * 257 + '"}',
                                  '{"id":"a\\u0000b"}', '{"id":"a\\nb"}', '{"id":["x"]}', "<html></html>",
                                  '{"user":{"id":"x"}}', "[" * 200 + "]" * 200],
                         ids=names.of)
def test_2xx_without_a_usable_id(gateway, sandbox, body):
    """A success whose id cannot be read is unknown, and counts as an attempt that was used."""
    request = person()
    sandbox.answer(request.email, 201, body)
    gateway.create(request).failed("OUTCOME_UNKNOWN", sent="maybe", http_status=201, attempts_used_min=1,
                                   attempts_used_max=1, user_intent_id=None)
    assert_posts(sandbox, request.email, 1)
    assert_row(gateway, sandbox, request, UNKNOWN, "OUTCOME_UNKNOWN")


def test_every_error_is_kept_for_the_repeat(gateway, sandbox):
    """What the first call heard, a repeat hears, and `replayed` says so."""
    for status, reason in ((400, "UPSTREAM_REJECTED"), (500, "OUTCOME_UNKNOWN")):
        request = person()
        sandbox.answer(request.email, status, "", headers={"Request-Id": f"req-{status}"})
        first = gateway.create(request).failed(reason, replayed=None)
        repeat = gateway.create(request).failed(reason, replayed="true")
        assert first.message == repeat.message and first.pushback == repeat.pushback
        assert {**repeat.metadata, "replayed": None} == {**first.metadata, "replayed": None}


# -- the transport -------------------------------------------------------------------------------------------------------

def test_no_client_certificate(new_gateway):
    """Refused in the handshake: the client's library says UNAVAILABLE, without details."""
    authority = Authority()
    key, certificate = authority.issue("gateway", ["DNS:localhost", "IP:127.0.0.1"])
    secured = new_gateway(tls_cert_file=certificate, tls_key_file=key, tls_client_ca_file=authority.ca_file)
    credentials = grpc.ssl_channel_credentials(authority.ca_file.read_bytes())
    reply = secured.create(person(), timeout=10, channel=secured.new_channel(credentials))
    assert reply.raw and reply.raw[0] == grpc.StatusCode.UNAVAILABLE
    authority.close()


def test_message_over_64_kib(gateway, sandbox):
    """A message over 64 KiB is refused by gRPC before the gateway reads it."""
    request = person(first_name="x" * 70000)
    reply = gateway.create(request)
    assert reply.raw and reply.raw[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert_posts(sandbox, request.email, 0)
    # Just below it is read, and refused for its content.
    gateway.create(person(first_name="x" * 65000)).failed("FIELD_INVALID")


# -- the order of the checks ---------------------------------------------------------------------------------------------

def test_order_unknown_fields_before_field_rules(gateway):
    request = person(state="XX")
    canary.record(request)
    gateway.create_bytes(request.SerializeToString() + b"\xb0\x01\x01").failed("UNKNOWN_FIELDS")
    gateway.create_bytes(request.SerializeToString() + b"\xb0\x01\x01\x12").failed("MALFORMED_REQUEST")


def test_order_field_rules_before_the_record(gateway, sandbox):
    request = person()
    gateway.create(request).ok()
    gateway.create(again(request, state="XX")).failed("FIELD_INVALID")


def test_order_of_the_record(new_gateway, sandbox):
    """The record's rules are asked in the order of the contract."""
    ordered = new_gateway(min_deadline="60s", default_deadline="120s")
    first = person()
    ordered.create(first, timeout=110).ok()
    second, third = same_email(first), same_email(first)
    ordered.create(second, timeout=110).ok()
    sandbox.fault("delay", first.email, delay_ms=1500)
    running = ordered.begin(third, timeout=110)
    sandbox.wait_posts(first.email, 3)
    # own row (reused) before person exists before busy before the deadline
    ordered.create(again(first, city="Vexmoor Other"), timeout=40).failed("REQUEST_ID_REUSED")
    ordered.create(other_id(first), timeout=40).failed("PERSON_EXISTS")
    ordered.create(same_email(first), timeout=40).failed("EMAIL_BUSY")
    running.reply().ok()
    # person exists before exhausted before the deadline
    ordered.create(other_id(first), timeout=40).failed("PERSON_EXISTS")
    ordered.create(other_id(first, allow_repeat=True), timeout=40).failed("EMAIL_ATTEMPTS_EXHAUSTED")
    ordered.create(same_email(first, supersedes_request_id=str(uuid.uuid4())), timeout=40).failed(
        "EMAIL_ATTEMPTS_EXHAUSTED")
    ordered.create(person(), timeout=40).failed("DEADLINE_TOO_SHORT")


def test_order_unresolved_before_the_deadline(new_gateway, sandbox):
    ordered = new_gateway(min_deadline="60s", default_deadline="120s")
    first = person()
    sandbox.answer(first.email, 500, "")
    ordered.create(first, timeout=110).failed("OUTCOME_UNKNOWN")
    ordered.create(first, timeout=40).failed("OUTCOME_UNKNOWN", replayed="true")
    ordered.create(same_email(first), timeout=40).failed("EMAIL_UNRESOLVED")
    ordered.create(same_email(first, supersedes_request_id=str(uuid.uuid4())), timeout=40).failed("SUPERSEDES_INVALID")
    ordered.create(same_email(first, supersedes_request_id=first.request_id), timeout=40).failed("DEADLINE_TOO_SHORT")
