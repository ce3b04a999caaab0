"""Stand-ins of the clients, for tests of programs that use one. They need no gateway and no network.

    client = FakeClient()
    client.fail(error(grpc.StatusCode.UNAVAILABLE))
    sign_up(client, person)
    assert len(client.requests) == 2
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable
from typing import Optional, TypeVar

import grpc

from ._authorization_url import authorization_url
from ._core import CreateResult, link_request, read_request, with_id
from ._errors import Decoded, UserIntentError, local, make_error, of_read
from ._watch import AsyncWatch, Waiting, Watch, WatchEvent, outcome_of, status_of
from .v1 import user_intent_service_pb2 as pb

_T = TypeVar("_T")

__all__ = ["FakeAsyncClient", "FakeClient", "error"]


def error(code: grpc.StatusCode, reason: str = "", *, recovery: str = "", sent: str = "", message: str = "",
          retry_after: Optional[float] = None, not_repeated: str = "not_retryable", **metadata: str) -> UserIntentError:
    """An error as a client raises it. metadata: further words of the gateway, such as user_intent_id or http_status."""
    words = {**metadata, **({"recovery": recovery} if recovery else {}), **({"sent": sent} if sent else {})}
    return make_error(Decoded(code, message, reason, words, (), retry_after, None, not_repeated=not_repeated), "", 1, None)


class FakeClient:
    """Creates intents in memory: "intent-1", "intent-2", ..., one for each request_id; a repeat of an id gets the same
    answer. It checks no field, and needs no close(). Any number of threads may use it."""

    def __init__(self) -> None:
        self.requests: list[pb.CreateUserIntentRequest] = []  # of all creations and repeats, with their request_id
        self._failures: list[UserIntentError] = []
        self._asked: dict[str, pb.CreateUserIntentRequest] = {}
        self._made: dict[str, pb.UserIntent] = {}
        self._others: dict[str, pb.Creation] = {}  # what set_creation set, without an intent
        self._log: list[str] = []  # the request_id of each change, in lower case
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)

    def fail(self, *failures: UserIntentError) -> None:
        """The next calls raise these, one each, with their own request_id. A creation that fails creates nothing."""
        with self._lock:
            self._failures += failures

    def set_user_intent(self, intent: pb.UserIntent) -> None:
        """Replaces the intent with this id, as get_user_intent then answers it. KeyError: there is none."""
        with self._lock:
            for key, made in self._made.items():
                if made.id == intent.id:
                    made.CopyFrom(intent)
                    self._note(key)
                    return
        raise KeyError(intent.id)

    def set_creation(self, creation: pb.Creation) -> None:
        """What is recorded about a request, as get_creation and watch then tell it: one whose outcome is not known, say.
        With an intent it is created."""
        key = creation.request_id.lower()
        with self._lock:
            self._made.pop(key, None)
            self._others.pop(key, None)
            if creation.HasField("user_intent"):
                self._made[key] = pb.UserIntent()
                self._made[key].CopyFrom(creation.user_intent)
            else:
                self._others[key] = pb.Creation()
                self._others[key].CopyFrom(creation)
            self._note(key)

    def _note(self, key: str) -> None:
        """Logs a change, and wakes watches."""
        self._log.append(key)
        self._changed.notify_all()

    def close(self) -> None:
        """Does nothing."""

    def create(self, request: pb.CreateUserIntentRequest, *, request_id: Optional[str] = None,
               timeout: Optional[float] = None, max_tries: Optional[int] = None) -> CreateResult:
        """Creates an intent, or answers the one of this request_id."""
        sent = with_id(request, request_id)
        with self._lock:
            self.requests.append(sent)
            self._asked[sent.request_id.lower()] = sent
            self._raise_next(sent.request_id)
            replayed = sent.request_id.lower() in self._made
            response = pb.CreateUserIntentResponse(replayed=replayed)
            response.attempts.used_min = response.attempts.used_max = 1
            response.attempts.limit = 3
            if not sent.validate_only:
                response.user_intent.CopyFrom(self._intent_of(sent))
            return CreateResult(sent.request_id, 1, response)

    def repeat(self, error: UserIntentError, *, timeout: Optional[float] = None,
               max_tries: Optional[int] = None) -> CreateResult:
        """The creation that ended with this error again."""
        with self._lock:
            asked = self._asked.get(error.request_id.lower())
        if asked is None or error._decoded.read:
            raise ValueError("this error holds no request: it was pickled, or is not of a creation")
        return self.create(asked)

    def get_creation(self, request_id: str, *, timeout: Optional[float] = None) -> pb.Creation:
        """What was created under this id."""
        with self._lock:
            self._raise_next(request_id)
            creation = self._creation(request_id.lower())
            if creation is None:
                raise _not_found("REQUEST_NOT_FOUND", request_id, None)
            return creation

    def _creation(self, key: str) -> Optional[pb.Creation]:
        """What is recorded."""
        found = pb.Creation()
        if key in self._others:
            found.CopyFrom(self._others[key])
            return found
        intent = self._made.get(key)
        if intent is None:
            return None
        return pb.Creation(request_id=key, state=pb.CREATION_STATE_CREATED, user_intent=intent,
                           create_time=intent.create_time, update_time=intent.create_time)

    def get_user_intent(self, *, request_id: Optional[str] = None, user_intent_id: Optional[str] = None,
                        max_age: Optional[float] = None, allow_stale: bool = False, timeout: Optional[float] = None,
                        max_tries: Optional[int] = None) -> pb.GetUserIntentResponse:
        """An intent as it was created, or set since."""
        read_request(request_id, user_intent_id, max_age, allow_stale)
        with self._lock:
            self._raise_next(request_id or "", user_intent_id or "")
            if request_id is not None:
                intent = self._made.get(request_id.lower())
            else:
                intent = next((made for made in self._made.values() if made.id == user_intent_id), None)
            if intent is None:
                if (request_id or "").lower() in self._others:
                    raise _made_of(_NOT_CREATED, request_id or "", "", 1)
                reason = "USER_INTENT_NOT_FOUND" if request_id is None else "REQUEST_NOT_FOUND"
                raise _not_found(reason, request_id or "", user_intent_id or "")
            response = pb.GetUserIntentResponse(user_intent=intent)
            response.read_time.GetCurrentTime()
            return response

    def watch(self, request_ids: Iterable[str] = (), *, resume_token: bytes = b"",
              timeout: Optional[float] = None) -> Watch:
        """The present states, and then what create, set_user_intent and set_creation change. What fail() names ends it."""
        return _FakeWatch(self, request_ids, resume_token, timeout)

    def wait_for_outcome(self, request_id: str, *, timeout: Optional[float] = None) -> pb.Creation:
        """Waits for a creation that ends, as the Client does, but without a default timeout."""
        return self._wait(outcome_of(request_id), timeout)

    def wait_for_status(self, request_id: str, statuses: Iterable[int], *,
                        timeout: Optional[float] = None) -> pb.UserIntent:
        """Waits for a status of set_user_intent, as the Client does, but without a default timeout."""
        return self._wait(status_of(request_id, statuses), timeout)

    def _wait(self, waiting: Waiting[_T], timeout: Optional[float]) -> _T:
        for event in self.watch([waiting.request_id], timeout=timeout):
            result = waiting.see(event)
            if result is not None:
                return result
        raise waiting.no_more()

    def get_authorization_url(self, *, request_id: Optional[str] = None, user_intent_id: Optional[str] = None,
                              redirect_uri: str, state: str, timeout: Optional[float] = None,
                              max_tries: Optional[int] = None) -> pb.GetAuthorizationUrlResponse:
        """A page of Astra's sandbox, for the program "client-id"."""
        link_request(request_id, user_intent_id, redirect_uri, state)
        intent = self.get_user_intent(request_id=request_id, user_intent_id=user_intent_id).user_intent
        try:
            made = authorization_url("https://app-sandbox.astra.finance", "client-id", intent, redirect_uri, state)
        except UserIntentError as refused:
            raise make_error(refused._decoded, request_id or "", 1, None) from None
        return pb.GetAuthorizationUrlResponse(url=made.url, page=made.page, user_intent=intent)

    def _intent_of(self, sent: pb.CreateUserIntentRequest) -> pb.UserIntent:
        key = sent.request_id.lower()
        if key not in self._made:
            intent = pb.UserIntent(id=f"intent-{len(self._made) + 1}", status=pb.USER_INTENT_STATUS_PENDING,
                                   astra_status="pending", verification_type=sent.verification_type)
            intent.create_time.GetCurrentTime()
            intent.status_time.CopyFrom(intent.create_time)
            self._made[key] = intent
            self._others.pop(key, None)
            self._note(key)
        return self._made[key]

    def _raise_next(self, request_id: str, user_intent_id: Optional[str] = None) -> None:
        """Raises what fail() named for this call. user_intent_id: of a read."""
        if self._failures:
            failure = self._failures.pop(0)
            raise _made_of(failure._decoded, request_id, user_intent_id, failure.tries)


_NOT_CREATED = Decoded(grpc.StatusCode.FAILED_PRECONDITION, "No intent is known for this request.", "NOT_CREATED",
                       {"recovery": "STOP"}, (), None, None, not_repeated="not_retryable")


class _FakeWatch(Watch):
    """Of FakeClient.watch. The token is a position in its log."""

    def __init__(self, fake: FakeClient, request_ids: Iterable[str], resume_token: bytes, timeout: Optional[float]) -> None:
        self._fake = fake
        self._ids = [request_id.lower() for request_id in request_ids]
        self._token = resume_token
        self._until = None if timeout is None else time.monotonic() + timeout
        self._ready: list[WatchEvent] = []
        self._begun = self._synced = self._closed = False
        self._position = 0

    @property
    def resume_token(self) -> bytes:
        return self._token

    def close(self) -> None:
        with self._fake._changed:
            self._closed = True
            self._fake._changed.notify_all()

    def __next__(self) -> WatchEvent:
        with self._fake._changed:
            while True:
                event = self.poll()
                if event is not None:
                    return event
                left = None if self._until is None else max(self._until - time.monotonic(), 0.0)
                self._fake._changed.wait(left)

    def poll(self) -> Optional[WatchEvent]:
        """The next event; None: there is none yet."""
        with self._fake._lock:
            if self._closed:
                raise StopIteration
            if not self._begun:
                self._begin()
            if not self._ready:
                self._look()
            if self._ready:
                event = self._ready.pop(0)
                self._token = event.resume_token or self._token
                return event
            if self._until is not None and time.monotonic() >= self._until:
                self._closed = True
                over = local(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed while watching", False)
                raise _made_of(over, self._key(), "", 1)
            return None

    def _key(self) -> str:
        return self._ids[0] if len(self._ids) == 1 else ""

    def _begin(self) -> None:
        self._begun = True
        if self._fake._failures:
            self._closed = True
        self._fake._raise_next(self._key(), "")
        if self._token:
            self._position = int(self._token)
            return
        self._position = len(self._fake._log)
        states = [self._fake._creation(key) for key in self._ids]
        self._ready = [WatchEvent("changed", state, b"") for state in states if state is not None]

    def _look(self) -> None:
        fake = self._fake
        keys = [key for key in dict.fromkeys(fake._log[self._position:]) if not self._ids or key in self._ids]
        before, self._position = self._position, len(fake._log)
        for number, key in enumerate(keys, 1):
            token = self._position if number == len(keys) else before
            self._ready.append(WatchEvent("changed", fake._creation(key), str(token).encode()))
        if not self._synced:
            self._synced = True
            self._ready.append(WatchEvent("synced", None, str(self._position).encode()))


class _FakeAsyncWatch(AsyncWatch):
    """Of FakeAsyncClient.watch: looks every few milliseconds."""

    def __init__(self, watch: _FakeWatch) -> None:
        self._watch = watch

    @property
    def resume_token(self) -> bytes:
        return self._watch.resume_token

    def close(self) -> None:
        self._watch.close()

    async def __anext__(self) -> WatchEvent:
        while True:
            try:
                event = self._watch.poll()
            except StopIteration:
                raise StopAsyncIteration from None
            if event is not None:
                return event
            await asyncio.sleep(0.005)


def _not_found(reason: str, request_id: str, user_intent_id: Optional[str]) -> UserIntentError:
    decoded = Decoded(grpc.StatusCode.NOT_FOUND, "There is none.", reason, {"recovery": "STOP"}, (), None, None,
                      not_repeated="not_retryable")
    return _made_of(decoded, request_id, user_intent_id, 1)


def _made_of(decoded: Decoded, request_id: str, user_intent_id: Optional[str], tries: int) -> UserIntentError:
    if user_intent_id is not None:
        decoded = of_read(decoded, user_intent_id, tries)
    return make_error(decoded, request_id, tries, None)


class FakeAsyncClient:
    """A FakeClient with the methods of AsyncClient; `fake` is the FakeClient, to tell it what to do and ask what came."""

    def __init__(self, fake: Optional[FakeClient] = None) -> None:
        self.fake = fake or FakeClient()

    async def close(self) -> None:
        """Does nothing."""

    async def create(self, request: pb.CreateUserIntentRequest, *, request_id: Optional[str] = None,
                     timeout: Optional[float] = None, max_tries: Optional[int] = None) -> CreateResult:
        return self.fake.create(request, request_id=request_id)

    async def repeat(self, error: UserIntentError, *, timeout: Optional[float] = None,
                     max_tries: Optional[int] = None) -> CreateResult:
        return self.fake.repeat(error)

    async def get_creation(self, request_id: str, *, timeout: Optional[float] = None) -> pb.Creation:
        return self.fake.get_creation(request_id)

    async def get_user_intent(self, *, request_id: Optional[str] = None, user_intent_id: Optional[str] = None,
                              max_age: Optional[float] = None, allow_stale: bool = False,
                              timeout: Optional[float] = None,
                              max_tries: Optional[int] = None) -> pb.GetUserIntentResponse:
        return self.fake.get_user_intent(request_id=request_id, user_intent_id=user_intent_id, max_age=max_age,
                                         allow_stale=allow_stale)

    def watch(self, request_ids: Iterable[str] = (), *, resume_token: bytes = b"",
              timeout: Optional[float] = None) -> AsyncWatch:
        return _FakeAsyncWatch(_FakeWatch(self.fake, request_ids, resume_token, timeout))

    async def wait_for_outcome(self, request_id: str, *, timeout: Optional[float] = None) -> pb.Creation:
        return await self._wait(outcome_of(request_id), timeout)

    async def wait_for_status(self, request_id: str, statuses: Iterable[int], *,
                              timeout: Optional[float] = None) -> pb.UserIntent:
        return await self._wait(status_of(request_id, statuses), timeout)

    async def _wait(self, waiting: Waiting[_T], timeout: Optional[float]) -> _T:
        async for event in self.watch([waiting.request_id], timeout=timeout):
            result = waiting.see(event)
            if result is not None:
                return result
        raise waiting.no_more()

    async def get_authorization_url(self, *, request_id: Optional[str] = None, user_intent_id: Optional[str] = None,
                                    redirect_uri: str, state: str, timeout: Optional[float] = None,
                                    max_tries: Optional[int] = None) -> pb.GetAuthorizationUrlResponse:
        return self.fake.get_authorization_url(request_id=request_id, user_intent_id=user_intent_id,
                                               redirect_uri=redirect_uri, state=state)
