"""Late answers: the caller has heard OUTCOME_UNKNOWN, and the answer of that very exchange settles the row by itself.

Each case runs over HTTP/2 by nghttp2, over HTTP/2 by libcurl and over HTTP/1.1.
"""

import datetime
import time

import pytest

from support import names
from support.check import FAILED, RELEASED, SUCCEEDED, UNKNOWN, assert_posts, assert_row
from support.gateway import Gateway
from support.ledger_tool import Ledger
from support.people import again, person
from support.process import wait_for
from support.protos import pb
from support.watch import Watch

# Long enough for a handshake on a busy machine; the answers come well after it.
TIMEOUT, ANSWER_MS = "800ms", 2200


@pytest.fixture(scope="module")
def gateway_process(transport):
    gateway = Gateway(transport.upstream, upstream_timeout=TIMEOUT, connect_timeout="700ms", shards=1,
                      ledger="sqlite:late.db", upstream_breaker=False, **transport.flags)
    yield gateway
    gateway.close()


@pytest.fixture
def gateway(gateway_process):
    yield gateway_process
    gateway_process.assert_alive()


@pytest.fixture
def upstream(transport):
    return transport.upstream


def tool(gateway):
    return Ledger(gateway.directory / "late.db")


def state(gateway, request):
    name = pb.CreationState.Name(gateway.get(request.request_id).ok().state)
    return name.removeprefix("CREATION_STATE_")


def lose(gateway, request):
    """The call, whose answer does not come in time."""
    error = gateway.create(request).failed("OUTCOME_UNKNOWN", sent="maybe")
    assert state(gateway, request) == "UNKNOWN"
    return error


def wait_state(gateway, request, wanted):
    wait_for(lambda: state(gateway, request) == wanted, f"the state {wanted}")


def settled(gateway, request, event="settled"):
    """The log's line about it."""
    lines = [line for line in gateway.log()
             if line.get("event") == event and line.get("request_id") == request.request_id.lower()]
    assert len(lines) <= 1, lines
    return lines[0] if lines else None


def sample(gateway, name, **labels):
    inside = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return gateway.metrics()[name + (f"{{{inside}}}" if inside else "")]


def test_created(gateway, upstream):
    """An answer that says created makes the request CREATED by itself; a repeat gets that intent."""
    before = sample(gateway, "userintent_settled_total", way="late_answer", state="succeeded")
    request = person()
    upstream.fault("delay", request.email, delay_ms=ANSWER_MS)
    lose(gateway, request)
    wait_for(lambda: sample(gateway, "userintent_late_exchanges") >= 1, "the gauge of late exchanges")
    wait_state(gateway, request, "CREATED")
    [post] = assert_posts(upstream, request.email, 1)

    creation = gateway.get(request.request_id).ok()
    assert creation.user_intent.id == post["intent_id"] and creation.user_intent.astra_status == "pending"
    assert creation.attempts.used_min == creation.attempts.used_max == 1
    repeat = gateway.create(request).ok()
    assert repeat.replayed and repeat.user_intent == creation.user_intent
    assert_row(gateway, upstream, request, SUCCEEDED)
    assert_posts(upstream, request.email, 1)

    line = wait_for(lambda: settled(gateway, request), "the log's line")
    heard = settled(gateway, request, "late_answer")
    took = datetime.datetime.fromisoformat(line["time"]) - datetime.datetime.fromisoformat(heard["time"])
    print(f"settled {took.total_seconds() * 1000:.0f} ms after the late answer came")
    assert (line["way"], line["state"], line["http_status"]) == ("late_answer", "succeeded", post["status"])
    assert sample(gateway, "userintent_settled_total", way="late_answer", state="succeeded") == before + 1
    assert sample(gateway, "userintent_late_answers_total", outcome="created") >= 1
    wait_for(lambda: sample(gateway, "userintent_late_exchanges") == 0, "nobody to be listened to")

    shown = tool(gateway).json("show", request.request_id)
    assert shown["requests"][0]["state"] == "REQUEST_STATE_SUCCEEDED"
    [deed] = shown["audit"]
    assert (deed["actor"], deed["action"]) == ("astra", "settle by late answer")
    assert deed["evidence"] == f"HTTP status {post['status']}"
    assert (deed["from_state"], deed["to_state"]) == ("REQUEST_STATE_UNKNOWN", "REQUEST_STATE_SUCCEEDED")


def test_watchers_are_told(gateway, upstream):
    """Who watches hears that it is unknown, and then that it was created."""
    request = person()
    upstream.fault("delay", request.email, delay_ms=ANSWER_MS)
    watch = Watch(gateway).wait("synced")
    lose(gateway, request)

    def states():
        states = [event[1] for event in watch.events if event[0] == request.request_id]
        return states[:1] == ["UNKNOWN"] and states[-1] == "CREATED"

    wait_for(states, "both states")
    watch.close()


# (status, headers, what the row becomes, reason)
TABLE = [
    (400, {}, FAILED, "UPSTREAM_REJECTED"),
    (422, {}, FAILED, "UPSTREAM_REJECTED"),
    (401, {}, RELEASED, "UPSTREAM_CREDENTIALS_REJECTED"),
    (403, {}, RELEASED, "UPSTREAM_CREDENTIALS_REJECTED"),
    (404, {}, RELEASED, "UPSTREAM_MISCONFIGURED"),
    (302, {"Location": "/v1/user_intent"}, RELEASED, "UPSTREAM_MISCONFIGURED"),
    (503, {"Retry-After": "0"}, RELEASED, "UPSTREAM_UNAVAILABLE"),
    (429, {"Retry-After": "1"}, RELEASED, "UPSTREAM_RATE_LIMITED"),
]
STATES = {FAILED: "REJECTED", RELEASED: "NOT_SENT"}


@pytest.mark.parametrize("status, headers, row, reason", TABLE, ids=names.of)
def test_not_created(gateway, upstream, status, headers, row, reason):
    """A late refusal means what it means in time: a repeat of a released request sends again, a rejected one never."""
    request = person()
    upstream.answer(request.email, status, {}, headers, delay_ms=ANSWER_MS)
    lose(gateway, request)
    wait_state(gateway, request, STATES[row])
    assert gateway.get(request.request_id).ok().error.reason == reason
    assert_posts(upstream, request.email, 1)
    if status == 429:  # it holds everybody back, as one in time does
        error = gateway.create(person()).failed("UPSTREAM_RATE_LIMITED", sent="no")
        time.sleep(error.retry_after + 0.05)
    if row == RELEASED:
        response = gateway.create(request).ok()
        assert not response.replayed
        posts = assert_posts(upstream, request.email, 2)
        assert posts[0]["attempt_id"] != posts[1]["attempt_id"] and posts[1]["intent_id"] == response.user_intent.id
    else:
        assert_row(gateway, upstream, request, row, reason)
        assert_posts(upstream, request.email, 1)


@pytest.mark.parametrize("kind, parameters", [("status", {"status": 500}), ("status", {"status": 201, "body": "{}"}),
                                              ("status", {"status": 409}), ("close", {}), ("cut_body", {"status": 201})],
                         ids=["500", "201 without id", "409", "closed", "cut"])
def test_says_nothing(gateway, upstream, kind, parameters):
    """What would be unknown in time stays unknown."""
    request = person()
    upstream.fault(kind, request.email, delay_ms=ANSWER_MS, **parameters)
    lose(gateway, request)
    wait_for(lambda: sample(gateway, "userintent_late_exchanges") >= 1, "the gauge of late exchanges")
    wait_for(lambda: sample(gateway, "userintent_late_exchanges") == 0, "nobody to be listened to")
    assert state(gateway, request) == "UNKNOWN"
    assert settled(gateway, request) is None
    assert_row(gateway, upstream, request, UNKNOWN, "OUTCOME_UNKNOWN")
    assert_posts(upstream, request.email, 1)


def test_2xx_without_an_intent_counts_all_the_same(gateway, upstream):
    """As it would have in time: the outcome stays unknown, and the attempt was surely used. After three of them Astra is not
    asked a fourth time, and no operator can say that nothing was made."""
    email = person().email
    before = None
    for number in (1, 2, 3):
        request = person(email=email)
        if before is not None:
            request.supersedes_request_id = before.request_id
        upstream.fault("status", email, status=201, body="{}", delay_ms=ANSWER_MS)
        lose(gateway, request)
        wait_for(lambda: gateway.create(request).error.metadata["attempts_used_min"] == str(number), "the attempt counts")
        error = gateway.create(request).failed("OUTCOME_UNKNOWN", replayed="true", http_status="201")
        assert error.metadata["attempts_used_max"] == str(number)
        before = request
    [entry] = tool(gateway).json("show", before.request_id)["audit"]
    assert (entry["actor"], entry["evidence"]) == ("astra", "HTTP status 201"), entry
    fourth = person(email=email)
    fourth.supersedes_request_id = before.request_id
    gateway.create(fourth).failed("EMAIL_ATTEMPTS_EXHAUSTED")
    assert_posts(upstream, email, 3)


def test_operator_was_quicker_and_wrong(gateway, upstream):
    """An operator resolved the row otherwise meanwhile: it stays as it is, and is marked."""
    before = sample(gateway, "userintent_settle_conflicts_total", way="late_answer")
    by_operators = sample(gateway, "userintent_settled_total", way="operator", state="succeeded")
    request = person()
    upstream.fault("delay", request.email, delay_ms=ANSWER_MS + 1500)
    lose(gateway, request)
    tool(gateway).resolve(request, "--created=another-intent").done()
    assert sample(gateway, "userintent_settled_total", way="operator", state="succeeded") == by_operators + 1
    assert settled(gateway, request)["way"] == "operator"
    assert state(gateway, request) == "CREATED"
    line = wait_for(lambda: settled(gateway, request, "settle_conflict"), "the log's line")
    assert line["way"] == "late_answer"
    assert sample(gateway, "userintent_settle_conflicts_total", way="late_answer") == before + 1
    assert gateway.get(request.request_id).ok().user_intent.id == "another-intent"
    [post] = assert_posts(upstream, request.email, 1)
    [conflict] = tool(gateway).json("show", request.request_id)["conflicts"]
    assert conflict["claimed_user_intent_id"] == post["intent_id"]
    assert conflict in tool(gateway).json("conflicts")["conflicts"]


def test_operator_was_quicker_and_right(gateway, upstream):
    """The answer says what an operator recorded already: nothing more happens."""
    conflicts = sample(gateway, "userintent_settle_conflicts_total", way="late_answer")
    request = person()
    upstream.fault("delay", request.email, delay_ms=ANSWER_MS + 1500)
    lose(gateway, request)
    [post] = upstream.posts(request.email)
    tool(gateway).resolve(request, f"--created={post['intent_id']}").done()
    wait_for(lambda: [line for line in gateway.log() if line.get("event") == "late_answer"
                      and line.get("request_id") == request.request_id.lower()], "the late answer")
    assert sample(gateway, "userintent_settle_conflicts_total", way="late_answer") == conflicts
    assert state(gateway, request) == "CREATED" and settled(gateway, request)["way"] == "operator"


def test_calls_go_on(transport, upstream):
    """Late exchanges are in nobody's way: with few connections they give way, the oldest first."""
    gateway = Gateway(upstream, upstream_timeout=TIMEOUT, connect_timeout="700ms", shards=1, upstream_connections=2,
                      ledger="sqlite:late.db", **transport.flags)
    try:
        lost = [person() for _ in range(2)]
        for request in lost:
            upstream.fault("hang", request.email)
        for call in [gateway.begin(request) for request in lost]:
            call.reply().failed("OUTCOME_UNKNOWN")
        wait_for(lambda: sample(gateway, "userintent_late_exchanges") == 2, "two late exchanges")
        for call in [gateway.begin(person()) for _ in range(12)]:
            call.reply().ok()
        if not transport.http2:
            wait_for(lambda: sample(gateway, "userintent_late_answers_total", outcome="gave_way") >= 1,
                     "late ones to give way")
        for request in lost:
            assert state(gateway, request) == "UNKNOWN"
            assert_posts(upstream, request.email, 1)
    finally:
        gateway.close()


def test_window_is_over(transport, upstream):
    """What comes after the window is not heard, and the row stays unknown; 0 switches the listening off."""
    for window, outcome in (("500ms", "silent"), ("0", None)):
        gateway = Gateway(upstream, upstream_timeout=TIMEOUT, connect_timeout="700ms", shards=1, late_answer_window=window,
                          ledger="sqlite:late.db", **transport.flags)
        try:
            request = person()
            upstream.fault("delay", request.email, delay_ms=ANSWER_MS)
            lose(gateway, request)
            if outcome:
                wait_for(lambda: sample(gateway, "userintent_late_answers_total", outcome=outcome) == 1, "its end")
            time.sleep(ANSWER_MS / 1000)
            assert state(gateway, request) == "UNKNOWN"
            assert sample(gateway, "userintent_late_exchanges") == 0
            assert_row(gateway, upstream, request, UNKNOWN, "OUTCOME_UNKNOWN")
            assert_posts(upstream, request.email, 1)
        finally:
            gateway.close()


@pytest.mark.parametrize("how", ["killed", "drained"])
def test_process_ends(transport, upstream, how):
    """A process that ends while it listens leaves the row UNKNOWN, and is not kept from ending."""
    gateway = Gateway(upstream, upstream_timeout=TIMEOUT, connect_timeout="700ms", shards=1, ledger="sqlite:late.db",
                      **transport.flags)
    try:
        request = person()
        upstream.fault("delay", request.email, delay_ms=60000)
        lose(gateway, request)
        wait_for(lambda: sample(gateway, "userintent_late_exchanges") == 1, "a late exchange")
        if how == "killed":
            gateway.kill()
        else:
            begun = time.monotonic()
            gateway.stop()
            assert time.monotonic() - begun < 14, "it waited for the late answer, or for --drain_timeout"
        gateway.restart()
        assert_row(gateway, upstream, request, UNKNOWN, "OUTCOME_UNKNOWN")
        assert_posts(upstream, request.email, 1)
    finally:
        gateway.close()


def test_supersedes(gateway, upstream):
    """A request that was superseded is settled too; whoever superseded it keeps its own attempt."""
    request = person()
    upstream.fault("delay", request.email, delay_ms=ANSWER_MS + 1500)
    lose(gateway, request)
    other = again(request, request_id=person().request_id, supersedes_request_id=request.request_id)
    made = gateway.create(other).ok()
    wait_state(gateway, request, "CREATED")
    posts = assert_posts(upstream, request.email, 2)
    assert gateway.get(request.request_id).ok().user_intent.id == posts[0]["intent_id"]
    assert gateway.get(other.request_id).ok().user_intent.id == made.user_intent.id == posts[1]["intent_id"]
    assert gateway.get(request.request_id).ok().attempts.used_min == 2
