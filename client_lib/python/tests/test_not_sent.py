"""What is known before sending is told as not sent, by both clients; and what arguments at their extremes do."""

import asyncio
import concurrent.futures

import grpc
import pytest
from conftest import busy, fail, ok, until_the_caller_leaves
from test_clients import REQUEST, both

import userintent
from userintent import _core

C = grpc.StatusCode


def refused(create, code, kind, *arguments, **options):
    with pytest.raises(kind) as caught:
        create(*arguments, **options)
    error = caught.value
    assert (error.code, error.sent, error.maybe_sent, error.tries) == (code, "no", False, 0)
    assert error.request_id and error.retry_after is None and "maybe" not in str(error)
    return error


@both
def test_a_request_over_64_kib_is_invalid_and_not_sent(gateway, connect):
    gateway.answers = [ok]
    with connect(gateway.address, plaintext=True) as create:
        long = userintent.CreateUserIntentRequest(address2="x" * 70000)
        error = refused(create, C.INVALID_ARGUMENT, userintent.InvalidRequestError, long)
        assert (error.reason, error.recovery) == ("MALFORMED_REQUEST", "FIX_REQUEST") and "xxx" not in str(error)
        refused(create, C.INVALID_ARGUMENT, userintent.InvalidRequestError, REQUEST, request_id="1" * 70000)
    assert gateway.calls == []


@both
def test_the_limit_counts_the_id_that_the_library_makes(gateway, connect):
    gateway.answers = [ok]
    request = userintent.CreateUserIntentRequest(request_id=userintent.new_request_id(), address2="x" * 65000)
    request.address2 += "x" * (65536 - request.ByteSize())
    assert request.ByteSize() == 65536
    request.request_id = ""
    with connect(gateway.address, plaintext=True) as create:
        create(request)
        request.address2 += "x"
        refused(create, C.INVALID_ARGUMENT, userintent.InvalidRequestError, request)
    assert len(gateway.calls) == 1


@both
def test_a_lower_limit_of_the_channel_counts(gateway, connect):
    gateway.answers = [ok]
    with connect(gateway.address, plaintext=True, channel_options=[("grpc.max_send_message_length", 20)]) as create:
        refused(create, C.INVALID_ARGUMENT, userintent.InvalidRequestError, REQUEST)
    with connect(gateway.address, plaintext=True, channel_options=[("grpc.max_send_message_length", -1)]) as create:
        create(REQUEST)


@both
@pytest.mark.parametrize("text", ["half \ud83d", b"\xff"])
def test_an_id_that_is_not_unicode(gateway, connect, text):
    with connect(gateway.address, plaintext=True) as create:
        refused(create, C.INVALID_ARGUMENT, userintent.InvalidRequestError, REQUEST, request_id=text)
    with userintent.Client(gateway.address, plaintext=True) as client:
        refused(client.get_creation, C.INVALID_ARGUMENT, userintent.InvalidRequestError, text)
    assert gateway.calls == []


@both
def test_a_deadline_that_is_over_before_the_call(gateway, connect):
    gateway.answers = [ok]
    with connect(gateway.address, plaintext=True) as create:
        refused(create, C.DEADLINE_EXCEEDED, userintent.RetryLaterError, REQUEST, timeout=1e-12)
    assert gateway.calls == []


@both
@pytest.mark.parametrize("timeout", [float("inf"), 1e300, 10**400])
def test_the_longest_timeouts(gateway, connect, timeout):
    gateway.answers = [ok]
    with connect(gateway.address, plaintext=True, timeout=timeout) as create:
        assert create(REQUEST).tries == create(REQUEST, timeout=timeout).tries == 1


def test_cancelled_before_it_began(gateway):
    """The thread has not begun yet when the call is cancelled."""
    gateway.answers = [ok]
    call = _core.Call(_core.CREATE, userintent.CreateUserIntentRequest(request_id="mine"), 35, 5, _core.RetryBudget())
    with userintent.Client(gateway.address, plaintext=True) as client:
        cancellation = userintent._client._Cancellation()
        cancellation.cancel()
        refused(client._run, C.CANCELLED, userintent.RetryLaterError, call, cancellation)

    async def story():
        async with userintent.AsyncClient(gateway.address, plaintext=True) as client:
            pending = client.submit(REQUEST)
            pending.cancel()
            with pytest.raises(userintent.RetryLaterError) as caught:
                await pending
            assert caught.value.code is C.CANCELLED and not caught.value.maybe_sent and caught.value.tries == 0
            assert (await client.repeat(caught.value)).request_id == pending.request_id
    asyncio.run(story())
    assert len(gateway.calls) == 1


def test_a_repeat_that_cannot_begin_stays_maybe_sent(gateway):
    gateway.answers = [fail(C.UNAVAILABLE), ok]
    with userintent.Client(gateway.address, plaintext=True) as client:
        with pytest.raises(userintent.OutcomeUnknownError) as caught:
            client.create(REQUEST)
        error = caught.value
        for _ in range(2):
            with pytest.raises(userintent.OutcomeUnknownError) as caught:
                client.repeat(error, timeout=1e-12)
            assert caught.value.maybe_sent and caught.value.tries == 0 and caught.value.request_id == error.request_id
            error = caught.value
        assert client.repeat(error).request_id == error.request_id

    async def story():
        async with userintent.AsyncClient(gateway.address, plaintext=True) as client:
            with pytest.raises(userintent.OutcomeUnknownError) as caught:
                await client.repeat(error, timeout=1e-12)
            assert caught.value.maybe_sent
    asyncio.run(story())
    assert len(gateway.calls) == 2


@both
@pytest.mark.parametrize("target", ["", "/", "://", "dns:///", "host:", "127.0.0.1\0:1", "host\n:1", "host\x7f:1"])
def test_targets_that_name_nothing(connect, target):
    with pytest.raises(ValueError, match="target"), connect(target, plaintext=True):
        pass


@both
@pytest.mark.parametrize("target", ["localhost:1", "dns:///localhost:1", "[::1]:1", "::", "unix:/run/x", "ipv4:127.0.0.1:1"])
def test_targets_that_name_something(connect, target):
    with connect(target, plaintext=True):
        pass


# -- an AsyncClient and its event loop -----------------------------------------------------------------------------------


def test_an_async_client_made_where_no_loop_runs(gateway):
    gateway.answers = [ok]
    client = userintent.AsyncClient(gateway.address, plaintext=True)

    async def story():
        assert (await client.create(REQUEST)).user_intent_id == "intent-1"
        await client.close()
    asyncio.run(story())


def test_an_async_client_in_one_loop_after_another(gateway):
    gateway.answers = [ok]
    client = userintent.AsyncClient(gateway.address, plaintext=True)
    for _ in range(3):
        assert asyncio.run(client.create(REQUEST)).user_intent_id == "intent-1"

    async def made_inside():
        made = userintent.AsyncClient(gateway.address, plaintext=True)
        await made.create(REQUEST)
        return made
    assert asyncio.run(asyncio.run(made_inside()).create(REQUEST)).tries == 1
    asyncio.run(client.close())
    with pytest.raises(ValueError, match="closed"):
        asyncio.run(client.create(REQUEST))


def test_an_async_client_that_was_never_used_can_be_closed(gateway):
    asyncio.run(userintent.AsyncClient(gateway.address, plaintext=True).close())


def test_a_second_loop_while_the_first_one_runs_is_refused(gateway):
    gateway.answers = [ok]
    client = userintent.AsyncClient(gateway.address, plaintext=True)

    async def story():
        await client.create(REQUEST)
        with concurrent.futures.ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.wrap_future(pool.submit(asyncio.run, client.create(REQUEST)))
        await client.create(REQUEST)  # the first loop goes on with its connection
        await client.close()
    asyncio.run(story())
    assert len(gateway.calls) == 2


def test_files_that_cannot_be_used_are_told_where_the_client_is_made(tmp_path):
    with pytest.raises(OSError):
        userintent.AsyncClient("127.0.0.1:1", tls=userintent.Tls(tmp_path / "missing"))


def test_a_call_that_was_left_in_an_ended_loop(gateway):
    """Its loop ends while it runs; the client goes on in the next loop."""
    gateway.answers = [until_the_caller_leaves(gateway), busy(0.01), ok]
    client = userintent.AsyncClient(gateway.address, plaintext=True)

    async def left_alone():
        task = asyncio.ensure_future(client.create(REQUEST))
        await asyncio.get_running_loop().run_in_executor(None, gateway.arrived.acquire)
        return task
    assert asyncio.run(left_alone()).cancelled()

    async def story():
        assert (await client.create(REQUEST)).tries == 2
        await client.close()
    asyncio.run(story())
