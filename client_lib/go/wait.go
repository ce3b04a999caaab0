package userintent

import (
	"context"
	"slices"

	"google.golang.org/grpc/codes"

	pb "example.com/userintent/userintentv1"
)

// WaitForOutcome waits until it is known what became of a creation (RecoveryAskSameID): its state is CREATED, REJECTED or
// NOT_SENT. It sends nothing. The deadline is that of ctx, or else DefaultTimeout. Every error is an *Error without
// Sent: DEADLINE_EXCEEDED while nobody knows yet, ReasonRequestNotFound when no such request is recorded, and what ends
// a Watch.
func (c *Client) WaitForOutcome(ctx context.Context, requestID string, options ...CallOption) (*pb.Creation, error) {
	ctx, cancel := c.waiting(ctx)
	defer cancel()
	return c.Watch(ctx, []string{requestID}, append(options[:len(options):len(options)], WithResumeToken(nil))...).WaitForOutcome()
}

// WaitForStatus waits until the intent that a request created has one of these statuses, and returns it. Beside the
// errors of WaitForOutcome there are ReasonNotCreated, when the request created no intent, and ReasonStatusFinal, when
// the intent has another status that it will keep: Error.FinalStatus (CONVERTED_TO_USER, REJECTED or SUSPENDED).
func (c *Client) WaitForStatus(ctx context.Context, requestID string, statuses []pb.UserIntentStatus, options ...CallOption) (*pb.UserIntent, error) {
	ctx, cancel := c.waiting(ctx)
	defer cancel()
	return c.Watch(ctx, []string{requestID}, append(options[:len(options):len(options)], WithResumeToken(nil))...).WaitForStatus(statuses...)
}

// waiting is ctx with the deadline of a call.
func (c *Client) waiting(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, has := ctx.Deadline(); has {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, c.config.timeout)
}

// WaitForOutcome is Client.WaitForOutcome over a watch of one request that was begun without a token.
func (w *Watch) WaitForOutcome() (*pb.Creation, error) {
	return waitFor(w, func(creation *pb.Creation) (*pb.Creation, error) {
		switch creation.GetState() {
		case pb.CreationState_CREATION_STATE_CREATED, pb.CreationState_CREATION_STATE_REJECTED, pb.CreationState_CREATION_STATE_NOT_SENT:
			return creation, nil
		}
		return nil, nil
	})
}

// WaitForStatus is Client.WaitForStatus over a watch of one request that was begun without a token.
func (w *Watch) WaitForStatus(statuses ...pb.UserIntentStatus) (*pb.UserIntent, error) {
	return waitFor(w, func(creation *pb.Creation) (*pb.UserIntent, error) {
		switch creation.GetState() {
		case pb.CreationState_CREATION_STATE_REJECTED, pb.CreationState_CREATION_STATE_NOT_SENT:
			return nil, w.refused(codes.FailedPrecondition, ReasonNotCreated, "The request created no intent.")
		case pb.CreationState_CREATION_STATE_CREATED:
			intent := creation.GetUserIntent()
			if slices.Contains(statuses, intent.GetStatus()) {
				return intent, nil
			}
			if IsFinal(intent.GetStatus()) {
				failure := w.refused(codes.FailedPrecondition, ReasonStatusFinal, "The intent has another status that it will keep.")
				failure.FinalStatus, failure.UserIntentID = intent.GetStatus(), intent.GetId()
				return nil, failure
			}
		}
		return nil, nil
	})
}

// IsFinal says that an intent keeps this status: CONVERTED_TO_USER, REJECTED, SUSPENDED.
func IsFinal(s pb.UserIntentStatus) bool {
	return s == pb.UserIntentStatus_USER_INTENT_STATUS_CONVERTED_TO_USER || s == pb.UserIntentStatus_USER_INTENT_STATUS_REJECTED ||
		s == pb.UserIntentStatus_USER_INTENT_STATUS_SUSPENDED
}

// waitFor looks at every state of the one request until found gives a result.
func waitFor[T any](w *Watch, found func(*pb.Creation) (*T, error)) (*T, error) {
	recorded := false
	for event, err := range w.Events() {
		if err != nil {
			return nil, err
		}
		switch event.Kind {
		case WatchChanged:
			recorded = true
			if result, err := found(event.Changed); result != nil || err != nil {
				return result, err
			}
		case WatchReset:
			recorded = false
		case WatchSynced:
			if !recorded {
				return nil, w.refused(codes.NotFound, ReasonRequestNotFound, "No such request is recorded.")
			}
		}
	}
	return nil, w.refused(codes.Internal, ReasonInternal, "The watch ended without an error.")
}

// refused is an error of the library's own, in the gateway's words.
func (w *Watch) refused(code codes.Code, reason Reason, message string) *Error {
	failure := &Error{Code: code, Message: message, Reason: reason, Recovery: RecoveryStop, NotRepeated: NotRepeatedNotRetryable, Read: true, Tries: 1}
	if len(w.requestIDs) == 1 {
		failure.RequestID = w.requestIDs[0]
	}
	return failure
}
