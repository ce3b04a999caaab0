package userintent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	rpccode "google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoregistry"

	pb "example.com/userintent/userintentv1"
)

// domain of the ErrorInfo that this service sends; another one is someone else's, a proxy's say.
const domain = "userintent.v1"

// Reason says why a call failed: the name of a value of userintentv1.ErrorReason without its prefix, where each is
// explained. A newer gateway may send others. Empty: the error was not made by the gateway.
type Reason string

// The reasons that this version of the library knows.
const (
	ReasonMalformedRequest            Reason = "MALFORMED_REQUEST"
	ReasonUnknownFields               Reason = "UNKNOWN_FIELDS"
	ReasonFieldInvalid                Reason = "FIELD_INVALID"
	ReasonRequestIDReused             Reason = "REQUEST_ID_REUSED"
	ReasonRequestInProgress           Reason = "REQUEST_IN_PROGRESS"
	ReasonPersonExists                Reason = "PERSON_EXISTS"
	ReasonEmailAttemptsExhausted      Reason = "EMAIL_ATTEMPTS_EXHAUSTED"
	ReasonEmailBusy                   Reason = "EMAIL_BUSY"
	ReasonEmailUnresolved             Reason = "EMAIL_UNRESOLVED"
	ReasonSupersedesInvalid           Reason = "SUPERSEDES_INVALID"
	ReasonCallerRateLimited           Reason = "CALLER_RATE_LIMITED"
	ReasonDraining                    Reason = "DRAINING"
	ReasonUpstreamSuspended           Reason = "UPSTREAM_SUSPENDED"
	ReasonOverloaded                  Reason = "OVERLOADED"
	ReasonLedgerUnavailable           Reason = "LEDGER_UNAVAILABLE"
	ReasonDeadlineTooShort            Reason = "DEADLINE_TOO_SHORT"
	ReasonUpstreamUnreachable         Reason = "UPSTREAM_UNREACHABLE"
	ReasonUpstreamRateLimited         Reason = "UPSTREAM_RATE_LIMITED"
	ReasonUpstreamUnavailable         Reason = "UPSTREAM_UNAVAILABLE"
	ReasonUpstreamRejected            Reason = "UPSTREAM_REJECTED"
	ReasonUpstreamCredentialsRejected Reason = "UPSTREAM_CREDENTIALS_REJECTED"
	ReasonUpstreamMisconfigured       Reason = "UPSTREAM_MISCONFIGURED"
	ReasonOutcomeUnknown              Reason = "OUTCOME_UNKNOWN"
	ReasonCallerUnauthenticated       Reason = "CALLER_UNAUTHENTICATED"
	ReasonCallerNotAllowed            Reason = "CALLER_NOT_ALLOWED"
	ReasonInternal                    Reason = "INTERNAL"
	ReasonRequestNotFound             Reason = "REQUEST_NOT_FOUND"
	ReasonUserIntentNotFound          Reason = "USER_INTENT_NOT_FOUND"
	ReasonNotCreated                  Reason = "NOT_CREATED"
	ReasonUserIntentNotEligible       Reason = "USER_INTENT_NOT_ELIGIBLE"

	// ReasonStatusFinal is this library's own word, of WaitForStatus: see Error.FinalStatus.
	ReasonStatusFinal Reason = "STATUS_FINAL"
)

// Sent says whether a request for this id was handed to Astra, the strongest answer over all tries of the id.
// Empty: the error was not made by the gateway, and nobody knows; or it is of a read, which creates nothing.
type Sent string

// The values of Sent.
const (
	SentNo    Sent = "no"
	SentMaybe Sent = "maybe"
	SentYes   Sent = "yes"
)

// Recovery says what may be done about an error. A newer gateway may send others. Empty: the error was not made by the
// gateway; repeating with the same id is safe.
type Recovery string

// The recoveries that this version of the library knows.
const (
	// RecoveryFixRequest: correct the request and call again; the id may be kept.
	RecoveryFixRequest Recovery = "FIX_REQUEST"
	// RecoveryFixWithNewID: correct the request and call again with a new id.
	RecoveryFixWithNewID Recovery = "FIX_WITH_NEW_ID"
	// RecoveryRetrySameID: nothing was created; the same call may succeed later.
	RecoveryRetrySameID Recovery = "RETRY_SAME_ID"
	// RecoveryAskSameID: nobody knows yet; the same id never sends again and answers with the outcome once it is known.
	RecoveryAskSameID Recovery = "ASK_SAME_ID"
	// RecoveryUseExisting: the intent exists, UserIntentID.
	RecoveryUseExisting Recovery = "USE_EXISTING"
	// RecoveryWaitForOperator: the gateway must be repaired; then the same id.
	RecoveryWaitForOperator Recovery = "WAIT_FOR_OPERATOR"
	// RecoveryStop: no repeat helps.
	RecoveryStop Recovery = "STOP"
)

// NotRepeated says why the library made no further try of the call.
type NotRepeated string

// The values of NotRepeated.
const (
	// NotRepeatedNotRetryable: the error does not allow a repeat.
	NotRepeatedNotRetryable NotRepeated = "not_retryable"
	// NotRepeatedMaxTries: the call had made as many tries as it may (WithMaxTries).
	NotRepeatedMaxTries NotRepeated = "max_tries"
	// NotRepeatedDeadline: the delay before the next try would have ended after the deadline.
	NotRepeatedDeadline NotRepeated = "deadline"
	// NotRepeatedBudget: the client's calls had used up the repeats that they share.
	NotRepeatedBudget NotRepeated = "budget"
)

// Violation is a field that breaks a rule, by its name in the proto file, and the rule. It holds no value.
type Violation struct {
	Field, Description string
}

// Attempts are those of the e-mail address that are surely, and possibly, used.
type Attempts struct {
	UsedMin, UsedMax int
}

// Error is every error of a call. It holds no value of the request in any field or text.
type Error struct {
	// Code and Message are those of the gRPC status.
	Code    codes.Code
	Message string
	// Reason, Sent and Recovery are the gateway's words. Where this library knows that a call sent nothing, it says so
	// itself: SentNo, and what may be done.
	Reason   Reason
	Sent     Sent
	Recovery Recovery
	// Violations names every broken field (ReasonFieldInvalid).
	Violations []Violation
	// Attempts is nil where the gateway did not say.
	Attempts *Attempts
	// UserIntentID is the intent that exists already (RecoveryUseExisting), or the one that was to be read.
	UserIntentID string
	// UnresolvedRequestID is the caller's request that stands in the way (ReasonEmailUnresolved); a call whose
	// supersedes_request_id names it replaces it, and spends another attempt.
	UnresolvedRequestID string
	// AstraRequestID is for Astra's support. HTTPStatus is what Astra answered; 0: it did not, or nobody told.
	AstraRequestID string
	HTTPStatus     int
	// Replayed: the answer is from the record, not from this call's own exchange.
	Replayed bool
	// Retryable: a loop may repeat the same call after RetryAfter. The library's own repeats are behind it then.
	Retryable  bool
	RetryAfter time.Duration
	// NotRepeated: why there was no further try.
	NotRepeated NotRepeated
	// FinalStatus is the status that the intent has and will keep (ReasonStatusFinal).
	FinalStatus pb.UserIntentStatus
	// Read: the error is of a call that creates nothing: GetUserIntent, GetAuthorizationURL, Watch, WaitForOutcome,
	// WaitForStatus. Sent is empty then, and MaybeSent false.
	Read bool
	// RequestID of the call, also when the library made it; empty for a read by the intent's id, and for a Watch of
	// several. Tries counts the RPCs that this call made; 0: nothing left this process.
	RequestID string
	Tries     int

	pushback time.Duration // below zero: the gateway forbade repeats
	cause    error
	// A function, so that nothing that prints a struct with its insides finds the person.
	request func() *pb.CreateUserIntentRequest
}

// MaybeSent says that a creation may have happened, or may still happen: after a deadline, a cancellation or a broken
// connection, and whenever the gateway says so. Only the same request_id is safe then: Client.Repeat.
//
// It is false where this library knows that the call sent nothing: the context was over before it, the client is closed,
// the request cannot be sent. It speaks of this call, and of the one that it repeated; what an earlier call with the same
// id said stands. It is false for reads.
func (e *Error) MaybeSent() bool {
	return !e.Read && (e.Sent == SentMaybe || e.Reason == "" && e.Sent != SentNo)
}

// Error is one line for a log, without personal data.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "userintent: %s", codeName(e.Code))
	if e.Reason != "" {
		fmt.Fprintf(&b, " %s", e.Reason)
	}
	fmt.Fprintf(&b, ": %s", e.Message)
	for _, violation := range e.Violations {
		fmt.Fprintf(&b, " [%s: %s]", violation.Field, violation.Description)
	}
	b.WriteString(" (")
	if e.Recovery != "" {
		fmt.Fprintf(&b, "%s, ", e.Recovery)
	}
	if e.MaybeSent() {
		b.WriteString("maybe sent, ")
	}
	if name, id := e.key(); name != "" {
		fmt.Fprintf(&b, "%s %s, ", name, id)
	}
	fmt.Fprintf(&b, "tries %d)", e.Tries)
	return b.String()
}

// key is the id by which the call named its creation or intent; nothing for a Watch of several.
func (e *Error) key() (name, id string) {
	switch {
	case e.Read && e.RequestID == "" && e.UserIntentID == "":
		return "", ""
	case e.Read && e.RequestID == "":
		return "user_intent_id", e.UserIntentID
	}
	return "request_id", e.RequestID
}

// LogValue gives log/slog the fields that tell a program what to do.
func (e *Error) LogValue() slog.Value {
	fields := []slog.Attr{slog.String("code", codeName(e.Code)), slog.String("reason", string(e.Reason))}
	if !e.Read {
		fields = append(fields, slog.String("sent", string(e.Sent)))
	}
	fields = append(fields, slog.String("recovery", string(e.Recovery)))
	if !e.Read {
		fields = append(fields, slog.Bool("maybe_sent", e.MaybeSent()))
	}
	if name, id := e.key(); name != "" {
		fields = append(fields, slog.String(name, id))
	}
	if e.FinalStatus != 0 {
		fields = append(fields, slog.String("final_status", strings.TrimPrefix(e.FinalStatus.String(), "USER_INTENT_STATUS_")))
	}
	return slog.GroupValue(append(fields, slog.Int("tries", e.Tries),
		slog.String("not_repeated", string(e.NotRepeated)), slog.String("message", e.Message))...)
}

// Unwrap gives the error of gRPC.
func (e *Error) Unwrap() error { return e.cause }

// GRPCStatus makes status.Code and status.FromError work.
func (e *Error) GRPCStatus() *status.Status {
	if s, ok := status.FromError(e.cause); ok && s.Code() == e.Code {
		return s
	}
	return status.New(e.Code, e.Message)
}

// Is makes errors.Is(err, context.Canceled) and errors.Is(err, context.DeadlineExceeded) work.
func (e *Error) Is(target error) bool {
	return target == context.Canceled && e.Code == codes.Canceled || target == context.DeadlineExceeded && e.Code == codes.DeadlineExceeded
}

// codeName is the canonical name, INVALID_ARGUMENT, where package codes writes InvalidArgument.
func codeName(code codes.Code) string {
	if name, ok := rpccode.Code_name[int32(code)]; ok {
		return name
	}
	return code.String()
}

// newError decodes what one failed RPC says. What cannot be read counts as absent.
func newError(err error, trailer metadata.MD) *Error {
	e := &Error{cause: err}
	s, ok := status.FromError(err)
	if !ok {
		s = status.FromContextError(err) // of a connection that is not gRPC's own
	}
	e.Code, e.Message = s.Code(), s.Message()
	hasDelay := e.readDetails(s)
	pushback, forbidden := readPushback(trailer)
	if e.pushback = pushback; forbidden {
		e.pushback = -1
	}
	if e.Retryable = hasDelay && !forbidden; e.Retryable {
		e.RetryAfter = max(e.RetryAfter, pushback)
	} else {
		e.RetryAfter = 0
	}
	return e
}

func (e *Error) readDetails(s *status.Status) (hasDelay bool) {
	var info *errdetails.ErrorInfo
	var violations []Violation
	var delay time.Duration
	for _, packed := range s.Proto().GetDetails() {
		detail, err := packed.UnmarshalNew()
		if errors.Is(err, protoregistry.NotFound) {
			continue // of a type that this program does not know
		}
		if err != nil {
			return false // damaged: not even half of it is believed
		}
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == domain && detail.GetReason() != "" {
				info = detail
			}
		case *errdetails.RetryInfo:
			delay, hasDelay = max(detail.GetRetryDelay().AsDuration(), 0), true
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				violations = append(violations, Violation{Field: violation.GetField(), Description: violation.GetDescription()})
			}
		}
	}
	e.Violations, e.RetryAfter = violations, delay
	if info == nil {
		return hasDelay
	}
	words := info.GetMetadata()
	e.Reason, e.Sent, e.Recovery = Reason(info.GetReason()), Sent(words["sent"]), Recovery(words["recovery"])
	e.UserIntentID, e.UnresolvedRequestID, e.AstraRequestID = words["user_intent_id"], words["unresolved_request_id"], words["astra_request_id"]
	e.Replayed = words["replayed"] == "true"
	e.HTTPStatus, _ = number(words["http_status"])
	if low, ok := number(words["attempts_used_min"]); ok {
		if high, ok := number(words["attempts_used_max"]); ok {
			e.Attempts = &Attempts{UsedMin: low, UsedMax: high}
		}
	}
	return hasDelay
}

func number(text string) (int, bool) {
	n, err := strconv.ParseUint(text, 10, 31)
	return int(n), err == nil
}

// readPushback reads grpc-retry-pushback-ms. As in gRPC's own retries, one that is negative or unreadable forbids repeats.
func readPushback(trailer metadata.MD) (delay time.Duration, forbidden bool) {
	for _, text := range trailer.Get("grpc-retry-pushback-ms") {
		ms, ok := number(text)
		if !ok {
			return 0, true
		}
		delay = max(delay, time.Duration(ms)*time.Millisecond)
	}
	return delay, false
}
