"""The stand-ins of the clients behave as the clients do, as far as a caller's test can see."""

import asyncio
import concurrent.futures
import inspect
import itertools
import threading

import grpc
import pytest

import userintent
from userintent import _interface, testing

C = grpc.StatusCode
REQUEST = userintent.CreateUserIntentRequest(email="person@example.com")


def test_one_intent_for_each_request_id():
    client = testing.FakeClient()
    made = client.create(REQUEST)
    assert (made.user_intent_id, made.replayed, made.tries, REQUEST.request_id) == ("intent-1", False, 1, "")
    again = client.create(REQUEST, request_id=made.request_id.upper())
    assert (again.user_intent_id, again.replayed) == ("intent-1", True)
    assert client.create(REQUEST).user_intent_id == "intent-2"
    assert [request.email for request in client.requests] == ["person@example.com"] * 3
    assert client.get_creation(made.request_id).user_intent.id == "intent-1"
    client.set_user_intent(userintent.UserIntent(id="intent-1", user_id="user-1"))
    for key in ({"request_id": made.request_id}, {"user_intent_id": "intent-1"}):
        assert client.get_user_intent(**key).user_intent.user_id == "user-1"
    with pytest.raises(KeyError):
        client.set_user_intent(userintent.UserIntent(id="intent-9"))


def test_validate_only_creates_nothing():
    client = testing.FakeClient()
    assert client.create(userintent.CreateUserIntentRequest(validate_only=True), request_id="R").user_intent is None
    with pytest.raises(userintent.StopError, match="REQUEST_NOT_FOUND"):
        client.get_creation("R")


def test_failures_come_in_order_and_a_creation_is_repeated():
    client = testing.FakeClient()
    client.fail(testing.error(C.UNAVAILABLE), testing.error(C.UNAVAILABLE),
                testing.error(C.ALREADY_EXISTS, "PERSON_EXISTS", recovery="USE_EXISTING", sent="no", user_intent_id="i"))
    with pytest.raises(userintent.OutcomeUnknownError) as lost:
        client.create(REQUEST, request_id="R")
    assert lost.value.maybe_sent and (lost.value.request_id, lost.value.tries) == ("R", 1)
    with pytest.raises(userintent.RetryLaterError) as read:
        client.get_user_intent(user_intent_id="I")
    assert not read.value.maybe_sent and (read.value.user_intent_id, read.value.request_id) == ("I", "")
    with pytest.raises(userintent.ExistsError) as exists:
        client.repeat(lost.value)
    assert (exists.value.user_intent_id, exists.value.request_id) == ("i", "R")
    assert client.repeat(exists.value).user_intent_id == "intent-1"
    assert [request.email for request in client.requests] == ["person@example.com"] * 3
    with pytest.raises(ValueError, match="holds no request"):
        client.repeat(read.value)


def test_nothing_of_that_id():
    client = testing.FakeClient()
    with pytest.raises(userintent.StopError, match="REQUEST_NOT_FOUND"):
        client.get_user_intent(request_id="R")
    with pytest.raises(userintent.StopError, match="USER_INTENT_NOT_FOUND"):
        client.get_user_intent(user_intent_id="I")
    with pytest.raises(TypeError):
        client.get_user_intent()


def test_asyncio():
    client = testing.FakeAsyncClient()
    client.fake.fail(testing.error(C.UNAVAILABLE))

    async def work():
        try:
            await client.create(REQUEST, request_id="R")
        except userintent.OutcomeUnknownError as error:
            made = await client.repeat(error)
        assert (await client.get_creation("R")).user_intent.id == made.user_intent_id == "intent-1"
        assert (await client.get_user_intent(request_id="R", max_age=5)).user_intent.id == "intent-1"
        await client.close()

    asyncio.run(work())


def test_threads():
    client = testing.FakeClient()
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda _: client.create(REQUEST, request_id="one"), range(100)))
    assert {result.user_intent_id for result in results} == {"intent-1"}
    assert sum(not result.replayed for result in results) == 1


@pytest.mark.parametrize("interface, kinds", [
    (_interface.ClientInterface, (userintent.Client, testing.FakeClient)),
    (_interface.AsyncClientInterface, (userintent.AsyncClient, testing.FakeAsyncClient))], ids=["sync", "asyncio"])
def test_clients_and_stand_ins_have_the_methods_of_the_interface(interface, kinds):
    methods = [name for name in vars(interface) if not name.startswith("_")]
    assert len(methods) == 8
    for kind in kinds:
        for name in methods:
            assert inspect.signature(getattr(kind, name)) == inspect.signature(getattr(interface, name))


def creation(request_id, state, intent=None, status=0):
    made = userintent.Creation(request_id=request_id, state=userintent.CreationState.Value(f"CREATION_STATE_{state}"))
    if intent:
        made.user_intent.id, made.user_intent.status = intent, status
    return made


PENDING, APPROVED, REJECTED = (userintent.UserIntentStatus.Value(f"USER_INTENT_STATUS_{name}")
                               for name in ("PENDING", "APPROVED", "REJECTED"))


def words(events):
    return [event.kind if event.creation is None else
            f"{event.creation.request_id} {userintent.CreationState.Name(event.creation.state)[15:]}" for event in events]


def test_watch_tells_the_states_and_then_changes():
    fake = testing.FakeClient()
    fake.create(userintent.CreateUserIntentRequest(), request_id="a")
    fake.create(userintent.CreateUserIntentRequest(), request_id="other")
    fake.set_creation(creation("B", "UNKNOWN"))
    with fake.watch(["A", "b", "later"]) as watch:
        assert words(itertools.islice(watch, 3)) == ["a CREATED", "B UNKNOWN", "synced"]
        threading.Timer(0.05, fake.set_creation, [creation("b", "CREATED", "i")]).start()
        assert words([next(watch)]) == ["b CREATED"]
        fake.create(userintent.CreateUserIntentRequest(), request_id="later")
        threading.Timer(0.05, watch.close).start()
        assert words(watch) == ["later CREATED"]
    with fake.watch(resume_token=b"2") as rest:
        assert words(itertools.islice(rest, 3)) == ["b CREATED", "later CREATED", "synced"]
    with pytest.raises(userintent.StopError):
        fake.fail(testing.error(grpc.StatusCode.PERMISSION_DENIED, "CALLER_NOT_ALLOWED", recovery="STOP"))
        next(fake.watch())


def test_waits_of_the_stand_in():
    fake = testing.FakeClient()
    fake.set_creation(creation("a", "UNKNOWN"))
    with pytest.raises(userintent.StopError) as caught:
        fake.get_user_intent(request_id="a")
    assert caught.value.reason == "NOT_CREATED"
    threading.Timer(0.05, fake.set_creation, [creation("a", "CREATED", "i", PENDING)]).start()
    assert fake.wait_for_outcome("A", timeout=20).user_intent.id == "i"
    threading.Timer(0.05, fake.set_user_intent, [userintent.UserIntent(id="i", status=APPROVED)]).start()
    assert fake.wait_for_status("a", [APPROVED], timeout=20).status == APPROVED
    with pytest.raises(userintent.RetryLaterError) as late:
        fake.wait_for_status("a", [PENDING], timeout=0.05)
    assert (late.value.code, late.value.request_id) == (grpc.StatusCode.DEADLINE_EXCEEDED, "a")
    with pytest.raises(userintent.StopError) as nobody:
        fake.wait_for_outcome("nobody")
    assert nobody.value.reason == "REQUEST_NOT_FOUND"
    made = fake.get_authorization_url(request_id="a", redirect_uri="https://a.example/", state="0123456789abcdef")
    assert made.url.startswith("https://app-sandbox.astra.finance/login/oauth/authorize?client_id=client-id&")
    fake.set_user_intent(userintent.UserIntent(id="i", status=REJECTED))
    with pytest.raises(userintent.StopError) as refused:
        fake.get_authorization_url(request_id="a", redirect_uri="https://a.example/", state="0123456789abcdef")
    assert (refused.value.reason, refused.value.request_id) == ("USER_INTENT_NOT_ELIGIBLE", "a")


def test_the_stand_in_of_asyncio_watches_and_waits_too():
    async def main():
        client = testing.FakeAsyncClient()
        client.fake.set_creation(creation("a", "UNKNOWN"))
        asyncio.get_running_loop().call_later(0.05, client.fake.set_creation, creation("a", "CREATED", "i", APPROVED))
        async with client.watch(["a"]) as watch:
            heard = [await watch.__anext__() for _ in range(3)]
        assert words(heard) == ["a UNKNOWN", "synced", "a CREATED"] and watch.resume_token == b"2"
        assert [event async for event in watch] == []
        assert (await client.wait_for_outcome("a")).user_intent.id == "i"
        assert (await client.wait_for_status("a", [APPROVED])).id == "i"
        made = await client.get_authorization_url(user_intent_id="i", redirect_uri="https://a.example/", state="0123456789abcdef")
        assert made.user_intent.id == "i"
    asyncio.run(main())
