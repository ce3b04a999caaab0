"""Every unknown outcome of the retry table becomes known by itself: Astra created the intent, and its webhook says so.

The rows are those of test_retry_table.py that end UNKNOWN. Late answers are switched off here, so a webhook is the only
proof; test_late_answers.py has the other one. The times are printed at the end of each transport.
"""

import statistics
import time

import pytest

from support import names
from support.check import SUCCEEDED, UNKNOWN, assert_posts, assert_row
from support.gateway import Gateway
from support.ledger_tool import Ledger
from support.people import person
from support.process import wait_for
from support.protos import pb
from test_retry_table import ROWS

LIMIT = 2.0     # seconds, on a machine that is not too busy; printed, not asserted
LOST = [row for row in ROWS if row[2] == "OUTCOME_UNKNOWN"]
# Astra created the intent whatever it answered; a redirect or an early answer leads nowhere.
FAULTS = {(kind, names.of(parameters)): (kind, {**parameters, "commit": True}) for _, (kind, parameters), *_ in LOST}
FAULTS["delay", "beyond the timeout"] = ("delay", {"delay_ms": 30000})


def _name(fault):
    kind, parameters = fault
    return names.of({kind: {name: value for name, value in parameters.items() if name != "commit" and value != {}}})


@pytest.fixture(scope="module")
def settling(transport):
    """A gateway that hears Astra's webhooks, the sandbox that sends them, and how long each row stayed unknown."""
    gateway = Gateway(transport.upstream, upstream_timeout="1500ms", connect_timeout="1s", late_answer_window="0", shards=1,
                      webhook_listen="127.0.0.1:0", ledger="sqlite:settles.db", upstream_breaker=False, **transport.flags)
    transport.upstream.webhooks(f"http://{gateway.webhook_address}/astra/webhooks")
    times = []
    yield gateway, transport.upstream, times
    transport.upstream.webhooks("")
    gateway.close()
    if times:
        print(f"\n{transport.name}: {len(times)} unknown outcomes settled by webhooks, median "
              f"{statistics.median(times) * 1000:.0f} ms after the caller heard, longest {max(times) * 1000:.0f} ms, "
              f"{sum(one > LIMIT for one in times)} took more than {LIMIT:g} s")


def state(gateway, request):
    return pb.CreationState.Name(gateway.get(request.request_id).ok().state).removeprefix("CREATION_STATE_")


@pytest.mark.parametrize("fault", FAULTS.values(), ids=_name)
def test_created(settling, fault):
    """Created at Astra, and lost on the way back: CREATED soon, with Astra's intent, and nothing is sent again."""
    gateway, sandbox, times = settling
    kind, parameters = fault
    request = person()
    sandbox.fault(kind, request.email, **parameters)
    gateway.create(request).failed("OUTCOME_UNKNOWN")
    heard = time.monotonic()
    wait_for(lambda: state(gateway, request) == "CREATED", "the webhook to settle it")
    times.append(time.monotonic() - heard)

    [post] = assert_posts(sandbox, request.email, 1)
    creation = gateway.get(request.request_id).ok()
    assert creation.user_intent.id == post["intent_id"]
    assert creation.attempts.used_min == creation.attempts.used_max == 1
    repeat = gateway.create(request).ok()
    assert repeat.replayed and repeat.user_intent.id == post["intent_id"]
    assert_row(gateway, sandbox, request, SUCCEEDED)
    assert_posts(sandbox, request.email, 1)
    [deed] = Ledger(gateway.directory / "settles.db").json("show", request.request_id)["audit"]
    assert deed["actor"] == "astra" and deed["action"] == "settle by webhook"
    assert deed["evidence"] in {f"webhook {one['webhook_id']}" for one in sandbox.wait_webhooks(post["intent_id"])}


def test_not_created(settling):
    """Nothing was created, so nothing comes, and the outcome stays unknown."""
    gateway, sandbox, _ = settling
    asked = []
    for kind, parameters in FAULTS.values():
        if kind == "delay":
            continue
        request = person()
        sandbox.fault(kind, request.email, **{**parameters, "commit": False})
        gateway.create(request).failed("OUTCOME_UNKNOWN")
        asked.append(request)
    time.sleep(LIMIT)
    for request in asked:
        assert state(gateway, request) == "UNKNOWN"
        assert_row(gateway, sandbox, request, UNKNOWN, "OUTCOME_UNKNOWN")
        assert_posts(sandbox, request.email, 1)
