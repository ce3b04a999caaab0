package userintent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/protoadapt"

	pb "example.com/userintent/userintentv1"
)

// stream is what the fake gateway does with one stream: it sends these messages, and then ends.
type stream struct {
	messages []*pb.WatchUserIntentsResponse
	end      answer // OK: a clean end; hang: until the client leaves
}

// watched is a fake gateway that only watches.
type watched struct {
	pb.UnimplementedUserIntentServiceServer
	mu      sync.Mutex
	streams []stream // the last one stays
	heard   []*pb.WatchUserIntentsRequest
	times   []time.Time
	ended   chan error // what ended each stream that hung
}

func (g *watched) WatchUserIntents(request *pb.WatchUserIntentsRequest, out grpc.ServerStreamingServer[pb.WatchUserIntentsResponse]) error {
	g.mu.Lock()
	now := g.streams[min(len(g.heard), len(g.streams)-1)]
	g.heard = append(g.heard, request)
	g.times = append(g.times, time.Now())
	g.mu.Unlock()
	for _, message := range now.messages {
		if err := out.Send(message); err != nil {
			return err
		}
	}
	if now.end.pushback != "" {
		out.SetTrailer(metadata.Pairs("grpc-retry-pushback-ms", now.end.pushback))
		now.end.pushback = ""
	}
	err := now.end.give(out.Context())
	if now.end.hang {
		g.ended <- err
	}
	return err
}

func (g *watched) requests() []*pb.WatchUserIntentsRequest {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]*pb.WatchUserIntentsRequest(nil), g.heard...)
}

// watch starts a fake gateway and a client of it whose random pauses are as short as they can be.
func watch(t *testing.T, streams ...stream) (*watched, *Client) {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	g := &watched{streams: streams, ended: make(chan error, 100)}
	server := grpc.NewServer()
	pb.RegisterUserIntentServiceServer(server, g)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	c := dial(t, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	c.jitter = func() float64 { return 0 }
	return g, c
}

func state(id string, status pb.UserIntentStatus, token string) *pb.WatchUserIntentsResponse {
	return &pb.WatchUserIntentsResponse{ResumeToken: []byte(token), Event: &pb.WatchUserIntentsResponse_Changed{Changed: &pb.Creation{
		RequestId: id, State: pb.CreationState_CREATION_STATE_CREATED, UserIntent: &pb.UserIntent{Id: "intent-" + id, Status: status},
	}}}
}

func recorded(id string, state pb.CreationState, token string) *pb.WatchUserIntentsResponse {
	return &pb.WatchUserIntentsResponse{ResumeToken: []byte(token), Event: &pb.WatchUserIntentsResponse_Changed{Changed: &pb.Creation{RequestId: id, State: state}}}
}

func synced(token string) *pb.WatchUserIntentsResponse {
	return &pb.WatchUserIntentsResponse{ResumeToken: []byte(token), Event: &pb.WatchUserIntentsResponse_Synced{Synced: &pb.Synced{}}}
}

func heartbeat(token string) *pb.WatchUserIntentsResponse {
	return &pb.WatchUserIntentsResponse{ResumeToken: []byte(token), Event: &pb.WatchUserIntentsResponse_Heartbeat{Heartbeat: &pb.Heartbeat{}}}
}

func reset(token string) *pb.WatchUserIntentsResponse {
	return &pb.WatchUserIntentsResponse{ResumeToken: []byte(token), Event: &pb.WatchUserIntentsResponse_Reset_{Reset_: &pb.Reset{}}}
}

const (
	pending   = pb.UserIntentStatus_USER_INTENT_STATUS_PENDING
	document  = pb.UserIntentStatus_USER_INTENT_STATUS_DOCUMENT
	rejected  = pb.UserIntentStatus_USER_INTENT_STATUS_REJECTED
	suspended = pb.UserIntentStatus_USER_INTENT_STATUS_SUSPENDED
	converted = pb.UserIntentStatus_USER_INTENT_STATUS_CONVERTED_TO_USER
	approved  = pb.UserIntentStatus_USER_INTENT_STATUS_APPROVED
)

// seen is what a loop heard, in words: "r:PENDING@1 synced@2 reset@3".
func seen(t *testing.T, w *Watch, count int) (string, *Error) {
	t.Helper()
	var words []string
	for event, err := range w.Events() {
		if err != nil {
			return strings.Join(words, " "), failure(t, err)
		}
		word := map[WatchEventKind]string{WatchSynced: "synced", WatchReset: "reset"}[event.Kind]
		if event.Kind == WatchChanged {
			word = event.Changed.GetRequestId() + ":" + strings.TrimPrefix(event.Changed.GetUserIntent().GetStatus().String(), "USER_INTENT_STATUS_")
		}
		words = append(words, word+"@"+string(event.ResumeToken))
		if len(words) == count {
			break
		}
	}
	return strings.Join(words, " "), nil
}

var lost = answer{code: codes.Unavailable}

func tokens(g *watched) string {
	var all []string
	for _, request := range g.requests() {
		all = append(all, string(request.GetResumeToken()))
	}
	return strings.Join(all, ",")
}

// A stream that ends in any way that may pass is followed by another, from the last token; the second "synced" is nobody's
// news, but its token counts, as a heartbeat's does.
func TestWatchResumes(t *testing.T) {
	rate := answer{code: codes.ResourceExhausted, details: []protoadapt.MessageV1{info("CALLER_RATE_LIMITED", "recovery", "RETRY_SAME_ID"), retryAfter(0)}}
	g, c := watch(t,
		stream{[]*pb.WatchUserIntentsResponse{state("a", pending, ""), state("b", pending, "")}, lost}, // no token yet: anew
		stream{[]*pb.WatchUserIntentsResponse{state("a", pending, ""), state("b", document, ""), synced("1"), heartbeat("2")}, lost},
		stream{[]*pb.WatchUserIntentsResponse{synced("3")}, ok}, // a clean end
		stream{[]*pb.WatchUserIntentsResponse{state("a", approved, "4")}, rate},
		stream{nil, overloaded(0)},
		stream{nil, answer{code: codes.Internal}},
		stream{nil, answer{code: codes.Unknown}},
		stream{nil, answer{code: codes.Canceled}},
		stream{nil, answer{code: codes.DeadlineExceeded}},
		stream{[]*pb.WatchUserIntentsResponse{reset(""), state("a", approved, "")}, lost}, // the old token is no use
		stream{[]*pb.WatchUserIntentsResponse{state("a", approved, ""), synced("5"), state("b", converted, "6")}, answer{hang: true}},
	)
	w := c.Watch(context.Background(), []string{"a", "b"})
	got, failed := seen(t, w, 10)
	equal(t, "events", got, "a:PENDING@ b:PENDING@ a:PENDING@ b:DOCUMENT@ synced@1 a:APPROVED@4 reset@ a:APPROVED@ a:APPROVED@ synced@5")
	if failed != nil {
		t.Error(failed)
	}
	equal(t, "tokens sent", tokens(g), ",,2,3,4,4,4,4,4,4,")
	for _, request := range g.requests() {
		equal(t, "ids", strings.Join(request.GetRequestIds(), ","), "a,b")
	}
	// Leaving the loop ends the stream at once, and a second loop goes on.
	if err := <-g.ended; status.Code(err) != codes.Canceled {
		t.Errorf("the stream ended with %v", err)
	}
	equal(t, "token", string(w.ResumeToken()), "5")
	g.mu.Lock()
	g.streams = append(g.streams, stream{[]*pb.WatchUserIntentsResponse{state("b", converted, "6")}, answer{hang: true}})
	g.mu.Unlock()
	got, _ = seen(t, w, 1)
	equal(t, "events of the second loop", got, "b:CONVERTED_TO_USER@6")
	equal(t, "the last token sent", tokens(g)[len(tokens(g))-2:], ",5")
}

// A token of an earlier process is sent, and used until there is a newer one.
func TestWatchTakesAToken(t *testing.T) {
	g, c := watch(t, stream{nil, lost}, stream{[]*pb.WatchUserIntentsResponse{state("x", pending, "8"), synced("9")}, answer{hang: true}})
	token := []byte("7")
	w := c.Watch(context.Background(), nil, WithResumeToken(token))
	token[0] = 'x'
	got, _ := seen(t, w, 2)
	equal(t, "events", got, "x:PENDING@8 synced@9")
	equal(t, "tokens", tokens(g), "7,7")
	equal(t, "ids", len(g.requests()[0].GetRequestIds()), 0)
}

// What cannot pass ends the watch with an error that says so.
func TestWatchEnds(t *testing.T) {
	for code, details := range map[codes.Code][]protoadapt.MessageV1{
		codes.InvalidArgument:    {info("FIELD_INVALID", "recovery", "FIX_REQUEST")},
		codes.Unauthenticated:    {info("CALLER_UNAUTHENTICATED", "recovery", "STOP")},
		codes.PermissionDenied:   {info("CALLER_NOT_ALLOWED", "recovery", "STOP")},
		codes.Unimplemented:      nil,
		codes.NotFound:           {info("REQUEST_NOT_FOUND", "recovery", "STOP")},
		codes.FailedPrecondition: {info("NOT_CREATED", "recovery", "STOP")},
		codes.Internal:           {info("INTERNAL", "recovery", "STOP")},
	} {
		g, c := watch(t, stream{[]*pb.WatchUserIntentsResponse{synced("1")}, lost}, stream{nil, answer{code: code, details: details, pushback: "-1"}})
		got, e := seen(t, c.Watch(context.Background(), []string{"R"}), 9)
		if got != "synced@1" || e == nil {
			t.Fatalf("%v: %q, %v", code, got, e)
		}
		if e.Code != code || e.Tries != 2 || !e.Read || e.MaybeSent() || e.Sent != "" || e.RequestID != "R" || e.NotRepeated != NotRepeatedNotRetryable {
			t.Errorf("%v: %#v", code, e)
		}
		equal(t, "streams", len(g.requests()), 2)
	}
}

// Refused before anything is sent, with words that a creation's error has, too.
func TestWatchThatCannotBegin(t *testing.T) {
	g, c := watch(t, stream{nil, answer{hang: true}})
	over, cancel := context.WithCancel(context.Background())
	cancel()
	for name, test := range map[string]struct {
		ctx    context.Context
		ids    []string
		code   codes.Code
		reason Reason
	}{
		"not UTF-8": {context.Background(), []string{"\xff"}, codes.InvalidArgument, ReasonMalformedRequest},
		"too long":  {context.Background(), []string{strings.Repeat("x", 70000)}, codes.InvalidArgument, ReasonMalformedRequest},
		"over":      {over, nil, codes.Canceled, ""},
	} {
		_, e := seen(t, c.Watch(test.ctx, test.ids), 1)
		if e == nil || e.Code != test.code || e.Reason != test.reason || e.Tries != 0 || e.MaybeSent() {
			t.Errorf("%s: %v", name, e)
		}
	}
	equal(t, "streams", len(g.requests()), 0)
	_ = c.Close()
	if _, e := seen(t, c.Watch(context.Background(), nil), 1); e == nil || e.Code != codes.Canceled {
		t.Errorf("closed: %v", e)
	}
}

// A context and a closed client end a watch at once: in a silent stream, and in a long pause.
func TestWatchStopsAtOnce(t *testing.T) {
	for name, one := range map[string]stream{"in a stream": {nil, answer{hang: true}}, "in a pause": {nil, overloaded(time.Hour)}} {
		for how, code := range map[string]codes.Code{"cancel": codes.Canceled, "deadline": codes.DeadlineExceeded, "close": codes.Canceled, "close one of the caller's": codes.Canceled} {
			t.Run(name+", "+how, func(t *testing.T) {
				g, c := watch(t, one)
				if how == "close one of the caller's" {
					c = New(c.conn)
				}
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				if how == "deadline" {
					ctx, cancel = context.WithTimeout(ctx, 300*time.Millisecond)
					defer cancel()
				}
				go func() {
					for len(g.requests()) == 0 {
						time.Sleep(time.Millisecond)
					}
					switch how {
					case "cancel":
						cancel()
					case "deadline":
					default:
						_ = c.Close()
					}
				}()
				start := time.Now()
				_, e := seen(t, c.Watch(ctx, []string{"R"}), 1)
				if e == nil || e.Code != code || e.Recovery != RecoveryRetrySameID || e.Tries < 1 || time.Since(start) > 15*time.Second {
					t.Fatalf("%v after %v", e, time.Since(start))
				}
				want := map[codes.Code]error{codes.Canceled: context.Canceled, codes.DeadlineExceeded: context.DeadlineExceeded}[code]
				equal(t, "errors.Is", errors.Is(e, want), true)
			})
		}
	}
}

// A stream without a word for longer than three heartbeats is lost, however alive the connection looks.
func TestWatchLeavesASilentStream(t *testing.T) {
	g, c := watch(t, stream{[]*pb.WatchUserIntentsResponse{synced("1")}, answer{hang: true}}, stream{[]*pb.WatchUserIntentsResponse{state("a", pending, "2")}, answer{hang: true}})
	c.silence = 200 * time.Millisecond
	w := c.Watch(context.Background(), nil)
	for event, err := range w.Events() {
		if err != nil {
			t.Fatal(err)
		}
		if event.Kind == WatchChanged {
			break
		}
		time.Sleep(400 * time.Millisecond) // the loop's own time is no silence
		equal(t, "streams", len(g.requests()), 1)
	}
	equal(t, "tokens", tokens(g), ",1")
}

// The pauses between streams: at random up to a limit that doubles, at least what the gateway asks for, and from the start
// again after a sign of life.
func TestWatchPauses(t *testing.T) {
	_, c := watch(t, stream{nil, lost})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r := watchRun{client: c, ctx: ctx, watch: &Watch{}, yield: func(*WatchEvent, error) bool { return true }}
	for lostBefore, want := range map[int]time.Duration{0: 100 * time.Millisecond, 1: 200 * time.Millisecond, 6: 6400 * time.Millisecond, 7: 10 * time.Second, 1000: 10 * time.Second} {
		equal(t, fmt.Sprintf("after %d", lostBefore), watchPauseLimit(lostBefore), want)
	}
	r.lost = 5
	for _, message := range []*pb.WatchUserIntentsResponse{heartbeat("1"), state("a", pending, "2"), {}} {
		r.lost = 5
		r.tell(message)
		equal(t, "lost", r.lost, 0)
	}
	r.watch.synced, r.lost = true, 5
	r.tell(synced("3"))
	equal(t, "lost after a synced that is no news", r.lost, 5)

	g, c := watch(t, stream{nil, overloaded(300 * time.Millisecond)}, stream{nil, answer{code: codes.Unavailable, pushback: "300"}}, stream{[]*pb.WatchUserIntentsResponse{synced("1")}, answer{hang: true}})
	if got, _ := seen(t, c.Watch(context.Background(), nil), 1); got != "synced@1" {
		t.Error(got)
	}
	for i := range 2 {
		if gap := g.times[i+1].Sub(g.times[i]); gap < 300*time.Millisecond {
			t.Errorf("only %v between streams", gap)
		}
	}
}

func TestWaitForOutcome(t *testing.T) {
	const id = "R"
	unknown := recorded(id, pb.CreationState_CREATION_STATE_UNKNOWN, "")
	running := recorded(id, pb.CreationState_CREATION_STATE_IN_PROGRESS, "")
	for name, test := range map[string]struct {
		streams []stream
		state   pb.CreationState
		reason  Reason
		code    codes.Code
	}{
		"known at once": {streams: []stream{{[]*pb.WatchUserIntentsResponse{state(id, pending, "")}, lost}}, state: pb.CreationState_CREATION_STATE_CREATED},
		"settled later": {streams: []stream{{[]*pb.WatchUserIntentsResponse{running, unknown, synced("1"), state(id, pending, "2")}, lost}}, state: pb.CreationState_CREATION_STATE_CREATED},
		"rejected":      {streams: []stream{{[]*pb.WatchUserIntentsResponse{unknown, synced("1"), recorded(id, pb.CreationState_CREATION_STATE_REJECTED, "2")}, lost}}, state: pb.CreationState_CREATION_STATE_REJECTED},
		"not sent":      {streams: []stream{{[]*pb.WatchUserIntentsResponse{recorded(id, pb.CreationState_CREATION_STATE_NOT_SENT, "2")}, lost}}, state: pb.CreationState_CREATION_STATE_NOT_SENT},
		"after a new stream": {streams: []stream{{[]*pb.WatchUserIntentsResponse{unknown, synced("1")}, lost}, {[]*pb.WatchUserIntentsResponse{synced("2"), state(id, pending, "3")}, lost}},
			state: pb.CreationState_CREATION_STATE_CREATED},
		"after a reset":     {streams: []stream{{[]*pb.WatchUserIntentsResponse{unknown, synced("1"), reset(""), unknown, synced("2"), state(id, pending, "3")}, lost}}, state: pb.CreationState_CREATION_STATE_CREATED},
		"not recorded":      {streams: []stream{{[]*pb.WatchUserIntentsResponse{synced("1")}, lost}}, reason: ReasonRequestNotFound, code: codes.NotFound},
		"gone with a reset": {streams: []stream{{[]*pb.WatchUserIntentsResponse{unknown, synced("1"), reset(""), synced("2")}, lost}}, reason: ReasonRequestNotFound, code: codes.NotFound},
		"refused":           {streams: []stream{{nil, answer{code: codes.InvalidArgument, details: []protoadapt.MessageV1{info("FIELD_INVALID")}}}}, reason: ReasonFieldInvalid, code: codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			g, c := watch(t, test.streams...)
			creation, err := c.WaitForOutcome(context.Background(), id, WithResumeToken([]byte("not for a wait")))
			equal(t, "token", string(g.requests()[0].GetResumeToken()), "")
			equal(t, "ids", strings.Join(g.requests()[0].GetRequestIds(), ","), id)
			if test.reason == "" {
				if err != nil || creation.GetState() != test.state {
					t.Errorf("%v, %v", creation, err)
				}
				return
			}
			e := failure(t, err)
			if e.Reason != test.reason || e.Code != test.code || e.RequestID != id || e.MaybeSent() || e.Sent != "" {
				t.Errorf("%v", e)
			}
		})
	}
}

func TestWaitsEndWithTheDeadline(t *testing.T) {
	_, c := watch(t, stream{[]*pb.WatchUserIntentsResponse{recorded("R", pb.CreationState_CREATION_STATE_UNKNOWN, ""), synced("1")}, answer{hang: true}})
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	_, err := c.WaitForOutcome(ctx, "R")
	if e := failure(t, err); e.Code != codes.DeadlineExceeded || e.Reason != "" || e.Recovery != RecoveryRetrySameID || e.RequestID != "R" || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", e)
	}
	c.config.timeout = 200 * time.Millisecond // a context without a deadline
	if _, err := c.WaitForStatus(context.Background(), "R", []pb.UserIntentStatus{approved}); failure(t, err).Code != codes.DeadlineExceeded {
		t.Errorf("%v", err)
	}
}

func TestWaitForStatus(t *testing.T) {
	const id = "R"
	for name, test := range map[string]struct {
		messages []*pb.WatchUserIntentsResponse
		want     []pb.UserIntentStatus
		status   pb.UserIntentStatus
		reason   Reason
		final    pb.UserIntentStatus
	}{
		"as it is":         {[]*pb.WatchUserIntentsResponse{state(id, approved, "")}, []pb.UserIntentStatus{document, approved}, approved, "", 0},
		"later":            {[]*pb.WatchUserIntentsResponse{recorded(id, pb.CreationState_CREATION_STATE_UNKNOWN, ""), synced("1"), state(id, pending, "2"), state(id, document, "3")}, []pb.UserIntentStatus{document}, document, "", 0},
		"a final one":      {[]*pb.WatchUserIntentsResponse{state(id, rejected, "")}, []pb.UserIntentStatus{rejected}, rejected, "", 0},
		"another final":    {[]*pb.WatchUserIntentsResponse{state(id, pending, ""), synced("1"), state(id, suspended, "2")}, []pb.UserIntentStatus{approved, rejected}, 0, ReasonStatusFinal, suspended},
		"converted":        {[]*pb.WatchUserIntentsResponse{state(id, converted, "")}, nil, 0, ReasonStatusFinal, converted},
		"not created":      {[]*pb.WatchUserIntentsResponse{recorded(id, pb.CreationState_CREATION_STATE_REJECTED, "")}, []pb.UserIntentStatus{approved}, 0, ReasonNotCreated, 0},
		"not sent":         {[]*pb.WatchUserIntentsResponse{synced("1"), recorded(id, pb.CreationState_CREATION_STATE_NOT_SENT, "")}[1:], []pb.UserIntentStatus{approved}, 0, ReasonNotCreated, 0},
		"nothing recorded": {[]*pb.WatchUserIntentsResponse{synced("1")}, []pb.UserIntentStatus{approved}, 0, ReasonRequestNotFound, 0},
	} {
		t.Run(name, func(t *testing.T) {
			_, c := watch(t, stream{test.messages, answer{hang: true}})
			intent, err := c.WaitForStatus(context.Background(), id, test.want)
			if test.reason == "" {
				if err != nil || intent.GetStatus() != test.status {
					t.Errorf("%v, %v", intent, err)
				}
				return
			}
			e := failure(t, err)
			if e.Reason != test.reason || e.FinalStatus != test.final || e.RequestID != id || e.Recovery != RecoveryStop || e.MaybeSent() {
				t.Errorf("%v", e)
			}
			if test.final != 0 {
				equal(t, "intent", e.UserIntentID, "intent-R")
				var log bytes.Buffer
				slog.New(slog.NewTextHandler(&log, nil)).Info("x", "error", err)
				if want := "final_status=" + strings.TrimPrefix(test.final.String(), "USER_INTENT_STATUS_"); !strings.Contains(log.String(), want) {
					t.Errorf("%s: %s", want, log.String())
				}
			}
		})
	}
}

// The text of an error of a watch of several names no id.
func TestWatchErrorText(t *testing.T) {
	_, c := watch(t, stream{nil, answer{code: codes.Unimplemented}})
	_, e := seen(t, c.Watch(context.Background(), nil), 1)
	equal(t, "text", e.Error(), "userintent: UNIMPLEMENTED: fixed text (tries 1)")
}
