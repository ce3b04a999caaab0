"""GetUserIntent: whose intents, what is answered from the record and what by Astra, joined reads, the read budget, and
that nothing but ids, words and times of Astra's answer is kept. What is repeated is in test_get_retry_table.py.
"""

import concurrent.futures
import re
import resource
import threading
import time
import urllib.parse
import uuid

import grpc
import pytest
from google.protobuf import duration_pb2

from support import canary
from support.certs import Authority
from support.gateway import Gateway
from support.people import again, other_id, person
from support.process import wait_for
from support.protos import READ, pb
from support.wire import Call, TcpTap, frame

STATUS = {word: getattr(pb, f"USER_INTENT_STATUS_{word.upper()}")
          for word in ("pending", "approved", "retry", "document", "rejected", "suspended", "converted_to_user")}


def seconds(value):
    whole = int(value)
    return duration_pb2.Duration(seconds=whole, nanos=int((value - whole) * 1e9))


def at(timestamp):
    return timestamp.seconds + timestamp.nanos / 1e9


def create(gateway, **changes):
    """A request and the id of its intent."""
    request = person(**changes)
    return request, gateway.create(request).ok().user_intent.id


@pytest.fixture(scope="module")
def gateway_process(sandbox):
    """Without a read budget: these tests read a lot."""
    gateway = Gateway(sandbox, astra_read_rate=0, follow_up="0", upstream_breaker=False)
    yield gateway
    gateway.close()


# -- what is answered ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("word", STATUS)
def test_the_intent_as_astra_has_it_now(gateway, sandbox, word):
    request, intent = create(gateway)
    sandbox.review(intent, status=word)
    before = time.time()
    for by, key in (("request_id", request.request_id), ("request_id", request.request_id.upper()), ("user_intent_id", intent)):
        response = gateway.read(key, by=by).ok()
        assert response.user_intent.id == intent
        assert response.user_intent.status == STATUS[word] and response.user_intent.astra_status == word
        assert response.user_intent.user_id.startswith("user-") == (word == "converted_to_user")
        assert not response.stale
        assert before - 1 <= at(response.read_time) <= time.time() + 1
    assert len(sandbox.gets(intent)) == 3


def test_the_get(gateway, sandbox):
    """Basic, JSON accepted, nothing sent."""
    request, intent = create(gateway)
    gateway.read(request).ok()
    [get] = sandbox.gets(intent)
    assert get["path"] == f"/v1/user_intent/{intent}"
    assert get["authorization_ok"] and get["body"] == ""
    assert get["headers"]["Accept"] == "application/json"
    assert get["headers"]["User-Agent"].startswith("userintent-server/")
    for absent in ("Content-Type", "Content-Length", "Transfer-Encoding", "Expect", "Cookie", "Traceparent"):
        assert absent not in get["headers"], absent


def test_of_the_callers_metadata_nothing_reaches_astra(gateway, sandbox):
    request, intent = create(gateway)
    call = gateway.stub.GetUserIntent(pb.GetUserIntentRequest(user_intent_id=intent), timeout=30, metadata=[
        ("x-canary", "from-the-caller"), ("authorization", "Bearer of-the-caller"), ("accept", "text/html")])
    assert call.user_intent.id == intent
    [get] = sandbox.gets(intent)
    assert get["authorization_ok"] and get["headers"]["Accept"] == "application/json" and "X-Canary" not in get["headers"]


def test_an_unknown_word_and_no_word(gateway, sandbox):
    request, intent = create(gateway)
    for body, word in (({"id": intent, "status": "napping"}, "napping"), ({"id": intent}, ""), ({"id": intent, "status": "Approved"}, "Approved")):
        sandbox.answer_get(intent, 200, body)
        read = gateway.read(request).ok().user_intent
        assert (read.status, read.astra_status) == (pb.USER_INTENT_STATUS_UNSPECIFIED, word)


def test_statuses_that_move_and_their_times(gateway, sandbox):
    request, intent = create(gateway)
    sandbox.review(intent, {"status": "pending", "reads": 2}, {"status": "document", "reads": 2}, {"status": "approved", "reads": 1},
                   {"status": "converted_to_user", "user_id": "user-of-the-test"})
    reads = [gateway.read(request).ok() for _ in range(7)]
    assert [read.user_intent.astra_status for read in reads] == ["pending"] * 2 + ["document"] * 2 + ["approved"] + ["converted_to_user"] * 2
    assert [read.user_intent.user_id for read in reads] == [""] * 5 + ["user-of-the-test"] * 2
    created = reads[0].user_intent.create_time
    assert all(read.user_intent.create_time == created for read in reads)
    times = [at(read.user_intent.status_time) for read in reads]
    assert times[0] == times[1] == at(created)  # pending was Astra's word when it was created
    assert times[1] < times[2] == times[3] < times[4] < times[5] == times[6]
    assert sorted(at(read.read_time) for read in reads) == [at(read.read_time) for read in reads]
    for read in reads[2:]:
        assert at(read.user_intent.status_time) <= at(read.read_time)


def test_the_verification_type_is_astras_else_as_asked(gateway, sandbox):
    asked = {None: pb.VERIFICATION_TYPE_VERIFIED, pb.VERIFICATION_TYPE_VERIFIED: pb.VERIFICATION_TYPE_VERIFIED,
             pb.VERIFICATION_TYPE_UNVERIFIED: pb.VERIFICATION_TYPE_UNVERIFIED,
             pb.VERIFICATION_TYPE_RECEIVE_ONLY: pb.VERIFICATION_TYPE_RECEIVE_ONLY}
    for given, expected in asked.items():
        request = person(verification_type=given)
        created = gateway.create(request).ok().user_intent
        assert created.verification_type == expected
        sandbox.answer_get(created.id, 200, {"id": created.id, "status": "approved"})
        assert gateway.read(request).ok().user_intent.verification_type == expected
        for other in ("full", "", None, 7, ["verified"]):
            sandbox.answer_get(created.id, 200, {"id": created.id, "status": "approved", "kyc_type": other})
            reply = gateway.read(request)
            if reply.response:  # a value that is no word may also make the answer unusable
                assert reply.response.user_intent.verification_type == expected
            else:
                reply.failed("UPSTREAM_MISCONFIGURED")
        for word, told in (("unverified", pb.VERIFICATION_TYPE_UNVERIFIED), ("receive-only", pb.VERIFICATION_TYPE_RECEIVE_ONLY),
                           ("verified", pb.VERIFICATION_TYPE_VERIFIED)):
            sandbox.answer_get(created.id, 200, {"id": created.id, "status": "approved", "kyc_type": word})
            assert gateway.read(request).ok().user_intent.verification_type == told


@pytest.mark.parametrize("user_id", ["", 7, None, "u" * 257, "a\nb", "a\x00b", ["x"]], ids=range(7))
def test_a_user_id_that_cannot_be_one_is_not_told(gateway, sandbox, user_id):
    request, intent = create(gateway)
    sandbox.answer_get(intent, 200, {"id": intent, "status": "converted_to_user", "user_id": user_id})
    reply = gateway.read(request)
    if reply.response:
        assert reply.response.user_intent.user_id == ""
    else:
        reply.failed("UPSTREAM_MISCONFIGURED", http_status=200)


def test_an_odd_user_id_is_told_as_it_is(gateway, sandbox):
    for user_id in ("u", "a/b?c=d%", "ü中", "u" * 256):
        request, intent = create(gateway)
        sandbox.review(intent, status="converted_to_user", user_id=user_id)
        assert gateway.read(request).ok().user_intent.user_id == user_id


PCHARS = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+")  # RFC 3986, a path segment
ODD_IDS = ["a/b", "/", "100%", "%2F", "%2e%2e", "a?b=c", "a#b", "..", ".", "../../v1/user", "ü中", "a b", "a+b", "a&b=c;d", 'q"\\', "i" * 256,
           "-._~", ":@!$'()*,"]


@pytest.mark.parametrize("intent", ODD_IDS, ids=range(len(ODD_IDS)))
def test_an_id_of_any_characters_is_one_segment_of_the_path(transport, new_gateway, intent):
    sandbox = transport.upstream
    own = new_gateway(sandbox, **transport.flags)
    request = person()
    sandbox.fault("delay", request.email, intent_id=intent)
    assert own.create(request).ok().user_intent.id == intent
    for by, key in (("request_id", request.request_id), ("user_intent_id", intent)):
        before = len(sandbox.gets())
        assert own.read(key, by=by).ok().user_intent.id == intent
        [get] = sandbox.gets()[before:]
        head, segment = get["path"][:len("/v1/user_intent/")], get["path"][len("/v1/user_intent/"):]
        assert head == "/v1/user_intent/" and urllib.parse.unquote(segment) == intent
        assert PCHARS.fullmatch(segment) and segment not in (".", "..")


# -- the record ----------------------------------------------------------------------------------------------------------

def test_max_age_answers_from_the_record(gateway, sandbox):
    request, intent = create(gateway)
    created = gateway.get(request.request_id).ok().user_intent
    sandbox.review(intent, status="approved")
    recorded = gateway.read(request, max_age=seconds(60)).ok()  # the answer to the creation is a reading
    assert recorded.user_intent.status == STATUS["pending"] and not recorded.stale
    assert abs(at(recorded.read_time) - at(created.create_time)) < 1
    assert sandbox.gets(intent) == []
    fresh = gateway.read(request).ok()
    assert fresh.user_intent.status == STATUS["approved"] and len(sandbox.gets(intent)) == 1
    sandbox.review(intent, status="suspended")
    for by, key in (("request_id", request.request_id), ("user_intent_id", intent)):
        kept = gateway.read(key, by=by, max_age=seconds(60)).ok()
        assert kept == fresh
    assert len(sandbox.gets(intent)) == 1


def test_max_age_that_is_over_asks_astra(gateway, sandbox):
    request, intent = create(gateway)
    sandbox.review(intent, status="approved")
    for age in (seconds(0), duration_pb2.Duration(), duration_pb2.Duration(nanos=1), seconds(0.02)):
        time.sleep(0.05)
        assert gateway.read(request, max_age=age).ok().user_intent.status == STATUS["approved"]
    assert len(sandbox.gets(intent)) == 4
    gateway.read(request, max_age=duration_pb2.Duration(seconds=315576000000)).ok()  # the longest that there is
    assert len(sandbox.gets(intent)) == 4


def test_a_reading_is_in_the_record(gateway, sandbox):
    """GetCreation shows the last reading; repeats of the creation hear its own answer for ever."""
    request = person(verification_type=pb.VERIFICATION_TYPE_UNVERIFIED)
    first = gateway.create(request).ok()
    created = first.user_intent
    assert created.status_time == created.create_time and created.user_id == ""
    assert gateway.get(request.request_id).ok().user_intent == created
    for step in (dict(status="approved"), dict(status="converted_to_user", user_id="user-of-the-test", kyc_type="verified")):
        sandbox.review(created.id, **step)
        read = gateway.read(request).ok().user_intent
        creation = gateway.get(request.request_id).ok()
        assert creation.user_intent == read and creation.state == pb.CREATION_STATE_CREATED
        repeat = gateway.create(request).ok()
        assert repeat.replayed and repeat.user_intent == created and repeat.astra_request_id == first.astra_request_id
    assert (read.user_id, read.verification_type) == ("user-of-the-test", pb.VERIFICATION_TYPE_VERIFIED)
    gateway.create(other_id(request)).failed("PERSON_EXISTS", user_intent_id=created.id)
    gateway.create(again(request, city="Vexmoor Other")).failed("REQUEST_ID_REUSED")
    assert len(sandbox.posts(request.email)) == 1


@pytest.mark.parametrize("how", ["SIGTERM", "kill -9"])
def test_after_a_restart(durable, sandbox, how):
    gateway = durable()
    request, intent = create(gateway)
    sandbox.review(intent, status="converted_to_user", user_id="user-of-the-test")
    read = gateway.read(request).ok()
    assert gateway.get(request.request_id).ok().user_intent == read.user_intent
    gateway.kill() if how == "kill -9" else gateway.stop()
    gateway.restart()
    assert gateway.get(request.request_id).ok().user_intent == read.user_intent
    for by, key in (("request_id", request.request_id), ("user_intent_id", intent)):
        assert gateway.read(key, by=by, max_age=seconds(3600)).ok() == read
    assert len(sandbox.gets(intent)) == 1
    sandbox.review(intent, status="suspended")
    assert gateway.read(intent, by="user_intent_id").ok().user_intent.status == STATUS["suspended"]
    assert gateway.create(request).ok().user_intent.astra_status == "pending"
    gateway.restart()
    assert gateway.get(request.request_id).ok().user_intent.status == STATUS["suspended"]
    assert len(sandbox.posts(request.email)) == 1


def test_a_reading_that_cannot_be_written(durable, sandbox):
    """A full disk, say: the caller hears Astra all the same, and the next reading is recorded once the disk has room."""
    gateway = durable(wrapper=["env", "--ignore-signal=XFSZ"])
    request, intent = create(gateway)
    sandbox.review(intent, status="approved")
    pid = gateway.process.pid
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        read = gateway.read(request).ok()
        assert read.user_intent.status == STATUS["approved"] and not read.stale
        gateway.assert_alive()
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    sandbox.review(intent, status="suspended")

    def recorded():
        read = gateway.read(request).ok()
        return read if gateway.get(request.request_id).ok().user_intent == read.user_intent else None

    read = wait_for(recorded, "a reading to be recorded")
    assert read.user_intent.status == STATUS["suspended"]
    gateway.kill()
    gateway.restart()
    assert gateway.read(request, max_age=seconds(3600)).ok() == read
    assert len(sandbox.posts(request.email)) == 1


# -- errors of the request and of the record -----------------------------------------------------------------------------

BAD = [
    ({}, {"key"}),
    ({"max_age": seconds(5), "allow_stale": True}, {"key"}),
    ({"request_id": ""}, {"request_id"}),
    ({"request_id": "not-a-uuid"}, {"request_id"}),
    ({"request_id": "{00000000-0000-0000-0000-00000000000}"}, {"request_id"}),
    ({"user_intent_id": ""}, {"user_intent_id"}),
    ({"user_intent_id": "i" * 257}, {"user_intent_id"}),
    ({"user_intent_id": "é" * 129}, {"user_intent_id"}),
    ({"user_intent_id": "a\nb"}, {"user_intent_id"}),
    ({"user_intent_id": "a\x00"}, {"user_intent_id"}),
    ({"user_intent_id": "\x7f"}, {"user_intent_id"}),
    ({"user_intent_id": "x", "max_age": duration_pb2.Duration(seconds=-1)}, {"max_age"}),
    ({"user_intent_id": "x", "max_age": duration_pb2.Duration(nanos=-1)}, {"max_age"}),
    ({"user_intent_id": "x", "max_age": duration_pb2.Duration(seconds=1, nanos=-1)}, {"max_age"}),
    ({"user_intent_id": "x", "max_age": duration_pb2.Duration(nanos=1000000000)}, {"max_age"}),
    ({"user_intent_id": "x", "max_age": duration_pb2.Duration(seconds=315576000001)}, {"max_age"}),
    ({"max_age": duration_pb2.Duration(seconds=-1)}, {"key", "max_age"}),
    ({"request_id": "x", "max_age": duration_pb2.Duration(seconds=-1)}, {"request_id", "max_age"}),
    ({"user_intent_id": "", "max_age": duration_pb2.Duration(nanos=2000000000)}, {"user_intent_id", "max_age"}),
]


@pytest.mark.parametrize("fields, violations", BAD, ids=range(len(BAD)))
def test_field_invalid(gateway, sandbox, fields, violations):
    before = len(sandbox.gets())
    error = gateway.read_bytes(pb.GetUserIntentRequest(**fields).SerializeToString()).failed("FIELD_INVALID", recovery="FIX_REQUEST")
    assert set(error.violations) == violations and all(error.violations.values())
    assert len(sandbox.gets()) == before


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x02\xc3\x28", b"\x12\x01\xff", b"\x1a\x05\x08", b"\x0a\x24"], ids=range(5))
def test_malformed_request(gateway, data):
    gateway.read_bytes(data).failed("MALFORMED_REQUEST")


def test_unknown_fields(gateway, sandbox):
    request, intent = create(gateway)
    good = pb.GetUserIntentRequest(request_id=request.request_id).SerializeToString()
    for extra in (b"\x28\x01", b"\x1a\x02\x18\x01"):  # field 5; a third field within max_age
        gateway.read_bytes(good + extra).failed("UNKNOWN_FIELDS")
    gateway.read_bytes(b"\x0a\x01x\x28\x01").failed("UNKNOWN_FIELDS")  # before the rules of the fields
    assert sandbox.gets(intent) == []


def test_what_is_not_there(gateway, sandbox):
    before = len(sandbox.gets())
    for allow_stale in (False, True):
        gateway.read(str(uuid.uuid4()), allow_stale=allow_stale).failed("REQUEST_NOT_FOUND", http_status=None)
        for intent in ("no-such-intent", "i" * 256, "é" * 128, "..", "a/b"):
            gateway.read(intent, by="user_intent_id", allow_stale=allow_stale).failed("USER_INTENT_NOT_FOUND", http_status=None)
    assert len(sandbox.gets()) == before


def test_an_intent_of_astras_that_the_gateway_did_not_create(gateway, sandbox):
    """Its id is real, but it is no intent of this caller's."""
    request = person()
    sandbox.fault("status", request.email, status=500, commit=True)
    gateway.create(request).failed("OUTCOME_UNKNOWN")
    [intent] = sandbox.intents(request.email)
    gateway.read(intent["id"], by="user_intent_id").failed("USER_INTENT_NOT_FOUND", http_status=None)
    assert sandbox.gets(intent["id"]) == []


def test_not_created(gateway, sandbox):
    before = len(sandbox.gets())
    for status, reason, recovery in ((400, "UPSTREAM_REJECTED", "STOP"), (500, "OUTCOME_UNKNOWN", "ASK_SAME_ID"),
                                     (404, "UPSTREAM_MISCONFIGURED", "STOP")):
        request = person()
        sandbox.answer(request.email, status, "")
        gateway.create(request).failed(reason)
        for more in ({}, {"allow_stale": True}, {"max_age": seconds(60)}):
            gateway.read(request, **more).failed("NOT_CREATED", recovery=recovery, http_status=None)
    running = person()
    sandbox.fault("delay", running.email, delay_ms=4000)
    call = gateway.begin(running)
    sandbox.wait_posts(running.email)
    gateway.read(running).failed("NOT_CREATED", recovery="ASK_SAME_ID")
    assert not call.done()
    assert len(sandbox.gets()) == before
    intent = call.reply().ok().user_intent.id
    assert gateway.read(running).ok().user_intent.id == intent


def test_the_record_comes_before_the_deadline(new_gateway, sandbox):
    careful = new_gateway(min_deadline="60s", default_deadline="120s")
    request = person()
    intent = careful.create(request, timeout=110).ok().user_intent.id
    careful.read(request, timeout=40).failed("DEADLINE_TOO_SHORT")
    assert careful.read(request, timeout=40, max_age=seconds(3600)).ok().user_intent.id == intent
    stale = careful.read(request, timeout=40, allow_stale=True).ok()
    assert stale.stale and stale.user_intent.id == intent
    careful.read(str(uuid.uuid4()), timeout=40).failed("REQUEST_NOT_FOUND")
    careful.read("nothing", by="user_intent_id", timeout=40).failed("USER_INTENT_NOT_FOUND")
    careful.read("not-a-uuid", timeout=40).failed("FIELD_INVALID")
    assert sandbox.gets(intent) == []
    assert not careful.read(request, timeout=110).ok().stale


class TwoCallers:
    def __init__(self, new_gateway):
        self.authority = Authority()
        key, certificate = self.authority.issue("gateway", ["DNS:localhost", "IP:127.0.0.1"])
        self.gateway = new_gateway(tls_cert_file=certificate, tls_key_file=key, tls_client_ca_file=self.authority.ca_file)
        self.one, self.two = (self._channel(name) for name in ("one", "two"))

    def _channel(self, name):
        key, certificate = self.authority.issue(name, [f"URI:spiffe://example.test/{name}"])
        return self.gateway.new_channel(grpc.ssl_channel_credentials(
            self.authority.ca_file.read_bytes(), key.read_bytes(), certificate.read_bytes()))


def test_only_the_callers_own(new_gateway, sandbox):
    callers = TwoCallers(new_gateway)
    gateway = callers.gateway
    request = person()
    intent = gateway.create(request, channel=callers.one).ok().user_intent.id
    for more in ({}, {"allow_stale": True}, {"max_age": seconds(3600)}):
        gateway.read(request, channel=callers.two, **more).failed("REQUEST_NOT_FOUND", http_status=None)
        gateway.read(intent, by="user_intent_id", channel=callers.two, **more).failed("USER_INTENT_NOT_FOUND", http_status=None)
    assert sandbox.gets(intent) == []
    # The same request_id of another caller is another request.
    mine = person(request_id=request.request_id)
    own = gateway.create(mine, channel=callers.two).ok().user_intent.id
    assert gateway.read(request, channel=callers.two).ok().user_intent.id == own
    for by, key in (("request_id", request.request_id), ("user_intent_id", intent)):
        assert gateway.read(key, by=by, channel=callers.one).ok().user_intent.id == intent
    # A running read of another caller's is not joined either.
    sandbox.get_fault("delay", intent, delay_ms=4000)
    running = gateway.begin_read(intent, by="user_intent_id", channel=callers.one)
    sandbox.wait_gets(intent, 3)
    gateway.read(intent, by="user_intent_id", channel=callers.two).failed("USER_INTENT_NOT_FOUND")
    assert running.reply().ok().user_intent.id == intent
    callers.authority.close()


def test_astra_does_not_know_the_id_that_it_gave(gateway, sandbox):
    request, intent = create(gateway)
    before = gateway.get(request.request_id).ok()
    sandbox.answer_get(intent, 404, "", headers={"Request-Id": "req-404"}, times=0)
    for allow_stale in (False, True):  # a 404 is an answer, not a failure to ask
        gateway.read(request, allow_stale=allow_stale).failed("USER_INTENT_NOT_FOUND", recovery="STOP", http_status=404,
                                                              astra_request_id="req-404")
    assert len(sandbox.gets(intent)) == 2
    sandbox.clear_faults()
    assert gateway.get(request.request_id).ok() == before
    assert gateway.read(request, max_age=seconds(60)).ok().user_intent.id == intent


# -- allow_stale ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("status", [401, 403, 302, 400, 405, 418, 500, 503])
def test_stale_in_place_of_astras_failure(gateway, sandbox, status):
    request, intent = create(gateway)
    sandbox.review(intent, status="document")
    read = gateway.read(request).ok()
    sandbox.answer_get(intent, status, "", times=0)
    reply = gateway.read(request)
    assert reply.error and reply.error.reason.startswith("UPSTREAM_")
    stale = gateway.read(request, allow_stale=True).ok()
    assert stale.stale and stale.user_intent == read.user_intent and stale.read_time == read.read_time
    sandbox.clear_faults()
    fresh = gateway.read(request, allow_stale=True).ok()
    assert not fresh.stale and at(fresh.read_time) > at(read.read_time)


def test_stale_of_an_intent_that_was_never_read(gateway, sandbox):
    request = person()
    created = gateway.create(request).ok().user_intent
    sandbox.answer_get(created.id, 500, "", times=0)
    stale = gateway.read(request, allow_stale=True).ok()
    assert stale.stale and stale.user_intent == created
    assert abs(at(stale.read_time) - at(created.create_time)) < 1
    sandbox.clear_faults()


def test_stale_while_astra_is_away(durable, sandbox):
    own = durable()
    request, intent = create(own)
    tap = TcpTap.before(sandbox, "close")
    own.restart(astra_base_url=tap.url)
    own.read(request).failed("UPSTREAM_UNREACHABLE")
    stale = own.read(request, allow_stale=True).ok()
    assert stale.stale and stale.user_intent.id == intent and stale.user_intent.status == STATUS["pending"]
    tap.mode = "forward"
    assert not own.read(request, allow_stale=True).ok().stale
    tap.close()


# -- joined reads --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("shards", [1, 2])
def test_identical_reads_are_one_get(new_gateway, sandbox, shards):
    own = new_gateway(shards=shards)
    request, intent = create(own)
    sandbox.review(intent, status="approved")
    sandbox.get_fault("delay", intent, delay_ms=4000)
    first = own.begin_read(request)
    sandbox.wait_gets(intent)
    channels = [own.channel] + [own.new_channel() for _ in range(3)]
    joined = [own.begin_read(key, by=by, channel=channel) for channel in channels for by, key in
              (("request_id", request.request_id), ("request_id", request.request_id.upper()), ("user_intent_id", intent))]
    answers = [call.reply().ok() for call in [first, *joined]]
    assert all(answer == answers[0] for answer in answers)
    assert answers[0].user_intent.status == STATUS["approved"] and not answers[0].stale
    assert len(sandbox.gets(intent)) == 1
    own.read(request).ok()
    assert len(sandbox.gets(intent)) == 2  # the next one is another


def test_other_intents_are_not_joined(gateway, sandbox):
    made = [create(gateway) for _ in range(3)]
    for _, intent in made:
        sandbox.get_fault("delay", intent, delay_ms=800)
    calls = [gateway.begin_read(request) for request, _ in made]
    assert [call.reply().ok().user_intent.id for call in calls] == [intent for _, intent in made]
    assert [len(sandbox.gets(intent)) for _, intent in made] == [1, 1, 1]


def _cancel(gateway, request):
    return gateway.begin_read(request).cancel


def _reset_stream(gateway, request):
    return Call(gateway.address, READ, frame(pb.GetUserIntentRequest(request_id=request.request_id).SerializeToString())).reset_stream


def _abort_connection(gateway, request):
    return Call(gateway.address, READ, frame(pb.GetUserIntentRequest(request_id=request.request_id).SerializeToString())).abort


@pytest.mark.parametrize("way", [_cancel, _reset_stream, _abort_connection], ids=lambda way: way.__name__.strip("_"))
def test_one_that_leaves_leaves_the_others_alone(gateway, sandbox, way):
    request, intent = create(gateway)
    sandbox.get_fault("delay", intent, delay_ms=4000)
    leave = way(gateway, request)
    sandbox.wait_gets(intent)
    joined = [gateway.begin_read(request) for _ in range(3)]
    time.sleep(0.3)  # they have joined, or they read alone: either way they get an answer
    leave()
    assert {call.reply().ok().user_intent.id for call in joined} == {intent}
    assert len(sandbox.gets(intent)) == 1


def test_one_whose_time_is_over_leaves_the_others_alone(gateway, sandbox):
    request, intent = create(gateway)
    sandbox.get_fault("delay", intent, delay_ms=4000)
    short = gateway.begin_read(request, timeout=2)
    sandbox.wait_gets(intent)
    long, stale = gateway.begin_read(request), gateway.begin_read(request, timeout=2, allow_stale=True)
    reply = short.reply()
    if reply.error:  # a busy machine may be late
        reply.failed("UPSTREAM_UNAVAILABLE", http_status=None)
    else:
        assert reply.raw[0] == grpc.StatusCode.DEADLINE_EXCEEDED
    reply = stale.reply()
    assert reply.ok().stale if reply.response else reply.raw[0] == grpc.StatusCode.DEADLINE_EXCEEDED
    assert not long.reply().ok().stale
    assert len(sandbox.gets(intent)) == 1


def test_joined_reads_share_the_failure(gateway, sandbox):
    request, intent = create(gateway)
    sandbox.get_fault("status", intent, times=0, status=403, delay_ms=4000)
    first = gateway.begin_read(request)
    sandbox.wait_gets(intent)
    joined, stale = gateway.begin_read(request), gateway.begin_read(request, allow_stale=True)
    for call in (first, joined):
        call.reply().failed("UPSTREAM_CREDENTIALS_REJECTED", http_status=403)
    assert stale.reply().ok().stale
    assert len(sandbox.gets(intent)) == 1
    sandbox.clear_faults()


# -- the read budget -----------------------------------------------------------------------------------------------------

def test_the_budget_of_reads(new_gateway, sandbox):
    """One a second, two at once: so many GETs and no more, whichever intents they are for."""
    own = new_gateway(astra_read_rate=1)
    made = [create(own) for _ in range(12)]
    before, started = sandbox.summary()["gets"], time.monotonic()
    calls = [own.begin_read(request) for request, _ in made]
    replies = [call.reply() for call in calls]
    most = 2 + (time.monotonic() - started) + 1
    assert 1 <= sandbox.summary()["gets"] - before <= most
    refused = [reply for reply in replies if reply.error]
    assert refused
    for reply in refused:
        error = reply.failed("UPSTREAM_RATE_LIMITED", http_status=None)
        assert error.retry_after <= 1.1
    # The record needs no token; neither does an error of the record.
    stale = own.read(made[0][0], max_age=seconds(3600)).ok()
    assert not stale.stale
    own.read(str(uuid.uuid4())).failed("REQUEST_NOT_FOUND")
    wait_for(lambda: own.read(made[0][0]).response, "the next token")


def test_stale_without_a_token(new_gateway, sandbox):
    own = new_gateway(astra_read_rate=1)
    request, intent = create(own)
    replies = [own.read(request, allow_stale=True).ok() for _ in range(25)]
    assert len(sandbox.gets(intent)) == sum(not reply.stale for reply in replies)
    assert sum(reply.stale for reply in replies) >= 1
    assert all(reply.user_intent.id == intent for reply in replies)


def test_repeats_take_tokens_too(new_gateway, sandbox):
    own = new_gateway(astra_read_rate=1)
    request, intent = create(own)
    sandbox.answer_get(intent, 500, "", times=0)
    started = time.monotonic()
    for _ in range(4):
        assert own.read(request, timeout=5).error
    assert len(sandbox.gets(intent)) <= 2 + (time.monotonic() - started) + 1
    sandbox.clear_faults()


def test_no_budget(gateway, sandbox):
    made = [create(gateway)[0] for _ in range(4)]
    before = sandbox.summary()["gets"]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for read in pool.map(lambda request: [gateway.read(request).ok().stale for _ in range(25)], made):
            assert not any(read)
    assert sandbox.summary()["gets"] - before == 100


def test_reads_spend_nothing_of_creations(new_gateway, sandbox):
    """No attempt, no place of --max_in_flight that a creation would need."""
    small = new_gateway(max_in_flight=1)
    request, intent = create(small)
    sandbox.get_fault("delay", intent, delay_ms=4000)
    reading = small.begin_read(request)
    sandbox.wait_gets(intent)
    assert small.create(person()).ok().attempts.used_max == 1
    assert not reading.done()
    assert not reading.reply().ok().stale
    slow = person()
    sandbox.fault("delay", slow.email, delay_ms=4000)
    creating = small.begin(slow)
    sandbox.wait_posts(slow.email)
    assert not small.read(request).ok().stale
    assert not creating.done()
    creating.reply().ok()


# -- the end of a process ------------------------------------------------------------------------------------------------

def test_a_read_under_way_ends_when_the_process_does(new_gateway, sandbox):
    own = new_gateway()
    request, intent = create(own)
    sandbox.get_fault("delay", intent, delay_ms=1000)
    reading = own.begin_read(request)
    sandbox.wait_gets(intent)
    ended = threading.Thread(target=own.process.terminate, args=(40,))
    ended.start()
    assert reading.reply().ok().user_intent.id == intent
    ended.join()
    assert own.process.popen.returncode == 0


# -- personal data -------------------------------------------------------------------------------------------------------

# What Astra's answer holds of a person besides what the request did, so that a find can only come from the answer.
ANSWER = {"email": "zorblatt.renamed@quillfeather.example.com", "phone": "+14155559876", "first_name": "Mirandolynrenamed",
          "last_name": "Brackenwhistlerenamed", "preferred_first_name": "Zorblattina", "preferred_last_name": "Quillfeatherette",
          "preferred_pronouns": "Vexmoor/Vexmoors", "metadata": {"canary_key_of_astra": "canary-value-of-astra"},
          "address1": "77 Quillfeather Annex", "date_of_birth": "1987-03-14", "ssn": "8259", "vexmoor_field": {"deep": ["zorblattish"]}}


def _values():
    for key, value in ANSWER.items():
        if isinstance(value, str):
            yield value
    yield from ("canary_key_of_astra", "canary-value-of-astra", "vexmoor_field", "zorblattish")


def test_nothing_of_the_person_is_kept(durable, sandbox, tmp_path):
    """Good, broken and foreign answers, each full of personal data: nothing of it in replies, errors, log, metrics, ledger."""
    gateway = durable(astra_read_rate=0)
    values = [value for value in _values() if len(value) >= 6]
    told = []
    for number, change in enumerate([{}, {"status": "converted_to_user", "user_id": "user-of-the-test"}, {"id": "zorblatt-other"},
                                     {"status": "zorblatt " * 20}, {"id": 7}, {"status": {"quillfeather": 1}}, None]):
        request, intent = create(gateway)
        good = {"id": intent, "status": "approved", "kyc_type": "verified", **ANSWER}
        for status in (200, 404, 403, 418, 400):
            body = "quillfeather <html> +14155559876 " + str(ANSWER) if change is None else {**good, **change}
            sandbox.answer_get(intent, status, body, headers={"X-Vexmoor": "zorblatt"})
            reply = gateway.read(request, allow_stale=number % 2 == 1)
            told.append(str(reply.response) + repr(reply.error))
        sandbox.get_fault("cut_body", intent, status=200, body={**good}, times=0)
        told.append(repr(gateway.read(request).error))
        sandbox.clear_faults()
        told.append(str(gateway.get(request.request_id).response))
    gateway.kill()  # with the write-ahead log as it was
    told.append(gateway.new_output())
    leak = canary.find("\n".join(told), values)
    assert leak is None, f"a reply, an error, the log or the metrics hold {leak}"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    files += [path for path in gateway.directory.rglob("*") if path.is_file()]  # where a core file would be
    assert any(path.name == "ledger.db" for path in files)
    for path in files:
        if path == gateway.client_secret_file:
            continue  # the one place of that secret
        leak = canary.find(path.read_bytes().decode("latin-1"), values)
        assert leak is None, f"{path.name} holds {leak}"
    gateway.restart()
