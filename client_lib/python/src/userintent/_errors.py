"""Errors: what a failed call says, decoded once. No error holds a value of the request."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Optional

import grpc
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "userintent.v1"
_DETAILS = "grpc-status-details-bin"
_PUSHBACK = "grpc-retry-pushback-ms"


@dataclasses.dataclass(frozen=True)
class Violation:
    """A field that breaks a rule, by its name in the proto file, and the rule."""

    field: str
    description: str


@dataclasses.dataclass(frozen=True)
class Attempts:
    """Attempts of the e-mail address that are surely, and possibly, used."""

    used_min: int
    used_max: int


@dataclasses.dataclass(frozen=True)
class Decoded:
    """What one failed RPC says."""

    code: grpc.StatusCode
    message: str
    reason: str
    metadata: Mapping[str, str]
    violations: tuple[Violation, ...]
    retry_after: Optional[float]  # RetryInfo, in seconds
    pushback_ms: Optional[int]  # below zero, or what cannot be read: never repeat
    read: bool = False  # of a call that creates nothing
    not_repeated: str = ""


class UserIntentError(Exception):
    """A call failed. The class tells what may be done (the server's `recovery`); the fields say the rest.

    request_id: of the call, also when the library made it; empty for a read by the intent's id. tries: RPCs made by this
    call; 0: nothing left this process.
    code, message: of the gRPC status. reason, sent, recovery: the server's words, of this version or a newer one;
    empty when the error was made by something else than the gateway (a library, a proxy, a broken connection). Where
    this library knows that the call sent nothing, it says so itself: sent is "no", recovery what may be done.
    maybe_sent: a creation may have happened, or may still happen. The same request_id is then the only safe way to go
    on: Client.repeat(error), or create(request, request_id=error.request_id). It speaks of this call, and of the one
    that it repeated; what an earlier call with the same id said stands. Errors of calls that create nothing (reads,
    watches, waits, authorization URLs) have no sent, and maybe_sent is False.
    retry_after: seconds after which a loop may repeat; None: it may not. The library's own repeats are behind it.
    not_repeated: why the library made no further try: "not_retryable" (the error does not allow it), "max_tries",
    "deadline" (the delay would have ended after it), "budget" (the client's calls had used up the repeats they share).
    """

    def __init__(self, decoded: Decoded, request_id: str, tries: int, call: Any = None) -> None:
        self.code = decoded.code
        self.message = decoded.message
        self.reason = decoded.reason
        self.metadata: Mapping[str, str] = dict(decoded.metadata)
        self.sent = self.metadata.get("sent", "")
        self.recovery = self.metadata.get("recovery", "")
        self.maybe_sent = not decoded.read and (self.sent == "maybe" or (not decoded.reason and self.sent != "no"))
        self.violations = decoded.violations
        self.retry_after = decoded.retry_after
        self.not_repeated = decoded.not_repeated
        self.request_id = request_id
        self.tries = tries
        self._decoded = decoded
        self._call = call
        super().__init__(self._text())

    @property
    def attempts(self) -> Optional[Attempts]:
        """None where the server did not say."""
        low, high = self._number("attempts_used_min"), self._number("attempts_used_max")
        return None if low is None or high is None else Attempts(low, high)

    @property
    def user_intent_id(self) -> str:
        """The intent that exists already, or that was to be read; empty when there is none, or another caller's."""
        return self.metadata.get("user_intent_id", "")

    @property
    def unresolved_request_id(self) -> str:
        """The caller's request that stands in the way (EMAIL_UNRESOLVED)."""
        return self.metadata.get("unresolved_request_id", "")

    @property
    def astra_request_id(self) -> str:
        return self.metadata.get("astra_request_id", "")

    @property
    def http_status(self) -> Optional[int]:
        return self._number("http_status")

    @property
    def final_status(self) -> str:
        """The status that the intent has and will keep (STATUS_FINAL): "CONVERTED_TO_USER", "REJECTED", "SUSPENDED"."""
        return self.metadata.get("final_status", "")

    @property
    def replayed(self) -> bool:
        """The answer comes from the record, not from this call's own exchange."""
        return self.metadata.get("replayed") == "true"

    def _number(self, name: str) -> Optional[int]:
        text = self.metadata.get(name, "")
        return int(text) if text.isascii() and text.isdigit() else None

    def _text(self) -> str:
        words = [self.reason or ("not sent" if self.sent == "no" else "no details"), self.code.name]
        if self.recovery:
            words.append(self.recovery)
        if self.maybe_sent:
            words.append("maybe sent")
        words += [f"{violation.field}: {violation.description}" for violation in self.violations]
        key = f"request_id {self.request_id}, "
        if self._decoded.read and not self.request_id:
            key = f"user_intent_id {self.user_intent_id}, " if self.user_intent_id else ""  # a watch of several has none
        return f"{self.message or 'no message'} ({', '.join(words)}; {key}tries {self.tries})"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._text()!r})"

    def __reduce__(self) -> Any:
        # The request stays here: what is pickled travels to places where personal data has no business.
        return _restore, (type(self), self._decoded, self.request_id, self.tries)


def _restore(cls: type[UserIntentError], decoded: Decoded, request_id: str, tries: int) -> UserIntentError:
    return cls(decoded, request_id, tries)


class InvalidRequestError(UserIntentError):
    """FIX_REQUEST, FIX_WITH_NEW_ID: correct the request; `recovery` says whether the id may be kept.

    Also of a request that cannot be sent at all, with tries 0: longer than 64 KiB, or with text that is not Unicode.
    """


class RetryLaterError(UserIntentError):
    """RETRY_SAME_ID: nothing was created; the same call may succeed later.

    Also of a read that got no answer of the gateway.
    """


class OutcomeUnknownError(UserIntentError):
    """ASK_SAME_ID, or no answer of the gateway at all: nobody knows (yet). The same request_id never creates twice."""


class ExistsError(UserIntentError):
    """USE_EXISTING: the person has an intent: user_intent_id."""


class OperatorError(UserIntentError):
    """WAIT_FOR_OPERATOR: the gateway must be repaired first; then the same id."""


class StopError(UserIntentError):
    """STOP: no repeat helps."""


_CLASSES: Mapping[str, type[UserIntentError]] = {
    "FIX_REQUEST": InvalidRequestError,
    "FIX_WITH_NEW_ID": InvalidRequestError,
    "RETRY_SAME_ID": RetryLaterError,
    "ASK_SAME_ID": OutcomeUnknownError,
    "USE_EXISTING": ExistsError,
    "WAIT_FOR_OPERATOR": OperatorError,
    "STOP": StopError,
}


def make_error(decoded: Decoded, request_id: str, tries: int, call: Any) -> UserIntentError:
    known = decoded.reason or decoded.read or "recovery" in decoded.metadata
    kind = _CLASSES.get(decoded.metadata.get("recovery", ""), UserIntentError) if known else OutcomeUnknownError
    return kind(decoded, request_id, tries, call)


def local(code: grpc.StatusCode, message: str, not_sent: bool) -> Decoded:
    """Of a call that ended here, without an answer. not_sent: nothing left this process."""
    metadata = {"sent": "no", "recovery": "RETRY_SAME_ID"} if not_sent else {}
    return Decoded(code, message, "", metadata, (), None, None)


def refused(message: str) -> Decoded:
    """In the gateway's words for bytes that are no message: a request that can never be sent."""
    return Decoded(grpc.StatusCode.INVALID_ARGUMENT, message, "MALFORMED_REQUEST",
                   {"sent": "no", "recovery": "FIX_REQUEST"}, (), None, None)


_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0  # seconds before repeats of a read whose error names no delay
_SAME_CALL_LATER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


def pause_after(tries: int) -> float:
    return min(_FIRST_PAUSE * float(2 ** min(max(tries - 1, 0), 10)), _LONGEST_PAUSE)


def of_read(decoded: Decoded, user_intent_id: str, tries: int) -> Decoded:
    """The same as an error of a read: without `sent`.

    UNAVAILABLE that is not the gateway's may be repeated, unless the gateway forbade it.
    """
    metadata = {name: word for name, word in decoded.metadata.items() if name != "sent"}
    retry_after = decoded.retry_after
    if user_intent_id:
        metadata.setdefault("user_intent_id", user_intent_id)
    if not decoded.reason and decoded.code in _SAME_CALL_LATER:
        metadata.setdefault("recovery", "RETRY_SAME_ID")
        unforbidden = decoded.pushback_ms is None or decoded.pushback_ms >= 0
        if decoded.code is grpc.StatusCode.UNAVAILABLE and retry_after is None and unforbidden:
            retry_after = max(pause_after(tries), (decoded.pushback_ms or 0) / 1000)
    return dataclasses.replace(decoded, metadata=metadata, retry_after=retry_after, read=True)


def decode(error: Any) -> Decoded:
    """Of a grpc.RpcError as both APIs raise it. What cannot be read counts as absent."""
    code = error.code() or grpc.StatusCode.UNKNOWN
    trailers = [(str(key), value) for key, value in (error.trailing_metadata() or ())]
    serialised = [value for key, value in trailers if key == _DETAILS]
    pushback = [value for key, value in trailers if key == _PUSHBACK]
    # More than one would be somebody's mistake: whose words to believe, then?
    info, retry_after, violations = _read_details(serialised[0] if len(serialised) == 1 else b"")
    return Decoded(
        code, error.details() or "",
        info.reason if info is not None else "", dict(info.metadata) if info is not None else {},
        violations, retry_after, _pushback(pushback[0]) if pushback else None)


def _pushback(value: Any) -> int:
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return int(text) if text.isascii() and text.isdigit() else -1


def _read_details(data: bytes) -> tuple[Any, Optional[float], tuple[Violation, ...]]:
    info: Any = None
    retry_after: Optional[float] = None
    violations: tuple[Violation, ...] = ()
    try:
        status = status_pb2.Status.FromString(data)
        for detail in status.details:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                found = error_details_pb2.ErrorInfo.FromString(detail.value)
                if found.domain == DOMAIN and found.reason:
                    info = found
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
                retry_after = max(delay.seconds + delay.nanos / 1e9, 0.0)
            elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                bad = error_details_pb2.BadRequest.FromString(detail.value)
                violations = tuple(Violation(v.field, v.description) for v in bad.field_violations)
    except Exception:  # protobuf's DecodeError, and whatever an implementation raises beside it
        return None, None, ()
    return info, retry_after, violations
