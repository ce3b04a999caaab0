"""The breaker: while Astra fails, or refuses the credentials, no creation begins and nothing is recorded; GETs find out
when to go on, and no person's attempt is spent on that. POSTs and GETs are counted at the sandbox."""

import json
import time

import pytest

from support.check import assert_posts
from support.people import again, person
from support.process import wait_for, write_secret
from support.sandbox import CLIENT_SECRET, Sandbox

EXCHANGES = 20  # of which more than half must have failed


@pytest.fixture
def astra():
    """A sandbox of the test's own: its faults are for every request."""
    sandbox = Sandbox()
    yield sandbox
    sandbox.stop()


@pytest.fixture
def own(new_gateway, astra):
    return new_gateway(astra)


STATES = ("closed", "open", "half_open", "credentials")


def states(gateway):
    """The states that the metrics show as the present one."""
    metrics = gateway.metrics()
    return [state for state in STATES if metrics[f'userintent_upstream_breaker_state{{state="{state}"}}']]


def opened(gateway, cause):
    return gateway.metrics()[f'userintent_upstream_breaker_opened_total{{cause="{cause}"}}']


def probes(gateway, result):
    return gateway.metrics()[f'userintent_upstream_breaker_probes_total{{result="{result}"}}']


def causes(gateway, event):
    return [entry["detail"] for entry in gateway.log() if entry["event"] == event]


def fail(gateway, astra, times=EXCHANGES, reads=True, before=0, **fault):
    """Astra breaks down, for GETs as well, until fault() says otherwise. `before`: exchanges that count, too, so that as
    many of the last calls may come too late."""
    fault = fault or dict(kind="status", status=500)
    astra.fault(times=0, **fault)
    if reads:
        astra.get_fault(times=0, **fault)
    failed_or_late([gateway.begin(person()) for _ in range(times)], "OUTCOME_UNKNOWN", at_least=times - before)


def failed_or_late(calls, reason, at_least, **more):
    """All of them failed; some may have come when their elders had opened the breaker. Whether each failed for `reason`."""
    replies = [call.reply() for call in calls]
    late = [reply.error is not None and reply.error.reason == "UPSTREAM_SUSPENDED" for reply in replies]
    for reply, suspended_ in zip(replies, late, strict=True):
        if suspended_:
            reply.failed("UPSTREAM_SUSPENDED", sent="no", recovery="RETRY_SAME_ID")
        else:
            reply.failed(reason, **more)
    assert late.count(False) >= at_least, f"{late.count(True)} of {len(late)} calls were suspended"
    return [not suspended_ for suspended_ in late]


def suspended(gateway, request, **more):
    error = gateway.create(request, **more).failed("UPSTREAM_SUSPENDED", sent="no", recovery="RETRY_SAME_ID")
    assert 0.1 <= error.retry_after <= 31, error.retry_after
    return error


def closed(gateway):
    wait_for(lambda: states(gateway) == ["closed"], "the breaker to close", timeout=90)


def test_it_opens_refuses_without_a_trace_and_closes_by_itself(own, astra):
    created, waiting = person(), person()
    intent = own.create(created).ok().user_intent.id
    fail(own, astra, before=1)
    assert states(own) in (["open"], ["half_open"])
    posts = astra.summary()["posts"]

    for _ in range(30):
        suspended(own, waiting)
    suspended(own, again(waiting, validate_only=True))  # as the real call
    own.get(waiting.request_id).failed("REQUEST_NOT_FOUND")
    # What needs no POST goes on: replays, the record, reads. And this instance is the only one that can replay.
    assert own.create(created).ok().replayed
    assert own.state(created.request_id) == "CREATED"
    own.read(created).failed("UPSTREAM_UNAVAILABLE", http_status=500)
    own.create(again(created, city="Otherwhere")).failed("REQUEST_ID_REUSED")
    assert own.http("/readyz")[0] == 200
    assert own.health() == "SERVING"

    wait_for(lambda: astra.summary()["gets_by_intent"].get(intent, 0) >= 5, "probes of the intent that exists", timeout=60)
    suspended(own, waiting)
    astra.clear_faults()
    closed(own)
    assert astra.summary()["posts"] == posts, "a probe was a POST"
    own.create(waiting).ok()
    assert_posts(astra, waiting.email, 1)

    assert causes(own, "breaker_opened") == causes(own, "breaker_closed") == ["failures"]
    assert opened(own, "failures") == 1
    assert probes(own, "good") == 1
    assert probes(own, "failed") >= 2
    assert 'userintent_upstream_reads_total{asker="probe",verdict="read"} 1' in own.http("/metrics")[1]


def test_a_gateway_that_knows_no_intent_is_content_with_404(own, astra):
    fail(own, astra, reads=False)
    astra.clear_faults()
    closed(own)
    assert [get["status"] for get in astra.gets()] == [404]
    own.create(person()).ok()


def test_less_than_twenty_failures_do_not_open_it(own, astra):
    fail(own, astra, times=EXCHANGES - 1)
    astra.clear_faults()
    own.create(person()).ok()
    assert states(own) == ["closed"] and not causes(own, "breaker_opened")
    assert not astra.gets()


@pytest.mark.parametrize("status, reason", [(400, "UPSTREAM_REJECTED"), (404, "UPSTREAM_MISCONFIGURED"),
                                            (409, "OUTCOME_UNKNOWN")])
def test_a_4xx_never_counts(own, astra, status, reason):
    astra.fault("status", times=0, status=status)
    for call in [own.begin(person()) for _ in range(3 * EXCHANGES)]:
        call.reply().failed(reason)
    assert states(own) == ["closed"]
    assert not astra.gets()


def test_connections_that_are_refused(own, astra):
    """Not sent: each call's three tries are exchanges. The rows are released, so all of it is created in the end."""
    waiting = [person() for _ in range(EXCHANGES // 2)]
    astra.listener("refuse")
    failed = failed_or_late([own.begin(request) for request in waiting], "UPSTREAM_UNREACHABLE",
                            at_least=-(-EXCHANGES // 3), sent="no")
    late = person()
    suspended(own, late)
    for request, began in zip(waiting, failed, strict=True):
        assert own.state(request.request_id) == ("NOT_SENT" if began else None)
    assert own.state(late.request_id) is None
    astra.listener("accept")
    closed(own)
    for request in [*waiting, late]:
        own.create(request).ok()
        assert_posts(astra, request.email, 1)


def test_a_silent_astra(new_gateway, astra):
    """Neither POSTs nor probes are answered: a probe has a limit of its own, and another follows it."""
    own = new_gateway(astra, upstream_timeout="1500ms", connect_timeout="1s")
    fail(own, astra, kind="hang")
    suspended(own, person())
    wait_for(lambda: probes(own, "failed") >= 2, "probes", timeout=60)
    astra.clear_faults()
    closed(own)
    own.create(person()).ok()


def test_it_drains_while_it_is_open(own, astra):
    fail(own, astra)
    suspended(own, person())
    started = time.monotonic()
    own.stop()
    assert time.monotonic() - started < 25


def test_the_switch(new_gateway, astra):
    own = new_gateway(astra, upstream_breaker="false")
    fail(own, astra, times=2 * EXCHANGES)
    own.create(person()).failed("OUTCOME_UNKNOWN")
    assert states(own) == ["closed"]
    assert not astra.gets()


# -- credentials -----------------------------------------------------------------------------------------------------------

def refuse(gateway):
    """The operator replaces the secret by a wrong one, and the first call that shows it to Astra is refused."""
    write_secret(gateway.client_secret_file, "not-the-secret")
    error = wait_for(lambda: gateway.create(person()).error, "the wrong secret to be used")
    error.expect("UPSTREAM_CREDENTIALS_REJECTED", sent="yes", http_status=401)


def test_a_call_right_after_the_repair_succeeds(own, astra):
    refuse(own)
    assert states(own) == ["credentials"]
    posts = astra.summary()["posts"]
    waiting = person()
    suspended(own, waiting)
    own.get(waiting.request_id).failed("REQUEST_NOT_FOUND")
    wait_for(lambda: probes(own, "credentials") >= 1, "a probe")
    # Wrong ones are asked about rarely: an account may be locked for it.
    assert suspended(own, waiting).retry_after > 20
    assert astra.summary()["posts"] == posts
    write_secret(own.client_secret_file, CLIENT_SECRET)
    time.sleep(0.25)  # the files are looked at five times a second
    own.create(waiting).ok()
    assert [post["status"] for post in astra.posts(waiting.email)] == [201]
    closed(own)
    own.create(person()).ok()
    assert causes(own, "breaker_opened") == causes(own, "breaker_closed") == ["credentials"]


def test_a_repair_is_noticed_when_nobody_calls(own):
    refuse(own)
    wait_for(lambda: probes(own, "credentials") >= 1, "a probe")
    write_secret(own.client_secret_file, CLIENT_SECRET)
    started = time.monotonic()
    closed(own)
    assert time.monotonic() - started < 20, "not before the half minute was over"


def test_another_wrong_secret_costs_one_call(own, astra):
    refuse(own)
    wait_for(lambda: probes(own, "credentials") >= 1, "a probe")
    posts = astra.summary()["posts"]
    write_secret(own.client_secret_file, "wrong again")
    time.sleep(0.25)
    reasons = [own.create(person()).error.reason for _ in range(20)]
    assert set(reasons) <= {"UPSTREAM_CREDENTIALS_REJECTED", "UPSTREAM_SUSPENDED"}, reasons
    assert astra.summary()["posts"] - posts == reasons.count("UPSTREAM_CREDENTIALS_REJECTED") <= 2
    assert len(causes(own, "breaker_opened")) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_one_odd_refusal_costs_a_second(own, astra, status):
    """Astra refuses one POST and takes the same credentials from the probe."""
    request = person()
    astra.answer(request.email, status, {"code": status, "name": "no"})
    own.create(request).failed("UPSTREAM_CREDENTIALS_REJECTED", http_status=status)
    assert states(own) == ["credentials"]
    suspended(own, person())
    started = time.monotonic()
    closed(own)
    assert time.monotonic() - started < 20
    own.create(request).ok()
    assert_posts(astra, request.email, 2)


def test_an_edge_that_refuses_one_request_suspends_nobody(own, astra):
    request = person()
    astra.fault("html", request.email, status=403, times=0)
    for _ in range(3):
        own.create(request).failed("UPSTREAM_CREDENTIALS_REJECTED", http_status=403)
        own.create(person()).ok()
    wait_for(lambda: probes(own, "good") >= 1, "the probe")
    assert states(own) == ["closed"] and not causes(own, "breaker_opened")


def test_an_edge_that_refuses_us_is_found_out_by_the_probe(own, astra):
    astra.fault("html", times=0, status=403)
    astra.get_fault("html", times=0, status=403)
    own.create(person()).failed("UPSTREAM_CREDENTIALS_REJECTED", http_status=403)
    wait_for(lambda: states(own) == ["credentials"], "the probe's verdict")
    suspended(own, person())


def test_wrong_credentials_that_only_reads_meet(own, astra):
    created = person()
    own.create(created).ok()
    astra.get_fault("status", times=1, status=401, body=json.dumps({"code": 401, "name": "no"}))
    own.read(created).failed("UPSTREAM_CREDENTIALS_REJECTED", http_status=401)
    suspended(own, person())
    closed(own)
