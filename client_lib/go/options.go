package userintent

import (
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// Option is a setting of a Client.
type Option interface{ applyToClient(*clientConfig) }

// CallOption is a setting of one call.
type CallOption interface{ applyToCall(*callConfig) }

// SharedOption is a setting of a Client that one call can override.
type SharedOption interface {
	Option
	CallOption
}

type clientConfig struct {
	timeout  time.Duration
	maxTries int
	calls    []grpc.CallOption
	dial     []grpc.DialOption
	creds    []func() (credentials.TransportCredentials, error)
}

type callConfig struct {
	requestID   string
	maxTries    int
	maxAge      time.Duration
	allowStale  bool
	resumeToken []byte
	read        bool // the call creates nothing
	calls       []grpc.CallOption
}

type option func(*clientConfig)

func (o option) applyToClient(c *clientConfig) { o(c) }

type callOption func(*callConfig)

func (o callOption) applyToCall(c *callConfig) { o(c) }

type maxTries int

func (n maxTries) applyToClient(c *clientConfig) { c.maxTries = int(n) }
func (n maxTries) applyToCall(c *callConfig)     { c.maxTries = int(n) }

type grpcOptions []grpc.CallOption

func (o grpcOptions) applyToClient(c *clientConfig) { c.calls = append(c.calls, o...) }
func (o grpcOptions) applyToCall(c *callConfig)     { c.calls = append(c.calls, o...) }

// WithTLS protects the connection with TLS, or mutual TLS when the files name a client certificate.
func WithTLS(files TLS) Option {
	return option(func(c *clientConfig) { c.creds = append(c.creds, files.Credentials) })
}

// WithPlaintext leaves the connection unprotected: on this machine, or where a service mesh protects it.
func WithPlaintext() Option { return WithTransportCredentials(insecure.NewCredentials()) }

// WithTransportCredentials protects the connection with credentials of the caller's own making.
func WithTransportCredentials(creds credentials.TransportCredentials) Option {
	return option(func(c *clientConfig) {
		c.creds = append(c.creds, func() (credentials.TransportCredentials, error) { return creds, nil })
	})
}

// WithDialOptions adds gRPC's own options to the connection that Dial makes, after the library's, so that they win.
func WithDialOptions(options ...grpc.DialOption) Option {
	return option(func(c *clientConfig) { c.dial = append(c.dial, options...) })
}

// WithDefaultTimeout sets the deadline of calls whose context has none.
func WithDefaultTimeout(timeout time.Duration) Option {
	return option(func(c *clientConfig) { c.timeout = timeout })
}

// WithMaxTries sets how many RPCs one call may make; 1 switches automatic repeats off.
func WithMaxTries(n int) SharedOption { return maxTries(n) }

// WithGRPCCallOptions adds gRPC's own options to a call, or to every call of a client: grpc.WaitForReady(true), say.
func WithGRPCCallOptions(options ...grpc.CallOption) SharedOption { return grpcOptions(options) }

// WithRequestID uses this request_id, whatever the request says.
func WithRequestID(id string) CallOption {
	return callOption(func(c *callConfig) { c.requestID = id })
}

// RequestIDIn is the id that WithRequestID sets among these options; empty for none. For stand-ins of a Client.
func RequestIDIn(options ...CallOption) string {
	var call callConfig
	for _, option := range options {
		option.applyToCall(&call)
	}
	return call.requestID
}

// ResumeTokenIn is the token that WithResumeToken sets among these options. For stand-ins of a Client.
func ResumeTokenIn(options ...CallOption) []byte {
	var call callConfig
	for _, option := range options {
		option.applyToCall(&call)
	}
	return call.resumeToken
}

func (c *clientConfig) credentials() (credentials.TransportCredentials, error) {
	if len(c.creds) != 1 {
		return nil, errors.New("userintent: give exactly one of WithTLS, WithPlaintext and WithTransportCredentials")
	}
	return c.creds[0]()
}

// DialOptions are the settings that Dial uses, without credentials, for callers who make their own connection.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithUserAgent("userintent-go/" + Version),
		// Repeats are this library's business: gRPC's own do not know which errors may be repeated, and when. What gRPC
		// calls transparent retries stay: they concern calls that surely did not arrive.
		grpc.WithDisableRetry(),
		// The gateway allows a ping every 10 s, also without calls, and sends its own every 60 s.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true}),
		// A gateway that was restarted is back in seconds; it gives a handshake 5 s.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
	}
}

// ServiceConfig is a gRPC service config for callers that use the generated client without this library, for
// grpc.WithDefaultServiceConfig. Such a caller fills in request_id, which makes the repeats safe; the gateway forbids
// those that are of no use by its trailer grpc-retry-pushback-ms, which gRPC obeys. It leaves streams of WatchUserIntents
// alone: they have no deadline, and a repeat needs the resume token.
const ServiceConfig = `{"methodConfig":[{"name":[{"service":"userintent.v1.UserIntentService","method":"WatchUserIntents"}]},{"name":[{"service":"userintent.v1.UserIntentService"}],"timeout":"35s",` +
	`"retryPolicy":{"maxAttempts":4,"initialBackoff":"1s","maxBackoff":"5s","backoffMultiplier":2,` +
	`"retryableStatusCodes":["UNAVAILABLE","ABORTED","RESOURCE_EXHAUSTED"]}}],` +
	`"retryThrottling":{"maxTokens":10,"tokenRatio":0.1}}`
