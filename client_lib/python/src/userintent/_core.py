"""What the blocking and the asyncio client share: one call's tries, the budget of repeats, the channel's settings.

Nothing here does I/O but looking at the clock. RetryBudget may be used by any thread; a Call belongs to one.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import pathlib
import random
import threading
import time
import uuid
from typing import Any, Callable, Optional, Union

import grpc

from ._errors import Decoded, UserIntentError, decode, local, make_error, of_read, refused
from ._tls import Tls
from .v1 import user_intent_service_pb2 as pb

DEFAULT_TIMEOUT = 35.0
DEFAULT_MAX_TRIES = 5
MAX_REQUEST_BYTES = 64 * 1024  # of a message on the wire; the gateway takes no longer one
_LONGEST_TIMEOUT = 365 * 86400.0  # seconds. Beyond it clocks and gRPC's conversions overflow, and nobody waits so long
CREATE = "/userintent.v1.UserIntentService/CreateUserIntent"
GET = "/userintent.v1.UserIntentService/GetCreation"
READ = "/userintent.v1.UserIntentService/GetUserIntent"
LINK = "/userintent.v1.UserIntentService/GetAuthorizationUrl"

Request = Union[pb.CreateUserIntentRequest, pb.GetCreationRequest, pb.GetUserIntentRequest, pb.GetAuthorizationUrlRequest]
_READS = (pb.GetUserIntentRequest, pb.GetAuthorizationUrlRequest)
ChannelOptions = list[tuple[str, Any]]


def new_request_id() -> str:
    """A fresh request_id. Store it before the call, and a crash of your own cannot lose it."""
    return str(uuid.uuid4())


def service_config() -> str:
    """A gRPC service config (JSON) for callers that use the generated stubs without this library's clients.

    The gateway's errors that must not be repeated forbid it by their pushback trailer, which gRPC obeys; the
    request_id in the message makes every other repeat safe.
    """
    text = (pathlib.Path(__file__).parent / "service_config.json").read_text(encoding="utf-8")
    return json.dumps(json.loads(text), separators=(",", ":"))


def channel_options(tls: Optional[Tls], extra: Optional[ChannelOptions]) -> ChannelOptions:
    try:
        version = importlib.metadata.version("userintent")
    except importlib.metadata.PackageNotFoundError:
        version = "0"
    options: ChannelOptions = [
        # Repeats are this library's business: gRPC's own do not know which errors may be repeated, and when.
        ("grpc.enable_retries", 0),
        ("grpc.service_config_disable_resolution", 1),
        # The gateway pings every 60 s and allows pings every 10 s, also without calls. gRPC 1.60 does not see a reset that
        # comes together with data: the connection stays open, and silent, until a ping cannot be sent.
        ("grpc.keepalive_time_ms", 15_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # A gateway that was restarted is back in seconds.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 5_000),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_metadata_size", 32 * 1024),
        ("grpc.primary_user_agent", f"userintent-python/{version}"),
    ]
    if tls is not None and tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options + list(extra or [])


class RetryBudget:
    """Token bucket of one client: repeats stay few beside calls that succeed, so they cannot keep an outage going."""

    CAPACITY = 10.0
    REFUND = 0.1

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens = self.CAPACITY

    def take(self) -> bool:
        with self._lock:
            if self._tokens < 1.0:
                return False
            self._tokens -= 1.0
            return True

    def succeeded(self) -> None:
        with self._lock:
            self._tokens = min(self._tokens + self.REFUND, self.CAPACITY)


@dataclasses.dataclass(frozen=True)
class CreateResult:
    """The answer to a creation. request_id is what a repeat needs; tries counts the RPCs that it took."""

    request_id: str
    tries: int
    response: pb.CreateUserIntentResponse

    @property
    def user_intent(self) -> Optional[pb.UserIntent]:
        """None for validate_only."""
        return self.response.user_intent if self.response.HasField("user_intent") else None

    @property
    def user_intent_id(self) -> str:
        """Astra's id; empty for validate_only."""
        return self.response.user_intent.id

    @property
    def replayed(self) -> bool:
        return self.response.replayed

    @property
    def attempts(self) -> pb.AttemptBudget:
        return self.response.attempts

    @property
    def astra_request_id(self) -> str:
        return self.response.astra_request_id


class Call:
    """The tries of one call: which request to send, how long each may take, whether and when to send it again.

    An error keeps its Call, for Client.repeat. repr() shows no personal data. maybe_before: it repeats a call of which
    nobody knows whether it was sent. max_bytes: of the request, encoded.
    """

    def __init__(self, path: str, request: Request, timeout: float, max_tries: int, budget: RetryBudget,
                 jitter: Callable[[], float] = random.random, clock: Callable[[], float] = time.monotonic,
                 maybe_before: bool = False, max_bytes: int = MAX_REQUEST_BYTES) -> None:
        if not timeout > 0:
            raise ValueError("timeout must be above 0")
        if max_tries < 1:
            raise ValueError("max_tries must be at least 1")
        self.path = path
        self.request = request
        self.tries = 0
        self._max_tries = max_tries
        self._budget = budget
        self._jitter, self._clock = jitter, clock
        self._maybe_before = maybe_before
        self._max_bytes = max_bytes
        self._deadline = clock() + min(timeout, _LONGEST_TIMEOUT)
        self._last: Optional[Decoded] = None

    def __repr__(self) -> str:
        return f"<call {self.request_id}>"

    @property
    def request_id(self) -> str:
        """Empty for a read by the intent's id."""
        return self.request.request_id

    def encode(self) -> bytes:
        """The bytes of every try. Raises InvalidRequestError when they cannot be sent."""
        try:
            data: bytes = self.request.SerializeToString()
        except Exception as error:  # protobuf's EncodeError, and whatever an implementation raises beside it
            raise self._error(refused(f"the request cannot be encoded ({type(error).__name__})")) from None
        if len(data) > self._max_bytes:
            message = f"the request has {len(data)} bytes, more than the {self._max_bytes} that may be sent"
            raise self._error(refused(message))
        return data

    def begin_try(self) -> float:
        """The timeout of the next RPC."""
        left = self._deadline - self._clock()
        if left <= 0:
            if self._last is not None:
                raise self._error(self._last, "deadline")  # the wait took longer than it should have
            message = "the deadline was over before the call began"
            raise self._error(local(grpc.StatusCode.DEADLINE_EXCEEDED, message, self._not_sent()))
        self.tries += 1
        return left

    def succeeded(self) -> None:
        self._budget.succeeded()

    def failed(self, error: grpc.RpcError) -> float:
        """How long to wait before the next try. Raises UserIntentError when there is to be none."""
        decoded = self._of_kind(decode(error))
        wait, why = self._next(decoded)
        if why:
            raise self._error(decoded, why) from error
        self._last = decoded
        return wait

    def cancelled(self) -> UserIntentError:
        return self._error(local(grpc.StatusCode.CANCELLED, "cancelled by the caller", self._not_sent()))

    def not_begun(self) -> UserIntentError:
        """The client was closed before the RPC that begin_try() announced could begin."""
        self.tries -= 1
        return self.cancelled()

    def _not_sent(self) -> bool:
        """Surely nothing left this process, neither for this call nor for the one that it repeats."""
        return self.tries == 0 and not self._maybe_before

    def _error(self, decoded: Decoded, why: str = "not_retryable") -> UserIntentError:
        decoded = dataclasses.replace(self._of_kind(decoded), not_repeated=why)
        return make_error(decoded, self.request_id, self.tries, self)

    def _of_kind(self, decoded: Decoded) -> Decoded:
        if decoded.read or not isinstance(self.request, _READS):
            return decoded
        return of_read(decoded, self.request.user_intent_id, self.tries)

    def _next(self, decoded: Decoded) -> tuple[float, str]:
        """How long to wait before the next try, and "", or why there is to be none."""
        forbidden = decoded.pushback_ms is not None and decoded.pushback_ms < 0
        if decoded.retry_after is None or forbidden:
            return 0.0, "not_retryable"
        if self.tries >= self._max_tries:
            return 0.0, "max_tries"
        wait = max(decoded.retry_after, (decoded.pushback_ms or 0) / 1000) * (1.0 + 0.25 * self._jitter())
        if self._clock() + wait >= self._deadline:
            return 0.0, "deadline"
        if not self._budget.take():
            return 0.0, "budget"
        return wait, ""


def with_id(request: pb.CreateUserIntentRequest, request_id: Optional[str]) -> pb.CreateUserIntentRequest:
    """A copy with an id: the one given, else the request's own, else a new one. The caller's object stays as it is."""
    copy = pb.CreateUserIntentRequest()
    copy.CopyFrom(request)
    _set_id(copy, request_id or copy.request_id or new_request_id())
    return copy


def get_request(request_id: str) -> pb.GetCreationRequest:
    request = pb.GetCreationRequest()
    _set_id(request, request_id)
    return request


def read_request(request_id: Optional[str], user_intent_id: Optional[str], max_age: Optional[float],
                 allow_stale: bool) -> pb.GetUserIntentRequest:
    request = pb.GetUserIntentRequest(allow_stale=allow_stale)
    if max_age is not None:
        request.max_age.FromNanoseconds(round(max_age * 1e9))
    _set_key(request, request_id, user_intent_id)
    return request


def link_request(request_id: Optional[str], user_intent_id: Optional[str], redirect_uri: str,
                 state: str) -> pb.GetAuthorizationUrlRequest:
    request = pb.GetAuthorizationUrlRequest()
    for field, value in (("redirect_uri", redirect_uri), ("state", state)):
        try:
            setattr(request, field, value)
        except ValueError:
            raise _not_unicode(field, request_id or "", user_intent_id or "", True) from None
    _set_key(request, request_id, user_intent_id)
    return request


def _set_key(request: Union[pb.GetUserIntentRequest, pb.GetAuthorizationUrlRequest], request_id: Optional[str],
             user_intent_id: Optional[str]) -> None:
    if (request_id is None) == (user_intent_id is None):
        raise TypeError("give request_id or user_intent_id")
    if request_id is not None:
        _set_id(request, request_id)
        return
    try:
        request.user_intent_id = user_intent_id or ""
    except ValueError:
        raise _not_unicode("user_intent_id", "", repr(user_intent_id), True) from None


def _set_id(request: Request, request_id: str) -> None:
    try:
        request.request_id = request_id
    except ValueError:  # half a surrogate pair, or bytes that are not UTF-8
        read = isinstance(request, _READS)
        raise _not_unicode("request_id", repr(request_id), "", read) from None


def _not_unicode(field: str, request_id: str, user_intent_id: str, read: bool) -> UserIntentError:
    decoded = dataclasses.replace(refused(f"{field} is not Unicode text"), not_repeated="not_retryable")
    return make_error(of_read(decoded, user_intent_id, 0) if read else decoded, request_id, 0, None)


def request_of(error: UserIntentError) -> pb.CreateUserIntentRequest:
    call = error._call
    if not isinstance(call, Call) or not isinstance(call.request, pb.CreateUserIntentRequest):
        raise ValueError("this error holds no request: it was pickled, or is not of a creation")
    return call.request
