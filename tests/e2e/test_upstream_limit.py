"""The limit of exchanges with Astra, and the queue of the calls that do not fit (docs/operations.md, "The limit").

A gateway with one connection to Astra may have 100 exchanges under way at first. Answers 429 with `Retry-After: 0` bring
the limit down without an unknown outcome and without holding anybody.
"""

import time

import pytest

from support.check import assert_posts
from support.people import again, person
from support.process import wait_for
from support.sandbox import Sandbox

LIMIT, QUEUE = "userintent_upstream_limit", "userintent_upstream_queue"


def wait_limit(gateway, expected):
    wait_for(lambda: gateway.metric(LIMIT) == expected, f"a limit of {expected}")


def queued(gateway, count):
    wait_for(lambda: gateway.metric(QUEUE) == count, f"{count} call(s) in the queue")


def ends(gateway, end):
    return gateway.metrics()[f'userintent_upstream_queue_ends_total{{end="{end}"}}']


def narrow(gateway, sandbox, least=2):
    """Brings the limit down to its least. Each call is answered 429 twice."""
    for _ in range(8):
        request = person()
        sandbox.answer(request.email, 429, "", headers={"Retry-After": "0"}, times=2)
        gateway.create(request).failed("UPSTREAM_RATE_LIMITED")
    wait_limit(gateway, least)


@pytest.fixture
def narrow_gateway(new_gateway, sandbox):
    """With a limit of 2, or of what it is told."""
    def make(least=2, **flags):
        gateway = new_gateway(upstream_connections=1, upstream_min_limit=least, **flags)
        narrow(gateway, sandbox, least)
        return gateway

    return make


def fill(gateway, sandbox, count=2):
    """Calls that Astra does not answer, until its connections are dropped."""
    requests = [person() for _ in range(count)]
    for request in requests:
        sandbox.fault("hang", request.email)
    calls = [gateway.begin(request) for request in requests]
    for request in requests:
        sandbox.wait_posts(request.email)
    return calls


def empty(sandbox, calls):
    sandbox.drop_connections()
    for call in calls:
        call.reply().failed("OUTCOME_UNKNOWN")


def test_it_begins_at_the_most(new_gateway):
    wait_limit(new_gateway(), 3200)
    wait_limit(new_gateway(upstream_connections=3), 300)


def test_a_burst_after_a_start_meets_no_limit(new_gateway, sandbox):
    """1,200 calls at once, none of which waits or is refused."""
    gateway = new_gateway()
    channels = [gateway.new_channel(options=[("test.channel", number)]) for number in range(3)]
    sandbox.fault("delay", delay_ms=1000, times=0)
    try:
        calls = [gateway.begin(person(), timeout=120, channel=channels[number % 3], note=False) for number in range(1200)]
        for call in calls:
            call.reply().ok()
    finally:
        sandbox.clear_faults()
    wait_limit(gateway, 3200)
    assert gateway.metric("userintent_upstream_queue_ends_total") == 0


def test_losses_and_not_nows_halve_it_and_good_answers_raise_it(new_gateway, sandbox):
    """A lost answer halves the limit, a 429 does, a rejection and a refused stream do not."""
    gateway = new_gateway(upstream_connections=1)
    wait_limit(gateway, 100)
    rejected, refused, lost, status, busy = (person() for _ in range(5))
    sandbox.answer(rejected.email, 422, {"errors": [{"text": "no"}]})
    gateway.create(rejected).failed("UPSTREAM_REJECTED")
    sandbox.fault("rst_stream", refused.email, code="REFUSED_STREAM")
    gateway.create(refused).ok()
    time.sleep(2.5)  # two more looks at the limit
    assert gateway.metric(LIMIT) == 100
    sandbox.fault("close", lost.email)
    gateway.create(lost).failed("OUTCOME_UNKNOWN")
    wait_limit(gateway, 50)
    sandbox.fault("status", status.email, status=500)
    gateway.create(status).failed("OUTCOME_UNKNOWN")
    wait_limit(gateway, 25)
    sandbox.answer(busy.email, 429, "", headers={"Retry-After": "0"})
    gateway.create(busy).ok()
    wait_limit(gateway, 16)


def test_a_timeout_is_a_loss(new_gateway, sandbox):
    gateway = new_gateway(upstream_connections=1, upstream_timeout="500ms", connect_timeout="400ms")
    request = person()
    sandbox.fault("hang", request.email)
    gateway.create(request).failed("OUTCOME_UNKNOWN")
    wait_limit(gateway, 50)


def test_a_caller_that_leaves_is_no_loss(new_gateway, sandbox):
    gateway = new_gateway(upstream_connections=1)
    request = person()
    sandbox.fault("delay", request.email, delay_ms=500)
    call = gateway.begin(request)
    sandbox.wait_posts(request.email)
    call.cancel()
    gateway.wait_state(request.request_id, "CREATED")
    time.sleep(2.5)
    assert gateway.metric(LIMIT) == 100


def test_it_falls_to_the_least_and_grows_with_the_need(narrow_gateway, sandbox):
    """Sixty calls at once meet a limit of 2: all are answered, and the limit has grown."""
    gateway = narrow_gateway()
    sandbox.fault("delay", delay_ms=200, times=0)
    try:
        calls = [gateway.begin(person(), timeout=300) for _ in range(60)]
        for call in calls:
            call.reply().ok()
    finally:
        sandbox.clear_faults()
    wait_for(lambda: gateway.metric(LIMIT) > 16, "a higher limit")
    assert ends(gateway, "slot") > 20
    assert gateway.metric("userintent_upstream_queue_seconds_count") == ends(gateway, "slot")
    wait_for(lambda: gateway.metric("userintent_upstream_slots") == 0, "nothing under way")


def test_the_queue_is_in_order(narrow_gateway, sandbox):
    """Whoever came first is sent first."""
    gateway = narrow_gateway(least=1, shards=1)
    calls = fill(gateway, sandbox, 1)
    requests = []
    running = []
    for number in range(1, 9):
        request = person()
        sandbox.fault("delay", request.email, delay_ms=300)
        requests.append(request)
        running.append(gateway.begin(request, timeout=200))
        wait_for(lambda: gateway.metric(QUEUE) == number, "the call in the queue")
    empty(sandbox, calls)
    for call in running:
        call.reply().ok()
    numbers = [sandbox.posts(request.email)[0]["seq"] for request in requests]
    assert numbers[0] < min(numbers[3:]) and max(numbers[:5]) < numbers[7], numbers


def test_a_call_waits_for_a_tenth_of_its_deadline(narrow_gateway, sandbox):
    gateway = narrow_gateway()
    calls = fill(gateway, sandbox)
    request = person()
    began = time.monotonic()
    error = gateway.create(request, timeout=20).failed("OVERLOADED", sent="no")
    took = time.monotonic() - began
    assert 1.9 < took < 10, took
    assert error.retry_after == 1
    assert_posts(sandbox, request.email, 0)
    gateway.get(request.request_id).failed("REQUEST_NOT_FOUND")
    assert ends(gateway, "expired") == 1
    empty(sandbox, calls)
    gateway.create(request).ok()


def test_a_full_queue_refuses_at_once_and_replays_pass_it(narrow_gateway, sandbox):
    """Replays, joins, GetCreation and checks never wait behind it."""
    gateway = narrow_gateway(queue_limit=1)
    done = person()
    gateway.create(done).ok()
    limit = int(wait_for(lambda: gateway.metric(LIMIT), "the limit"))
    slow = person()
    sandbox.fault("hang", slow.email)
    running = gateway.begin(slow)
    sandbox.wait_posts(slow.email)
    wait_for(lambda: gateway.metric("userintent_upstream_slots") == 1, "one under way")
    limit = int(gateway.metric(LIMIT))
    calls = fill(gateway, sandbox, limit - 1)
    waits = person()
    waiting = gateway.begin(waits, timeout=600)
    queued(gateway, 1)
    refused = person()
    began = time.monotonic()
    gateway.create(refused, timeout=600).failed("OVERLOADED", sent="no")
    gateway.create(again(refused, validate_only=True), timeout=600).failed("OVERLOADED")
    assert gateway.create(done, timeout=600).ok().replayed
    assert gateway.state(done.request_id) == "CREATED"
    assert gateway.state(slow.request_id) == "IN_PROGRESS"
    gateway.get(waits.request_id).failed("REQUEST_NOT_FOUND")
    gateway.read(done).ok()
    join = gateway.begin(slow, timeout=600)
    assert time.monotonic() - began < 30, "something waited"
    assert not waiting.done()
    empty(sandbox, [*calls, running])
    join.reply().failed("OUTCOME_UNKNOWN")
    waiting.reply().ok()
    assert_posts(sandbox, refused.email, 0)
    assert_posts(sandbox, waits.email, 1)


def test_without_a_queue_nothing_waits(narrow_gateway, sandbox):
    gateway = narrow_gateway(queue_limit=0)
    calls = fill(gateway, sandbox)
    began = time.monotonic()
    gateway.create(person(), timeout=600).failed("OVERLOADED")
    assert time.monotonic() - began < 30
    empty(sandbox, calls)


def test_who_leaves_the_queue_has_sent_nothing(narrow_gateway, sandbox):
    gateway = narrow_gateway()
    calls = fill(gateway, sandbox)
    left, stays = person(), person()
    leaving = gateway.begin(left, timeout=600)
    queued(gateway, 1)
    staying = gateway.begin(stays, timeout=600)
    queued(gateway, 2)
    leaving.cancel()
    queued(gateway, 1)
    empty(sandbox, calls)
    staying.reply().ok()
    assert_posts(sandbox, left.email, 0)
    assert ends(gateway, "caller_left") == 1
    gateway.get(left.request_id).failed("REQUEST_NOT_FOUND")
    gateway.create(left).ok()


def test_two_of_one_id_in_the_queue_are_one_creation(narrow_gateway, sandbox):
    gateway = narrow_gateway()
    calls = fill(gateway, sandbox)
    request = person()
    running = [gateway.begin(request, timeout=600) for _ in range(5)]
    queued(gateway, 5)
    empty(sandbox, calls)
    assert sum(not call.reply().ok().replayed for call in running) == 1
    assert_posts(sandbox, request.email, 1)
    wait_for(lambda: gateway.metric("userintent_upstream_slots") == 0, "every slot given back")


def test_a_429_holds_who_waits_too(narrow_gateway, sandbox):
    """Who comes out of the queue while everybody is held back hears so, and when to come again."""
    gateway = narrow_gateway(least=1)
    busy = person()
    sandbox.answer(busy.email, 429, "", headers={"Retry-After": "60"}, delay_ms=3000)
    running = gateway.begin(busy, timeout=20)
    sandbox.wait_posts(busy.email)
    waits = person()
    waiting = gateway.begin(waits, timeout=600)
    queued(gateway, 1)
    running.reply().failed("UPSTREAM_RATE_LIMITED")
    error = waiting.reply().failed("UPSTREAM_RATE_LIMITED", sent="no")
    assert 0 < error.retry_after <= 60
    assert_posts(sandbox, waits.email, 0)


def test_a_drain_answers_who_waits(narrow_gateway, sandbox):
    gateway = narrow_gateway()
    slow = [person(), person()]
    for request in slow:
        sandbox.fault("delay", request.email, delay_ms=4000)
    running = [gateway.begin(request) for request in slow]
    for request in slow:
        sandbox.wait_posts(request.email)
    waits = person()
    waiting = gateway.begin(waits, timeout=600)
    queued(gateway, 1)
    gateway.signal()
    waiting.reply().failed("DRAINING", sent="no")
    for call in running:
        call.reply().ok()
    assert_posts(sandbox, waits.email, 0)
    gateway.stop()


def test_slow_answers_lower_it(new_gateway):
    """Astra answers in order, and the more it has to do the slower: the limit comes down before answers are lost."""
    upstream = Sandbox(delay="20ms")
    try:
        gateway = new_gateway(upstream, upstream_connections=1, upstream_timeout="3s", connect_timeout="2s")
        for _ in range(20):
            gateway.create(person()).ok()
        upstream.fault("delay", delay_ms=1500, times=0)
        running = []

        def lowered():
            running[:] = [call for call in running if not call.done()]
            running.extend(gateway.begin(person(), timeout=120) for _ in range(90 - len(running)))
            return gateway.metric(LIMIT) < 100

        wait_for(lowered, "a lower limit")
        for call in running:
            call.reply().ok()
    finally:
        upstream.stop()
