"""Both clients against a gateway that answers what the test says."""

import asyncio
import concurrent.futures
import contextlib
import os
import pathlib
import runpy
import shutil
import sys
import threading
import time

import grpc
import pytest
from conftest import Gateway, busy, fail, ok, until_the_caller_leaves

import userintent
from userintent import _client
from userintent.v1 import user_intent_service_pb2 as pb
from userintent.v1 import user_intent_service_pb2_grpc as pb_grpc

C = grpc.StatusCode
REQUEST = userintent.CreateUserIntentRequest(email="person@example.com", first_name="Person")


@contextlib.contextmanager
def blocking(*arguments, **settings):
    with userintent.Client(*arguments, **settings) as client:
        yield client.create


@contextlib.contextmanager
def in_asyncio(*arguments, **settings):
    loop = asyncio.new_event_loop()
    try:
        async def make():
            return userintent.AsyncClient(*arguments, **settings)
        client = loop.run_until_complete(make())
        yield lambda *a, **k: loop.run_until_complete(client.create(*a, **k))
        loop.run_until_complete(client.close())
    finally:
        loop.close()


both = pytest.mark.parametrize("connect", [blocking, in_asyncio], ids=["sync", "asyncio"])


@both
def test_one_id_over_all_tries(gateway, connect):
    gateway.answers = [busy(0.02), busy(0.05), ok]
    with connect(gateway.address, plaintext=True) as create:
        result = create(REQUEST)
    assert result.tries == 3 and result.user_intent_id == "intent-1" and result.user_intent.id == "intent-1"
    assert {request.request_id for request, _ in gateway.calls} == {result.request_id}
    assert REQUEST.request_id == ""


@both
def test_nothing_is_repeated_behind_the_callers_back(gateway, connect):
    gateway.answers = [fail(C.UNAVAILABLE), ok]
    with connect(gateway.address, plaintext=True) as create:
        with pytest.raises(userintent.OutcomeUnknownError) as caught:
            create(REQUEST)
        assert caught.value.maybe_sent and caught.value.request_id and len(gateway.calls) == 1
        assert create(REQUEST, request_id=caught.value.request_id).request_id == caught.value.request_id


@both
def test_errors_chain_to_grpc(gateway, connect):
    gateway.answers = [fail(C.INVALID_ARGUMENT, "UPSTREAM_REJECTED", pushback="-1", sent="yes", recovery="FIX_WITH_NEW_ID")]
    with connect(gateway.address, plaintext=True) as create, pytest.raises(userintent.InvalidRequestError) as caught:
        create(REQUEST)
    assert isinstance(caught.value.__cause__, grpc.RpcError)


@both
def test_the_deadline_covers_all_tries(gateway, connect):
    gateway.answers = [busy(0.3)]
    with connect(gateway.address, plaintext=True, timeout=1.0, max_tries=50) as create:
        with pytest.raises(userintent.RetryLaterError) as caught:
            create(REQUEST)
    assert 1 <= caught.value.tries <= 4


@both
def test_the_default_deadline(gateway, connect):
    left = []
    gateway.answers = [lambda request, context: left.append(context.time_remaining()) or ok()]
    with connect(gateway.address, plaintext=True) as create:
        create(REQUEST)
    assert 30 < left[0] <= 35.1


@both
@pytest.mark.parametrize("settings", [
    dict(), dict(target="127.0.0.1:1"), dict(target="127.0.0.1:1", plaintext=True, tls=userintent.Tls()),
    dict(target="127.0.0.1:1", plaintext=True, timeout=0), dict(target="127.0.0.1:1", plaintext=True, max_tries=0)])
def test_settings_that_make_no_sense(connect, settings):
    with pytest.raises(ValueError), connect(**settings):
        pass


def test_plaintext_is_never_an_accident():
    with pytest.raises(ValueError, match="plaintext=True"):
        userintent.Client("gateway.example.com:50051")


def test_tls_wants_both_files():
    with pytest.raises(ValueError, match="go together"):
        userintent.Tls(cert_file="a")


def test_a_channel_of_the_callers_own(gateway):
    gateway.answers = [ok]
    with grpc.insecure_channel(gateway.address) as channel:
        with userintent.Client(channel=channel) as client:
            client.create(REQUEST)
        with userintent.Client(channel=channel) as client:  # the first one did not close it
            client.create(REQUEST)
        with pytest.raises(ValueError, match="brings its own"):
            userintent.Client(channel=channel, plaintext=True)


def test_closed(gateway):
    gateway.answers = [ok]
    client = userintent.Client(gateway.address, plaintext=True)
    client.close()
    client.close()
    with pytest.raises(ValueError, match="closed"):
        client.create(REQUEST)


def test_close_ends_a_running_call(gateway):
    gateway.answers = [until_the_caller_leaves(gateway)]
    client = userintent.Client(gateway.address, plaintext=True)
    pending = client.submit(REQUEST)
    assert gateway.arrived.acquire(timeout=10)
    client.close()
    with pytest.raises(userintent.OutcomeUnknownError) as caught:
        pending.result(10)
    assert caught.value.code is C.CANCELLED and caught.value.request_id == pending.request_id


def test_close_ends_a_call_that_waits_for_its_next_try(gateway):
    gateway.answers = [busy(0.5)]
    client = userintent.Client(gateway.address, plaintext=True)
    pending = client.submit(REQUEST)
    assert gateway.arrived.acquire(timeout=10)
    time.sleep(0.1)  # whether it waits already or not, the call must end with its id
    client.close()
    with pytest.raises(userintent.UserIntentError) as caught:
        pending.result(10)
    assert caught.value.code is C.CANCELLED and caught.value.tries == 1 and caught.value.request_id == pending.request_id


def test_cancel_reaches_the_gateway(gateway):
    gateway.answers = [until_the_caller_leaves(gateway)]
    with userintent.Client(gateway.address, plaintext=True) as client:
        pending = client.submit(REQUEST)
        assert gateway.arrived.acquire(timeout=10)
        assert not pending.done()
        with pytest.raises(TimeoutError):
            pending.result(0.01)
        pending.cancel()
        with pytest.raises(userintent.OutcomeUnknownError) as caught:
            pending.result(10)
        assert caught.value.code is C.CANCELLED and caught.value.maybe_sent
        assert gateway.cancelled.wait(10)
        gateway.answers = [ok]
        assert client.repeat(caught.value).request_id == pending.request_id
        pending.cancel()  # too late, and harmless


def test_cancel_before_the_rpc_begins(gateway):
    gateway.answers = [busy(20)]
    with userintent.Client(gateway.address, plaintext=True) as client:
        pending = client.submit(REQUEST)
        pending.cancel()
        with pytest.raises(userintent.UserIntentError) as caught:
            pending.result(10)
        assert caught.value.code is C.CANCELLED


def test_an_interrupt_cancels_the_call(gateway, monkeypatch):
    """Ctrl-C in a blocking call leaves as KeyboardInterrupt and ends the RPC."""
    gateway.answers = [until_the_caller_leaves(gateway)]
    with userintent.Client(gateway.address, plaintext=True) as client:
        method = client._lease.methods[_client.CREATE]

        class Interrupted:
            def future(self, request, timeout):
                future = method.future(request, timeout=timeout)

                def result():
                    assert gateway.arrived.acquire(timeout=10)
                    raise KeyboardInterrupt
                future.result = result
                return future

        client._lease.methods[_client.CREATE] = Interrupted()
        with pytest.raises(KeyboardInterrupt):
            client.create(REQUEST)
        assert gateway.cancelled.wait(10)


def test_many_threads_share_a_client(gateway):
    gateway.answers = [lambda request, context: userintent.CreateUserIntentResponse(
        user_intent=userintent.UserIntent(id=f"intent of {request.request_id}"))]
    with userintent.Client(gateway.address, plaintext=True) as client, concurrent.futures.ThreadPoolExecutor(32) as pool:
        for result in pool.map(lambda _: client.create(REQUEST), range(300)):
            assert result.user_intent_id == f"intent of {result.request_id}"
    assert len({request.request_id for request, _ in gateway.calls}) == 300


def test_get_creation(gateway):
    with userintent.Client(gateway.address, plaintext=True) as client, pytest.raises(userintent.StopError) as caught:
        client.get_creation("id-1")
    assert caught.value.reason == "REQUEST_NOT_FOUND" and caught.value.request_id == "id-1"
    with userintent.Client(gateway.address, plaintext=True) as client, pytest.raises(ValueError, match="holds no request"):
        client.repeat(caught.value)


# -- asyncio ---------------------------------------------------------------------------------------------------------------

def test_cancelled_tasks_stay_cancelled(gateway):
    async def story():
        gateway.answers = [until_the_caller_leaves(gateway)]
        async with userintent.AsyncClient(gateway.address, plaintext=True) as client:
            task = asyncio.ensure_future(client.create(REQUEST, request_id="mine"))
            await asyncio.get_running_loop().run_in_executor(None, gateway.arrived.acquire)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelled()
            assert await asyncio.get_running_loop().run_in_executor(None, gateway.cancelled.wait, 10)
    asyncio.run(story())


def test_wait_for_and_submit(gateway):
    async def story():
        gateway.answers = [until_the_caller_leaves(gateway), busy(20), ok]
        async with userintent.AsyncClient(gateway.address, plaintext=True) as client:
            pending = client.submit(REQUEST)
            await asyncio.get_running_loop().run_in_executor(None, gateway.arrived.acquire)
            pending.cancel()
            with pytest.raises(userintent.OutcomeUnknownError) as caught:
                await pending
            assert caught.value.code is C.CANCELLED and caught.value.request_id == pending.request_id
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.repeat(caught.value), 0.5)  # waits for its second try
            result = await client.repeat(caught.value)
            assert result.request_id == pending.request_id
            pending = client.submit(REQUEST)
            assert (await pending).user_intent_id == "intent-1" and pending.done()
    asyncio.run(story())


def test_async_close_ends_a_running_call(gateway):
    async def story():
        gateway.answers = [until_the_caller_leaves(gateway)]
        client = userintent.AsyncClient(gateway.address, plaintext=True)
        task = asyncio.ensure_future(client.create(REQUEST, request_id="mine"))
        await asyncio.get_running_loop().run_in_executor(None, gateway.arrived.acquire)
        await client.close()
        with pytest.raises(userintent.OutcomeUnknownError) as caught:
            await task
        assert caught.value.code is C.CANCELLED and caught.value.request_id == "mine"
        with pytest.raises(ValueError, match="closed"):
            await client.create(REQUEST)
    asyncio.run(story())


# -- TLS -------------------------------------------------------------------------------------------------------------------

@pytest.fixture
def secured(authority):
    certificate, key = authority.issue("server")
    made = Gateway(grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())], authority.ca_file.read_bytes(), require_client_auth=True))
    made.callers = []

    def answer(request, context):
        made.callers.append(context.auth_context()["x509_subject_alternative_name"][0].decode())
        return ok()
    made.answers = [answer]
    yield made
    made.server.stop(0).wait(5)


def put(directory, certificate=None, key=None):
    for source, name in ((certificate, "tls.crt"), (key, "tls.key")):
        if source is not None:
            temporary = directory / (name + ".new")
            shutil.copy(source, temporary)
            os.replace(temporary, directory / name)


@both
def test_certificates_are_reloaded(secured, authority, tmp_path, monkeypatch, connect):
    monkeypatch.setattr(_client, "_RELOAD_INTERVAL", 0.0)
    one, two = authority.issue("one"), authority.issue("two")
    put(tmp_path, *one)
    tls = userintent.Tls(authority.ca_file, tmp_path / "tls.crt", tmp_path / "tls.key", "localhost")
    with connect(secured.address, tls=tls) as create:
        create(REQUEST)
        create(REQUEST)
        put(tmp_path, certificate=two[0])  # the key is still the old one's
        create(REQUEST)
        put(tmp_path, key=two[1])
        create(REQUEST)
        (tmp_path / "tls.crt").unlink()
        create(REQUEST)
        put(tmp_path, *one)
        create(REQUEST)
    names = [name.rsplit("/", 1)[1] for name in secured.callers]
    assert names == ["one", "one", "one", "two", "two", "one"]


def test_reload_does_not_end_calls_that_run(secured, authority, tmp_path, monkeypatch):
    monkeypatch.setattr(_client, "_RELOAD_INTERVAL", 0.0)
    put(tmp_path, *authority.issue("three"))
    go_on = threading.Event()
    secured.answers = [lambda request, context: go_on.wait(20) and ok(), ok]
    tls = userintent.Tls(authority.ca_file, tmp_path / "tls.crt", tmp_path / "tls.key", "localhost")
    with userintent.Client(secured.address, tls=tls) as client:
        pending = client.submit(REQUEST)
        assert secured.arrived.acquire(timeout=10)
        put(tmp_path, *authority.issue("four"))
        client.create(REQUEST)
        go_on.set()
        assert pending.result(10).tries == 1


def test_files_that_cannot_be_used(authority, tmp_path):
    one, two = authority.issue("five"), authority.issue("six")
    with pytest.raises(OSError):
        userintent.Client("127.0.0.1:1", tls=userintent.Tls(authority.ca_file, one[0], two[1]))
    with pytest.raises(OSError):
        userintent.Client("127.0.0.1:1", tls=userintent.Tls(tmp_path / "missing"))


# -- without the clients ---------------------------------------------------------------------------------------------------

def test_service_config_obeys_the_gateway(gateway):
    """gRPC's own retry, with the published config: repeats what may be repeated, and nothing that may not."""
    options = [("grpc.service_config", userintent.service_config()), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(gateway.address, options) as channel:
        stub = pb_grpc.UserIntentServiceStub(channel)
        request = userintent.CreateUserIntentRequest(request_id="one")
        gateway.answers = [busy(0.1), ok]
        assert stub.CreateUserIntent(request, timeout=20).user_intent.id == "intent-1"
        assert {sent.request_id for sent, _ in gateway.calls} == {"one"} and len(gateway.calls) == 2
        for answer in (fail(C.UNAVAILABLE, "X", pushback="-1"), fail(C.UNKNOWN, "OUTCOME_UNKNOWN", pushback="-1"),
                       fail(C.UNKNOWN), fail(C.DEADLINE_EXCEEDED), fail(C.INTERNAL), fail(C.INVALID_ARGUMENT)):
            gateway.calls.clear()
            gateway.answers = [answer]
            with pytest.raises(grpc.RpcError):
                stub.CreateUserIntent(request, timeout=20)
            assert len(gateway.calls) == 1


def test_the_readmes_lines(gateway, monkeypatch):
    """Every Python example of the README runs as it is."""
    library = pathlib.Path(__file__).resolve().parents[1]
    read = runpy.run_path(str(library.parents[1] / "scripts" / "readme.py"))["files"]
    files = read((library / "README.md").read_text(encoding="utf-8"))
    assert len(files) >= 3
    gateway.answers = [ok]
    approved = userintent.UserIntent(id="intent-1", status=userintent.UserIntentStatus.USER_INTENT_STATUS_APPROVED)
    created = userintent.Creation(request_id="R", state=userintent.CreationState.CREATION_STATE_CREATED, user_intent=approved)
    gateway.streams = [lambda request, context: iter([pb.WatchUserIntentsResponse(changed=created)])]
    monkeypatch.setenv("USERINTENT_GATEWAY", gateway.address)
    monkeypatch.setattr(sys, "argv", ["program", "R"])
    for name, text in files.items():
        exec(compile(text, f"README, {name}", "exec"), {"__name__": "readme"})
    assert len(gateway.calls) >= 3 and len(gateway.watched) == 2
