"""WatchUserIntents: what is told and in which order, how a stream goes on elsewhere, and what ends one."""

import contextlib
import os
import random
import signal
import time
import uuid

import grpc
import pytest

from support.people import person
from support.process import PATIENCE, wait_for, write_secret
from support.watch import Watch


@pytest.fixture
def watch():
    """Makes streams that are closed in the end."""
    made = []

    def make(gateway, *arguments, **more):
        made.append(Watch(gateway, *arguments, **more))
        return made[-1]

    yield make
    for one in made:
        with contextlib.suppress(AssertionError):
            one.close()


@pytest.fixture
def own(new_gateway):
    """For who follows all: intents that others created on a shared one may change at any time."""
    return new_gateway()


def created(gateway, **changes):
    request = person(**changes)
    gateway.create(request).ok()
    return request


def pending(request):
    return (request.request_id, "CREATED", "pending")


def test_present_states_first_then_changes(gateway, watch, sandbox):
    """Named requests: their states as GetCreation tells them, synced, then a status that Astra changed."""
    one, two = created(gateway), created(gateway)
    seen = watch(gateway, [two, one, uuid.uuid4(), one]).wait("synced")
    assert seen.events == [pending(two), pending(one), "synced"]
    assert seen.messages[0].changed == gateway.get(two.request_id).ok()
    sandbox.review(seen.messages[1].changed.user_intent.id, status="approved")
    gateway.read(one).ok()
    seen.wait((one.request_id, "CREATED", "approved"))
    assert seen.messages[-1].changed == gateway.get(one.request_id).ok()
    assert all(0 < len(message.resume_token) <= 256 for message in seen.messages)


def test_ends_of_creations(own, watch, sandbox):
    """Who follows all begins with nothing, and hears of each creation that ended, whatever became of it."""
    seen = watch(own).wait("synced")
    assert seen.events == ["synced"]
    good, rejected = created(own), person()
    sandbox.answer(rejected.email, 422, {"error": "no"})
    own.create(rejected).failed("UPSTREAM_REJECTED")
    seen.wait((rejected.request_id, "REJECTED", ""))
    assert seen.events == ["synced", pending(good), (rejected.request_id, "REJECTED", "")]
    assert seen.messages[-1].changed == own.get(rejected.request_id).ok()


def test_an_operator_settles_an_outcome(durable, watch, sandbox, ledger):
    """An unknown outcome that is resolved by hand is told."""
    own = durable(upstream_timeout="1s", connect_timeout="1s")
    request = person()
    sandbox.fault("hang", request.email)
    own.create(request).failed("OUTCOME_UNKNOWN")
    seen = watch(own, [request]).wait("synced")
    assert seen.events == [(request.request_id, "UNKNOWN", ""), "synced"]
    ledger.resolve(request, "--not_created", "--yes").done()
    seen.wait((request.request_id, "REJECTED", ""))


def test_a_stream_goes_on_after_kill(durable, watch):
    """A process that is killed, and another one on the same ledger: nothing is missed, nothing is told twice."""
    own = durable()
    first = created(own)
    seen = watch(own).wait("synced")
    second = created(own)
    seen.wait(pending(second))
    token = seen.token
    third = created(own)
    own.kill()
    seen.wait_end()
    own.restart()
    resumed = watch(own, token=token).wait("synced")
    assert resumed.events == [pending(third), "synced"]
    fourth = created(own)
    resumed.wait(pending(fourth))
    # From a token of the first process, and for one request only.
    assert watch(own, [third], token).wait("synced").events == [pending(third), "synced"]
    assert watch(own, [first], token).wait("synced").events == ["synced"]


def test_every_token_of_a_stream_is_good(own, watch):
    """Wherever a stream is lost, the rest is told."""
    start = watch(own).wait("synced").token
    requests = [created(own) for _ in range(5)]
    whole = watch(own, token=start).wait("synced")
    assert whole.events == [pending(request) for request in requests] + ["synced"]
    for told, message in enumerate(whole.messages, 1):
        rest = watch(own, token=message.resume_token).wait("synced")
        assert rest.events == whole.events[told:5] + ["synced"]


def test_a_token_from_before_synced_begins_anew(gateway, watch):
    requests = [created(gateway) for _ in range(3)]
    token = watch(gateway, requests).wait("synced").messages[0].resume_token
    assert watch(gateway, requests, token).wait("synced").events == [*map(pending, requests), "synced"]


def test_a_token_that_is_too_old(durable, watch):
    """What is not kept any more: reset, and the states again."""
    own = durable(watch_history=3)
    first = created(own)
    token = watch(own, [first]).wait("synced").token
    requests = [created(own) for _ in range(8)]

    def pruned():
        events = watch(own, [first, requests[-1]], token).wait("synced").events
        return events[0] == "reset" and events

    assert wait_for(pruned, "the history to be pruned") == ["reset", pending(first), pending(requests[-1]), "synced"]
    assert watch(own, token=token).wait("synced").events == ["reset", "synced"]
    assert own.metrics()['userintent_watch_events_total{event="reset"}'] >= 2


def test_a_token_of_another_ledger(gateway, new_gateway, watch):
    """A token is good for its ledger only; garbage never is."""
    token = watch(gateway).wait("synced").token
    other = new_gateway()
    for bad in (token, b"x", b"\0" * 256, b"y" * 257):
        error = watch(other, token=bad).failed("FIELD_INVALID", recovery="FIX_REQUEST", sent=None)
        assert list(error.violations) == ["resume_token"]


def test_another_ledger_key(durable, watch, tmp_path):
    """Tokens outlive the key that they were made with."""
    own = durable()
    token = watch(own).wait("synced").token
    request = created(own)
    old = own.flags["ledger_key_file"]
    new = tmp_path / "new-key"
    write_secret(new, b"n" * 32)
    own.restart(ledger_key_file=new, ledger_previous_key_file=old)
    assert watch(own, token=token).wait("synced").events == [pending(request), "synced"]


@pytest.fixture
def secured(new_gateway, authority):
    key, certificate = authority.issue("watch-server", ["DNS:localhost"])
    return new_gateway(tls_cert_file=certificate, tls_key_file=key, tls_client_ca_file=authority.ca_file,
                       watch_streams_per_caller=2, watch_streams=3)


def channel_of(gateway, authority, caller):
    key, certificate = authority.issue(caller, [f"URI:spiffe://example.test/{caller}"])
    return gateway.new_channel(grpc.ssl_channel_credentials(authority.ca_file.read_bytes(), key.read_bytes(),
                                                            certificate.read_bytes()))


def test_callers_are_apart(secured, authority, watch):
    """Nobody hears of another caller's requests, nor goes on with another caller's token."""
    mine, theirs = (channel_of(secured, authority, caller) for caller in ("watch-mine", "watch-theirs"))
    request = person()
    all_of_theirs = watch(secured, channel=theirs).wait("synced")
    secured.create(request, channel=mine).ok()
    named = watch(secured, [request], channel=theirs).wait("synced")
    seen = watch(secured, [request], channel=mine).wait("synced")
    assert seen.events == [pending(request), "synced"]
    assert named.events == ["synced"] and all_of_theirs.events == ["synced"]
    named.close()
    wait_for(lambda: secured.metric("userintent_watch_streams") == 2, "the stream to be forgotten")
    watch(secured, token=seen.token, channel=theirs).failed("FIELD_INVALID")


def test_streams_are_limited(secured, authority, watch):
    """So many a caller, so many in all; a place that is left is free."""
    one, two = (channel_of(secured, authority, caller) for caller in ("watch-one", "watch-two"))
    first = watch(secured, channel=one).wait("synced")
    watch(secured, channel=one).wait("synced")
    watch(secured, channel=one).failed("CALLER_RATE_LIMITED", recovery="RETRY_SAME_ID", sent=None)
    watch(secured, channel=two).wait("synced")
    watch(secured, channel=two).failed("CALLER_RATE_LIMITED")
    first.close()
    wait_for(lambda: secured.metric("userintent_watch_streams") == 2, "the stream to be forgotten")
    watch(secured, channel=two).wait("synced")
    assert secured.metrics()['userintent_watch_ends_total{cause="refused"}'] == 2


def test_drain(durable, watch):
    """A server that stops ends its streams with an error that says when to come again; the last token is good."""
    own = durable()
    idle, named = watch(own).wait("synced"), watch(own, [created(own)]).wait("synced")
    own.signal(signal.SIGTERM)
    for one in (idle, named):
        error = one.failed("DRAINING", recovery="RETRY_SAME_ID", sent=None)
        assert error.retry_after is not None
    assert own.process.wait(PATIENCE + 20) == 0
    own.stopped = True
    own.restart()
    request = created(own)
    assert watch(own, token=named.token).wait("synced").events == [pending(request), "synced"]


def test_open_streams_do_not_hold_up_a_stop(new_gateway, watch):
    """Nor do streams whose caller does not read."""
    own = new_gateway()
    for _ in range(20):
        watch(own, read=False)
    wait_for(lambda: own.metric("userintent_watch_streams") == 20, "the streams")
    begun = time.monotonic()
    own.signal(signal.SIGTERM)
    assert own.process.wait(PATIENCE + 20) == 0
    assert time.monotonic() - begun < PATIENCE
    own.stopped = True


def test_bad_requests(gateway, watch):
    """Ids that are none, too many of them, and bytes that are no message."""
    error = watch(gateway, ["no", str(uuid.uuid4()), ""]).failed("FIELD_INVALID", sent=None)
    assert [violation.field for violation in error.details["BadRequest"].field_violations] == ["request_ids"] * 2
    error = watch(gateway, [str(uuid.uuid4())] * 1001).failed("FIELD_INVALID")
    assert list(error.violations) == ["request_ids"]


def test_many_requests(gateway, watch):
    """A thousand ids, of which few are recorded."""
    requests = [created(gateway) for _ in range(20)]
    ids = [str(uuid.uuid4()) for _ in range(980)]
    seen = watch(gateway, [*ids[:500], *requests, *ids[500:]]).wait("synced")
    assert seen.events == [*map(pending, requests), "synced"]


def test_a_deadline_ends_a_stream(gateway, watch):
    seen = watch(gateway, timeout=1).wait("synced").wait_end()
    assert seen.error.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_reader_that_comes_late_gets_all(durable, watch, sandbox):
    """While messages are not read, steps are folded; in the end the last state of everything has been told."""
    own = durable()
    requests = [created(own) for _ in range(30)]
    seen = watch(own, requests, read=False)
    for request in requests:
        sandbox.review(own.get(request.request_id).ok().user_intent.id, status="approved")
        own.read(request).ok()
    seen.read_on()
    for request in requests:
        seen.wait((request.request_id, "CREATED", "approved"))
    last = {}
    for event in seen.events:
        if event != "synced":
            last[event[0]] = event[2]
    assert last == {request.request_id: "approved" for request in requests}


def test_a_stream_lasts_no_longer_than_a_connection(new_gateway, watch):
    """It ends with a reason, before gRPC cuts it, and goes on on a new connection."""
    own = new_gateway(max_connection_age="10s")
    seen = watch(own).wait("synced")
    request = created(own)
    error = seen.wait(pending(request)).failed("DRAINING", recovery="RETRY_SAME_ID", sent=None)
    assert error.retry_after is not None
    assert watch(own, token=seen.token).wait("synced").events == ["synced"]


def test_heartbeats(own, watch):
    """A quiet stream shows that it lives, and its token moves on."""
    seen = watch(own, [uuid.uuid4()]).wait("synced")
    request = created(own)
    wait_for(lambda: len(seen.messages) > 1, "a heartbeat", PATIENCE + 20)
    assert seen.messages[1].WhichOneof("event") == "heartbeat"
    assert watch(own, token=seen.messages[1].resume_token).wait("synced").events == ["synced"]
    assert watch(own, token=seen.messages[0].resume_token).wait("synced").events == [pending(request), "synced"]


def test_states_and_events_are_the_ledger(durable, watch, sandbox):
    """Creations and reviews, while streams are lost at any moment and the process is killed and started again: what a
    watcher was told last about each request is what the ledger says in the end."""
    seed = int(os.environ.get("E2E_SEED", time.time_ns() % 1_000_000_007))
    print(f"\nlost streams: E2E_SEED={seed}")
    rng = random.Random(seed)
    own = durable(watch_history=rng.choice([5, 1_000_000]))
    requests = [person() for _ in range(60)]
    known, token = {}, b""

    def learn(messages):
        for message in messages:
            if message.WhichOneof("event") == "changed":
                known[message.changed.request_id] = message.changed

    seen = watch(own, requests)
    for number, request in enumerate(requests, 1):
        if rng.random() < 0.2:
            sandbox.answer(request.email, 422, {"error": "no"})
            own.create(request).failed("UPSTREAM_REJECTED")
        else:
            own.create(request).ok()
        intent = own.get(rng.choice(requests[:number]).request_id).ok().user_intent
        if intent.id and rng.random() < 0.5:
            sandbox.review(intent.id, status=rng.choice(["approved", "retry", "document"]))
            own.read(intent.id, by="user_intent_id").ok()
        if seen is None:
            if rng.random() < 0.5:
                seen = watch(own, requests, token)
        elif rng.random() < 0.3:
            if rng.random() < 0.3:
                own.kill()
                seen.wait_end()
                own.restart()
            token = seen.close() or token
            learn(seen.messages)
            seen = None
    seen = seen or watch(own, requests, token)

    def all_known():
        learn(list(seen.messages))
        now = [own.get(request.request_id).ok() for request in requests]
        return all(one.request_id in known and known[one.request_id].state == one.state
                   and known[one.request_id].user_intent == one.user_intent for one in now)

    wait_for(all_known, "the states that the ledger has")


def test_what_is_watched_is_read(new_gateway, watch, sandbox):
    """A status that changes at Astra is told without anybody asking for it."""
    own = new_gateway(sandbox, follow_up="0")
    request = created(own)
    seen = watch(own, [request]).wait("synced")
    sandbox.review(seen.messages[0].changed.user_intent.id, status="approved")
    seen.wait((request.request_id, "CREATED", "approved"))


def test_metrics(new_gateway, watch):
    own = new_gateway()
    request = created(own)
    seen = watch(own, [request]).wait("synced")
    assert own.metric("userintent_watch_streams") == 1
    seen.close()
    wait_for(lambda: own.metric("userintent_watch_streams") == 0, "the stream to be forgotten")
    assert own.metrics()['userintent_watch_events_total{event="changed"}'] == 1
    assert own.metrics()['userintent_watch_events_total{event="synced"}'] == 1
    assert own.metrics()['userintent_watch_ends_total{cause="caller_left"}'] == 1
    assert own.metric("userintent_calls_in_flight") == 0
