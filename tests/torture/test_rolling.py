"""Three replicas are restarted one after the other under load, as an upgrade does it: nobody notices.

ROLLING_RUNNERS: the libraries of the conformance suite that call, too, such as "python go java cpp"; their runners are
built by the client suites."""

import collections
import itertools
import json
import os
import sys
import time

import pytest

from support.people import PERSON
from support.process import REPO
from torture.balancer import Balancer
from torture.callers import Callers
from torture.judge import SUCCEEDED, Story, judge
from torture.stage import Stage

sys.path.insert(0, str(REPO / "tests" / "conformance"))
import run as conformance  # noqa: E402 - the programs of another suite

RUNNERS = os.environ.get("ROLLING_RUNNERS", "").split()
ROUNDS = 2
DELAY_MS = 20  # of Astra


@pytest.fixture
def stage(programs):
    made = Stage("sync")
    made.sandbox.fault("delay", times=0, delay_ms=DELAY_MS)
    yield made
    made.close()


def restart(stage, number):
    """As its operator does: SIGTERM, it drains and ends with 0, the next one starts at the same address."""
    stage.servers[number].stop()
    stage.start(number)


def test_callers_that_repeat(stage):
    """Callers who know all three addresses and repeat with the same id: every call ends well."""
    callers = Callers(stage.addresses, seed=1, peaceful=True)
    callers.start()
    for number in [*range(3)] * ROUNDS:
        before = callers.calls
        while callers.calls < before + 100:  # so that it restarts under load, however slow the machine is
            callers.assert_alive()
            time.sleep(0.05)
        restart(stage, number)
    callers.stop()
    callers.again()
    rows, counters = stage.rows()
    account = stage.sandbox.accounting()
    found = judge(Story(callers.asks, callers.tags, account["posts"], account["intents"], rows, counters, callers.other))
    assert not found, found[:20]
    print(f"\n{callers.calls} calls, {len(callers.asks)} people: {dict(callers.met.most_common())}")
    assert {heard.state for ask in callers.asks.values() for heard in ask.heard} == {SUCCEEDED}, "not all were created"
    assert all(ask.heard for ask in callers.asks.values())
    assert set(callers.met) <= {"ok", "REQUEST_NOT_FOUND", "DRAINING", "bare UNAVAILABLE", "bare CANCELLED", "REQUEST_IN_PROGRESS"}, \
        callers.met


def plan(name, stage, address):
    """For a runner of the conformance suite: a storm of calls, all of which end well."""
    storm = {"do": "storm", "client": "balanced", "calls": 400, "concurrency": 6, "min_ok": 400,
             "email_prefix": f"zorblatt.rolling.{name}.{time.time_ns()}.", "email_suffix": "@quillfeather.example.com",
             "request": {field: value for field, value in PERSON.items()}}
    path = stage.directory / f"plan-{name}-{time.time_ns()}.json"
    path.write_text(json.dumps({
        "name": name, "sandbox": stage.sandbox.admin.geturl(), "control": stage.sandbox.admin.geturl(),
        "clients": {"balanced": {"address": address}}, "never_in_text": [],
        "scenarios": [{"name": "rolling restart", "steps": [storm]}]}))
    return path


@pytest.mark.skipif(not RUNNERS, reason="ROLLING_RUNNERS names no library")
def test_every_library(stage):
    """Each library through a load balancer of connections, with its own way of repeating."""
    balancer = Balancer(stage.addresses)
    commands = conformance.find_runners(RUNNERS)
    running = {}
    ended = collections.Counter()
    try:
        for number in itertools.count():
            for name, command in commands.items():
                if name in running and running[name].process.poll() is not None:
                    passed, failed, _, text = running.pop(name).finish(1)
                    assert (passed, failed) == (1, 0), f"{name}: {text[-2000:]}"
                    ended[name] += 1
                if name not in running and (number < 3 * ROUNDS or not ended[name]):
                    running[name] = conformance.Runner(command, plan(name, stage, balancer.address))
            if number >= 3 * ROUNDS and not running:
                break
            restart(stage, number % 3)
            time.sleep(0.3)
    finally:
        for runner in running.values():
            runner.process.kill()
        balancer.close()
    print(f"\n{number} restarts; storms: {dict(ended)}")
    summary = stage.sandbox.summary()
    assert summary["posts"] == summary["intents"] == 400 * sum(ended.values())
    assert {state for (state,) in stage.sql("SELECT DISTINCT state FROM userintent.request")} == {str(SUCCEEDED)}
