"""Intents that nobody asks for: that they are followed, and that a restart goes on with them. Which distances they are read at is
in tests/unit/usecase/follow_up_test.cc, with a clock of its own."""

import re

from support.people import person
from support.process import wait_for


def metric(gateway, name):
    [value] = re.findall(rf"^{name} (\S+)$", gateway.http("/metrics")[1], re.M)
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
