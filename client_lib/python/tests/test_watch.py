"""Watches and waits of both clients: how they go on, what they hand out, how they end."""

import asyncio
import contextlib
import gc
import threading
import time

import grpc
import pytest
from conftest import fail

import userintent
from userintent import _streams, _watch
from userintent.v1 import user_intent_service_pb2 as pb

C = grpc.StatusCode


def state(request_id, status, token="", created=pb.CREATION_STATE_CREATED):
    creation = userintent.Creation(request_id=request_id, state=created)
    if created == pb.CREATION_STATE_CREATED:
        creation.user_intent.id = f"intent-{request_id}"
        creation.user_intent.status = userintent.UserIntentStatus.Value(f"USER_INTENT_STATUS_{status}")
    return pb.WatchUserIntentsResponse(changed=creation, resume_token=token.encode())


def recorded(request_id, name, token=""):
    return state(request_id, "", token, userintent.CreationState.Value(f"CREATION_STATE_{name}"))


def synced(token=""):
    return pb.WatchUserIntentsResponse(synced=pb.Synced(), resume_token=token.encode())


def heartbeat(token=""):
    return pb.WatchUserIntentsResponse(heartbeat=pb.Heartbeat(), resume_token=token.encode())


def reset(token=""):
    return pb.WatchUserIntentsResponse(reset=pb.Reset(), resume_token=token.encode())


def stream(*messages, end=None):
    """end: a function that fails; None: a clean end."""
    def run(request, context):
        yield from messages
        if end is not None:
            end(request, context)
    return run


def hold(request, context):
    """An end: when the caller leaves."""
    left = threading.Event()
    if context.add_callback(left.set):
        left.wait(60)


def word(event):
    """An event as text: "r:PENDING@1", "synced@2"."""
    assert (event.creation is None) == (event.kind != "changed")
    what = event.kind
    if event.creation is not None:
        status = userintent.UserIntentStatus.Name(event.creation.user_intent.status)[len("USER_INTENT_STATUS_"):]
        what = f"{event.creation.request_id}:{status}"
    return f"{what}@{event.resume_token.decode()}"


class Blocking:
    """The blocking client, for tests that both have."""

    def __init__(self, gateway):
        self.client = userintent.Client(gateway.address, plaintext=True)

    def watch(self, *arguments, **more):
        return self.client.watch(*arguments, **more)

    def take(self, watch, count):
        """The next events; fewer when the watch ends."""
        words = []
        for event in watch:
            words.append(word(event))
            if len(words) == count:
                break
        return words

    def wait(self, name, *arguments, **more):
        return getattr(self.client, name)(*arguments, **more)

    def later(self, seconds, do):
        timer = threading.Timer(seconds, do)
        timer.start()

    def close(self):
        self.client.close()


class InAsyncio(Blocking):
    """The asyncio client, in a loop that runs while the test waits for something."""

    def __init__(self, gateway):
        self.loop = asyncio.new_event_loop()

        async def make():
            return userintent.AsyncClient(gateway.address, plaintext=True)
        self.client = self.loop.run_until_complete(make())

    def take(self, watch, count):
        async def loop():
            words = []
            async for event in watch:
                words.append(word(event))
                if len(words) == count:
                    break
            return words
        return self.loop.run_until_complete(loop())

    def wait(self, name, *arguments, **more):
        return self.loop.run_until_complete(getattr(self.client, name)(*arguments, **more))

    def later(self, seconds, do):
        def call():
            done = do()
            if asyncio.iscoroutine(done):
                self.tasks = asyncio.ensure_future(done)
        self.loop.call_later(seconds, call)

    def close(self):
        if not self.loop.is_closed():
            self.loop.run_until_complete(self.client.close())
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()


@pytest.fixture(params=[Blocking, InAsyncio], ids=["sync", "asyncio"])
def side(request, gateway, monkeypatch):
    # Pauses as short as they can be; the gateway's own delays stay.
    monkeypatch.setattr(_watch.WatchCall.__init__, "__defaults__", (lambda: 0.0, time.monotonic))
    made = request.param(gateway)
    yield made
    made.close()


def tokens(gateway):
    return [request.resume_token.decode() for request in gateway.watched]


def failed(side, watch, kind=userintent.UserIntentError):
    """The error with which a watch ends, whatever it hands out before."""
    with pytest.raises(kind) as caught:
        side.take(watch, 1000)
    error = caught.value
    assert (error.sent, error.maybe_sent, error.not_repeated) == ("", False, "not_retryable")
    assert side.take(watch, 1) == []  # and then it is over
    return error


def test_a_watch_goes_on_where_its_stream_ended(gateway, side):
    limited = fail(C.RESOURCE_EXHAUSTED, "CALLER_RATE_LIMITED", retry_s=0, recovery="RETRY_SAME_ID")
    gateway.streams = [
        stream(state("a", "PENDING"), state("b", "PENDING"), end=fail(C.UNAVAILABLE)),  # no token yet: anew
        stream(state("a", "PENDING"), state("b", "DOCUMENT"), synced("1"), heartbeat("2"), end=fail(C.UNAVAILABLE)),
        stream(synced("3")),
        stream(state("a", "APPROVED", "4"), end=limited),
        *[stream(end=fail(code)) for code in (C.UNAVAILABLE, C.INTERNAL, C.UNKNOWN, C.CANCELLED, C.DEADLINE_EXCEEDED)],
        stream(reset(), state("a", "APPROVED"), end=fail(C.UNAVAILABLE)),  # the old token is no use
        stream(state("a", "APPROVED"), synced("5"), end=hold),
    ]
    watch = side.watch(["a", "b"])
    assert side.take(watch, 10) == [
        "a:PENDING@", "b:PENDING@", "a:PENDING@", "b:DOCUMENT@", "synced@1", "a:APPROVED@4", "reset@", "a:APPROVED@",
        "a:APPROVED@", "synced@5"]
    assert tokens(gateway) == ["", "", "2", "3", "4", "4", "4", "4", "4", "4", ""]
    assert {tuple(request.request_ids) for request in gateway.watched} == {("a", "b")}
    assert watch.resume_token == b"5"
    watch.close()
    assert side.take(watch, 1) == []
    assert gateway.nothing_open()


def test_a_token_of_another_process(gateway, side):
    gateway.streams = [stream(end=fail(C.UNAVAILABLE)), stream(state("x", "PENDING", "8"), synced("9"), end=hold)]
    watch = side.watch(resume_token=b"7")
    assert side.take(watch, 2) == ["x:PENDING@8", "synced@9"]
    assert tokens(gateway) == ["7", "7"] and not gateway.watched[0].request_ids
    watch.close()


@pytest.mark.parametrize("code, reason, kind", [
    (C.INVALID_ARGUMENT, "FIELD_INVALID", userintent.InvalidRequestError), (C.UNAUTHENTICATED, "CALLER_UNAUTHENTICATED", userintent.StopError),
    (C.PERMISSION_DENIED, "CALLER_NOT_ALLOWED", userintent.StopError), (C.UNIMPLEMENTED, "", userintent.UserIntentError),
    (C.NOT_FOUND, "REQUEST_NOT_FOUND", userintent.StopError), (C.FAILED_PRECONDITION, "NOT_CREATED", userintent.StopError),
    (C.INTERNAL, "INTERNAL", userintent.StopError)])
def test_what_cannot_pass_ends_it(gateway, side, code, reason, kind):
    recovery = "FIX_REQUEST" if code is C.INVALID_ARGUMENT else "STOP"
    gateway.streams = [stream(synced("1"), end=fail(C.UNAVAILABLE)), stream(end=fail(code, reason, pushback="-1", recovery=recovery))]
    error = failed(side, side.watch(["R"]), kind)
    assert type(error) is kind and (error.code, error.reason, error.request_id, error.tries) == (code, reason, "R", 2)
    assert len(gateway.watched) == 2


def test_what_cannot_begin(gateway, side):
    for ids in (["half \ud83d"], ["x" * 70000], [7]):
        error = failed(side, side.watch(ids), userintent.InvalidRequestError)
        assert (error.code, error.reason, error.tries) == (C.INVALID_ARGUMENT, "MALFORMED_REQUEST", 0)
    with pytest.raises(TypeError):
        side.watch("one id is no list")
    with pytest.raises(ValueError):
        side.watch(timeout=0)
    assert failed(side, side.watch(timeout=1e-12)).tries == 0
    assert gateway.watched == []


@pytest.mark.parametrize("silent", [True, False], ids=["in a stream", "in a pause"])
@pytest.mark.parametrize("how", ["timeout", "client", "watch"])
def test_it_stops_at_once(gateway, side, silent, how):
    busy = fail(C.UNAVAILABLE, "OVERLOADED", retry_s=3600, recovery="RETRY_SAME_ID")
    gateway.streams = [stream(end=hold if silent else busy)]
    watch = side.watch(["R"], timeout=0.3 if how == "timeout" else None)
    if how != "timeout":
        side.later(0.3, side.client.close if how == "client" else watch.close)
    started = time.monotonic()
    if how == "watch":
        assert side.take(watch, 1) == []
    else:
        error = failed(side, watch, userintent.RetryLaterError)
        assert error.code is (C.DEADLINE_EXCEEDED if how == "timeout" else C.CANCELLED)
        assert (error.request_id, error.recovery) == ("R", "RETRY_SAME_ID")
    assert 0.2 < time.monotonic() - started < 15
    assert not silent or gateway.nothing_open()


def test_a_silent_stream_is_left(gateway, side, monkeypatch):
    kind = _streams.AsyncStreamWatch if isinstance(side, InAsyncio) else _streams.StreamWatch
    monkeypatch.setattr(kind, "silence", 0.3)
    gateway.streams = [stream(synced("1"), end=hold), stream(state("a", "PENDING", "2"), end=hold)]
    watch = side.watch()
    assert side.take(watch, 1) == ["synced@1"]
    time.sleep(0.7)  # the caller's own time is no silence
    assert len(gateway.watched) == 1
    assert side.take(watch, 1) == ["a:PENDING@2"]
    assert tokens(gateway) == ["", "1"]
    watch.close()
    assert gateway.nothing_open()


def test_retry_info_and_pushback_are_waited_for(gateway, side):
    gateway.streams = [
        stream(end=fail(C.UNAVAILABLE, "DRAINING", retry_s=0.3, recovery="RETRY_SAME_ID")),
        stream(end=fail(C.UNAVAILABLE, pushback="300")), stream(synced("1"), end=hold)]
    with contextlib.closing(side.watch()) as watch:
        assert side.take(watch, 1) == ["synced@1"]
    assert all(after - before >= 0.3 for before, after in zip(gateway.began, gateway.began[1:]))


def test_pauses_double_and_start_anew_after_a_sign_of_life():
    call = _watch.WatchCall((), b"", None, 1000, jitter=lambda: 1.0)
    assert [round(call.ended(None), 3) for _ in range(9)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10]
    for message in (heartbeat(), state("a", "PENDING"), synced(), pb.WatchUserIntentsResponse()):
        call.lost = 5
        call.take(message)
        assert call.lost == 0
    call.lost = 5
    assert call.take(synced("2")) is None and (call.lost, call.token) == (5, b"2")
    call.lost = 100000
    assert call.ended(None) == 10
    assert _watch.WatchCall((), b"", 3, 1000, jitter=lambda: 1.0, clock=lambda: 0.0).ended(None) <= 3


def test_a_forgotten_watch_ends_its_stream(gateway):
    gateway.streams = [stream(synced("1"), end=hold)]
    with userintent.Client(gateway.address, plaintext=True) as client:
        next(client.watch())
        gc.collect()
        assert gateway.nothing_open()


def test_another_thread_closes(gateway):
    gateway.streams = [stream(synced("1"), end=hold)]
    with userintent.Client(gateway.address, plaintext=True) as client:
        with client.watch() as watch:
            assert next(watch).kind == "synced"
            threading.Timer(0.1, watch.close).start()
            assert list(watch) == []


def test_a_task_that_is_cancelled_leaves_the_watch_as_it_was(gateway):
    gateway.streams = [stream(synced("1"), end=hold), stream(state("a", "PENDING", "2"), end=hold)]

    async def main():
        async with userintent.AsyncClient(gateway.address, plaintext=True) as client, client.watch() as watch:
            assert word(await watch.__anext__()) == "synced@1"
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(watch.__anext__(), 0.2)
            assert word(await watch.__anext__()) == "a:PENDING@2"
    asyncio.run(main())
    assert tokens(gateway) == ["", "1"]


def test_a_watch_of_several_has_no_id_in_its_error(gateway, side):
    gateway.streams = [stream(end=fail(C.UNIMPLEMENTED))]
    assert str(failed(side, side.watch())) == "told by the test (no details, UNIMPLEMENTED; tries 1)"


# -- waits -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("streams, outcome", [
    ([stream(state("R", "PENDING"))], "CREATED"),
    ([stream(recorded("R", "IN_PROGRESS"), recorded("R", "UNKNOWN"), synced("1"), state("R", "PENDING", "2"))], "CREATED"),
    ([stream(recorded("R", "UNKNOWN"), synced("1"), recorded("R", "REJECTED"))], "REJECTED"),
    ([stream(recorded("R", "NOT_SENT"))], "NOT_SENT"),
    ([stream(recorded("R", "UNKNOWN"), synced("1")), stream(synced("2"), state("R", "PENDING"))], "CREATED"),
    ([stream(recorded("R", "UNKNOWN"), synced("1"), reset(), recorded("R", "UNKNOWN"), synced("2"), state("R", "PENDING"))],
     "CREATED"),
    ([stream(synced("1"))], "REQUEST_NOT_FOUND"),
    ([stream(recorded("R", "UNKNOWN"), synced("1"), reset(), synced("2"))], "REQUEST_NOT_FOUND"),
    ([stream(end=fail(C.INVALID_ARGUMENT, "FIELD_INVALID"))], "FIELD_INVALID")],
    ids=["at once", "later", "rejected", "not sent", "another stream", "a reset", "not recorded", "gone with a reset", "refused"])
def test_wait_for_outcome(gateway, side, streams, outcome):
    gateway.streams = streams
    try:
        creation = side.wait("wait_for_outcome", "R")
        told = userintent.CreationState.Name(creation.state)[len("CREATION_STATE_"):]
    except userintent.UserIntentError as error:
        assert (error.request_id, error.sent, error.maybe_sent) == ("R", "", False)
        assert (error.code is C.NOT_FOUND) == (error.reason == "REQUEST_NOT_FOUND")
        told = error.reason
    assert told == outcome and gateway.watched[0].request_ids == ["R"]


@pytest.mark.parametrize("messages, wanted, outcome", [
    ([state("R", "APPROVED")], ["DOCUMENT", "APPROVED"], "APPROVED"),
    ([recorded("R", "UNKNOWN"), synced("1"), state("R", "PENDING"), state("R", "DOCUMENT")], ["DOCUMENT"], "DOCUMENT"),
    ([state("R", "REJECTED")], ["REJECTED"], "REJECTED"),
    ([state("R", "PENDING"), synced("1"), state("R", "SUSPENDED")], ["APPROVED", "REJECTED"], "STATUS_FINAL SUSPENDED intent-R"),
    ([state("R", "CONVERTED_TO_USER")], [], "STATUS_FINAL CONVERTED_TO_USER intent-R"),
    ([recorded("R", "REJECTED")], ["APPROVED"], "NOT_CREATED  "),
    ([recorded("R", "NOT_SENT")], ["APPROVED"], "NOT_CREATED  "),
    ([synced("1")], ["APPROVED"], "REQUEST_NOT_FOUND  ")])
def test_wait_for_status(gateway, side, messages, wanted, outcome):
    gateway.streams = [stream(*messages, end=hold)]
    try:
        intent = side.wait("wait_for_status", "R", [userintent.UserIntentStatus.Value(f"USER_INTENT_STATUS_{name}") for name in wanted])
        told = userintent.UserIntentStatus.Name(intent.status)[len("USER_INTENT_STATUS_"):]
    except userintent.StopError as error:
        assert (error.request_id, error.sent, error.maybe_sent, error.recovery) == ("R", "", False, "STOP")
        told = f"{error.reason} {error.final_status} {error.user_intent_id}"
    assert told == outcome
    assert gateway.nothing_open()  # the wait leaves no stream behind


def test_waits_end_with_the_deadline(gateway, side):
    gateway.streams = [stream(recorded("R", "UNKNOWN"), synced("1"), end=hold)]
    for wait in (lambda: side.wait("wait_for_outcome", "R", timeout=0.2), lambda: side.wait("wait_for_status", "R", [2], timeout=0.2)):
        with pytest.raises(userintent.RetryLaterError) as caught:
            wait()
        assert (caught.value.code, caught.value.reason, caught.value.request_id) == (C.DEADLINE_EXCEEDED, "", "R")
    side.client._timeout = 0.2  # of a wait that says nothing
    with pytest.raises(userintent.RetryLaterError):
        side.wait("wait_for_outcome", "R")


def test_final_statuses():
    assert [name for name, number in userintent.UserIntentStatus.items() if userintent.is_final(number)] == [
        f"USER_INTENT_STATUS_{name}" for name in ("REJECTED", "SUSPENDED", "CONVERTED_TO_USER")]
