package userintent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "example.com/userintent/userintentv1"
)

// answer is what the fake gateway says to one RPC.
type answer struct {
	code     codes.Code // OK: the intent "intent"
	details  []protoadapt.MessageV1
	pushback string
	hang     bool // until the client leaves
}

type gateway struct {
	pb.UnimplementedUserIntentServiceServer
	mu      sync.Mutex
	answers []answer // the last one stays
	heard   []*pb.CreateUserIntentRequest
	reads   []*pb.GetUserIntentRequest
	links   []*pb.GetAuthorizationUrlRequest
	times   []time.Time
	left    []time.Duration // until the deadline
	arrived chan struct{}   // one entry for each RPC
}

func (g *gateway) next(ctx context.Context, request *pb.CreateUserIntentRequest) answer {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.answers[min(len(g.heard), len(g.answers)-1)]
	g.heard = append(g.heard, request)
	g.times = append(g.times, time.Now())
	deadline, _ := ctx.Deadline()
	g.left = append(g.left, time.Until(deadline))
	g.arrived <- struct{}{}
	return now
}

func (g *gateway) CreateUserIntent(ctx context.Context, request *pb.CreateUserIntentRequest) (*pb.CreateUserIntentResponse, error) {
	now := g.next(ctx, request)
	return &pb.CreateUserIntentResponse{UserIntent: &pb.UserIntent{Id: "intent"}, Replayed: true}, now.give(ctx)
}

func (g *gateway) GetCreation(ctx context.Context, request *pb.GetCreationRequest) (*pb.GetCreationResponse, error) {
	now := g.next(ctx, &pb.CreateUserIntentRequest{RequestId: request.GetRequestId()})
	return &pb.GetCreationResponse{Creation: &pb.Creation{RequestId: request.GetRequestId()}}, now.give(ctx)
}

func (g *gateway) GetUserIntent(ctx context.Context, request *pb.GetUserIntentRequest) (*pb.GetUserIntentResponse, error) {
	now := g.next(ctx, &pb.CreateUserIntentRequest{RequestId: request.GetRequestId()})
	g.mu.Lock()
	g.reads = append(g.reads, request)
	g.mu.Unlock()
	return &pb.GetUserIntentResponse{UserIntent: &pb.UserIntent{Id: "intent", UserId: "user"}, Stale: request.GetAllowStale()}, now.give(ctx)
}

func (g *gateway) GetAuthorizationUrl(ctx context.Context, request *pb.GetAuthorizationUrlRequest) (*pb.GetAuthorizationUrlResponse, error) {
	now := g.next(ctx, &pb.CreateUserIntentRequest{RequestId: request.GetRequestId()})
	g.mu.Lock()
	g.links = append(g.links, request)
	g.mu.Unlock()
	return &pb.GetAuthorizationUrlResponse{Url: "https://app.example.com/", UserIntent: &pb.UserIntent{Id: "intent"}}, now.give(ctx)
}

func (a answer) give(ctx context.Context) error {
	if a.hang {
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	}
	if a.pushback != "" {
		_ = grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", a.pushback))
	}
	if a.code == codes.OK {
		return nil
	}
	s, err := status.New(a.code, "fixed text").WithDetails(a.details...)
	if err != nil {
		panic(err)
	}
	return s.Err()
}

func (g *gateway) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.heard)
}

// serve starts a fake gateway and gives what a dialer needs to reach it.
func serve(t *testing.T, answers ...answer) (*gateway, grpc.DialOption) {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	g := &gateway{answers: answers, arrived: make(chan struct{}, 10000)}
	server := grpc.NewServer()
	pb.RegisterUserIntentServiceServer(server, g)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return g, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) })
}

func dial(t *testing.T, dialer grpc.DialOption, options ...Option) *Client {
	t.Helper()
	c, err := Dial("passthrough:///gateway", append([]Option{WithPlaintext(), WithDialOptions(dialer)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// own is a connection of the caller's making.
func own(t *testing.T, dialer grpc.DialOption, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///gateway", append(options, dialer, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func info(reason string, words ...string) *errdetails.ErrorInfo {
	out := &errdetails.ErrorInfo{Domain: domain, Reason: reason, Metadata: map[string]string{}}
	for i := 0; i < len(words); i += 2 {
		out.Metadata[words[i]] = words[i+1]
	}
	return out
}

func retryAfter(d time.Duration) *errdetails.RetryInfo {
	return &errdetails.RetryInfo{RetryDelay: durationpb.New(d)}
}

func overloaded(d time.Duration) answer {
	return answer{code: codes.Unavailable, details: []protoadapt.MessageV1{info("OVERLOADED", "sent", "no", "recovery", "RETRY_SAME_ID"), retryAfter(d)}}
}

var ok = answer{}

func failure(t *testing.T, err error) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("not an *Error: %v", err)
	}
	return e
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

var uuid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

func TestRequestID(t *testing.T) {
	g, dialer := serve(t, ok)
	c := dial(t, dialer)
	request := &pb.CreateUserIntentRequest{Email: "ada@example.com"}

	made, err := c.CreateUserIntent(context.Background(), request)
	if err != nil {
		t.Fatal(err)
	}
	if !uuid.MatchString(made.RequestID) {
		t.Errorf("not a random UUID: %q", made.RequestID)
	}
	equal(t, "the id that was sent", g.heard[0].GetRequestId(), made.RequestID)
	equal(t, "the caller's message", request.GetRequestId(), "")
	equal(t, "the intent", made.UserIntentID(), "intent")
	equal(t, "replayed", made.Replayed(), true)

	again, err := c.CreateUserIntent(context.Background(), request)
	if err != nil {
		t.Fatal(err)
	}
	if again.RequestID == made.RequestID {
		t.Error("a call without an id is a new creation and needs a new id")
	}

	request.RequestId = "MINE"
	for want, options := range map[string][]CallOption{"MINE": nil, "other": {WithRequestID("other")}} {
		result, err := c.CreateUserIntent(context.Background(), request, options...)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "id in the result", result.RequestID, want)
		equal(t, "id that was sent", g.heard[len(g.heard)-1].GetRequestId(), want)
	}
	if _, err := c.CreateUserIntent(context.Background(), nil); err != nil {
		t.Errorf("a nil request is the server's to refuse: %v", err)
	}
}

func TestNewRequestIDsDiffer(t *testing.T) {
	seen := map[string]bool{}
	for i := 0; i < 1000; i++ {
		id := NewRequestID()
		if !uuid.MatchString(id) || seen[id] {
			t.Fatalf("%q, seen before: %v", id, seen[id])
		}
		seen[id] = true
	}
}

func TestEveryErrorHasAnID(t *testing.T) {
	_, dialer := serve(t, answer{code: codes.Unavailable})
	c := dial(t, dialer)
	_, err := c.CreateUserIntent(context.Background(), &pb.CreateUserIntentRequest{})
	if e := failure(t, err); !uuid.MatchString(e.RequestID) || e.Tries != 1 {
		t.Errorf("id %q, tries %d", e.RequestID, e.Tries)
	}
	_, err = c.GetCreation(context.Background(), "asked")
	equal(t, "id of GetCreation", failure(t, err).RequestID, "asked")
	_ = c.Close()
	_, err = c.CreateUserIntent(context.Background(), &pb.CreateUserIntentRequest{RequestId: "late"})
	if e := failure(t, err); e.Code != codes.Canceled || e.RequestID != "late" {
		t.Errorf("after Close: %v", e)
	}
}

func TestDeadlines(t *testing.T) {
	for name, test := range map[string]struct {
		options []Option
		context time.Duration
		want    time.Duration
	}{
		"default":                  {want: DefaultTimeout},
		"the client's":             {options: []Option{WithDefaultTimeout(2 * time.Minute)}, want: 2 * time.Minute},
		"the context's, longer":    {context: time.Hour, want: time.Hour},
		"the context's, shorter":   {context: 20 * time.Second, want: 20 * time.Second},
		"the context's, of client": {options: []Option{WithDefaultTimeout(time.Minute)}, context: time.Hour, want: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			g, dialer := serve(t, ok)
			ctx := context.Background()
			if test.context > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, test.context)
				defer cancel()
			}
			if _, err := dial(t, dialer, test.options...).CreateUserIntent(ctx, nil); err != nil {
				t.Fatal(err)
			}
			if got := g.left[0]; got > test.want+time.Second || got < test.want-15*time.Second {
				t.Errorf("%v left, want about %v", got, test.want)
			}
		})
	}
}

func TestRepeats(t *testing.T) {
	bare := answer{code: codes.Unavailable}
	foreign := &errdetails.ErrorInfo{Domain: "proxy.example.com", Reason: "BUSY"}
	forbidden := overloaded(time.Millisecond)
	forbidden.pushback = "-1"
	unreadable := overloaded(time.Millisecond)
	unreadable.pushback = "soon"
	for name, test := range map[string]struct {
		answers []answer
		options []Option
		calls   []CallOption
		timeout time.Duration
		tries   int
		code    codes.Code
	}{
		"none needed":                    {answers: []answer{ok}, tries: 1},
		"RetryInfo":                      {answers: []answer{overloaded(time.Millisecond), overloaded(0), ok}, tries: 3},
		"five tries at most":             {answers: []answer{overloaded(time.Millisecond)}, tries: 5, code: codes.Unavailable},
		"two by the client's option":     {answers: []answer{overloaded(time.Millisecond)}, options: []Option{WithMaxTries(2)}, tries: 2, code: codes.Unavailable},
		"three by the call's option":     {answers: []answer{overloaded(time.Millisecond)}, options: []Option{WithMaxTries(2)}, calls: []CallOption{WithMaxTries(3)}, tries: 3, code: codes.Unavailable},
		"switched off":                   {answers: []answer{overloaded(time.Millisecond), ok}, calls: []CallOption{WithMaxTries(1)}, tries: 1, code: codes.Unavailable},
		"no details":                     {answers: []answer{bare, ok}, tries: 1, code: codes.Unavailable},
		"no RetryInfo":                   {answers: []answer{{code: codes.Unavailable, details: []protoadapt.MessageV1{info("DRAINING", "sent", "no")}}, ok}, tries: 1, code: codes.Unavailable},
		"pushback -1":                    {answers: []answer{forbidden, ok}, tries: 1, code: codes.Unavailable},
		"pushback that cannot be read":   {answers: []answer{unreadable, ok}, tries: 1, code: codes.Unavailable},
		"any code, if RetryInfo says so": {answers: []answer{{code: codes.Unknown, details: []protoadapt.MessageV1{retryAfter(0), foreign}}, ok}, tries: 2},
		"the delay does not fit":         {answers: []answer{overloaded(time.Minute), ok}, timeout: 30 * time.Second, tries: 1, code: codes.Unavailable},
		"the delay is absurd":            {answers: []answer{overloaded(280 * 365 * 24 * time.Hour), ok}, tries: 1, code: codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			g, dialer := serve(t, test.answers...)
			ctx := context.Background()
			if test.timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, test.timeout)
				defer cancel()
			}
			start := time.Now()
			result, err := dial(t, dialer, test.options...).CreateUserIntent(ctx, nil, test.calls...)
			if took := time.Since(start); took > 15*time.Second {
				t.Errorf("it took %v: no case here has anything to wait for so long", took)
			}
			var id string
			if err != nil {
				e := failure(t, err)
				equal(t, "code", e.Code, test.code)
				equal(t, "tries", e.Tries, test.tries)
				id = e.RequestID
			} else {
				equal(t, "code", codes.OK, test.code)
				equal(t, "tries", result.Tries, test.tries)
				id = result.RequestID
			}
			equal(t, "RPCs that arrived", g.count(), test.tries)
			for _, heard := range g.heard {
				equal(t, "id of each try", heard.GetRequestId(), id)
			}
		})
	}
}

func TestRepeatsShareTheDeadline(t *testing.T) {
	g, dialer := serve(t, overloaded(200*time.Millisecond), ok)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := dial(t, dialer).CreateUserIntent(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if spent := g.left[0] - g.left[1]; spent < 190*time.Millisecond {
		t.Errorf("the second try had only %v less", spent)
	}
	if waited := g.times[1].Sub(g.times[0]); waited < 200*time.Millisecond {
		t.Errorf("it came back after %v", waited)
	}
}

func TestPushbackIsADelay(t *testing.T) {
	first := overloaded(time.Millisecond)
	first.pushback = "150"
	g, dialer := serve(t, first, ok)
	if _, err := dial(t, dialer).CreateUserIntent(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	if waited := g.times[1].Sub(g.times[0]); waited < 150*time.Millisecond {
		t.Errorf("it came back after %v", waited)
	}
}

func TestJitter(t *testing.T) {
	for jitter, want := range map[float64]time.Duration{0: time.Second, 0.5: 1125 * time.Millisecond, 1: 1250 * time.Millisecond} {
		equal(t, fmt.Sprintf("jitter %v", jitter), lengthen(time.Second, jitter), want)
	}
	if got := lengthen(1<<63-1, 1); got != 1<<63-1 {
		t.Errorf("overflow: %v", got)
	}
	c := New(nil)
	low, high := 1.0, 0.0
	for i := 0; i < 1000; i++ {
		j := c.jitter()
		low, high = min(low, j), max(high, j)
	}
	if low < 0 || high >= 1 || high-low < 0.5 {
		t.Errorf("jitter of a client runs from %v to %v", low, high)
	}
}

func TestBudget(t *testing.T) {
	g, dialer := serve(t, overloaded(0))
	c := dial(t, dialer)
	for call, want := range []int{5, 5, 3, 1} { // 4 + 4 + 2 repeats, then none
		_, err := c.CreateUserIntent(context.Background(), nil)
		equal(t, fmt.Sprintf("tries of call %d", call), failure(t, err).Tries, want)
	}
	g.mu.Lock()
	g.answers = []answer{ok}
	g.mu.Unlock()
	for i := 0; i < 10; i++ { // ten that end well pay for one repeat
		if _, err := c.CreateUserIntent(context.Background(), nil); err != nil {
			t.Fatal(err)
		}
	}
	g.mu.Lock()
	g.answers = []answer{overloaded(0)}
	g.mu.Unlock()
	_, err := c.CreateUserIntent(context.Background(), nil)
	equal(t, "tries after ten successes", failure(t, err).Tries, 2)

	b := newBudget()
	for i := 0; i < 1000; i++ {
		b.succeeded()
	}
	equal(t, "most that it holds", b.tokens, budgetCapacity)
}

func TestOwnDeadlineMaybeSent(t *testing.T) {
	g, dialer := serve(t, answer{hang: true}, ok)
	c := dial(t, dialer)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, err := c.CreateUserIntent(ctx, &pb.CreateUserIntentRequest{Email: "ada@example.com"})
	e := failure(t, err)
	if e.Code != codes.DeadlineExceeded || !e.MaybeSent() || e.Retryable || !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		t.Errorf("%v, maybe sent %v, retryable %v", e, e.MaybeSent(), e.Retryable)
	}
	result, err := c.Repeat(context.Background(), fmt.Errorf("wrapped: %w", err))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "id of the repeat", result.RequestID, e.RequestID)
	equal(t, "content of the repeat", g.heard[1].GetEmail(), "ada@example.com")
}

func TestCancelled(t *testing.T) {
	for name, first := range map[string]answer{"in the call": {hang: true}, "while waiting to repeat": overloaded(20 * time.Second)} {
		t.Run(name, func(t *testing.T) {
			g, dialer := serve(t, first, ok)
			c := dial(t, dialer)
			ctx, cancel := context.WithCancel(context.Background())
			go func() {
				<-g.arrived
				cancel()
			}()
			_, err := c.CreateUserIntent(ctx, nil)
			e := failure(t, err)
			if e.Code != codes.Canceled || !e.MaybeSent() || e.Tries != 1 || e.RequestID == "" || !errors.Is(err, context.Canceled) {
				t.Errorf("%v", e)
			}
			if _, err := c.Repeat(context.Background(), err); err != nil {
				t.Error(err)
			}
			equal(t, "RPCs that arrived", g.count(), 2)
		})
	}
}

func TestRepeatOfAnotherError(t *testing.T) {
	_, dialer := serve(t, answer{code: codes.NotFound})
	c := dial(t, dialer)
	mine := errors.New("mine")
	if _, err := c.Repeat(context.Background(), mine); err != mine {
		t.Errorf("%v", err)
	}
	_, get := c.GetCreation(context.Background(), "x")
	if _, err := c.Repeat(context.Background(), get); err != get {
		t.Errorf("%v", err)
	}
}

func TestRepeatSendsWhatWasSent(t *testing.T) {
	g, dialer := serve(t, answer{code: codes.Unavailable}, ok)
	c := dial(t, dialer)
	request := &pb.CreateUserIntentRequest{City: "Springfield"}
	_, err := c.CreateUserIntent(context.Background(), request)
	request.City = "Elsewhere"
	if _, err := c.Repeat(context.Background(), err); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(g.heard[0], g.heard[1]) {
		t.Error("the repeat was another request")
	}
}

// A retry by gRPC behind the library's back would be a second RPC: not for errors that the library does not repeat.
func TestNoRetriesOfServiceConfig(t *testing.T) {
	eager := grpc.WithDefaultServiceConfig(ServiceConfig)
	for name, make := range map[string]func(*testing.T, grpc.DialOption) *Client{
		"Dial": func(t *testing.T, d grpc.DialOption) *Client { return dial(t, d, WithDialOptions(eager)) },
		"New":  func(t *testing.T, d grpc.DialOption) *Client { return New(own(t, d, eager)) },
	} {
		t.Run(name, func(t *testing.T) {
			g, dialer := serve(t, answer{code: codes.Unavailable}, ok)
			if _, err := make(t, dialer).CreateUserIntent(context.Background(), nil); err == nil {
				t.Error("it was repeated")
			}
			equal(t, "RPCs that arrived", g.count(), 1)
		})
	}
}

func TestServiceConfig(t *testing.T) {
	forbidden := overloaded(time.Millisecond)
	forbidden.pushback = "-1"
	for name, test := range map[string]struct {
		answers []answer
		rpcs    int
	}{"repeats": {[]answer{{code: codes.Unavailable, pushback: "1"}, ok}, 2}, "obeys the gateway": {[]answer{forbidden, ok}, 1}} {
		t.Run(name, func(t *testing.T) {
			g, dialer := serve(t, test.answers...)
			rpc := pb.NewUserIntentServiceClient(own(t, dialer, grpc.WithDefaultServiceConfig(ServiceConfig)))
			_, err := rpc.CreateUserIntent(context.Background(), &pb.CreateUserIntentRequest{RequestId: NewRequestID()})
			equal(t, "it ended well", err == nil, test.rpcs == 2)
			equal(t, "RPCs that arrived", g.count(), test.rpcs)
		})
	}
	theirs, err := os.ReadFile("../python/src/userintent/service_config.json")
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("the Python library is not here to compare with")
	}
	var a, b any
	if json.Unmarshal([]byte(ServiceConfig), &a) != nil || json.Unmarshal(theirs, &b) != nil || fmt.Sprint(a) != fmt.Sprint(b) {
		t.Error("ServiceConfig is another one than the Python library's")
	}
}

func TestCloseLeavesTheCallersConnection(t *testing.T) {
	_, dialer := serve(t, ok)
	c := New(own(t, dialer))
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.CreateUserIntent(context.Background(), nil); err != nil {
		t.Error(err)
	}
}

func TestErrorFields(t *testing.T) {
	_, dialer := serve(t, answer{code: codes.FailedPrecondition, pushback: "-1", details: []protoadapt.MessageV1{
		info("EMAIL_UNRESOLVED", "sent", "yes", "recovery", "STOP", "attempts_used_min", "1", "attempts_used_max", "3", "user_intent_id", "i",
			"unresolved_request_id", "u", "astra_request_id", "a", "http_status", "422", "replayed", "true", "newer", "word"),
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "email", Description: "rule"}, {Field: "city", Description: "other"}}},
	}})
	_, err := dial(t, dialer).CreateUserIntent(context.Background(), &pb.CreateUserIntentRequest{RequestId: "id"})
	e := failure(t, err)
	equal(t, "Code", e.Code, codes.FailedPrecondition)
	equal(t, "Message", e.Message, "fixed text")
	equal(t, "Reason", e.Reason, ReasonEmailUnresolved)
	equal(t, "Sent", e.Sent, SentYes)
	equal(t, "Recovery", e.Recovery, RecoveryStop)
	equal(t, "MaybeSent", e.MaybeSent(), false)
	equal(t, "Attempts", *e.Attempts, Attempts{1, 3})
	equal(t, "UserIntentID", e.UserIntentID, "i")
	equal(t, "UnresolvedRequestID", e.UnresolvedRequestID, "u")
	equal(t, "AstraRequestID", e.AstraRequestID, "a")
	equal(t, "HTTPStatus", e.HTTPStatus, 422)
	equal(t, "Replayed", e.Replayed, true)
	equal(t, "Retryable", e.Retryable, false)
	equal(t, "RequestID", e.RequestID, "id")
	equal(t, "Violations", fmt.Sprint(e.Violations), "[{email rule} {city other}]")
	equal(t, "status.Code", status.Code(err), codes.FailedPrecondition)
	equal(t, "details of the status", len(status.Convert(fmt.Errorf("wrapped: %w", err)).Details()), 2)
	equal(t, "text", err.Error(), "userintent: FAILED_PRECONDITION EMAIL_UNRESOLVED: fixed text [email: rule] [city: other] (STOP, request_id id, tries 1)")
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "error", err)
	if !strings.Contains(log.String(), `"error":{"code":"FAILED_PRECONDITION","reason":"EMAIL_UNRESOLVED","sent":"yes","recovery":"STOP","maybe_sent":false,"request_id":"id"`) {
		t.Errorf("slog: %s", &log)
	}
}

func TestErrorsOfOthers(t *testing.T) {
	for name, details := range map[string][]protoadapt.MessageV1{
		"no details":    nil,
		"other service": {&errdetails.ErrorInfo{Domain: "proxy.example.com", Reason: "RBAC", Metadata: map[string]string{"sent": "no", "recovery": "STOP"}}},
		"no reason":     {info("", "sent", "no")},
	} {
		t.Run(name, func(t *testing.T) {
			_, dialer := serve(t, answer{code: codes.PermissionDenied, details: details})
			_, err := dial(t, dialer).CreateUserIntent(context.Background(), nil)
			if e := failure(t, err); e.Reason != "" || e.Sent != "" || e.Recovery != "" || !e.MaybeSent() || e.Code != codes.PermissionDenied {
				t.Errorf("%+v", *e)
			}
		})
	}
}

func TestDamagedDetailsCountAsNone(t *testing.T) {
	s, err := status.New(codes.Unavailable, "x").WithDetails(info("OVERLOADED", "sent", "no"), retryAfter(0))
	if err != nil {
		t.Fatal(err)
	}
	whole := s.Proto()
	if e := newError(status.FromProto(whole).Err(), nil); e.Reason != ReasonOverloaded || !e.Retryable {
		t.Fatalf("undamaged: %v", e)
	}
	whole.Details[0].Value = []byte{0xff}
	if e := newError(status.FromProto(whole).Err(), nil); e.Reason != "" || e.Retryable || !e.MaybeSent() {
		t.Errorf("%v", e)
	}
	whole.Details[0].TypeUrl = "type.googleapis.com/example.Unknown"
	if e := newError(status.FromProto(whole).Err(), nil); e.Reason != "" || !e.Retryable {
		t.Errorf("a detail of an unknown type hides the others: %v", e)
	}
}

// A connection that is not gRPC's own may give plain errors.
func TestPlainErrors(t *testing.T) {
	for err, want := range map[error]codes.Code{context.Canceled: codes.Canceled, context.DeadlineExceeded: codes.DeadlineExceeded, errors.New("x"): codes.Unknown} {
		e := newError(err, nil)
		equal(t, err.Error(), e.Code, want)
		equal(t, "maybe sent", e.MaybeSent(), true)
		if !errors.Is(e, err) {
			t.Errorf("%v is lost", err)
		}
	}
}

func TestInvalidUTF8IsNotSent(t *testing.T) {
	g, dialer := serve(t, ok)
	_, err := dial(t, dialer).CreateUserIntent(context.Background(), &pb.CreateUserIntentRequest{FirstName: "A\xffda"})
	e := failure(t, err)
	if e.MaybeSent() || e.Sent != SentNo || e.Reason != ReasonMalformedRequest || e.Recovery != RecoveryFixRequest || e.Code != codes.InvalidArgument || e.RequestID == "" {
		t.Errorf("%v", e)
	}
	equal(t, "status.Code", status.Code(err), codes.InvalidArgument)
	equal(t, "RPCs that arrived", g.count(), 0)
}

func TestReasonsAreThoseOfTheProto(t *testing.T) {
	source, err := os.ReadFile("errors.go")
	if err != nil {
		t.Fatal(err)
	}
	declared := map[string]bool{}
	for _, match := range regexp.MustCompile(`(?m)^\tReason\w+ +Reason = "(\w+)"$`).FindAllStringSubmatch(string(source), -1) {
		declared[match[1]] = true
	}
	for number, name := range pb.ErrorReason_name {
		name = strings.TrimPrefix(name, "ERROR_REASON_")
		if number != 0 && !declared[name] {
			t.Errorf("no constant for %s", name)
		}
		delete(declared, name)
	}
	delete(declared, string(ReasonStatusFinal)) // the library's own
	for name := range declared {
		t.Errorf("%s is not in the proto", name)
	}
}

func TestDialNeedsOneKindOfCredentials(t *testing.T) {
	for name, options := range map[string][]Option{"none": nil, "two": {WithPlaintext(), WithPlaintext()}, "half": {WithTLS(TLS{CertFile: "x"})}} {
		if _, err := Dial("localhost:1", options...); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestManyGoroutines(t *testing.T) {
	g, dialer := serve(t, ok)
	c := dial(t, dialer, WithGRPCCallOptions(grpc.WaitForReady(true)))
	request := &pb.CreateUserIntentRequest{Email: "ada@example.com"}
	var wait sync.WaitGroup
	for i := 0; i < 50; i++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for j := 0; j < 10; j++ {
				if _, err := c.CreateUserIntent(context.Background(), request, WithGRPCCallOptions(grpc.MaxCallSendMsgSize(1<<20))); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wait.Wait()
	ids := map[string]bool{}
	for _, heard := range g.heard {
		ids[heard.GetRequestId()] = true
	}
	equal(t, "different ids", len(ids), 500)
}
