package userintent

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "example.com/userintent/userintentv1"
)

// IntentKey names the intent that GetUserIntent reads: ByRequestID or ByUserIntentID. The zero value names none; the
// gateway refuses it.
type IntentKey struct {
	requestID, userIntentID string
	named                   keyKind
}

type keyKind int

const (
	keyNone keyKind = iota
	keyRequestID
	keyUserIntentID
)

// ByRequestID names the intent that the caller's own request created.
func ByRequestID(id string) IntentKey { return IntentKey{requestID: id, named: keyRequestID} }

// ByUserIntentID names an intent of the caller's own by Astra's id, as in Result.UserIntentID.
func ByUserIntentID(id string) IntentKey { return IntentKey{userIntentID: id, named: keyUserIntentID} }

// RequestID is that of ByRequestID, else empty.
func (k IntentKey) RequestID() string { return k.requestID }

// UserIntentID is that of ByUserIntentID, else empty.
func (k IntentKey) UserIntentID() string { return k.userIntentID }

// WithMaxAge lets GetUserIntent answer from the gateway's record when Astra said it at most so long ago. Without it, or
// with 0, Astra is asked.
func WithMaxAge(age time.Duration) CallOption {
	return callOption(func(c *callConfig) { c.maxAge = age })
}

// WithAllowStale lets GetUserIntent answer what is recorded, with stale true, when Astra cannot be asked.
func WithAllowStale() CallOption {
	return callOption(func(c *callConfig) { c.allowStale = true })
}

// GetUserIntent reads one of the caller's own intents as Astra has it now, or as WithMaxAge and WithAllowStale allow.
// Every error is an *Error, without Sent: a read creates nothing.
//
// Reading changes nothing, so it is repeated after every error that carries RetryInfo, and after UNAVAILABLE of a
// connection that broke or could not be made, which gives no delay: 200 ms then, and twice as long each time.
func (c *Client) GetUserIntent(ctx context.Context, key IntentKey, options ...CallOption) (*pb.GetUserIntentResponse, error) {
	call := c.callConfig(options)
	call.read = true
	request := &pb.GetUserIntentRequest{AllowStale: call.allowStale}
	switch key.named {
	case keyRequestID:
		request.Key = &pb.GetUserIntentRequest_RequestId{RequestId: key.requestID}
	case keyUserIntentID:
		request.Key = &pb.GetUserIntentRequest_UserIntentId{UserIntentId: key.userIntentID}
	}
	if call.maxAge != 0 {
		request.MaxAge = durationpb.New(call.maxAge)
	}
	var response *pb.GetUserIntentResponse
	_, failure := c.do(ctx, call, request, func(ctx context.Context, grpcOptions ...grpc.CallOption) (err error) {
		response, err = c.rpc.GetUserIntent(ctx, request, grpcOptions...)
		return err
	})
	if failure == nil {
		return response, nil
	}
	return nil, failure.about(key)
}

// about says which intent the failed call was about.
func (e *Error) about(key IntentKey) *Error {
	e.RequestID = key.requestID
	if e.UserIntentID == "" {
		e.UserIntentID = key.userIntentID
	}
	return e
}

// Pauses before the repeats of a read whose error names no delay: the first, doubled each time, and the longest.
const (
	firstPause   = 200 * time.Millisecond
	longestPause = 5 * time.Second
)

// ofRead makes the error that of a read: it says nothing about sending, and UNAVAILABLE that is not the gateway's may be
// repeated unless the gateway forbade it.
func (e *Error) ofRead() {
	e.Read, e.Sent = true, ""
	if e.Reason != "" {
		return
	}
	switch e.Code {
	case codes.Unavailable:
		e.Recovery = RecoveryRetrySameID
		if !e.Retryable && e.pushback >= 0 {
			e.Retryable, e.RetryAfter = true, max(pauseAfter(e.Tries), e.pushback)
		}
	case codes.DeadlineExceeded, codes.Canceled:
		e.Recovery = RecoveryRetrySameID
	}
}

func pauseAfter(tries int) time.Duration {
	return min(firstPause<<min(max(tries-1, 0), 10), longestPause)
}
