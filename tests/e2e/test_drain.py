"""The end of a process that was told to stop: the lame duck, the drain, the second order. What hangs is in
tests/crash/test_watchdog.py."""

import json
import pathlib
import signal
import time

import pytest

from support import names
from support.check import assert_posts
from support.people import again, person
from support.process import PATIENCE, wait_for
from support.protos import SERVICE
from support.webhook_door import Door, body_of, post
from test_signals import slow_calls


def happened(gateway, event):
    return any(entry["event"] == event for entry in gateway.log())


def ready(gateway):
    status, text = gateway.http("/readyz")
    return status, json.loads(text)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=names.of)
def test_a_lame_duck_admits_calls_and_says_not_serving(new_gateway, sandbox, number):
    """Health tells at once what load balancers must know; until they do, calls are served as ever."""
    own = new_gateway(lame_duck="60s", drain_timeout="120s")
    watches = [own.watch_health(name) for name in ("", SERVICE)]
    assert [next(watch) for watch in watches] == ["SERVING", "SERVING"]
    own.signal(number)
    assert [next(watch) for watch in watches] == ["NOT_SERVING", "NOT_SERVING"]
    assert own.health("") == own.health(SERVICE) == "NOT_SERVING"
    assert ready(own) == (503, {"ready": False, "reasons": ["it will drain in a moment"]})
    assert own.http("/livez")[0] == 200
    wait_for(lambda: own.metric("userintent_draining") == 1, "the gauge")
    people = [person() for _ in range(20)]
    for one in people:  # on the connection that it has, and on new ones
        own.create(one, channel=own.new_channel()).ok()
        assert own.create(one).ok().replayed
        assert_posts(sandbox, one.email, 1)
    assert not happened(own, "draining") and own.process.running()
    time.sleep(0.3)  # a repeat within a moment is the same order
    own.signal(number)  # nobody waits for a lame duck who says so
    assert own.process.wait() == 128 + number
    assert happened(own, "ended_at_once")
    own.stopped = True


def test_after_the_lame_duck_it_drains(new_gateway, sandbox):
    """DRAINING for what is new; what was admitted ends, also what was admitted as the lame duck ended."""
    own = new_gateway(lame_duck="2s", drain_timeout="60s")
    running, calls = slow_calls(own, sandbox, delay_ms=4000)
    own.signal()
    wait_for(lambda: happened(own, "lame_duck"), "the lame duck")
    late, admitted = slow_calls(own, sandbox, delay_ms=5000)
    refused = person()
    wait_for(lambda: happened(own, "draining"), "the drain")
    own.create(refused).failed("DRAINING", sent="no", recovery="RETRY_SAME_ID")
    assert ready(own) == (503, {"ready": False, "reasons": ["it drains"]})
    joined = own.begin(late[0])
    for call in calls + admitted:
        assert not call.reply().ok().replayed
    assert joined.reply().ok().replayed
    own.stop()  # asserts exit status 0
    for one in running + late:
        assert_posts(sandbox, one.email, 1)
    assert_posts(sandbox, refused.email, 0)


def test_a_lame_duck_is_a_part_of_the_drain(new_gateway, sandbox):
    """Both together last no longer than --drain_timeout, which is what a grace period is made for."""
    own = new_gateway(lame_duck="2s", drain_timeout="3s", upstream_timeout="60s")
    hanging = person()
    sandbox.fault("hang", hanging.email)
    call = own.begin(hanging, timeout=60)
    sandbox.wait_posts(hanging.email)
    began = time.monotonic()
    own.signal()
    call.reply().failed("REQUEST_IN_PROGRESS", sent="maybe")
    assert own.process.wait() == 0
    assert time.monotonic() - began < 3 + 5 + 20
    own.stopped = True


@pytest.mark.parametrize("flags, ducks", [(dict(lame_duck=None), False),
                                          (dict(lame_duck=None, listen="0.0.0.0:0", allow_plaintext=True), True)],
                         ids=["loopback", "off loopback"])
def test_by_default_there_is_a_lame_duck_off_loopback(new_gateway, flags, ducks):
    own = new_gateway(**flags)
    began = time.monotonic()
    own.stop()
    assert happened(own, "draining")
    assert happened(own, "lame_duck") == ducks
    assert not ducks or time.monotonic() - began >= 5


def test_webhooks_are_received_until_it_drains(new_gateway):
    own = new_gateway(webhook_listen="127.0.0.1:0", lame_duck="60s", drain_timeout="120s")
    own.signal()
    wait_for(lambda: happened(own, "lame_duck"), "the lame duck")
    with Door(own) as door:
        door.send(post(body_of("during-the-lame-duck", "nobodys")))
        assert door.answer()[0] == 200
    time.sleep(0.3)
    own.signal()
    assert own.process.wait(PATIENCE) == 128 + signal.SIGTERM
    own.stopped = True


def test_the_ledger_is_one_file_in_the_end(durable, ledger):
    """Checkpointed: the log is copied into the ledger, and gone."""
    own = durable()
    log = pathlib.Path(f"{ledger.path}-wal")
    people = [person() for _ in range(5)]
    for one in people:
        own.create(one).ok()
    assert log.stat().st_size > 0
    own.stop()
    assert not log.exists()
    for one in people:
        assert ledger.state(one) == "SUCCEEDED"
    own.restart()
    assert own.create(again(people[0])).ok().replayed
