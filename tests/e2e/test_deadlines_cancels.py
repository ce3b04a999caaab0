"""Callers that share a request, run out of time or leave. What may have been sent runs on and is recorded."""

import time

import grpc
import pytest

from support.check import RELEASED, SUCCEEDED, assert_posts, assert_row
from support.people import again, person
from support.process import wait_for
from support.protos import CREATE
from support.wire import Call, TcpTap, frame


def test_concurrent_calls_with_one_id_make_one_post(gateway, sandbox):
    request = person()
    sandbox.fault("delay", request.email, delay_ms=400)
    upper = again(request, request_id=request.request_id.upper())
    running = [gateway.begin(request if number % 2 else upper) for number in range(20)]
    responses = [call.reply().ok() for call in running]
    [post] = assert_posts(sandbox, request.email, 1)
    assert {response.user_intent.id for response in responses} == {post["intent_id"]}
    assert sum(not response.replayed for response in responses) == 1


def test_concurrent_calls_over_many_connections(gateway, sandbox):
    """Calls with one id over several connections make one POST."""
    request = person()
    sandbox.fault("delay", request.email, delay_ms=400)
    running = [gateway.begin(request, channel=gateway.new_channel()) for _ in range(8)]
    responses = [call.reply().ok() for call in running]
    assert_posts(sandbox, request.email, 1)
    assert sum(not response.replayed for response in responses) == 1


@pytest.mark.parametrize("status, reason", [(400, "UPSTREAM_REJECTED"), (500, "OUTCOME_UNKNOWN"),
                                            (404, "UPSTREAM_MISCONFIGURED")])
def test_joins_share_the_failure(gateway, sandbox, status, reason):
    """Calls that wait for the same POST get its error; one POST was made."""
    request = person()
    sandbox.answer(request.email, status, "", delay_ms=500)
    running = [gateway.begin(request) for _ in range(6)]
    errors = [call.reply().failed(reason) for call in running]
    assert_posts(sandbox, request.email, 1)
    assert sum("replayed" not in error.metadata for error in errors) == 1


def test_a_long_deadline_is_the_callers_own(new_gateway, sandbox):
    """gRPC's C core sends 10.41 s as 10.5 s; the answer must come before its caller gives up all the same."""
    own = new_gateway(upstream_timeout="12s")
    for _ in range(3):  # a busy machine may be late once
        request = person()
        sandbox.fault("hang", request.email)
        reply = own.create(request, timeout=10.41)
        if reply.error:
            break
    reply.failed("REQUEST_IN_PROGRESS", sent="maybe")
    assert_posts(sandbox, request.email, 1)


def test_joins_with_other_content_do_not_join(gateway, sandbox):
    """A call with a running id and other content is refused at once."""
    request = person()
    sandbox.fault("delay", request.email, delay_ms=500)
    running = gateway.begin(request)
    sandbox.wait_posts(request.email)
    gateway.create(again(request, city="Vexmoor Other")).failed("REQUEST_ID_REUSED")
    running.reply().ok()
    assert_posts(sandbox, request.email, 1)


def test_validate_only_of_a_running_request(gateway, sandbox):
    """validate_only of a running request sends nothing and shows no intent."""
    request = person()
    sandbox.fault("delay", request.email, delay_ms=500)
    running = gateway.begin(request)
    sandbox.wait_posts(request.email)
    reply = gateway.create(again(request, validate_only=True))
    if reply.response is not None:  # it waited, as the real call would have
        assert not reply.response.HasField("user_intent")
    else:
        reply.failed("REQUEST_IN_PROGRESS")
    running.reply().ok()
    assert_posts(sandbox, request.email, 1)


def test_the_sender_leaves_and_the_joined_get_the_answer(gateway, sandbox):
    """The POST goes on when its first caller leaves, and the others get its answer."""
    request = person()
    sandbox.fault("delay", request.email, delay_ms=1200)
    sender = gateway.begin(request)
    sandbox.wait_posts(request.email)
    joined = [gateway.begin(request) for _ in range(3)]
    sender.cancel()
    for call in joined:
        assert call.reply().ok().user_intent.id == sandbox.intents(request.email)[0]["id"]
    assert_posts(sandbox, request.email, 1)


def test_the_joined_leave_and_the_sender_gets_the_answer(gateway, sandbox):
    """Callers that joined and left change nothing for the first one."""
    request = person()
    sandbox.fault("delay", request.email, delay_ms=1200)
    sender = gateway.begin(request)
    sandbox.wait_posts(request.email)
    for call in [gateway.begin(request) for _ in range(3)]:
        call.cancel()
    assert not sender.reply().ok().replayed
    assert_posts(sandbox, request.email, 1)


@pytest.mark.parametrize("ledger", ["memory:", "sqlite:ledger.db"])
@pytest.mark.parametrize("status, reason", [(429, "UPSTREAM_RATE_LIMITED"), (503, "UPSTREAM_UNAVAILABLE")])
def test_the_joined_hear_as_well_when_to_come_again(new_gateway, sandbox, ledger, status, reason):
    """Astra's Retry-After is for all calls of the id, not for the one alone that sent it."""
    own = new_gateway(ledger=ledger)
    request = person()
    sandbox.answer(request.email, status, "", headers={"Retry-After": "300"}, delay_ms=1200)
    sender = own.begin(request)
    sandbox.wait_posts(request.email)
    joined = [own.begin(request) for _ in range(3)]
    for call in [sender, *joined]:
        assert call.reply().failed(reason, sent="yes", recovery="RETRY_SAME_ID").retry_after == 300
    assert_posts(sandbox, request.email, 1)


def _cancel(gateway, request):
    running = gateway.begin(request)
    return running.cancel


def _reset_stream(gateway, request):
    call = Call(gateway.address, CREATE, frame(request.SerializeToString()))
    return call.reset_stream


def _close_connection(gateway, request):
    return Call(gateway.address, CREATE, frame(request.SerializeToString())).close


def _abort_connection(gateway, request):
    return Call(gateway.address, CREATE, frame(request.SerializeToString())).abort


WAYS = [_cancel, _reset_stream, _close_connection, _abort_connection]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__.strip("_"))
def test_the_caller_leaves_after_the_send(gateway, sandbox, way):
    """The exchange runs on detached; its answer is recorded, and the repeat gets it."""
    request = person()
    sandbox.fault("delay", request.email, delay_ms=1000)
    leave = way(gateway, request)
    sandbox.wait_posts(request.email)
    leave()
    assert gateway.state(request.request_id) == "IN_PROGRESS"
    gateway.wait_state(request.request_id, "CREATED")
    assert gateway.create(request).ok().user_intent.id == sandbox.intents(request.email)[0]["id"]
    assert_posts(sandbox, request.email, 1)


def test_the_caller_leaves_after_the_send_and_asks_while_it_runs(gateway, sandbox):
    """A caller that left and repeats the id joins its own POST."""
    request = person()
    sandbox.fault("delay", request.email, delay_ms=1200)
    running = gateway.begin(request)
    sandbox.wait_posts(request.email)
    running.cancel()
    assert gateway.create(request).ok().replayed  # it joins
    assert_posts(sandbox, request.email, 1)


@pytest.mark.parametrize("kind, state, reason", [("hang", "UNKNOWN", "OUTCOME_UNKNOWN"),
                                                 ("close", "UNKNOWN", "OUTCOME_UNKNOWN")])
def test_a_detached_exchange_that_fails_is_recorded(short_gateway, sandbox, kind, state, reason):
    """The end of a POST without a caller is recorded, and a repeat hears of it."""
    request = person()
    sandbox.fault(kind, request.email, delay_ms=400)
    running = short_gateway.begin(request)
    sandbox.wait_posts(request.email)
    running.cancel()
    short_gateway.wait_state(request.request_id, state)
    short_gateway.create(request).failed(reason, replayed="true")
    assert_posts(sandbox, request.email, 1)


def test_the_callers_deadline_passes_after_the_send(gateway, sandbox):
    """A POST outlives its caller's deadline and is recorded."""
    request = person()
    sandbox.fault("delay", request.email, delay_ms=1500)
    reply = gateway.create(request, timeout=0.7)
    # REQUEST_IN_PROGRESS if it came in time, else the library's own DEADLINE_EXCEEDED, which says "maybe sent".
    if reply.error:
        reply.failed("REQUEST_IN_PROGRESS")
    else:
        assert reply.raw[0] == grpc.StatusCode.DEADLINE_EXCEEDED
    gateway.wait_state(request.request_id, "CREATED")
    assert gateway.create(request).ok().replayed
    assert_posts(sandbox, request.email, 1)


def test_a_deadline_that_is_nearly_over_and_finds_no_row_is_too_short(new_gateway, sandbox):
    """Whatever little time is left: nothing is known of this id, so nothing may be said to run."""
    durable = new_gateway(ledger="sqlite:ledger.db")
    # On a busy machine the library is quicker in every call of a round; then another round tells.
    for _ in range(40):
        others = [durable.begin(person()) for _ in range(200)]  # so that the ledger has something to write meanwhile
        requests = [person() for _ in range(80)]
        running = [durable.begin(request, timeout=0.002 + 0.001 * number) for number, request in enumerate(requests)]
        replies = [call.reply() for call in running]
        for other in others:
            other.reply().ok()
        for reply in replies:
            if reply.error:
                reply.failed("DEADLINE_TOO_SHORT", sent="no", recovery="RETRY_SAME_ID")
            else:  # the library was quicker
                assert reply.raw and reply.raw[0] == grpc.StatusCode.DEADLINE_EXCEEDED, reply
        for request in requests:
            assert_posts(sandbox, request.email, 0)
        if any(reply.error for reply in replies):
            return
    raise AssertionError("no answer came before the client's own deadline")


def test_joins_of_a_slow_request_keep_nobody_out(new_gateway, sandbox):
    """A gate of four places, one slow creation and three hundred joins of it: others are served all the while."""
    narrow = new_gateway(max_in_flight=4)
    slow = person()
    sandbox.fault("delay", slow.email, delay_ms=4000)
    sender = narrow.begin(slow)
    sandbox.wait_posts(slow.email)
    joins = [narrow.begin(slow, note=False) for _ in range(300)]
    for _ in range(10):
        narrow.create(person()).ok()
    replies = [join.reply() for join in joins]
    sent = sender.reply().ok()
    served = [reply.response for reply in replies if reply.response is not None]
    # 64 wait; the others hear at once that it runs. A replay may be among them where the machine is slow.
    assert len(served) >= 64
    assert all(response.replayed and response.user_intent == sent.user_intent for response in served)
    told = [reply for reply in replies if reply.response is None]
    assert told, "nobody was told that it runs"
    for reply in told:
        reply.failed("REQUEST_IN_PROGRESS", sent="maybe", recovery="ASK_SAME_ID")
    assert_posts(sandbox, slow.email, 1)


def test_waiters_are_bounded_per_request_and_per_caller(new_gateway, sandbox):
    few = new_gateway(max_waiters_per_request=2, max_waiters_per_caller=3)
    slow = [person(), person()]
    for request in slow:
        sandbox.fault("delay", request.email, delay_ms=3000)
    senders = [few.begin(request) for request in slow]
    for request in slow:
        sandbox.wait_posts(request.email)
    # One after the other, so that each finds the ones before it waiting.
    waiting = []
    for request in (slow[0], slow[0], slow[1]):
        waiting.append(few.begin(request))
        wait_for(lambda: few.metric("userintent_calls_in_flight") == 2 + len(waiting), "the join to arrive")
    few.create(slow[0]).failed("REQUEST_IN_PROGRESS")
    few.create(slow[1]).failed("REQUEST_IN_PROGRESS")
    for call in senders + waiting:
        call.reply().ok()
    for request in slow:
        assert few.create(request).ok().replayed
        assert_posts(sandbox, request.email, 1)


def test_request_in_progress_shortly_before_the_deadline(new_gateway, sandbox):
    """Measured with the gateway's own deadline: it answers near the end of it, and before it."""
    impatient = new_gateway(default_deadline="1s")
    request = person()
    sandbox.fault("delay", request.email, delay_ms=3000)
    started = time.monotonic()
    impatient.create(request, timeout=None).failed("REQUEST_IN_PROGRESS", sent="maybe")
    took = time.monotonic() - started
    assert took > 0.85, f"answered {took:.3f} s into a deadline of 1 s"
    joined = time.monotonic()
    impatient.create(request, timeout=None).failed("REQUEST_IN_PROGRESS", sent="maybe")
    assert time.monotonic() - joined > 0.85
    impatient.wait_state(request.request_id, "CREATED")


def test_request_in_progress_arrives_before_a_clients_deadline(gateway, sandbox):
    request = person()
    sandbox.fault("delay", request.email, delay_ms=4000)
    sender = gateway.begin(request)
    sandbox.wait_posts(request.email)
    # 50 ms are little on a busy machine: one of several tries must make it.
    replies = [gateway.create(request, timeout=0.4) for _ in range(6)]
    assert any(reply.error for reply in replies), "no answer came before the client's own deadline"
    for reply in replies:
        if reply.error:
            reply.failed("REQUEST_IN_PROGRESS")
    sender.reply().ok()
    assert_posts(sandbox, request.email, 1)


def test_an_expired_deadline_starts_nothing(gateway, sandbox):
    for timeout in ("1n", "1u", "20m"):
        request = person()
        call = Call(gateway.address, CREATE, frame(request.SerializeToString()), [("grpc-timeout", timeout)]).wait()
        call.close()
        assert call.grpc_status in (4, 1, None) or call.reset is not None
        assert_posts(sandbox, request.email, 0)
        assert gateway.state(request.request_id) in (None, "NOT_SENT")


@pytest.mark.parametrize("timeout", ["99999999H", "99999999M", "99999999S", "2562048H"])
def test_a_deadline_that_is_centuries_away(gateway, sandbox, timeout):
    """What gRPC can say and no clock of nanoseconds can hold."""
    request = person()
    call = Call(gateway.address, CREATE, frame(request.SerializeToString()), [("grpc-timeout", timeout)]).wait()
    call.close()
    assert call.grpc_status == 0
    assert_posts(sandbox, request.email, 1)


# -- before the send -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__.strip("_"))
def test_the_caller_leaves_before_the_send(new_gateway, sandbox, way):
    """A caller that leaves before any byte was sent leaves a record of NOT_SENT, and the id is free."""
    tap = TcpTap.before(sandbox, "silent")  # TCP is accepted, TLS never answered
    stuck = new_gateway(astra_base_url=tap.url, connect_timeout="20s")
    request = person()
    leave = way(stuck, request)
    wait_for(lambda: tap.accepted, "a connection")
    leave()
    stuck.wait_state(request.request_id, "NOT_SENT")
    tap.mode = "forward"
    tap.drop()
    repeat = stuck.create(request).ok()
    assert not repeat.replayed
    assert_posts(sandbox, request.email, 1)
    tap.close()


def test_the_deadline_passes_before_the_send(new_gateway, sandbox):
    """A deadline that passes before any byte was sent is told as not sent, and the id is free."""
    tap = TcpTap.before(sandbox, "silent")
    stuck = new_gateway(astra_base_url=tap.url, connect_timeout="20s", default_deadline="700ms")
    request = person()
    error = stuck.create(request, timeout=None).error
    # Nothing was sent and that is proved, so it is released; which row it is called by is not said.
    assert error is not None and error.sent == "no" and error.recovery == "RETRY_SAME_ID", error
    stuck.wait_state(request.request_id, "NOT_SENT")
    tap.mode = "forward"
    tap.drop()
    assert_row(stuck, sandbox, request, RELEASED, error.reason)
    tap.close()


# -- while waiting for another try ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__.strip("_"))
def test_leaving_during_a_retry_after_wait_gets_no_further_try(new_gateway, sandbox, status, way):
    own = new_gateway()
    request = person()
    sandbox.answer(request.email, status, "", headers={"Retry-After": "1"})
    leave = way(own, request)
    wait_for(lambda: [p for p in sandbox.wait_posts(request.email) if p.get("done")], "the end of the first POST")
    leave()
    own.wait_state(request.request_id, "NOT_SENT", timeout=5)
    # The time of the further try passes; only a fixed wait can show that nothing happens.
    time.sleep(1.3)
    assert_posts(sandbox, request.email, 1)
    assert_row(own, sandbox, request, RELEASED,
               {429: "UPSTREAM_RATE_LIMITED", 503: "UPSTREAM_UNAVAILABLE"}[status])


def test_joins_during_a_retry_after_wait(new_gateway, sandbox):
    """The caller that waits leaves; one that joined is told that nothing was created, or served; never a third POST."""
    own = new_gateway()
    request = person()
    sandbox.answer(request.email, 503, "", headers={"Retry-After": "1"})
    running = own.begin(request)
    sandbox.wait_posts(request.email)
    joined = own.begin(request)
    assert running.reply().ok().user_intent.id == joined.reply().ok().user_intent.id
    assert_posts(sandbox, request.email, 2)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__.strip("_"))
def test_a_place_is_given_back_by_who_left(new_gateway, sandbox, way):
    """A call that left gives its place of --max_in_flight back."""
    small = new_gateway(max_in_flight=1)
    request = person()
    sandbox.fault("delay", request.email, delay_ms=400)
    leave = way(small, request)
    sandbox.wait_posts(request.email)
    leave()
    small.wait_state(request.request_id, "CREATED")
    wait_for(lambda: small.create(person()).response, "a free place")


def test_a_place_is_given_back_after_request_in_progress(new_gateway, sandbox):
    """A call that ended with REQUEST_IN_PROGRESS gives its place back."""
    small = new_gateway(max_in_flight=1, default_deadline="500ms")
    request = person()
    sandbox.fault("delay", request.email, delay_ms=1000)
    small.create(request, timeout=None).failed("REQUEST_IN_PROGRESS")
    small.create(person()).failed("OVERLOADED")  # it still runs
    small.wait_state(request.request_id, "CREATED")
    wait_for(lambda: small.create(person()).response, "a free place")


@pytest.mark.parametrize("how", ["leaves", "is told that it runs"])
def test_a_place_is_given_back_by_who_joined(new_gateway, sandbox, how):
    """A join needs no place; and one that ends early leaves none taken."""
    small = new_gateway(max_in_flight=2, default_deadline="300ms")
    request = person()
    sandbox.fault("delay", request.email, delay_ms=1500)
    sender = small.begin(request, timeout=20)
    sandbox.wait_posts(request.email)
    for _ in range(3):
        if how == "leaves":
            joined = small.begin(request)
            time.sleep(0.05)
            joined.cancel()
        else:
            small.create(request, timeout=None).failed("REQUEST_IN_PROGRESS")
    sender.reply()
    small.wait_state(request.request_id, "CREATED")
    one, two = person(), person()
    sandbox.fault("delay", one.email, delay_ms=500)
    running = small.begin(one)
    sandbox.wait_posts(one.email)
    small.create(two).ok()  # both places are free
    running.reply().ok()


@pytest.mark.parametrize("status", [400, 401, 404, 500, 503])
def test_a_place_is_given_back_after_every_answer(new_gateway, sandbox, status):
    """A call gives its place back whatever Astra answered."""
    small = new_gateway(max_in_flight=1, upstream_breaker=False)
    for _ in range(3):
        request = person()
        sandbox.answer(request.email, status, "")
        assert small.create(request).error.reason != "OVERLOADED"
    small.create(person()).ok()


def test_many_cancels_leave_the_gateway_serving(gateway, sandbox):
    """After many cancelled calls the gateway serves, and counts no call in flight."""
    requests = [person() for _ in range(60)]
    running = [gateway.begin(request) for request in requests]
    for call in running[::2]:
        call.cancel()
    for call in running:
        call.reply()
    wait_for(lambda: gateway.metric("userintent_calls_in_flight") == 0, "the end of every call")
    for request in requests:
        assert len(sandbox.posts(request.email)) <= 1
        assert gateway.create(request).ok().user_intent.id == sandbox.intents(request.email)[0]["id"]
        assert_posts(sandbox, request.email, 1)
    assert_row(gateway, sandbox, requests[0], SUCCEEDED)
