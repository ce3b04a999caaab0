"""Intents that nobody asks for: that they are followed, and that a restart goes on with them. Which distances they are read at is
in tests/unit/usecase/follow_up_test.cc, with a clock of its own."""

import re

import pytest

from support.people import person
from support.process import PATIENCE, wait_for
from support.protos import pb


def metric(gateway, name):
    [value] = re.findall(rf"^{re.escape(name)} (\S+)$", gateway.http("/metrics")[1], re.M)
    return float(value)


def followed(gateway):
    return metric(gateway, "userintent_follow_up_intents")


def test_a_created_intent_is_followed_and_a_restart_goes_on(durable, sandbox):
    gateway = durable()
    made = []
    for _ in range(3):
        request = person()
        made.append(gateway.create(request).ok().user_intent.id)
    wait_for(lambda: followed(gateway) == 3, "three intents that are followed")
    assert metric(gateway, "userintent_follow_up_watched") == 0
    assert metric(gateway, "userintent_follow_up_left_out_total") == 0
    sandbox.review(made[0], status="converted_to_user")
    assert gateway.read(made[0], by="user_intent_id").ok()  # final: a start does not take it up again
    gateway.restart()
    wait_for(lambda: followed(gateway) == 2, "the two that may still change")
    gateway.kill()
    gateway.restart()
    wait_for(lambda: followed(gateway) == 2, "the same after a crash")


def test_without_follow_up_nothing_is_followed(durable):
    gateway = durable(follow_up="0")
    for _ in range(3):
        gateway.create(person()).ok()
    gateway.restart()
    gateway.create(person()).ok()
    assert followed(gateway) == 0


def status_events(stream):
    """Of a watch: `None` for synced, and the status of each change that has one."""
    for message in stream:
        if message.WhichOneof("event") == "synced":
            yield None
        elif message.changed.user_intent.astra_status:
            yield message.changed.user_intent.astra_status


def until(events, wanted):
    return wait_for(lambda: next(events) == wanted, f"the event {wanted}")


@pytest.mark.parametrize("follow_up", ["168h", "0"])
@pytest.mark.parametrize("everything", [False, True], ids=["by-id", "all"])
def test_a_watched_intent_is_read_within_seconds_without_a_webhook(new_gateway, sandbox, follow_up, everything):
    own = new_gateway(follow_up=follow_up)
    request = person()
    intent = own.create(request).ok().user_intent.id
    ids = [] if everything else [request.request_id]
    events = status_events(own.stub.WatchUserIntents(pb.WatchUserIntentsRequest(request_ids=ids), timeout=PATIENCE + 60))
    until(events, None)
    wait_for(lambda: metric(own, "userintent_follow_up_watched") == 1, "an intent that is watched")
    for word in ("document", "approved", "converted_to_user"):
        sandbox.review(intent, status=word)
        until(events, word)
        assert own.get(request.request_id).ok().user_intent.astra_status == word
    gets = len(sandbox.gets(intent))
    assert 3 <= gets <= 20
    wait_for(lambda: followed(own) == 0, "an intent that is final, and followed no more")
    assert metric(own, 'userintent_upstream_reads_total{asker="watched",verdict="read"}') == gets


def test_a_request_that_is_watched_before_it_is_created(new_gateway, sandbox):
    own = new_gateway(follow_up="0")
    request = person()
    events = status_events(own.stub.WatchUserIntents(pb.WatchUserIntentsRequest(request_ids=[request.request_id]), timeout=PATIENCE + 60))
    until(events, None)
    intent = own.create(request).ok().user_intent.id
    until(events, "pending")
    sandbox.review(intent, status="rejected")
    until(events, "rejected")


def test_a_watch_that_ended_is_followed_no_more(new_gateway):
    own = new_gateway(follow_up="0")
    request = person()
    own.create(request).ok()
    call = own.stub.WatchUserIntents(pb.WatchUserIntentsRequest(request_ids=[request.request_id]), timeout=PATIENCE + 60)
    until(status_events(call), None)
    wait_for(lambda: followed(own) == 1, "an intent that is followed")
    call.cancel()
    # Seen when it is due next: after a minute at most.
    wait_for(lambda: followed(own) == 0, "nobody watches it", timeout=PATIENCE + 60)
