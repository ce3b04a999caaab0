"""Decoding of errors, and when a call is made again: without a network and with a clock of the test's own."""

import pickle

import grpc
import pytest
from conftest import trailers

import userintent
from userintent import _core, _errors

C = grpc.StatusCode


class RpcError(grpc.RpcError):
    def __init__(self, code, trailing=(), text="told by the test"):
        self._code, self._trailing, self._text = code, trailing, text

    def code(self):
        return self._code

    def details(self):
        return self._text

    def trailing_metadata(self):
        return self._trailing


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def make_call(timeout=35.0, max_tries=5, budget=None, jitter=0.0, clock=None):
    request = userintent.CreateUserIntentRequest(request_id="id-1", email="person@example.com")
    return _core.Call(_core.CREATE, request, timeout, max_tries, budget or _core.RetryBudget(), lambda: jitter, clock or Clock())


def busy(retry_s=1.0, pushback=None):
    return RpcError(C.UNAVAILABLE, trailers(C.UNAVAILABLE, "OVERLOADED", retry_s=retry_s, pushback=pushback, sent="no",
                                            recovery="RETRY_SAME_ID"))


def final(call, error):
    call.begin_try()
    with pytest.raises(userintent.UserIntentError) as caught:
        call.failed(error)
    return caught.value


@pytest.mark.parametrize("recovery, kind", [
    ("FIX_REQUEST", userintent.InvalidRequestError), ("FIX_WITH_NEW_ID", userintent.InvalidRequestError),
    ("RETRY_SAME_ID", userintent.RetryLaterError), ("ASK_SAME_ID", userintent.OutcomeUnknownError),
    ("USE_EXISTING", userintent.ExistsError), ("WAIT_FOR_OPERATOR", userintent.OperatorError),
    ("STOP", userintent.StopError), ("SOMETHING_NEW", userintent.UserIntentError)])
def test_class_by_recovery(recovery, kind):
    error = final(make_call(), RpcError(C.INTERNAL, trailers(C.INTERNAL, "X", pushback="-1", sent="no", recovery=recovery)))
    assert type(error) is kind and error.recovery == recovery and not error.maybe_sent


def test_every_field():
    error = final(make_call(), RpcError(C.ALREADY_EXISTS, trailers(
        C.ALREADY_EXISTS, "PERSON_EXISTS", pushback="-1", sent="no", recovery="USE_EXISTING", user_intent_id="i-1",
        attempts_used_min="1", attempts_used_max="2", astra_request_id="a-1", http_status="409", replayed="true",
        unresolved_request_id="u-1")))
    assert error.attempts == userintent.Attempts(1, 2)
    assert (error.user_intent_id, error.astra_request_id, error.http_status) == ("i-1", "a-1", 409)
    assert (error.replayed, error.unresolved_request_id, error.request_id, error.tries) == (True, "u-1", "id-1", 1)
    assert error.retry_after is None and error.sent == "no" and error.code is C.ALREADY_EXISTS
    assert "id-1" in str(error) and "PERSON_EXISTS" in str(error)


@pytest.mark.parametrize("code", [C.DEADLINE_EXCEEDED, C.CANCELLED, C.UNAVAILABLE, C.INTERNAL, C.UNKNOWN, C.RESOURCE_EXHAUSTED])
def test_without_details_maybe_sent(code):
    error = final(make_call(), RpcError(code, None))
    assert error.maybe_sent and error.reason == "" and isinstance(error, userintent.OutcomeUnknownError)


@pytest.mark.parametrize("sent, maybe", [("no", False), ("yes", False), ("maybe", True)])
def test_maybe_sent_is_what_the_server_says(sent, maybe):
    error = final(make_call(), RpcError(C.INTERNAL, trailers(C.INTERNAL, "INTERNAL", pushback="-1", sent=sent, recovery="STOP")))
    assert error.maybe_sent is maybe


@pytest.mark.parametrize("trailing", [
    [("grpc-status-details-bin", b"\xff\xff\xff")],
    [("grpc-status-details-bin", b"")],
    trailers(C.INTERNAL, "RBAC", domain="proxy.example.com", sent="no", recovery="STOP"),
    trailers(C.INTERNAL, "INTERNAL", sent="no", recovery="STOP") * 2])
def test_details_that_are_none(trailing):
    error = final(make_call(), RpcError(C.INTERNAL, trailing))
    assert error.reason == "" and error.sent == "" and error.maybe_sent


def test_odd_numbers_are_absent():
    error = final(make_call(), RpcError(C.INTERNAL, trailers(C.INTERNAL, "X", attempts_used_min="1", attempts_used_max="²",
                                                             http_status="-1")))
    assert error.attempts is None and error.http_status is None


def test_repeats_after_the_delay_with_jitter():
    for jitter, wait in ((0.0, 2.0), (1.0, 2.5), (0.5, 2.25)):
        call = make_call(jitter=jitter)
        call.begin_try()
        assert call.failed(busy(2.0)) == pytest.approx(wait)


def test_pushback():
    call = make_call()
    call.begin_try()
    assert call.failed(busy(1.0, pushback="3000")) == pytest.approx(3.0)
    for never in ("-1", "", "soon", "1.5", "99999999999999999999x"):
        assert final(make_call(), busy(1.0, pushback=never)).tries == 1
    # A pushback alone is no permission.
    assert final(make_call(), RpcError(C.UNAVAILABLE, trailers(C.UNAVAILABLE, "DRAINING", pushback="10"))).tries == 1


def test_not_past_the_deadline():
    clock = Clock()
    call = make_call(timeout=5.0, clock=clock)
    assert call.begin_try() == pytest.approx(5.0)
    clock.now += 2.0
    assert call.failed(busy(2.9)) == pytest.approx(2.9)
    clock.now += 2.9
    assert call.begin_try() == pytest.approx(0.1)
    error = None
    with pytest.raises(userintent.RetryLaterError) as caught:
        call.failed(busy(0.2))
    error = caught.value
    assert error.tries == 2 and error.retry_after == pytest.approx(0.2)


def test_a_wait_that_took_too_long_tells_the_error_before_it():
    clock = Clock()
    call = make_call(timeout=5.0, clock=clock)
    call.begin_try()
    call.failed(busy(1.0))
    clock.now += 9.0
    with pytest.raises(userintent.RetryLaterError) as caught:
        call.begin_try()
    assert caught.value.reason == "OVERLOADED" and caught.value.tries == 1


def test_max_tries():
    call = make_call(max_tries=2)
    call.begin_try()
    call.failed(busy())
    assert final(call, busy()).tries == 2


def test_budget_is_shared_and_refilled_by_success():
    budget = _core.RetryBudget()
    for _ in range(10):
        call = make_call(budget=budget)
        call.begin_try()
        call.failed(busy(0.001))
    assert final(make_call(budget=budget), busy(0.001)).tries == 1
    for _ in range(9):
        make_call(budget=budget).succeeded()
    assert final(make_call(budget=budget), busy(0.001)).tries == 1
    make_call(budget=budget).succeeded()
    make_call(budget=budget).succeeded()
    call = make_call(budget=budget)
    call.begin_try()
    call.failed(busy(0.001))
    for _ in range(1000):
        budget.succeeded()
    assert sum(budget.take() for _ in range(100)) == 10


def test_a_call_that_may_not_be_repeated_costs_no_budget():
    budget = _core.RetryBudget()
    for _ in range(100):
        final(make_call(budget=budget), RpcError(C.UNAVAILABLE))
        final(make_call(budget=budget, timeout=0.5), busy(60))
    assert sum(budget.take() for _ in range(100)) == 10


def test_errors_travel_without_the_request():
    error = final(make_call(), busy(pushback="-1"))
    assert "person@example.com" not in repr(vars(error)) and "person@example.com" not in str(error)
    data = pickle.dumps(error)
    assert b"person@example.com" not in data
    copy = pickle.loads(data)
    assert type(copy) is type(error) and str(copy) == str(error) and copy.request_id == "id-1" and copy.tries == 1
    with pytest.raises(ValueError, match="holds no request"):
        _core.request_of(copy)


def test_the_callers_request_stays_as_it_is():
    request = userintent.CreateUserIntentRequest(email="person@example.com")
    made = _core.with_id(request, None)
    assert made.request_id and not request.request_id and made.email == request.email
    assert _core.with_id(request, None).request_id != made.request_id
    request.request_id = "mine"
    assert _core.with_id(request, None).request_id == "mine"
    assert _core.with_id(request, "given").request_id == "given" and request.request_id == "mine"


def test_decode_survives_an_error_without_anything():
    decoded = _errors.decode(RpcError(None, None, None))
    assert decoded.code is C.UNKNOWN and decoded.message == "" and decoded.retry_after is None


@pytest.mark.parametrize("bad", [dict(timeout=0), dict(timeout=-1), dict(timeout=float("nan")), dict(max_tries=0)])
def test_bad_settings(bad):
    with pytest.raises(ValueError):
        make_call(**bad)
