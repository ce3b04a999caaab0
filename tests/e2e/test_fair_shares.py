"""What one caller may use, and that it takes nothing from another: rates, places, probes (docs/policy.md).

Rates are so low that no token comes back while a test runs, or the test waits for as long as it is told: so nothing here
depends on how fast the machine is.
"""

import json
import threading
import time

import grpc
import pytest

from support.certs import Authority
from support.check import assert_posts
from support.gateway import Gateway
from support.people import again, person, same_email
from support.process import wait_for
from support.protos import pb, pb_grpc
from support.sandbox import Sandbox

NEVER = 0.001  # tokens a second: none comes back in 1,000 s
METHODS = ["CreateUserIntent", "GetCreation", "GetUserIntent", "WatchUserIntents", "GetAuthorizationUrl"]
ALICE, BOB = "spiffe://test.example/alice", "spiffe://test.example/bob"


def rule(name, **limits):
    return {"name": name, "methods": METHODS, **limits}


def rate(per_second, burst):
    return {"per_second": per_second, "burst": burst}


@pytest.fixture(scope="module")
def authority():
    made = Authority()
    made.server = made.issue("gateway", ["DNS:localhost", "IP:127.0.0.1"])
    made.clients = {name: made.issue(name.rsplit("/", 1)[1], [f"URI:{name}"]) for name in (ALICE, BOB)}
    yield made
    made.close()


class Secured:
    """A gateway with mTLS and a policy, and what its two callers need to call it."""

    def __init__(self, authority, directory, sandbox, rules, **flags):
        self._authority = authority
        self._file = directory / "policy.json"
        if rules is not None:
            self.write(*rules)
            flags["policy_file"] = self._file
        key, certificate = authority.server
        self.gateway = Gateway(sandbox, tls_cert_file=certificate, tls_key_file=key,
                               tls_client_ca_file=authority.ca_file, **flags)
        self.alice, self.bob = self.channel(ALICE), self.channel(BOB)

    def write(self, *rules):
        self._file.write_text(json.dumps({"version": 1, "callers": list(rules)}))
        self._file.chmod(0o600)

    def channel(self, name):
        key, certificate = self._authority.clients[name]
        return self.gateway.new_channel(grpc.ssl_channel_credentials(
            self._authority.ca_file.read_bytes(), key.read_bytes(), certificate.read_bytes()))


@pytest.fixture
def secured(authority, tmp_path, sandbox):
    made = []

    def make(*rules, upstream=sandbox, **flags):
        made.append(Secured(authority, tmp_path, upstream, rules or None, **flags))
        return made[-1]

    yield make
    for one in made:
        one.gateway.close()


def limited(reply, longest):
    """CALLER_RATE_LIMITED, with a wait for the next token that is told; longest: from an empty bucket."""
    error = reply.failed("CALLER_RATE_LIMITED", attempts_used_min=None, attempts_used_max=None,
                         unresolved_request_id=None, user_intent_id=None)
    assert 0 < error.retry_after <= longest + 0.001
    return error


# -- create_rate ---------------------------------------------------------------------------------------------------------

def test_creations_are_counted_and_nothing_else(secured, sandbox):
    """Each POST of a caller takes a token; replays, refusals and checks take none. Nothing is sent or recorded for a call
    that finds none, and another caller has its own."""
    it = secured(rule(ALICE, create_rate=rate(NEVER, 3)), rule(BOB))
    gateway, alice = it.gateway, it.alice
    first = person()
    gateway.create(first, channel=alice).ok()
    for _ in range(5):
        assert gateway.create(first, channel=alice).ok().replayed
    gateway.create(again(first, city="Elsewhere"), channel=alice).failed("REQUEST_ID_REUSED")
    gateway.create(again(first, request_id=person().request_id), channel=alice).failed("PERSON_EXISTS")
    gateway.create(person(state="XX"), channel=alice).failed("FIELD_INVALID")
    gateway.create(person(validate_only=True), channel=alice).ok()
    rejected = person()
    sandbox.answer(rejected.email, 422, {"errors": [{"text": "no"}]})
    gateway.create(rejected, channel=alice).failed("UPSTREAM_REJECTED")
    gateway.create(rejected, channel=alice).failed("UPSTREAM_REJECTED", replayed="true")
    gateway.create(person(), channel=alice).ok()

    refused = person()
    limited(gateway.create(refused, channel=alice), 1000)
    limited(gateway.create(again(refused, validate_only=True), channel=alice), 1000)
    assert_posts(sandbox, refused.email, 0)
    gateway.get(refused.request_id, channel=alice).failed("REQUEST_NOT_FOUND")
    assert gateway.create(first, channel=alice).ok().replayed, "a replay is served all the same"
    for _ in range(5):
        gateway.create(person(), channel=it.bob).ok()


def test_a_refusal_for_another_reason_costs_no_token(secured):
    """Too short a deadline, or a gate that is full for this caller, leaves the token where it is."""
    it = secured(rule(ALICE, create_rate=rate(NEVER, 1)), min_deadline="20s", default_deadline="60s")
    for _ in range(3):
        it.gateway.create(person(), channel=it.alice, timeout=10).failed("DEADLINE_TOO_SHORT")
    it.gateway.create(person(), channel=it.alice, timeout=50).ok()
    limited(it.gateway.create(person(), channel=it.alice, timeout=50), 1000)


def test_joins_take_no_token(secured, sandbox):
    """A repeat of a request that runs waits for its end and costs nothing."""
    it = secured(rule(ALICE, create_rate=rate(NEVER, 2)))
    request = person()
    sandbox.fault("delay", request.email, delay_ms=1500)
    calls = [it.gateway.begin(request, channel=it.alice) for _ in range(8)]
    answers = [call.reply().ok() for call in calls]
    assert sum(not answer.replayed for answer in answers) == 1
    assert_posts(sandbox, request.email, 1)
    it.gateway.create(person(), channel=it.alice).ok()
    limited(it.gateway.create(person(), channel=it.alice), 1000)


def test_who_comes_when_it_is_told_to_is_let_in(secured):
    """RetryInfo is the time of the next token: nobody who waits for it is refused again."""
    it = secured(rule(ALICE, create_rate=rate(0.5, 1), read_rate=rate(0.5, 1)))

    def honoured(call):
        waits = 0
        for _ in range(200):
            reply = call()
            if reply.error is None or reply.error.reason != "CALLER_RATE_LIMITED":
                continue
            waits += 1
            assert reply.error.retry_after <= 2.001
            time.sleep(reply.error.retry_after)
            reply = call()
            assert reply.error is None or reply.error.reason != "CALLER_RATE_LIMITED", f"told {reply}, and came then"
            if waits == 2:
                return
        raise AssertionError("never refused")

    honoured(lambda: it.gateway.create(person(), channel=it.alice))
    honoured(lambda: it.gateway.get(person().request_id, channel=it.alice))


# -- read_rate -----------------------------------------------------------------------------------------------------------

def test_reads_are_counted_once_they_are_parsed(secured):
    """Every read takes a token of one bucket, whatever it finds; what is no message takes none; creations have theirs."""
    it = secured(rule(ALICE, read_rate=rate(NEVER, 4)), oauth_redirect_uri="https://app.example.com/done")
    gateway, alice = it.gateway, it.alice
    request = person()
    gateway.create(request, channel=alice).ok()
    gateway.create_bytes(b"\xff", channel=alice, method="/userintent.v1.UserIntentService/GetCreation").failed(
        "MALFORMED_REQUEST")
    gateway.get(request.request_id, channel=alice).ok()
    gateway.get(person().request_id, channel=alice).failed("REQUEST_NOT_FOUND")
    gateway.read(request, channel=alice).ok()
    stub = pb_grpc.UserIntentServiceStub(alice)
    watch = stub.WatchUserIntents(pb.WatchUserIntentsRequest(request_ids=[request.request_id]), timeout=60)
    next(watch)
    watch.cancel()
    for refused in (gateway.get(request.request_id, channel=alice), gateway.read(request, channel=alice),
                    gateway.authorize(request, "https://app.example.com/done", "s" * 16, channel=alice)):
        limited(refused, 1000)
    with pytest.raises(grpc.RpcError) as error:
        next(stub.WatchUserIntents(pb.WatchUserIntentsRequest(), timeout=60))
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    gateway.create(person(), channel=alice).ok()
    for _ in range(6):
        gateway.get(person().request_id, channel=it.bob).failed("CALLER_NOT_ALLOWED")


# -- places --------------------------------------------------------------------------------------------------------------

def test_a_rules_places_are_given_back(secured, sandbox):
    """max_in_flight counts the creations of a caller that run; one more is refused until one has ended."""
    it = secured(rule(ALICE, max_in_flight=2), rule(BOB))
    requests = [person(), person()]
    for request in requests:
        sandbox.fault("hang", request.email)
    running = [it.gateway.begin(request, channel=it.alice) for request in requests]
    for request in requests:
        sandbox.wait_posts(request.email)
    third = person()
    error = limited(it.gateway.create(third, channel=it.alice), 1)
    assert error.retry_after == 1
    assert_posts(sandbox, third.email, 0)
    it.gateway.create(person(), channel=it.bob).ok()
    sandbox.drop_connections()
    for call in running:
        call.reply().failed("OUTCOME_UNKNOWN")
    it.gateway.create(third, channel=it.alice).ok()


def test_nobody_is_kept_out_by_a_flood(secured):
    """Alice keeps ten times --max_in_flight calls under way; every call of Bob's is served."""
    upstream = Sandbox(delay="300ms")
    try:
        it = secured(upstream=upstream, max_in_flight=4)
        stop, reasons = threading.Event(), {}

        def flood():
            calls = []
            while not stop.is_set():
                calls += [it.gateway.begin(person(), channel=it.alice) for _ in range(40 - len(calls))]
                calls[0].reply()
                for call in [call for call in calls if call.done()]:
                    reply = call.reply()
                    reason = "OK" if reply.response is not None else reply.error.reason
                    reasons[reason] = reasons.get(reason, 0) + 1
                    calls.remove(call)
            for call in calls:
                call.reply()

        thread = threading.Thread(target=flood)
        thread.start()
        try:
            wait_for(lambda: reasons.get("OVERLOADED", 0) > 40, "a full gate")
            for _ in range(15):
                it.gateway.create(person(), channel=it.bob).ok()
        finally:
            stop.set()
            thread.join()
        assert set(reasons) == {"OK", "OVERLOADED"}, reasons
        assert wait_for(lambda: it.gateway.metric("userintent_upstream_posts_in_flight") == 0, "all calls ended")
    finally:
        upstream.stop()


def test_nobody_is_kept_out_of_the_queue_by_a_flood(secured, sandbox):
    """Alice fills the queue before Astra; Bob's calls take the places of her last ones, and their turns."""
    it = secured(upstream_connections=1, queue_limit=4)
    for _ in range(8):
        request = person()
        sandbox.answer(request.email, 429, "", headers={"Retry-After": "0"}, times=2)
        it.gateway.create(request, channel=it.alice).failed("UPSTREAM_RATE_LIMITED")
    slow = [person(), person()]
    for request in slow:
        sandbox.fault("hang", request.email)
    running = [it.gateway.begin(request, channel=it.alice) for request in slow]
    for request in slow:
        sandbox.wait_posts(request.email)
    flood = [it.gateway.begin(person(), channel=it.alice, timeout=600) for _ in range(5)]
    wait_for(lambda: sum(call.done() for call in flood) == 1, "a full queue")
    bobs = [it.gateway.begin(person(), channel=it.bob, timeout=600) for _ in range(3)]
    wait_for(lambda: sum(call.done() for call in [*flood, *bobs]) == 4, "room for two, and none for a third")
    assert sum(call.done() for call in bobs) == 1
    sandbox.drop_connections()
    reasons = [reply.error.reason if reply.response is None else "OK" for reply in (call.reply() for call in flood)]
    assert sorted(reasons) == ["OK", "OK", "OVERLOADED", "OVERLOADED", "OVERLOADED"], reasons
    reasons = [reply.error.reason if reply.response is None else "OK" for reply in (call.reply() for call in bobs)]
    assert sorted(reasons) == ["OK", "OK", "OVERLOADED"], reasons
    for call in running:
        call.reply().failed("OUTCOME_UNKNOWN")


def test_joins_keep_nobody_out(secured, sandbox):
    """Alice has one request that runs and any number of calls that wait for it; they hold no place."""
    it = secured(max_in_flight=2)
    slow = person()
    sandbox.fault("hang", slow.email)
    first = it.gateway.begin(slow, channel=it.alice)
    sandbox.wait_posts(slow.email)
    joins = [it.gateway.begin(slow, channel=it.alice) for _ in range(200)]
    wait_for(lambda: sum(join.done() for join in joins) >= 200 - 64, "the joins beyond the limit to be answered")
    for _ in range(5):
        it.gateway.create(person(), channel=it.bob).ok()
    it.gateway.create(person(), channel=it.alice).ok()
    sandbox.drop_connections()
    first.reply().failed("OUTCOME_UNKNOWN")
    for join in joins:
        assert join.reply().error.reason in ("OUTCOME_UNKNOWN", "REQUEST_IN_PROGRESS")
    assert_posts(sandbox, slow.email, 1)


# -- probes --------------------------------------------------------------------------------------------------------------

def test_a_caller_that_probes_is_slowed(secured, sandbox):
    """Answers that tell of other callers' addresses take a token each; without one, every address sounds the same. The
    log names the caller, and nothing else."""
    it = secured(rule(ALICE, probe_rate=rate(NEVER, 4)), rule(BOB))
    gateway, alice = it.gateway, it.alice
    known, lost = person(), person()
    gateway.create(known, channel=it.bob).ok()
    sandbox.fault("status", lost.email, status=500)
    gateway.create(lost, channel=it.bob).failed("OUTCOME_UNKNOWN")

    assert gateway.create(same_email(known, validate_only=True), channel=alice).ok().attempts.used_min == 1
    gateway.create(same_email(lost), channel=alice).failed("EMAIL_UNRESOLVED", unresolved_request_id=None)
    gateway.create(again(known, request_id=person().request_id), channel=alice).failed("PERSON_EXISTS")
    for _ in range(20):
        gateway.create(person(validate_only=True), channel=alice).ok()  # tells of nobody
    gateway.create(same_email(lost, validate_only=True), channel=alice).failed("EMAIL_UNRESOLVED")
    for asked in (same_email(known, validate_only=True), same_email(lost), same_email(lost, validate_only=True),
                  person(validate_only=True)):
        limited(gateway.create(asked, channel=alice), 1000)
    assert_posts(sandbox, lost.email, 1)
    own = person()
    gateway.create(own, channel=alice).ok()
    assert gateway.create(own, channel=alice).ok().replayed
    assert gateway.create(same_email(known, validate_only=True), channel=it.bob).ok().attempts.used_min == 1

    lines = [entry for entry in gateway.log() if entry.get("event") == "probes_limited"]
    assert len(lines) == 1
    assert lines[0]["caller"] == "uri:" + ALICE and not {"request_id", "address"} & set(lines[0])
    wait_for(lambda: gateway.metric("userintent_probes_limited_total") == 4, "the answers held back to be counted")


def test_probes_are_bounded_without_a_policy(new_gateway, sandbox):
    """50 at once, without a policy file and for the caller without TLS too."""
    gateway = new_gateway()
    lost = person()
    sandbox.fault("status", lost.email, status=500)
    gateway.create(lost).failed("OUTCOME_UNKNOWN")
    told = 0
    for _ in range(2000):  # 5 a second come back
        reply = gateway.create(same_email(lost, validate_only=True))
        if reply.error.reason == "CALLER_RATE_LIMITED":
            break
        reply.failed("EMAIL_UNRESOLVED")
        told += 1
    error = limited(reply, 0.2)
    assert told >= 50
    time.sleep(error.retry_after)
    gateway.create(same_email(lost, validate_only=True)).failed("EMAIL_UNRESOLVED")


def test_another_callers_request_is_superseded_by_right(secured, sandbox, ledger):
    """may_supersede_others names another caller's unresolved request; the audit table says who did so. Without the right
    nothing has changed, and a request that is then not sent blocks again."""
    it = secured(rule(ALICE), rule(BOB, may_supersede_others=True), ledger=f"sqlite:{ledger.path}")
    gateway = it.gateway
    lost = person()
    sandbox.fault("status", lost.email, status=500)
    gateway.create(lost, channel=it.alice).failed("OUTCOME_UNKNOWN")
    theirs = same_email(lost, supersedes_request_id=lost.request_id)
    stranger = same_email(lost)
    gateway.create(stranger, channel=it.bob).failed("EMAIL_UNRESOLVED", unresolved_request_id=None)
    sandbox.answer(lost.email, 503, "", headers={"Retry-After": "3600"})
    gateway.create(theirs, channel=it.bob).failed("UPSTREAM_UNAVAILABLE")
    gateway.create(stranger, channel=it.bob).failed("EMAIL_UNRESOLVED")
    gateway.create(theirs, channel=it.bob).ok()
    gateway.create(lost, channel=it.alice).failed("OUTCOME_UNKNOWN", replayed="true")
    gateway.create(stranger, channel=it.alice).ok()
    again_lost = person()
    sandbox.answer(again_lost.email, 500, "")
    gateway.create(again_lost, channel=it.bob).failed("OUTCOME_UNKNOWN")
    gateway.create(same_email(again_lost, supersedes_request_id=again_lost.request_id), channel=it.alice).failed(
        "SUPERSEDES_INVALID")
    entries = ledger.json("audit")["entries"]
    assert len(entries) == 2  # each time that it began
    for entry in entries:
        assert entry["actor"] == "caller" and entry["evidence"] == f"by uri:{BOB}, request {theirs.request_id}"
        assert entry["request_id"] == lost.request_id and entry["caller"] == "uri:" + ALICE


# -- trying out, and changes ---------------------------------------------------------------------------------------------

def test_what_is_tried_out_passes_and_is_counted(secured, sandbox):
    """enforce: false refuses nothing, and says what it would have refused."""
    it = secured(rule(ALICE, create_rate=rate(NEVER, 1), read_rate=rate(NEVER, 1), probe_rate=rate(NEVER, 1),
                      max_in_flight=1, enforce=False))
    gateway, alice = it.gateway, it.alice
    lost = person()
    sandbox.fault("status", lost.email, status=500)
    gateway.create(lost, channel=alice).failed("OUTCOME_UNKNOWN")
    for _ in range(3):
        gateway.create(person(), channel=alice).ok()
        gateway.get(lost.request_id, channel=alice).ok()
        gateway.create(same_email(lost), channel=alice).failed("EMAIL_UNRESOLVED")
    slow = [person(), person()]
    for request in slow:
        sandbox.fault("hang", request.email)
    running = [gateway.begin(request, channel=alice) for request in slow]
    for request in slow:
        sandbox.wait_posts(request.email)
    sandbox.drop_connections()
    for call in running:
        call.reply().failed("OUTCOME_UNKNOWN")

    def counted():
        return {name.partition('reason="')[2].partition('"')[0]: value for name, value in gateway.metrics().items()
                if name.startswith("userintent_policy_would_deny_total")}

    expected = {"method": 0, "create_rate": 5, "read_rate": 2, "probe_rate": 2, "in_flight": 1}
    wait_for(lambda: counted() == expected, f"would-be refusals to be counted as {expected}")


def test_other_limits_are_no_new_burst(secured):
    """A policy that is read again changes the limits of callers that are there; what they have used stays used."""
    it = secured(rule(ALICE, create_rate=rate(NEVER, 2)))
    for _ in range(2):
        it.gateway.create(person(), channel=it.alice).ok()
    limited(it.gateway.create(person(), channel=it.alice), 1000)
    it.write(rule(ALICE, create_rate=rate(NEVER * 2, 2), max_in_flight=7))
    wait_for(lambda: limited(it.gateway.create(person(), channel=it.alice), 1000).retry_after <= 500,
             "the new rate in force")
    it.write(rule(ALICE))
    request = person()
    wait_for(lambda: it.gateway.create(request, channel=it.alice).response is not None, "no limit any more")
    assert it.gateway.state(request.request_id, channel=it.alice) == "CREATED"
