// Package userintent is the client of the User Intent gateway.
//
// Repeat the same request_id as often as you like: at most one User Intent is created for it, and every repeat gets the
// same answer. A new request_id means a new creation, and one of the three attempts that an e-mail address has, for ever.
//
// A call without a request_id gets a new one, which is in the Result and in every Error. After an error use
// Client.Repeat, or call again WithRequestID(e.RequestID); calling again without an id is a new creation.
//
// The messages are in package userintentv1. Their text forms (String, fmt, log/slog) hold no personal data.
package userintent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	pb "example.com/userintent/userintentv1"
)

// Version of this library, which it tells the gateway in the user agent.
const Version = "0.1.0"

const (
	// DefaultTimeout is the deadline of a call whose context has none, all its tries included.
	DefaultTimeout = 35 * time.Second
	// DefaultMaxTries is how many RPCs one call may make.
	DefaultMaxTries = 5

	// maxRequestBytes of a message on the wire: the gateway takes no longer one.
	maxRequestBytes = 64 * 1024
)

// ClientInterface is what a program calls of a Client, so that its tests can bring userintenttest.Client instead. It may
// gain methods; what implements it elsewhere embeds it.
type ClientInterface interface {
	CreateUserIntent(ctx context.Context, request *pb.CreateUserIntentRequest, options ...CallOption) (*Result, error)
	Repeat(ctx context.Context, err error, options ...CallOption) (*Result, error)
	GetCreation(ctx context.Context, requestID string, options ...CallOption) (*pb.Creation, error)
	GetUserIntent(ctx context.Context, key IntentKey, options ...CallOption) (*pb.GetUserIntentResponse, error)
	Watch(ctx context.Context, requestIDs []string, options ...CallOption) *Watch
	WaitForOutcome(ctx context.Context, requestID string, options ...CallOption) (*pb.Creation, error)
	WaitForStatus(ctx context.Context, requestID string, statuses []pb.UserIntentStatus, options ...CallOption) (*pb.UserIntent, error)
	GetAuthorizationURL(ctx context.Context, key IntentKey, redirectURI, state string, options ...CallOption) (*pb.GetAuthorizationUrlResponse, error)
}

var _ ClientInterface = (*Client)(nil)

// Client calls the gateway. It may be used by any number of goroutines; one for a whole program is best.
type Client struct {
	rpc    pb.UserIntentServiceClient
	own    *grpc.ClientConn // nil when the connection is the caller's
	conn   grpc.ClientConnInterface
	config clientConfig
	budget *budget
	jitter func() float64 // in [0, 1)

	life    context.Context // over once the client is closed, which ends its watches
	end     context.CancelFunc
	silence time.Duration // of a stream that is lost
}

// Dial makes a client with a connection of its own; Close ends it. The connection is made at the first call. One of
// WithTLS, WithPlaintext or WithTransportCredentials must be among the options.
func Dial(target string, options ...Option) (*Client, error) {
	if !namesSomething(target) {
		return nil, errors.New("userintent: the target is empty, or holds a control character")
	}
	c := newClient(options)
	creds, err := c.config.credentials()
	if err != nil {
		return nil, err
	}
	dial := append(DialOptions(), grpc.WithTransportCredentials(creds))
	c.own, err = grpc.NewClient(target, append(dial, c.config.dial...)...)
	if err != nil {
		return nil, fmt.Errorf("userintent: %w", err)
	}
	c.conn, c.rpc = c.own, pb.NewUserIntentServiceClient(c.own)
	return c, nil
}

// New makes a client that uses a connection of the caller's, who also closes it; see DialOptions for what suits the
// gateway. Options for Dial only (credentials, WithDialOptions) have no effect here.
func New(conn grpc.ClientConnInterface, options ...Option) *Client {
	c := newClient(options)
	c.conn, c.rpc = conn, pb.NewUserIntentServiceClient(conn)
	// A size of zero takes retries of a service config off these calls, whatever connection they run on.
	c.config.calls = append(c.config.calls, grpc.MaxRetryRPCBufferSize(0))
	return c
}

func newClient(options []Option) *Client {
	c := &Client{
		config: clientConfig{timeout: DefaultTimeout, maxTries: DefaultMaxTries}, budget: newBudget(), jitter: mathrand.Float64, silence: watchSilence,
	}
	c.life, c.end = context.WithCancel(context.Background())
	for _, option := range options {
		option.applyToClient(&c.config)
	}
	return c
}

// Close ends the connection that Dial made, and the calls that run on it with CANCELLED; and the watches of the client in
// any case. A connection given to New stays.
func (c *Client) Close() error {
	c.end()
	if c.own == nil {
		return nil
	}
	return c.own.Close()
}

// Result is the answer to a creation.
type Result struct {
	// RequestID is the id that was used: the caller's as it was given, or a new one. Keep it with the person's record.
	RequestID string
	// Tries counts the RPCs that this call made.
	Tries int
	// Response is what the gateway answered.
	Response *pb.CreateUserIntentResponse
}

// UserIntentID is Astra's id of the User Intent; empty for validate_only.
func (r *Result) UserIntentID() string { return r.Response.GetUserIntent().GetId() }

// Replayed is false for the one call whose POST created the intent, and true for its repeats.
func (r *Result) Replayed() bool { return r.Response.GetReplayed() }

// NewRequestID makes a request_id (a random UUID). Store it before the call, and not even a crash of your own program
// can turn one creation into two.
func NewRequestID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// CreateUserIntent creates a User Intent, at most one for each request_id. The id is that of WithRequestID, else that of
// the request, else a new one. The request is copied and stays as it is. Every error is an *Error (see errors.As).
//
// Errors that carry RetryInfo are repeated with the same id, inside the deadline of ctx (or else DefaultTimeout).
func (c *Client) CreateUserIntent(ctx context.Context, request *pb.CreateUserIntentRequest, options ...CallOption) (*Result, error) {
	call := c.callConfig(options)
	id := call.requestID
	if id == "" {
		id = request.GetRequestId()
	}
	if id == "" {
		id = NewRequestID()
	}
	// A copy, so that Repeat sends what was sent, whatever the caller does with the message meanwhile.
	sent := &pb.CreateUserIntentRequest{}
	if request != nil {
		proto.Merge(sent, request)
	}
	sent.RequestId = id

	var response *pb.CreateUserIntentResponse
	tries, failure := c.do(ctx, call, sent, func(ctx context.Context, grpcOptions ...grpc.CallOption) (err error) {
		response, err = c.rpc.CreateUserIntent(ctx, sent, grpcOptions...)
		return err
	})
	if failure == nil {
		return &Result{RequestID: id, Tries: tries, Response: response}, nil
	}
	failure.RequestID = id
	failure.request = func() *pb.CreateUserIntentRequest { return sent }
	return nil, failure
}

// Repeat makes the call that ended with err once more: same request, same request_id, with the deadline of ctx. It is
// safe after every error. An error that is not of CreateUserIntent is returned as it is.
func (c *Client) Repeat(ctx context.Context, err error, options ...CallOption) (*Result, error) {
	var failure *Error
	if !errors.As(err, &failure) || failure.request == nil {
		return nil, err
	}
	result, err := c.CreateUserIntent(ctx, failure.request(), append(options[:len(options):len(options)], WithRequestID(failure.RequestID))...)
	if again := (*Error)(nil); failure.MaybeSent() && errors.As(err, &again) && again.Reason == "" {
		again.Sent, again.Recovery = "", "" // this call sent nothing, but the one before it may have
	}
	return result, err
}

// GetCreation answers what is recorded about one of the caller's own requests. It sends nothing to Astra. An unknown id
// is an *Error with ReasonRequestNotFound.
func (c *Client) GetCreation(ctx context.Context, requestID string, options ...CallOption) (*pb.Creation, error) {
	var response *pb.GetCreationResponse
	request := &pb.GetCreationRequest{RequestId: requestID}
	_, failure := c.do(ctx, c.callConfig(options), request, func(ctx context.Context, grpcOptions ...grpc.CallOption) (err error) {
		response, err = c.rpc.GetCreation(ctx, request, grpcOptions...)
		return err
	})
	if failure != nil {
		failure.RequestID = requestID
		return nil, failure
	}
	return response.GetCreation(), nil
}

func (c *Client) callConfig(options []CallOption) callConfig {
	call := callConfig{maxTries: c.config.maxTries, calls: c.config.calls[:len(c.config.calls):len(c.config.calls)]}
	for _, option := range options {
		option.applyToCall(&call)
	}
	return call
}

// do makes the tries of one call. The result is nil, or the error of the last try with everything but RequestID.
func (c *Client) do(ctx context.Context, call callConfig, request proto.Message, rpc func(context.Context, ...grpc.CallOption) error) (int, *Error) {
	if _, has := ctx.Deadline(); !has {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.config.timeout)
		defer cancel()
	}
	if failure := c.notBegun(ctx, call, request); failure != nil {
		return 0, call.ended(failure, NotRepeatedNotRetryable)
	}
	for tries := 1; ; tries++ {
		var trailer metadata.MD
		err := rpc(ctx, append(call.calls, grpc.Trailer(&trailer))...)
		if err == nil {
			c.budget.succeeded()
			return tries, nil
		}
		failure := newError(err, trailer)
		failure.Tries = tries
		if call.read {
			failure.ofRead()
		}
		wait, why := c.next(ctx, call, failure)
		if why != "" {
			return tries, call.ended(failure, why)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			if !errors.Is(ctx.Err(), context.Canceled) {
				return tries, call.ended(failure, NotRepeatedDeadline)
			}
			failure = &Error{Code: codes.Canceled, Message: "cancelled while waiting to repeat", Tries: tries, cause: ctx.Err()}
			return tries, call.ended(failure, NotRepeatedNotRetryable)
		}
	}
}

// next is how long to wait before the try after the one that failed, or why there is to be none.
func (c *Client) next(ctx context.Context, call callConfig, failure *Error) (time.Duration, NotRepeated) {
	if !failure.Retryable {
		return 0, NotRepeatedNotRetryable
	}
	if failure.Tries >= call.maxTries {
		return 0, NotRepeatedMaxTries
	}
	wait := lengthen(failure.RetryAfter, c.jitter())
	if deadline, _ := ctx.Deadline(); time.Until(deadline) <= wait {
		return 0, NotRepeatedDeadline
	}
	if !c.budget.take() {
		return 0, NotRepeatedBudget
	}
	return wait, ""
}

// ended is the error with which the call ends.
func (call callConfig) ended(failure *Error, why NotRepeated) *Error {
	if call.read && !failure.Read {
		failure.ofRead()
	}
	failure.NotRepeated = why
	return failure
}

// lengthen is the delay that the gateway asked for, times 1.00 to 1.25: many callers must not come back at one moment.
func lengthen(delay time.Duration, jitter float64) time.Duration {
	longer := float64(delay) * (1 + 0.25*jitter)
	if longer >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(longer)
}
