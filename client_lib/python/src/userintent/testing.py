"""Stand-ins of the clients, for tests of programs that use one. They need no gateway and no network.

    client = FakeClient()
    client.fail(error(grpc.StatusCode.UNAVAILABLE))
    sign_up(client, person)
    assert len(client.requests) == 2
"""

from __future__ import annotations

import threading
from typing import Optional

import grpc

from ._core import CreateResult, read_request, with_id
from ._errors import Decoded, UserIntentError, make_error, of_read
from .v1 import user_intent_service_pb2 as pb

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
        self._lock = threading.RLock()

    def fail(self, *failures: UserIntentError) -> None:
        """The next calls raise these, one each, with their own request_id. A creation that fails creates nothing."""
        with self._lock:
            self._failures += failures

    def set_user_intent(self, intent: pb.UserIntent) -> None:
        """Replaces the intent with this id, as get_user_intent then answers it. KeyError: there is none."""
        with self._lock:
            for made in self._made.values():
                if made.id == intent.id:
                    made.CopyFrom(intent)
                    return
        raise KeyError(intent.id)

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
            intent = self._made.get(request_id.lower())
            if intent is None:
                raise _not_found("REQUEST_NOT_FOUND", request_id, None)
            return pb.Creation(request_id=request_id.lower(), state=pb.CREATION_STATE_CREATED, user_intent=intent,
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
                reason = "USER_INTENT_NOT_FOUND" if request_id is None else "REQUEST_NOT_FOUND"
                raise _not_found(reason, request_id or "", user_intent_id or "")
            response = pb.GetUserIntentResponse(user_intent=intent)
            response.read_time.GetCurrentTime()
            return response

    def _intent_of(self, sent: pb.CreateUserIntentRequest) -> pb.UserIntent:
        key = sent.request_id.lower()
        if key not in self._made:
            intent = pb.UserIntent(id=f"intent-{len(self._made) + 1}", status=pb.USER_INTENT_STATUS_PENDING,
                                   astra_status="pending", verification_type=sent.verification_type)
            intent.create_time.GetCurrentTime()
            intent.status_time.CopyFrom(intent.create_time)
            self._made[key] = intent
        return self._made[key]

    def _raise_next(self, request_id: str, user_intent_id: Optional[str] = None) -> None:
        """Raises what fail() named for this call. user_intent_id: of a read."""
        if self._failures:
            failure = self._failures.pop(0)
            raise _made_of(failure._decoded, request_id, user_intent_id, failure.tries)


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
