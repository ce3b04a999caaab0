"""Authorization URLs: the call of both clients, and the helper, by the cases that all libraries share."""

import asyncio
import json
import pathlib

import grpc
import pytest
from conftest import busy, fail, ok

import userintent
from userintent import _core

BACK, STATE = "https://app.example.com/done", "0123456789abcdef"
GOLDEN = pathlib.Path(__file__).resolve().parents[3] / "tests" / "conformance" / "authorization_urls.json"


def blocking(address, **key):
    with userintent.Client(address, plaintext=True) as client:
        return client.get_authorization_url(**key, redirect_uri=BACK, state=STATE)


def in_asyncio(address, **key):
    async def call():
        async with userintent.AsyncClient(address, plaintext=True) as client:
            return await client.get_authorization_url(**key, redirect_uri=BACK, state=STATE)
    return asyncio.run(call())


both = pytest.mark.parametrize("ask", [blocking, in_asyncio], ids=["sync", "asyncio"])


@both
def test_what_was_asked_is_sent(gateway, ask):
    gateway.answers = [busy(0), ok]
    assert ask(gateway.address, request_id="R").url == "https://app.example.com/"
    ask(gateway.address, user_intent_id="I")
    with pytest.raises(TypeError):
        ask(gateway.address)
    assert [request for request, _ in gateway.calls] == [
        *[_core.pb.GetAuthorizationUrlRequest(request_id="R", redirect_uri=BACK, state=STATE)] * 2,
        _core.pb.GetAuthorizationUrlRequest(user_intent_id="I", redirect_uri=BACK, state=STATE)]


@both
def test_its_errors_are_those_of_reads(gateway, ask):
    gateway.answers = [fail(grpc.StatusCode.FAILED_PRECONDITION, "USER_INTENT_NOT_ELIGIBLE", pushback="-1", recovery="STOP")]
    with pytest.raises(userintent.StopError) as caught:
        ask(gateway.address, user_intent_id="I")
    error = caught.value
    assert (error.reason, error.user_intent_id, error.sent, error.maybe_sent) == ("USER_INTENT_NOT_ELIGIBLE", "I", "", False)
    with pytest.raises(userintent.InvalidRequestError) as caught:
        userintent.Client(gateway.address, plaintext=True).get_authorization_url(request_id="R", redirect_uri="\ud83d", state=STATE)
    assert (caught.value.reason, caught.value.request_id, caught.value.tries) == ("MALFORMED_REQUEST", "R", 0)


@pytest.mark.skipif(not GOLDEN.exists(), reason="the shared cases are not here")
def test_the_shared_cases():
    cases = json.loads(GOLDEN.read_text())["cases"]
    assert len(cases) > 50
    for case in cases:
        intent = userintent.UserIntent(id=case["user_intent_id"], user_id=case["user_id"],
                                       status=userintent.UserIntentStatus.Value(f"USER_INTENT_STATUS_{case['status']}"))
        try:
            made = userintent.authorization_url(case["app_url"], case["client_id"], intent, case["redirect_uri"], case["state"])
            told = {"url": made.url, "page": userintent.AuthorizationPage.Name(made.page)[len("AUTHORIZATION_PAGE_"):]}
        except userintent.UserIntentError as error:
            assert (error.sent, error.tries, error.user_intent_id) == ("", 0, case["user_intent_id"])
            told = {"reason": error.reason}
            if error.violations:
                told["violations"] = [violation.field for violation in error.violations]
        assert told == {name: case[name] for name in ("url", "page", "reason", "violations") if name in case}, case["name"]


@pytest.mark.parametrize("uri", [
    "https://127.1/", "https://0x7f.0x1/", "https://[127.0.0.1]/", "https://2001:db8::1/", "https://a..example/",
    "https://-a.example/", "https://a.example:99999/", "https://a.example:/", "https://" + "a." * 130 + "example/", "https://a.example/\u0661"])
def test_odd_hosts_are_refused(uri):
    with pytest.raises(userintent.InvalidRequestError) as caught:
        userintent.authorization_url("https://app.example.com", "c", userintent.UserIntent(id="i"), uri, STATE)
    assert [violation.field for violation in caught.value.violations] == ["redirect_uri"] and "127.1" not in str(caught.value)


def test_http_on_this_machine():
    for uri in ("http://LOCALHOST/", "http://127.9.9.9/", "http://[::1]:8080/x", "https://[2001:db8::1]/"):
        assert userintent.authorization_url("https://app.example.com", "c", userintent.UserIntent(id="i"), uri, STATE).url
