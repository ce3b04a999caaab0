"""What both clients' watches share: which stream to make, what its messages mean, and when to make the next one.

Nothing here does I/O but looking at the clock. A WatchCall belongs to one watch.
"""

from __future__ import annotations

import abc
import dataclasses
import random
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from types import TracebackType
from typing import Callable, Generic, Literal, Optional, TypeVar

import grpc

from ._errors import Decoded, UserIntentError, local, make_error, of_read, refused
from .v1 import user_intent_service_pb2 as pb

WATCH = "/userintent.v1.UserIntentService/WatchUserIntents"
SILENCE = 60.0  # seconds. The gateway says something every 20 s; a stream without a word for so long is lost
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
_LONGEST_TIMEOUT = 365 * 86400.0

_T = TypeVar("_T")
_Code = grpc.StatusCode


@dataclasses.dataclass(frozen=True)
class WatchEvent:
    """One step of a watch.

    kind: "changed": `creation` is the present state of a request, as get_creation tells it. "synced": the present states
    have been told; what follows are changes. Once a watch, and once after each "reset": some changes are not known any
    more, and the present states follow, as at the beginning.
    resume_token: goes on after this event, in another process too. It may be empty before "synced".
    """

    kind: Literal["changed", "synced", "reset"]
    creation: Optional[pb.Creation]
    resume_token: bytes


class Watch(Iterator[WatchEvent], abc.ABC):
    """The events of Client.watch, for a for loop. One thread at a time; close() and resume_token for any.

        with client.watch() as watch:
            for event in watch: ...
    """

    @property
    @abc.abstractmethod
    def resume_token(self) -> bytes:
        """Goes on behind the last event, or further: signs of life that are no event move it, too."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends the loop, at once."""

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()


class AsyncWatch(AsyncIterator[WatchEvent], abc.ABC):
    """The events of AsyncClient.watch, for an async for loop, in the client's event loop.

        async with client.watch() as watch:
            async for event in watch: ...
    """

    @property
    @abc.abstractmethod
    def resume_token(self) -> bytes:
        """As that of Watch."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends the loop, at once."""

    async def __aenter__(self) -> AsyncWatch:
        return self

    async def __aexit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException],
                        trace: Optional[TracebackType]) -> None:
        self.close()


class WatchCall:
    """The streams of one watch, one after the other. encode() and begin() for each stream, take() for each message,
    ended() after each end."""

    def __init__(self, request_ids: Iterable[str], resume_token: bytes, timeout: Optional[float], max_bytes: int,
                 jitter: Callable[[], float] = random.random, clock: Callable[[], float] = time.monotonic) -> None:
        if isinstance(request_ids, (str, bytes)):
            raise TypeError("request_ids are several; give a list")
        if timeout is not None and not timeout > 0:
            raise ValueError("timeout must be above 0")
        self.request_ids = tuple(request_ids)
        self.token = bytes(resume_token)
        self.streams = 0
        self.lost = 0  # streams that ended since the last sign of life
        self._synced = False  # and no reset since
        self._max_bytes = max_bytes
        self._jitter, self._clock = jitter, clock
        self._deadline = None if timeout is None else clock() + min(timeout, _LONGEST_TIMEOUT)

    @property
    def request_id(self) -> str:
        """Empty unless one is watched."""
        return self.request_ids[0] if len(self.request_ids) == 1 else ""

    def encode(self) -> bytes:
        """The bytes of the next stream's request. Raises InvalidRequestError when they cannot be sent."""
        try:
            data: bytes = pb.WatchUserIntentsRequest(request_ids=self.request_ids, resume_token=self.token).SerializeToString()
        except Exception as error:  # protobuf's, for text that is not Unicode
            raise self.error(refused(f"the request cannot be encoded ({type(error).__name__})")) from None
        if len(data) > self._max_bytes:
            message = f"the request has {len(data)} bytes, more than the {self._max_bytes} that may be sent"
            raise self.error(refused(message))
        return data

    def left(self) -> Optional[float]:
        """Seconds until the deadline; None: there is none. Raises UserIntentError when it is over."""
        if self._deadline is None:
            return None
        left = self._deadline - self._clock()
        if left <= 0.001:
            raise self.error(local(_Code.DEADLINE_EXCEEDED, "the deadline passed while watching", self.streams == 0))
        return left

    def take(self, message: pb.WatchUserIntentsResponse) -> Optional[WatchEvent]:
        """The event to hand out; None: there is none in this message."""
        kind = message.WhichOneof("event")
        if message.resume_token or kind == "reset":
            self.token = message.resume_token
        if kind == "synced":
            if self._synced:
                return None  # of a stream that was resumed
            self._synced = True
            self.lost = 0
            return WatchEvent("synced", None, self.token)
        self.lost = 0
        if kind == "changed":
            return WatchEvent("changed", message.changed, self.token)
        if kind == "reset":
            self._synced = False
            return WatchEvent("reset", None, self.token)
        return None  # a heartbeat, or what a newer gateway tells

    def ended(self, decoded: Optional[Decoded]) -> float:
        """How long to wait before the next stream. decoded: what the end said; None: nothing. Raises UserIntentError
        when there is to be no other one."""
        if decoded is not None and _is_final(decoded):
            raise self.error(decoded)
        wait = min(_FIRST_PAUSE * float(2 ** min(self.lost, 20)), _LONGEST_PAUSE) * self._jitter()
        self.lost += 1
        if decoded is not None:
            asked = max(decoded.retry_after or 0.0, (decoded.pushback_ms or 0) / 1000)
            wait = max(wait, asked * (1.0 + 0.25 * self._jitter()))
        left = self.left()
        return wait if left is None else min(wait, left)

    def cancelled(self, message: str) -> UserIntentError:
        return self.error(local(_Code.CANCELLED, message, self.streams == 0))

    def error(self, decoded: Decoded) -> UserIntentError:
        decoded = dataclasses.replace(of_read(decoded, "", self.streams), not_repeated="not_retryable")
        return make_error(decoded, self.request_id, self.streams, None)


_FINAL = (_Code.INVALID_ARGUMENT, _Code.UNAUTHENTICATED, _Code.PERMISSION_DENIED, _Code.UNIMPLEMENTED, _Code.NOT_FOUND,
          _Code.FAILED_PRECONDITION)


def _is_final(decoded: Decoded) -> bool:
    """Another stream would end in the same way."""
    if decoded.code in _FINAL:
        return True
    if decoded.code in (_Code.UNAVAILABLE, _Code.RESOURCE_EXHAUSTED):
        return False
    forbidden = decoded.pushback_ms is not None and decoded.pushback_ms < 0
    return bool(decoded.reason) and (decoded.retry_after is None or forbidden)


# -- waits -------------------------------------------------------------------------------------------------------------

_FINAL_STATUSES: dict[int, str] = {
    pb.USER_INTENT_STATUS_CONVERTED_TO_USER: "CONVERTED_TO_USER", pb.USER_INTENT_STATUS_REJECTED: "REJECTED",
    pb.USER_INTENT_STATUS_SUSPENDED: "SUSPENDED"}


def is_final(status: int) -> bool:
    """Whether an intent keeps this status: CONVERTED_TO_USER, REJECTED, SUSPENDED."""
    return status in _FINAL_STATUSES


class Waiting(Generic[_T]):
    """A wait over the events of a watch of one request: see() gives its result, or raises UserIntentError."""

    def __init__(self, request_id: str, found: Callable[[pb.Creation], Optional[_T]]) -> None:
        self.request_id = request_id
        self._found = found
        self._recorded = False

    def see(self, event: WatchEvent) -> Optional[_T]:
        if event.creation is not None:
            self._recorded = True
            return self._found(event.creation)
        if event.kind == "synced" and not self._recorded:
            raise _stop(_Code.NOT_FOUND, "REQUEST_NOT_FOUND", "no such request is recorded", self.request_id)
        if event.kind == "reset":
            self._recorded = False
        return None

    def no_more(self) -> UserIntentError:
        """The watch was closed by somebody else."""
        decoded = local(_Code.CANCELLED, "the watch was closed", False)
        return make_error(of_read(decoded, "", 1), self.request_id, 1, None)


def outcome_of(request_id: str) -> Waiting[pb.Creation]:
    ends = (pb.CREATION_STATE_CREATED, pb.CREATION_STATE_REJECTED, pb.CREATION_STATE_NOT_SENT)
    return Waiting(request_id, lambda creation: creation if creation.state in ends else None)


def status_of(request_id: str, statuses: Iterable[int]) -> Waiting[pb.UserIntent]:
    wanted = frozenset(statuses)

    def found(creation: pb.Creation) -> Optional[pb.UserIntent]:
        if creation.state in (pb.CREATION_STATE_REJECTED, pb.CREATION_STATE_NOT_SENT):
            raise _stop(_Code.FAILED_PRECONDITION, "NOT_CREATED", "the request created no intent", request_id)
        if creation.state != pb.CREATION_STATE_CREATED:
            return None
        intent = creation.user_intent
        if intent.status in wanted:
            return intent
        if is_final(intent.status):
            message = "the intent has another status that it will keep"
            raise _stop(_Code.FAILED_PRECONDITION, "STATUS_FINAL", message, request_id,
                        final_status=_FINAL_STATUSES[intent.status], user_intent_id=intent.id)
        return None

    return Waiting(request_id, found)


def _stop(code: grpc.StatusCode, reason: str, message: str, request_id: str, **words: str) -> UserIntentError:
    decoded = Decoded(code, message, reason, {"recovery": "STOP", **words}, (), None, None, read=True,
                      not_repeated="not_retryable")
    return make_error(decoded, request_id, 1, None)
