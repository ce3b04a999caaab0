"""Decodes an error and holds it to the rules of the contract that apply to every error."""

import dataclasses
import re

import grpc
from google.rpc import error_details_pb2, status_pb2

from support import canary
from support.protos import errors_pb2

C = grpc.StatusCode

SENT = {"no", "maybe", "yes"}
RECOVERY = {"FIX_REQUEST", "FIX_WITH_NEW_ID", "RETRY_SAME_ID", "ASK_SAME_ID", "USE_EXISTING", "WAIT_FOR_OPERATOR",
            "STOP"}
METADATA = {"sent", "recovery", "attempts_used_min", "attempts_used_max", "astra_request_id", "http_status",
            "user_intent_id", "unresolved_request_id", "replayed"}
NO_DETAIL = None

# The error table of the contract, in its order: code, values of `sent`, values of `recovery`, RetryInfo?, the named
# detail. Where `sent` is that of the id and not of this call, a stronger value from an earlier try is right too.
TABLE = {
    "MALFORMED_REQUEST": (C.INVALID_ARGUMENT, {"no"}, {"FIX_REQUEST"}, False, NO_DETAIL),
    "UNKNOWN_FIELDS": (C.INVALID_ARGUMENT, {"no"}, {"FIX_REQUEST"}, False, NO_DETAIL),
    "FIELD_INVALID": (C.INVALID_ARGUMENT, {"no"}, {"FIX_REQUEST"}, False, "BadRequest"),
    "REQUEST_ID_REUSED": (C.FAILED_PRECONDITION, {"no"}, {"FIX_WITH_NEW_ID"}, False, NO_DETAIL),
    "REQUEST_IN_PROGRESS": (C.ABORTED, {"maybe", "yes"}, {"ASK_SAME_ID"}, True, NO_DETAIL),
    "PERSON_EXISTS": (C.ALREADY_EXISTS, {"no"}, {"USE_EXISTING", "STOP"}, False, "ResourceInfo"),
    "EMAIL_ATTEMPTS_EXHAUSTED": (C.FAILED_PRECONDITION, {"no", "yes"}, {"STOP"}, False, "QuotaFailure"),
    "EMAIL_BUSY": (C.ABORTED, {"no"}, {"RETRY_SAME_ID"}, True, NO_DETAIL),
    "EMAIL_UNRESOLVED": (C.FAILED_PRECONDITION, {"no"}, {"STOP"}, False, NO_DETAIL),
    "SUPERSEDES_INVALID": (C.FAILED_PRECONDITION, {"no"}, {"FIX_REQUEST"}, False, NO_DETAIL),
    "CALLER_RATE_LIMITED": (C.RESOURCE_EXHAUSTED, {"no"}, {"RETRY_SAME_ID"}, True, NO_DETAIL),
    "DRAINING": (C.UNAVAILABLE, {"no"}, {"RETRY_SAME_ID"}, True, NO_DETAIL),
    "UPSTREAM_SUSPENDED": (C.UNAVAILABLE, {"no"}, {"RETRY_SAME_ID"}, True, NO_DETAIL),
    "OVERLOADED": (C.UNAVAILABLE, {"no"}, {"RETRY_SAME_ID"}, True, NO_DETAIL),
    "LEDGER_UNAVAILABLE": (C.UNAVAILABLE, {"no"}, {"RETRY_SAME_ID"}, True, NO_DETAIL),
    "DEADLINE_TOO_SHORT": (C.DEADLINE_EXCEEDED, {"no"}, {"RETRY_SAME_ID"}, False, NO_DETAIL),
    "UPSTREAM_UNREACHABLE": (C.UNAVAILABLE, {"no", "yes"}, {"RETRY_SAME_ID"}, True, NO_DETAIL),
    "UPSTREAM_RATE_LIMITED": (C.RESOURCE_EXHAUSTED, {"yes", "no"}, {"RETRY_SAME_ID"}, True, NO_DETAIL),
    "UPSTREAM_UNAVAILABLE": (C.UNAVAILABLE, {"yes"}, {"RETRY_SAME_ID"}, True, NO_DETAIL),
    "UPSTREAM_REJECTED": (C.INVALID_ARGUMENT, {"yes"}, {"FIX_WITH_NEW_ID"}, False, NO_DETAIL),
    "UPSTREAM_CREDENTIALS_REJECTED": (C.INTERNAL, {"yes"}, {"WAIT_FOR_OPERATOR"}, False, NO_DETAIL),
    "UPSTREAM_MISCONFIGURED": (C.INTERNAL, {"yes"}, {"WAIT_FOR_OPERATOR"}, False, NO_DETAIL),
    "OUTCOME_UNKNOWN": (C.UNKNOWN, {"maybe", "yes"}, {"ASK_SAME_ID"}, False, NO_DETAIL),
    "CALLER_UNAUTHENTICATED": (C.UNAUTHENTICATED, {"no"}, {"STOP"}, False, NO_DETAIL),
    "CALLER_NOT_ALLOWED": (C.PERMISSION_DENIED, {"no"}, {"STOP"}, False, NO_DETAIL),
    "INTERNAL": (C.INTERNAL, SENT, {"STOP"}, False, NO_DETAIL),
    # GetCreation only; the contract leaves its recovery open.
    "REQUEST_NOT_FOUND": (C.NOT_FOUND, {"no"}, RECOVERY, None, NO_DETAIL),
}

# Errors of GetUserIntent, GetAuthorizationUrl and WatchUserIntents; in place of TABLE, because reads carry no `sent` and some reasons differ.
READS = {
    "MALFORMED_REQUEST": (C.INVALID_ARGUMENT, {"FIX_REQUEST"}, False, NO_DETAIL),
    "UNKNOWN_FIELDS": (C.INVALID_ARGUMENT, {"FIX_REQUEST"}, False, NO_DETAIL),
    "FIELD_INVALID": (C.INVALID_ARGUMENT, {"FIX_REQUEST"}, False, "BadRequest"),
    "REQUEST_NOT_FOUND": (C.NOT_FOUND, {"STOP"}, False, NO_DETAIL),
    "USER_INTENT_NOT_FOUND": (C.NOT_FOUND, {"STOP"}, False, NO_DETAIL),
    "NOT_CREATED": (C.FAILED_PRECONDITION, {"ASK_SAME_ID", "STOP"}, False, NO_DETAIL),
    "USER_INTENT_NOT_ELIGIBLE": (C.FAILED_PRECONDITION, {"STOP"}, False, NO_DETAIL),
    "CALLER_RATE_LIMITED": (C.RESOURCE_EXHAUSTED, {"RETRY_SAME_ID"}, True, NO_DETAIL),
    "DRAINING": (C.UNAVAILABLE, {"RETRY_SAME_ID"}, True, NO_DETAIL),
    "LEDGER_UNAVAILABLE": (C.UNAVAILABLE, {"RETRY_SAME_ID"}, True, NO_DETAIL),
    "DEADLINE_TOO_SHORT": (C.DEADLINE_EXCEEDED, {"RETRY_SAME_ID"}, False, NO_DETAIL),
    "UPSTREAM_UNREACHABLE": (C.UNAVAILABLE, {"RETRY_SAME_ID"}, True, NO_DETAIL),
    "UPSTREAM_UNAVAILABLE": (C.UNAVAILABLE, {"RETRY_SAME_ID"}, True, NO_DETAIL),
    "UPSTREAM_RATE_LIMITED": (C.RESOURCE_EXHAUSTED, {"RETRY_SAME_ID"}, True, NO_DETAIL),
    "UPSTREAM_CREDENTIALS_REJECTED": (C.INTERNAL, {"WAIT_FOR_OPERATOR"}, False, NO_DETAIL),
    "UPSTREAM_MISCONFIGURED": (C.INTERNAL, {"WAIT_FOR_OPERATOR"}, False, NO_DETAIL),
    "CALLER_UNAUTHENTICATED": (C.UNAUTHENTICATED, {"STOP"}, False, NO_DETAIL),
    "CALLER_NOT_ALLOWED": (C.PERMISSION_DENIED, {"STOP"}, False, NO_DETAIL),
}

_DETAILS = {message.DESCRIPTOR.full_name: message for message in (
    error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo, error_details_pb2.BadRequest,
    error_details_pb2.QuotaFailure, error_details_pb2.ResourceInfo)}


@dataclasses.dataclass
class Error:
    code: grpc.StatusCode
    message: str
    reason: str
    metadata: dict
    retry_after: float | None  # RetryInfo, in seconds
    pushback: str | None       # trailer grpc-retry-pushback-ms
    details: dict              # short name -> message, without ErrorInfo and RetryInfo

    @property
    def sent(self):
        return self.metadata["sent"]

    @property
    def recovery(self):
        return self.metadata["recovery"]

    @property
    def violations(self):
        """{field: description} of BadRequest."""
        return {v.field: v.description for v in self.details["BadRequest"].field_violations}

    def expect(self, reason, sent=None, recovery=None, **metadata):
        """The contract's row for this reason, and what the row leaves open. A value of None: the key is absent."""
        assert self.reason == reason, f"expected {reason}, got {self}"
        for name, value in (("sent", sent), ("recovery", recovery)):
            if value is not None:
                assert self.metadata[name] == value, f"{name}: expected {value}, got {self}"
        for name, value in metadata.items():
            expected = None if value is None else str(value)
            assert self.metadata.get(name) == expected, f"{name}: expected {expected}, got {self}"
        return self


def bare(error):
    """(code, text) of an error that carries no details: made by a gRPC library, not by the gateway."""
    trailers = dict(error.trailing_metadata() or ())
    assert "grpc-status-details-bin" not in trailers, f"unexpected details, code {error.code()}"
    return error.code(), error.details()


def decode(error, request=None, allowed_words=(), read=False):
    """The error of a call, checked against every general rule of the contract.

    `allowed_words` are values of the request that the fixed texts hold anyway (a name that the contract itself names).
    `read`: of GetUserIntent, GetAuthorizationUrl or WatchUserIntents.
    """
    trailers = [(key, value) for key, value in (error.trailing_metadata() or ())]
    serialised = [value for key, value in trailers if key == "grpc-status-details-bin"]
    assert len(serialised) == 1, f"{len(serialised)} status details with {error.code()}: {error.details()!r}"
    status = status_pb2.Status.FromString(serialised[0])
    assert status.code == error.code().value[0], "the code in the details is another than the call's"
    assert status.message == error.details(), "the message in the details is another than the call's"
    assert status.message, "an error without a message"
    assert len(status.message.encode()) + len(serialised[0]) <= 4096, "message and details are over 4 KiB"

    info, retry, others = [], [], {}
    for any_ in status.details:
        name = any_.type_url.rpartition("/")[2]
        assert any_.type_url == f"type.googleapis.com/{name}"
        assert name in _DETAILS, f"a detail that the contract does not name: {name}"
        message = _DETAILS[name].FromString(any_.value)
        if name.endswith("ErrorInfo"):
            info.append(message)
        elif name.endswith("RetryInfo"):
            retry.append(message)
        else:
            short = name.rpartition(".")[2]
            assert short not in others, f"two {short}"
            others[short] = message
    assert len(info) == 1, f"{len(info)} ErrorInfo"
    assert info[0].domain == "userintent.v1"
    reason, metadata = info[0].reason, dict(info[0].metadata)
    assert f"ERROR_REASON_{reason}" in errors_pb2.ErrorReason.keys() and reason != "UNSPECIFIED", reason

    if read:
        assert set(metadata) <= {"recovery", "http_status", "astra_request_id"}, metadata
    else:
        assert metadata.get("sent") in SENT, metadata
    assert metadata.get("recovery") in RECOVERY, metadata
    assert set(metadata) <= METADATA, metadata
    for name in ("attempts_used_min", "attempts_used_max", "http_status"):
        assert re.fullmatch(r"[0-9]+", metadata.get(name, "0")), metadata
    assert metadata.get("replayed", "true") == "true", metadata

    pushbacks = [value for key, value in trailers if key == "grpc-retry-pushback-ms"]
    assert pushbacks in ([], ["-1"]), pushbacks
    assert len(retry) + len(pushbacks) == 1, f"{reason}: {len(retry)} RetryInfo and {len(pushbacks)} pushback trailers"
    delay = None
    if retry:
        delay = retry[0].retry_delay.seconds + retry[0].retry_delay.nanos / 1e9
        assert 0 < delay <= 3600, f"RetryInfo of {delay} s"

    if read:
        assert reason in READS, f"{reason} is no reason of a read"
        code, recoveries, retries, detail = READS[reason]
    else:
        code, sents, recoveries, retries, detail = TABLE[reason]
        assert metadata["sent"] in sents, f"{reason}: {metadata}"
    assert error.code() == code, f"{reason} as {error.code()}"
    assert metadata["recovery"] in recoveries, f"{reason}: {metadata}"
    assert retries is None or retries == bool(retry), f"{reason}: RetryInfo {bool(retry)}"
    assert set(others) == ({detail} if detail else set()), f"{reason}: {set(others)}"

    if request is not None:
        _assert_no_value(status, metadata, others, trailers, request, allowed_words)
    return Error(error.code(), status.message, reason, metadata, delay, pushbacks[0] if pushbacks else None, others)


def _assert_no_value(status, metadata, others, trailers, request, allowed_words):
    # Ids are Astra's or the gateway's; an accident of their digits is no leak.
    texts = [status.message] + [value for key, value in metadata.items()
                                if key not in ("user_intent_id", "unresolved_request_id", "astra_request_id")]
    for message in others.values():
        for violation in getattr(message, "field_violations", ()):
            texts += [violation.field, violation.description]
        for violation in getattr(message, "violations", ()):
            texts += [violation.subject, violation.description]
        if hasattr(message, "resource_type"):
            texts += [message.resource_type, message.owner, message.description]
    texts += [f"{key}={value}" for key, value in trailers if not key.endswith("-bin")]
    together = "\n".join(texts)
    values = [value for value in canary.personal_values(request) if len(value) >= 6 and value not in allowed_words]
    leak = canary.find(together, values)
    assert leak is None, f"the error holds {leak}"
    for value in canary.personal_values(request):  # short ones only where a whole text is nothing but the value
        assert value not in texts or value in allowed_words, "a text of the error is a value of the request"
