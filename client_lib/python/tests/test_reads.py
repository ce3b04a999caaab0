"""get_user_intent of both clients: what it sends, when it is repeated, and what its errors say."""

import asyncio
import contextlib
import pickle
import time

import grpc
import pytest
from conftest import busy, fail, ok, until_the_caller_leaves

import userintent
from userintent import _core, _errors

C = grpc.StatusCode


@contextlib.contextmanager
def blocking(*arguments, **settings):
    with userintent.Client(*arguments, **settings) as client:
        yield client.get_user_intent


@contextlib.contextmanager
def in_asyncio(*arguments, **settings):
    loop = asyncio.new_event_loop()
    try:
        async def make():
            return userintent.AsyncClient(*arguments, **settings)
        client = loop.run_until_complete(make())
        yield lambda **k: loop.run_until_complete(client.get_user_intent(**k))
        loop.run_until_complete(client.close())
    finally:
        loop.close()


both = pytest.mark.parametrize("connect", [blocking, in_asyncio], ids=["sync", "asyncio"])


def failed(read, kind, **options):
    """The error of a read: whatever it is, it says nothing about sending."""
    with pytest.raises(kind) as caught:
        read(**options)
    error = caught.value
    assert type(error) is kind and (error.sent, error.maybe_sent) == ("", False)
    assert "sent" not in error.metadata and "maybe sent" not in str(error) and "not sent" not in str(error)
    return error


@both
def test_what_was_asked_is_sent_and_nothing_else(gateway, connect):
    gateway.answers = [ok]
    with connect(gateway.address, plaintext=True) as read:
        by_request = read(request_id="R")
        read(user_intent_id="I", max_age=1.5, allow_stale=True)
        read(request_id="", max_age=-2)
        read(user_intent_id="")
    assert by_request.user_intent.id == "intent-1" and not by_request.stale
    assert [str(request) for request, _ in gateway.calls] == [str(request) for request in (
        _core.pb.GetUserIntentRequest(request_id="R"),
        _core.pb.GetUserIntentRequest(user_intent_id="I", max_age={"seconds": 1, "nanos": 500000000}, allow_stale=True),
        _core.pb.GetUserIntentRequest(request_id="", max_age={"seconds": -2}),
        _core.pb.GetUserIntentRequest(user_intent_id=""))]
    assert [request.WhichOneof("key") for request, _ in gateway.calls] == ["request_id", "user_intent_id"] * 2


@both
def test_one_key_exactly(gateway, connect):
    with connect(gateway.address, plaintext=True) as read:
        for keys in ({}, {"request_id": "R", "user_intent_id": "I"}):
            with pytest.raises(TypeError):
                read(**keys)
    assert gateway.calls == []


@both
def test_repeated_after_retry_info_and_after_unavailable_of_others(gateway, connect):
    gateway.answers = [busy(0.01), fail(C.UNAVAILABLE), fail(C.UNAVAILABLE, pushback="700"), ok]
    started = time.monotonic()
    with connect(gateway.address, plaintext=True) as read:
        assert read(request_id="R").user_intent.id == "intent-1"
    assert len(gateway.calls) == 4 and time.monotonic() - started > 0.01 + 0.4 + 0.8
    assert {request.request_id for request, _ in gateway.calls} == {"R"}


@both
@pytest.mark.parametrize("answer, options, kind, why", [
    (fail(C.UNAVAILABLE, pushback="-1"), {}, userintent.RetryLaterError, "not_retryable"),
    (fail(C.UNAVAILABLE, "DRAINING", sent="no", recovery="RETRY_SAME_ID"), {}, userintent.RetryLaterError, "not_retryable"),
    (fail(C.PERMISSION_DENIED), {}, userintent.UserIntentError, "not_retryable"),
    (fail(C.UNAVAILABLE), {"max_tries": 1}, userintent.RetryLaterError, "max_tries"),
    (busy(60), {"timeout": 20}, userintent.RetryLaterError, "deadline"),
    (fail(C.INTERNAL, "INTERNAL", pushback="-1", sent="maybe", recovery="STOP"), {}, userintent.StopError, "not_retryable"),
    (fail(C.FAILED_PRECONDITION, "NOT_CREATED", pushback="-1", recovery="ASK_SAME_ID"), {}, userintent.OutcomeUnknownError,
     "not_retryable"),
], ids=["forbidden", "no RetryInfo", "of a proxy", "switched off", "does not fit", "bug", "not created"])
def test_not_repeated_and_why(gateway, connect, answer, options, kind, why):
    gateway.answers = [answer, ok]
    with connect(gateway.address, plaintext=True) as read:
        error = failed(read, kind, request_id="R", **options)
    assert (error.tries, error.not_repeated, error.request_id, len(gateway.calls)) == (1, why, "R", 1)
    assert (error.retry_after is None) == (why == "not_retryable")


@both
def test_the_budget_is_shared_with_the_other_calls(gateway, connect):
    gateway.answers = [busy(0)]
    with connect(gateway.address, plaintext=True, max_tries=50) as read:
        assert failed(read, userintent.RetryLaterError, request_id="R").tries == 11
        error = failed(read, userintent.RetryLaterError, request_id="R")
    assert (error.tries, error.not_repeated) == (1, "budget")


@both
def test_the_fields_of_an_error(gateway, connect):
    gateway.answers = [fail(C.NOT_FOUND, "USER_INTENT_NOT_FOUND", pushback="-1", recovery="STOP", http_status="404")]
    with connect(gateway.address, plaintext=True) as read:
        error = failed(read, userintent.StopError, user_intent_id="I")
    assert (error.user_intent_id, error.request_id, error.http_status, error.retry_after) == ("I", "", 404, None)
    assert str(error) == "told by the test (USER_INTENT_NOT_FOUND, NOT_FOUND, STOP; user_intent_id I, tries 1)"
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.maybe_sent, copy.not_repeated) == (str(error), False, "not_retryable")
    with pytest.raises(ValueError, match="holds no request"):
        _core.request_of(error)


@both
def test_what_ends_here(gateway, connect):
    gateway.answers = [until_the_caller_leaves(gateway)]
    with connect(gateway.address, plaintext=True) as read:
        over = failed(read, userintent.RetryLaterError, request_id="R", timeout=1e-12)
        assert (over.code, over.tries, over.recovery) == (C.DEADLINE_EXCEEDED, 0, "RETRY_SAME_ID")
        under_way = failed(read, userintent.RetryLaterError, request_id="R", timeout=0.2)
        assert (under_way.code, under_way.tries, under_way.not_repeated) == (C.DEADLINE_EXCEEDED, 1, "not_retryable")
        for keys in ({"user_intent_id": "x" * 70000}, {"request_id": "half \ud83d"}, {"user_intent_id": "half \ud83d"}):
            error = failed(read, userintent.InvalidRequestError, **keys)
            assert (error.reason, error.tries, error.not_repeated) == ("MALFORMED_REQUEST", 0, "not_retryable")
    assert len(gateway.calls) == 1


def test_the_default_deadline(gateway):
    left = []
    gateway.answers = [lambda request, context: left.append(context.time_remaining()) or ok()]
    with userintent.Client(gateway.address, plaintext=True) as client:
        client.get_user_intent(request_id="R")
    assert 30 < left[0] <= 35.1


@pytest.mark.parametrize("tries, pause", [(0, 0.2), (1, 0.2), (2, 0.4), (4, 1.6), (6, 5.0), (1000, 5.0)])
def test_pauses_of_reads(tries, pause):
    assert _errors.pause_after(tries) == pytest.approx(pause)


@pytest.mark.parametrize("answer, settings, why", [
    (fail(C.UNAVAILABLE), {}, "not_retryable"), (busy(0), {"max_tries": 2}, "max_tries"),
    (busy(0), {"max_tries": 50}, "budget"), (busy(3600), {}, "deadline")], ids=lambda value: value if isinstance(value, str) else "")
def test_a_creation_says_why_it_was_not_repeated(gateway, answer, settings, why):
    gateway.answers = [answer]
    with userintent.Client(gateway.address, plaintext=True, **settings) as client:
        with pytest.raises(userintent.UserIntentError) as caught:
            client.create(userintent.CreateUserIntentRequest())
    assert caught.value.not_repeated == why
