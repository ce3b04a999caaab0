package userintent

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	pb "example.com/userintent/userintentv1"
)

// What is known before sending: each case is an error with Sent no, Tries 0, an id, and no RPC at the gateway.
func TestWhatCannotBeginIsNotMaybeSent(t *testing.T) {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	over, cancelOver := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancelOver()
	plain := context.Background()
	with := func(words ...string) context.Context {
		return metadata.NewOutgoingContext(plain, metadata.Pairs(words...))
	}
	long := &pb.CreateUserIntentRequest{Address2: strings.Repeat("x", 70000)}
	for name, test := range map[string]struct {
		ctx     context.Context
		request *pb.CreateUserIntentRequest
		options []CallOption
		client  []Option
		closed  bool
		code    codes.Code
		want    Recovery
	}{
		"a context that was cancelled":     {ctx: cancelled, code: codes.Canceled, want: RecoveryRetrySameID},
		"a deadline that was over":         {ctx: over, code: codes.DeadlineExceeded, want: RecoveryRetrySameID},
		"a default timeout of nothing":     {client: []Option{WithDefaultTimeout(0)}, code: codes.DeadlineExceeded, want: RecoveryRetrySameID},
		"a default timeout below zero":     {client: []Option{WithDefaultTimeout(math.MinInt64)}, code: codes.DeadlineExceeded, want: RecoveryRetrySameID},
		"a closed client":                  {closed: true, code: codes.Canceled, want: RecoveryRetrySameID},
		"a request over 64 KiB":            {request: long, code: codes.InvalidArgument, want: RecoveryFixRequest},
		"an id over 64 KiB":                {options: []CallOption{WithRequestID(strings.Repeat("1", 70000))}, code: codes.InvalidArgument, want: RecoveryFixRequest},
		"a string that is not UTF-8":       {request: &pb.CreateUserIntentRequest{City: "\xff"}, code: codes.InvalidArgument, want: RecoveryFixRequest},
		"an id that is not UTF-8":          {options: []CallOption{WithRequestID("\xff")}, code: codes.InvalidArgument, want: RecoveryFixRequest},
		"an own, lower limit":              {options: []CallOption{WithGRPCCallOptions(grpc.MaxCallSendMsgSize(10))}, code: codes.InvalidArgument, want: RecoveryFixRequest},
		"a compressor that is not there":   {options: []CallOption{WithGRPCCallOptions(grpc.UseCompressor("none-such"))}, code: codes.InvalidArgument, want: RecoveryFixRequest},
		"a metadata name with a space":     {ctx: with("two words", "x"), code: codes.InvalidArgument, want: RecoveryFixRequest},
		"a metadata value that is no text": {ctx: with("name", "a\nb"), code: codes.InvalidArgument, want: RecoveryFixRequest},
	} {
		t.Run(name, func(t *testing.T) {
			g, dialer := serve(t, ok)
			c := dial(t, dialer, test.client...)
			if test.closed {
				_ = c.Close()
			}
			ctx := test.ctx
			if ctx == nil {
				ctx = plain
			}
			_, err := c.CreateUserIntent(ctx, test.request, test.options...)
			e := failure(t, err)
			if e.MaybeSent() || e.Sent != SentNo || e.Tries != 0 || e.RequestID == "" || e.Code != test.code || e.Recovery != test.want || e.Retryable {
				t.Errorf("%v, sent %q", e, e.Sent)
			}
			equal(t, "RPCs that arrived", g.count(), 0)
			if strings.Contains(err.Error(), "maybe sent") {
				t.Errorf("%v", err)
			}
		})
	}
	equal(t, "errors.Is", errors.Is(failureOf(t, cancelled), context.Canceled), true)
	equal(t, "errors.Is", errors.Is(failureOf(t, over), context.DeadlineExceeded), true)
}

func failureOf(t *testing.T, ctx context.Context) error {
	_, dialer := serve(t, ok)
	_, err := dial(t, dialer).GetCreation(ctx, "asked")
	equal(t, "id", failure(t, err).RequestID, "asked")
	return err
}

// The longest request, with the id that the library fills in, is sent; one byte more is not.
func TestTheLimitCountsTheIDThatTheLibraryMakes(t *testing.T) {
	g, dialer := serve(t, ok)
	c := dial(t, dialer)
	request := &pb.CreateUserIntentRequest{RequestId: NewRequestID(), Address2: strings.Repeat("x", 65000)}
	request.Address2 += strings.Repeat("x", maxRequestBytes-proto.Size(request))
	equal(t, "bytes", proto.Size(request), maxRequestBytes)
	request.RequestId = ""
	if _, err := c.CreateUserIntent(context.Background(), request); err != nil {
		t.Error(err)
	}
	request.Address2 += "x"
	if _, err := c.CreateUserIntent(context.Background(), request); failure(t, err).Reason != ReasonMalformedRequest {
		t.Error(err)
	}
	equal(t, "RPCs that arrived", g.count(), 1)
}

// A repeat that cannot begin says nothing about the call before it, which may have been sent.
func TestARepeatThatCannotBeginStaysMaybeSent(t *testing.T) {
	g, dialer := serve(t, answer{code: codes.Unavailable}, ok)
	c := dial(t, dialer)
	_, first := c.CreateUserIntent(context.Background(), nil)
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	_, second := c.Repeat(cancelled, first)
	_, third := c.Repeat(cancelled, second)
	for _, err := range []error{first, second, third} {
		e := failure(t, err)
		if !e.MaybeSent() || e.Sent != "" || e.Recovery != "" || e.RequestID != failure(t, first).RequestID {
			t.Errorf("%v", e)
		}
	}
	equal(t, "RPCs that arrived", g.count(), 1)
	_, never := c.CreateUserIntent(cancelled, nil)
	_, again := c.Repeat(cancelled, never)
	equal(t, "maybe sent", failure(t, again).MaybeSent(), false)
	result, err := c.Repeat(context.Background(), third)
	if err != nil || result.RequestID != failure(t, first).RequestID {
		t.Errorf("%v", err)
	}
}

func TestTheLongestTimeoutIsATimeout(t *testing.T) {
	_, dialer := serve(t, ok)
	if _, err := dial(t, dialer, WithDefaultTimeout(math.MaxInt64)).CreateUserIntent(context.Background(), nil); err != nil {
		t.Error(err)
	}
}

func TestTargetsThatNameNothing(t *testing.T) {
	for _, target := range []string{"", "/", "://", "dns:///", "host:", "127.0.0.1\x00:1", "host\n:1", "host\x7f:1"} {
		if _, err := Dial(target, WithPlaintext()); err == nil || !strings.Contains(err.Error(), "target") {
			t.Errorf("%q: %v", target, err)
		}
	}
	for _, target := range []string{"localhost:1", "dns:///localhost:1", "[::1]:1", "::", "unix:/run/x", "passthrough:///x"} {
		c, err := Dial(target, WithPlaintext())
		if err != nil {
			t.Errorf("%q: %v", target, err)
			continue
		}
		_ = c.Close()
	}
}
