"""The clients. Any number of threads may use a Client, the tasks of one event loop at a time an AsyncClient."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import time
import weakref
from collections.abc import Generator, Iterable
from types import TracebackType
from typing import Any, Callable, Optional, TypeVar

import grpc
import grpc.aio

from ._core import (
    CREATE,
    DEFAULT_MAX_TRIES,
    DEFAULT_TIMEOUT,
    GET,
    LINK,
    MAX_REQUEST_BYTES,
    READ,
    Call,
    ChannelOptions,
    CreateResult,
    RetryBudget,
    channel_options,
    get_request,
    link_request,
    read_request,
    request_of,
    with_id,
)
from ._errors import UserIntentError
from ._reconnect import Reconnection, is_lost
from ._streams import AsyncStreamWatch, StreamWatch, task_is_cancelled
from ._tls import Tls
from ._watch import WATCH, AsyncWatch, Waiting, Watch, WatchCall, outcome_of, status_of
from .v1 import user_intent_service_pb2 as pb

_RELOAD_INTERVAL = 5.0  # seconds between looks at the certificate files

_Self = TypeVar("_Self", bound="_Base")
_T = TypeVar("_T")
_RESPONSES: dict[str, Any] = {
    CREATE: pb.CreateUserIntentResponse, GET: pb.GetCreationResponse, READ: pb.GetUserIntentResponse,
    LINK: pb.GetAuthorizationUrlResponse}


class _Lease:
    """A channel and the number of calls on it. Closed when it is both retired and idle."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.calls = 0
        self.retired = False
        self.reconnection = Reconnection(channel)  # the blocking client's
        self.methods = {
            path: channel.unary_unary(path, response_deserializer=response.FromString)  # takes bytes: Call.encode()
            for path, response in _RESPONSES.items()}
        self.watch = channel.unary_stream(WATCH, response_deserializer=pb.WatchUserIntentsResponse.FromString)

    def __del__(self) -> None:
        self.reconnection.leave()  # else gRPC's thread would hold a channel that was not closed


class _Base:
    """Settings, and the channel: made anew when certificate files have changed, and can be used."""

    def __init__(self, target: Optional[str] = None, *, tls: Optional[Tls] = None, plaintext: bool = False,
                 channel: Optional[Any] = None, timeout: float = DEFAULT_TIMEOUT, max_tries: int = DEFAULT_MAX_TRIES,
                 channel_options: Optional[ChannelOptions] = None) -> None:
        """One of: target with tls; target with plaintext=True; channel (yours: neither configured nor closed here).

        timeout: seconds for a whole call, its repeats included, unless the call says otherwise. More than a year is
        a year.
        max_tries: RPCs that one call may make; 1 switches automatic repeats off.
        channel_options: gRPC's, beside and over the library's own.
        """
        if (channel is None) == (target is None):
            raise ValueError("give a target or a channel")
        if target is not None and not _names_something(target):
            raise ValueError("the target is empty, or holds a control character")
        if target is not None and (tls is not None) == plaintext:
            raise ValueError("give tls=Tls(...), or plaintext=True where the connection needs no protection")
        if channel is not None and (tls is not None or plaintext or channel_options is not None):
            raise ValueError("a channel brings its own settings")
        if not timeout > 0 or max_tries < 1:
            raise ValueError("timeout must be above 0 and max_tries at least 1")
        self._target, self._tls, self._extra = target or "", tls, channel_options
        self._timeout, self._max_tries = timeout, max_tries
        self._max_bytes = _max_bytes(channel_options)
        self._budget = RetryBudget()
        self._lock = threading.Lock()
        self._closed = False
        self._closing: set[asyncio.Task[None]] = set()  # AsyncClient only
        self._watches: weakref.WeakSet[Any] = weakref.WeakSet()  # that close() ends
        self._stamp = tls.stamp() if tls is not None else None
        self._looked = time.monotonic()
        self._owned = channel is None
        self._lease = self._first(channel)

    def _first(self, channel: Optional[Any]) -> Optional[_Lease]:
        """What the first call uses; None: it is made by that call."""
        return _Lease(channel if channel is not None else self._connect())

    def _connect(self) -> Any:
        raise NotImplementedError

    def _credentials(self) -> Optional[grpc.ChannelCredentials]:
        return None if self._tls is None else self._tls.credentials()

    def _take(self) -> _Lease:
        with self._lock:
            if self._closed:
                raise ValueError("the client is closed")
            if self._tls is not None and time.monotonic() - self._looked >= _RELOAD_INTERVAL:
                self._reload()
            lease = self._current()
            lease.calls += 1
            return lease

    def _current(self) -> _Lease:
        assert self._lease is not None
        return self._lease

    def _reload(self) -> None:
        self._looked = time.monotonic()
        if self._tls is None or self._lease is None:
            return
        try:
            stamp = self._tls.stamp()
            if stamp == self._stamp:
                return
            fresh = _Lease(self._connect())
        except (OSError, ssl.SSLError, ValueError):
            return  # half a change, say; the old files' channel goes on, and the next look may find the other half
        self._stamp = stamp
        old, self._lease = self._lease, fresh
        old.retired = True
        if old.calls == 0:
            self._discard(old)

    def _give_back(self, lease: _Lease) -> None:
        with self._lock:
            lease.calls -= 1
            if lease.retired and lease.calls == 0:
                self._discard(lease)

    def _lost(self, lease: _Lease) -> None:
        """An RPC of the blocking client ended because there was no connection."""
        with self._lock:
            if not self._closed:
                lease.reconnection.lost()

    def _discard(self, lease: _Lease) -> None:
        lease.reconnection.stop()
        self._dispose(lease.channel)

    def _dispose(self, channel: Any) -> None:
        raise NotImplementedError

    def _retire(self) -> Optional[Any]:
        """The channel to close at the client's end; None: nothing to do."""
        with self._lock:
            if self._closed:
                return None
            self._closed = True
            if self._lease is not None:
                self._lease.reconnection.stop()
            return self._lease.channel if self._owned and self._lease is not None else None

    def _create_call(self, request: pb.CreateUserIntentRequest, request_id: Optional[str], timeout: Optional[float],
                     max_tries: Optional[int], maybe_before: bool = False) -> Call:
        return self._call(CREATE, with_id(request, request_id), timeout, max_tries, maybe_before)

    def _watch_call(self, request_ids: Iterable[str], resume_token: bytes, timeout: Optional[float]) -> WatchCall:
        return WatchCall(request_ids, resume_token, timeout, self._max_bytes)

    def _began(self, watch: Any) -> None:
        with self._lock:
            self._watches.add(watch)

    def _end_watches(self) -> None:
        """After _retire()."""
        with self._lock:
            watches = list(self._watches)
        for watch in watches:
            watch.client_closed()

    def _call(self, path: str, request: Any, timeout: Optional[float], max_tries: Optional[int] = None,
              maybe_before: bool = False) -> Call:
        return Call(path, request, self._timeout if timeout is None else timeout,
                    self._max_tries if max_tries is None else max_tries, self._budget, maybe_before=maybe_before,
                    max_bytes=self._max_bytes)


def _names_something(target: str) -> bool:
    """True for everything but control characters, nothing at all, and a scheme with nothing behind it.

    gRPC makes a channel of those, too, whose calls fail in ways that read like a broken connection; of a NUL, of what
    is before it.
    """
    bare = target.rstrip("/")
    only_scheme = bare.endswith(":") and bare.count(":") == 1
    return bool(bare) and not only_scheme and all(c >= " " and c != "\x7f" for c in target)


def _max_bytes(options: Optional[ChannelOptions]) -> int:
    """Of a request: the gateway's limit, or a lower one of the caller's own."""
    own = [int(value) for name, value in options or () if name == "grpc.max_send_message_length" and value >= 0]
    return min([MAX_REQUEST_BYTES, *own[-1:]])


class Client(_Base):
    """The blocking client.

        with Client("127.0.0.1:50051", plaintext=True) as client:
            created = client.create(request)
    """

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()

    def close(self) -> None:
        """Ends the calls that run, with CANCELLED."""
        channel = self._retire()
        self._end_watches()
        if channel is not None:
            channel.close()

    def create(self, request: pb.CreateUserIntentRequest, *, request_id: Optional[str] = None,
               timeout: Optional[float] = None, max_tries: Optional[int] = None) -> CreateResult:
        """Creates a User Intent, at most one for each request_id. Raises UserIntentError.

        The id is request_id, else request.request_id, else a new one; it is in the result and in every error.
        """
        return self._create(self._create_call(request, request_id, timeout, max_tries))

    def _create(self, call: Call) -> CreateResult:
        response = self._run(call, None)
        return CreateResult(call.request_id, call.tries, response)

    def submit(self, request: pb.CreateUserIntentRequest, *, request_id: Optional[str] = None,
               timeout: Optional[float] = None, max_tries: Optional[int] = None) -> PendingCreate:
        """create() in the background, which can be cancelled."""
        return PendingCreate(self, self._create_call(request, request_id, timeout, max_tries))

    def repeat(self, error: UserIntentError, *, timeout: Optional[float] = None,
               max_tries: Optional[int] = None) -> CreateResult:
        """The call that ended with this error again: same request, same request_id, a new deadline."""
        return self._create(self._create_call(request_of(error), None, timeout, max_tries, error.maybe_sent))

    def get_creation(self, request_id: str, *, timeout: Optional[float] = None) -> pb.Creation:
        """What is recorded about a request of this caller. Reads only. Raises UserIntentError (REQUEST_NOT_FOUND)."""
        response = self._run(self._call(GET, get_request(request_id), timeout), None)
        creation: pb.Creation = response.creation
        return creation

    def get_user_intent(self, *, request_id: Optional[str] = None, user_intent_id: Optional[str] = None,
                        max_age: Optional[float] = None, allow_stale: bool = False, timeout: Optional[float] = None,
                        max_tries: Optional[int] = None) -> pb.GetUserIntentResponse:
        """One of this caller's own intents as Astra has it now, by the id of its creation or its own. Raises
        UserIntentError.

        max_age: an answer from the gateway's record may be so many seconds old; None or 0: Astra is asked.
        allow_stale: when Astra cannot be asked, the recorded state, with `stale` true, instead of the error.

        Reading changes nothing, so it is repeated after UNAVAILABLE of a broken connection, too.
        """
        request = read_request(request_id, user_intent_id, max_age, allow_stale)
        response: pb.GetUserIntentResponse = self._run(self._call(READ, request, timeout, max_tries), None)
        return response

    def watch(self, request_ids: Iterable[str] = (), *, resume_token: bytes = b"",
              timeout: Optional[float] = None) -> Watch:
        """Follows these requests of the caller's own, at most 1,000, or all of them when there are none: first the
        present state of each that is named and recorded, then "synced", then every change of a status and every creation
        whose outcome became known. At least once, in order; steps may be folded into the last one.

        resume_token: of an earlier watch: goes on after it. timeout: seconds; None: as long as the loop lasts.

        It makes a new stream by itself whenever one ends, and goes on where that stopped. Only what cannot pass ends it,
        with a UserIntentError: an argument that is refused, a caller that is not allowed, a gateway that knows no
        watches, the timeout (DEADLINE_EXCEEDED), a closed client (CANCELLED). Watch.close() ends the loop without one.
        """
        return StreamWatch(self, self._watch_call(request_ids, resume_token, timeout))

    def wait_for_outcome(self, request_id: str, *, timeout: Optional[float] = None) -> pb.Creation:
        """Waits until it is known what became of a creation (OutcomeUnknownError): its state is CREATED, REJECTED or
        NOT_SENT. It sends nothing to Astra. Raises UserIntentError: DEADLINE_EXCEEDED while nobody knows yet, a StopError
        (REQUEST_NOT_FOUND) when no such request is recorded, and what ends a watch."""
        return self._wait(outcome_of(request_id), timeout)

    def wait_for_status(self, request_id: str, statuses: Iterable[int], *,
                        timeout: Optional[float] = None) -> pb.UserIntent:
        """Waits until the intent that a request created has one of these statuses. Raises UserIntentError: what
        wait_for_outcome does, a StopError NOT_CREATED when the request created no intent, and a StopError STATUS_FINAL
        when it has another status that it will keep: error.final_status."""
        return self._wait(status_of(request_id, statuses), timeout)

    def _wait(self, waiting: Waiting[_T], timeout: Optional[float]) -> _T:
        with self.watch([waiting.request_id], timeout=self._timeout if timeout is None else timeout) as watch:
            for event in watch:
                result = waiting.see(event)
                if result is not None:
                    return result
        raise waiting.no_more()

    def get_authorization_url(self, *, request_id: Optional[str] = None, user_intent_id: Optional[str] = None,
                              redirect_uri: str, state: str, timeout: Optional[float] = None,
                              max_tries: Optional[int] = None) -> pb.GetAuthorizationUrlResponse:
        """The page of Astra's to which the person goes next, by the status that the intent has now. Raises
        UserIntentError, as get_user_intent does; a StopError USER_INTENT_NOT_ELIGIBLE for a person who was rejected or
        suspended.

        redirect_uri: where Astra sends the person back to, one of those that are registered for this caller.
        state: 16 to 256 of [A-Za-z0-9._~-], made anew for each person, and compared when they come back.
        """
        request = link_request(request_id, user_intent_id, redirect_uri, state)
        response: pb.GetAuthorizationUrlResponse = self._run(self._call(LINK, request, timeout, max_tries), None)
        return response

    def _run(self, call: Call, cancellation: Optional[_Cancellation]) -> Any:
        data = call.encode()
        lease = self._take()
        try:
            while True:
                if cancellation is not None and cancellation.wait(0):
                    raise call.cancelled()
                timeout = call.begin_try()
                try:
                    # A future also where nobody cancels: Ctrl-C ends its wait.
                    future = lease.methods[call.path].future(data, timeout=timeout)
                except ValueError as error:  # what gRPC says of a closed channel
                    if self._closed:
                        raise call.not_begun() from error
                    raise
                try:
                    with cancellation.cancels(future.cancel) if cancellation is not None else contextlib.nullcontext():
                        response = future.result()
                    call.succeeded()
                    return response
                except grpc.FutureCancelledError as error:
                    raise call.cancelled() from error
                except grpc.RpcError as error:
                    if is_lost(error):
                        self._lost(lease)
                    wait = call.failed(error)
                except BaseException:
                    future.cancel()
                    raise
                if cancellation is None:
                    time.sleep(wait)
                else:
                    cancellation.wait(wait)
        finally:
            self._give_back(lease)

    def _connect(self) -> Any:
        options = channel_options(self._tls, self._extra)
        credentials = self._credentials()
        if credentials is None:
            return grpc.insecure_channel(self._target, options)
        return grpc.secure_channel(self._target, credentials, options)

    def _dispose(self, channel: Any) -> None:
        channel.close()


class _Cancellation:
    """Cancels the RPC that runs, or the wait for the next one. For any thread."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._cancelled = False
        self._cancel_rpc: Optional[Callable[[], Any]] = None

    def cancel(self) -> None:
        with self._condition:
            self._cancelled = True
            cancel_rpc = self._cancel_rpc
            self._condition.notify_all()
        if cancel_rpc is not None:
            cancel_rpc()

    @contextlib.contextmanager
    def cancels(self, cancel_rpc: Callable[[], Any]) -> Generator[None, None, None]:
        with self._condition:
            self._cancel_rpc = cancel_rpc
            cancelled = self._cancelled
        if cancelled:
            cancel_rpc()
        try:
            yield
        finally:
            with self._condition:
                self._cancel_rpc = None

    def wait(self, seconds: float) -> bool:
        """True: cancelled."""
        with self._condition:
            return self._condition.wait_for(lambda: self._cancelled, seconds)


class PendingCreate:
    """A creation that runs in a thread of its own. request_id is known from the start."""

    def __init__(self, client: Client, call: Call) -> None:
        self.request_id = call.request_id
        self._cancellation = _Cancellation()
        self._result: Optional[CreateResult] = None
        self._error: Optional[BaseException] = None
        self._thread = threading.Thread(target=self._work, args=(client, call), daemon=True, name="userintent-create")
        self._thread.start()

    def _work(self, client: Client, call: Call) -> None:
        try:
            response = client._run(call, self._cancellation)
            self._result = CreateResult(call.request_id, call.tries, response)
        except BaseException as error:
            self._error = error

    def cancel(self) -> None:
        """result() then raises an error with code CANCELLED, unless the answer was there already. What was sent runs
        on at the gateway and is recorded under the request_id."""
        self._cancellation.cancel()

    def done(self) -> bool:
        return not self._thread.is_alive()

    def result(self, timeout: Optional[float] = None) -> CreateResult:
        """Waits for the answer. TimeoutError: it still runs."""
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError("the call still runs")
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result


class AsyncClient(_Base):
    """The asyncio client, for the tasks of one event loop.

        async with AsyncClient("127.0.0.1:50051", plaintext=True) as client:
            created = await client.create(request)

    It may be made where no loop runs, as a module's global say: it connects in the loop of its first call. When that
    loop has ended (asyncio.run twice), the next call connects anew in its own. A call in a second loop while the first
    one runs is a RuntimeError, and sends nothing: give each loop a client of its own.
    """

    _loop: Optional[asyncio.AbstractEventLoop] = None  # that of the channel; None: not connected yet

    def _first(self, channel: Optional[Any]) -> Optional[_Lease]:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            if channel is not None:
                return super()._first(channel)
            self._credentials()  # files that cannot be used are told here, where the client is made
            return None
        self._loop = loop
        return super()._first(channel)

    def _current(self) -> _Lease:
        loop = asyncio.get_running_loop()
        if self._owned and self._loop is not loop:
            if self._loop is not None and self._loop.is_running():
                raise RuntimeError("this AsyncClient is in use by another event loop that runs; give each loop its own")
            if self._lease is not None:
                # Nobody can close a channel of a loop that does not run: it closes when it is let go of.
                self._lease.retired = True
            self._lease, self._loop = _Lease(self._connect()), loop
        return super()._current()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException],
                        trace: Optional[TracebackType]) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the calls that run, with CANCELLED."""
        channel = self._retire()
        self._end_watches()
        if channel is not None and self._loop is asyncio.get_running_loop():
            await channel.close(None)
        closing = [task for task in self._closing if task.get_loop() is asyncio.get_running_loop()]
        await asyncio.gather(*closing, return_exceptions=True)

    async def create(self, request: pb.CreateUserIntentRequest, *, request_id: Optional[str] = None,
                     timeout: Optional[float] = None, max_tries: Optional[int] = None) -> CreateResult:
        """Creates a User Intent, at most one for each request_id. Raises UserIntentError.

        The id is request_id, else request.request_id, else a new one; it is in the result and in every error. When the
        task is cancelled, asyncio.CancelledError leaves here as it must, without an id: give one that you have
        stored, or use submit().
        """
        return await self._create(self._create_call(request, request_id, timeout, max_tries))

    async def _create(self, call: Call) -> CreateResult:
        response = await self._run(call)
        return CreateResult(call.request_id, call.tries, response)

    def submit(self, request: pb.CreateUserIntentRequest, *, request_id: Optional[str] = None,
               timeout: Optional[float] = None, max_tries: Optional[int] = None) -> AsyncPendingCreate:
        """create() in a task of its own, whose cancel() gives an error with the request_id."""
        return AsyncPendingCreate(self, self._create_call(request, request_id, timeout, max_tries))

    async def repeat(self, error: UserIntentError, *, timeout: Optional[float] = None,
                     max_tries: Optional[int] = None) -> CreateResult:
        """The call that ended with this error again: same request, same request_id, a new deadline."""
        return await self._create(self._create_call(request_of(error), None, timeout, max_tries, error.maybe_sent))

    async def get_creation(self, request_id: str, *, timeout: Optional[float] = None) -> pb.Creation:
        """What is recorded about a request of this caller. Reads only. Raises UserIntentError (REQUEST_NOT_FOUND)."""
        response = await self._run(self._call(GET, get_request(request_id), timeout))
        creation: pb.Creation = response.creation
        return creation

    async def get_user_intent(self, *, request_id: Optional[str] = None, user_intent_id: Optional[str] = None,
                              max_age: Optional[float] = None, allow_stale: bool = False,
                              timeout: Optional[float] = None,
                              max_tries: Optional[int] = None) -> pb.GetUserIntentResponse:
        """One of this caller's own intents as Astra has it now; see Client.get_user_intent."""
        request = read_request(request_id, user_intent_id, max_age, allow_stale)
        response: pb.GetUserIntentResponse = await self._run(self._call(READ, request, timeout, max_tries))
        return response

    def watch(self, request_ids: Iterable[str] = (), *, resume_token: bytes = b"",
              timeout: Optional[float] = None) -> AsyncWatch:
        """Follows requests of the caller's own, for an async for loop; see Client.watch. A task that is cancelled while
        it waits for an event leaves the watch as it was: the next wait makes a new stream and goes on."""
        return AsyncStreamWatch(self, self._watch_call(request_ids, resume_token, timeout))

    async def wait_for_outcome(self, request_id: str, *, timeout: Optional[float] = None) -> pb.Creation:
        """Waits until it is known what became of a creation; see Client.wait_for_outcome."""
        return await self._wait(outcome_of(request_id), timeout)

    async def wait_for_status(self, request_id: str, statuses: Iterable[int], *,
                              timeout: Optional[float] = None) -> pb.UserIntent:
        """Waits until the intent has one of these statuses; see Client.wait_for_status."""
        return await self._wait(status_of(request_id, statuses), timeout)

    async def _wait(self, waiting: Waiting[_T], timeout: Optional[float]) -> _T:
        async with self.watch([waiting.request_id], timeout=self._timeout if timeout is None else timeout) as watch:
            async for event in watch:
                result = waiting.see(event)
                if result is not None:
                    return result
        raise waiting.no_more()

    async def get_authorization_url(self, *, request_id: Optional[str] = None, user_intent_id: Optional[str] = None,
                                    redirect_uri: str, state: str, timeout: Optional[float] = None,
                                    max_tries: Optional[int] = None) -> pb.GetAuthorizationUrlResponse:
        """The page of Astra's to which the person goes next; see Client.get_authorization_url."""
        request = link_request(request_id, user_intent_id, redirect_uri, state)
        response: pb.GetAuthorizationUrlResponse = await self._run(self._call(LINK, request, timeout, max_tries))
        return response

    async def _run(self, call: Call) -> Any:
        data = call.encode()
        lease = self._take()
        try:
            while True:
                timeout = call.begin_try()
                try:
                    rpc = lease.methods[call.path](data, timeout=timeout)
                except grpc.aio.UsageError as error:  # what gRPC says of a closed channel
                    if self._closed:
                        raise call.not_begun() from error
                    raise
                try:
                    response = await rpc
                    call.succeeded()
                    return response
                except asyncio.CancelledError as error:
                    # Either this task was cancelled, or the RPC by itself because the channel was closed.
                    if self._closed and not task_is_cancelled():
                        raise call.cancelled() from error
                    rpc.cancel()
                    raise
                except grpc.RpcError as error:
                    wait = call.failed(error)
                await asyncio.sleep(wait)
        finally:
            self._give_back(lease)

    def _connect(self) -> Any:
        options = channel_options(self._tls, self._extra)
        credentials = self._credentials()
        if credentials is None:
            return grpc.aio.insecure_channel(self._target, options)
        return grpc.aio.secure_channel(self._target, credentials, options)

    def _dispose(self, channel: Any) -> None:
        task = asyncio.get_running_loop().create_task(channel.close(None))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class AsyncPendingCreate:
    """A creation that runs in a task of its own; await it. request_id is known from the start."""

    def __init__(self, client: AsyncClient, call: Call) -> None:
        self.request_id = call.request_id
        self._call = call
        self._cancelled = False
        self._task = asyncio.get_running_loop().create_task(client._run(call))

    def cancel(self) -> None:
        """Awaiting it then raises an error with code CANCELLED, unless the answer was there already. What was sent
        runs on at the gateway and is recorded under the request_id."""
        self._cancelled = True
        self._task.cancel()

    def done(self) -> bool:
        return self._task.done()

    def __await__(self) -> Generator[Any, None, CreateResult]:
        return self._wait().__await__()

    async def _wait(self) -> CreateResult:
        try:
            response = await self._task
        except asyncio.CancelledError as error:
            if self._cancelled and self._task.cancelled():
                raise self._call.cancelled() from error
            raise
        return CreateResult(self._call.request_id, self._call.tries, response)
