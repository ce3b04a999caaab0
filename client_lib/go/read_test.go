package userintent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "example.com/userintent/userintentv1"
)

// The key and the options go to the gateway as they are given, and nothing else does.
func TestReadSendsWhatWasAsked(t *testing.T) {
	for name, test := range map[string]struct {
		key     IntentKey
		options []CallOption
		want    *pb.GetUserIntentRequest
	}{
		"by request id": {key: ByRequestID("R"), want: &pb.GetUserIntentRequest{Key: &pb.GetUserIntentRequest_RequestId{RequestId: "R"}}},
		"by intent id":  {key: ByUserIntentID("I"), want: &pb.GetUserIntentRequest{Key: &pb.GetUserIntentRequest_UserIntentId{UserIntentId: "I"}}},
		"no key":        {want: &pb.GetUserIntentRequest{}},
		"an empty request id is the gateway's to refuse": {
			key: ByRequestID(""), want: &pb.GetUserIntentRequest{Key: &pb.GetUserIntentRequest_RequestId{}},
		},
		"an empty intent id, too": {
			key: ByUserIntentID(""), want: &pb.GetUserIntentRequest{Key: &pb.GetUserIntentRequest_UserIntentId{}},
		},
		"max age and stale": {
			key: ByUserIntentID("I"), options: []CallOption{WithMaxAge(1500 * time.Millisecond), WithAllowStale()},
			want: &pb.GetUserIntentRequest{Key: &pb.GetUserIntentRequest_UserIntentId{UserIntentId: "I"}, MaxAge: durationpb.New(1500 * time.Millisecond), AllowStale: true},
		},
		"an option of creations": {
			key: ByUserIntentID("I"), options: []CallOption{WithRequestID("other")},
			want: &pb.GetUserIntentRequest{Key: &pb.GetUserIntentRequest_UserIntentId{UserIntentId: "I"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			g, dialer := serve(t, ok)
			response, err := dial(t, dialer).GetUserIntent(context.Background(), test.key, test.options...)
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "intent", response.GetUserIntent().GetId(), "intent")
			equal(t, "user", response.GetUserIntent().GetUserId(), "user")
			equal(t, "stale", response.GetStale(), test.want.GetAllowStale())
			if !proto.Equal(g.reads[0], test.want) {
				t.Errorf("sent %v, want %v", g.reads[0], test.want)
			}
			if left := g.left[0]; left > DefaultTimeout+time.Second || left < DefaultTimeout-15*time.Second {
				t.Errorf("%v left, want about %v", left, DefaultTimeout)
			}
		})
	}
}

// A read is repeated after every error with RetryInfo and after UNAVAILABLE of others, never where the gateway forbids
// it; and its error says why there was no further try.
func TestReadsRepeat(t *testing.T) {
	bare := answer{code: codes.Unavailable}
	forbidden := answer{code: codes.Unavailable, pushback: "-1"}
	slower := answer{code: codes.Unavailable, pushback: "300"}
	limited := answer{code: codes.ResourceExhausted, details: []protoadapt.MessageV1{info("UPSTREAM_RATE_LIMITED", "recovery", "RETRY_SAME_ID"), retryAfter(0)}}
	draining := answer{code: codes.Unavailable, details: []protoadapt.MessageV1{info("DRAINING", "recovery", "RETRY_SAME_ID")}}
	for name, test := range map[string]struct {
		answers []answer
		calls   []CallOption
		timeout time.Duration
		tries   int
		code    codes.Code
		why     NotRepeated
		least   time.Duration
	}{
		"RetryInfo":                      {answers: []answer{limited, overloaded(0), ok}, tries: 3},
		"no details":                     {answers: []answer{bare, bare, ok}, tries: 3, least: 600 * time.Millisecond},
		"no details, and a pushback":     {answers: []answer{slower, ok}, tries: 2, least: 300 * time.Millisecond},
		"five tries at most":             {answers: []answer{overloaded(0)}, tries: 5, code: codes.Unavailable, why: NotRepeatedMaxTries},
		"switched off":                   {answers: []answer{bare, ok}, calls: []CallOption{WithMaxTries(1)}, tries: 1, code: codes.Unavailable, why: NotRepeatedMaxTries},
		"pushback -1":                    {answers: []answer{forbidden, ok}, tries: 1, code: codes.Unavailable, why: NotRepeatedNotRetryable},
		"the gateway, without RetryInfo": {answers: []answer{draining, ok}, tries: 1, code: codes.Unavailable, why: NotRepeatedNotRetryable},
		"another code, without details":  {answers: []answer{{code: codes.Internal}, ok}, tries: 1, code: codes.Internal, why: NotRepeatedNotRetryable},
		"the delay does not fit":         {answers: []answer{overloaded(time.Minute), ok}, timeout: 30 * time.Second, tries: 1, code: codes.Unavailable, why: NotRepeatedDeadline},
		"more tries than the budget has": {answers: []answer{overloaded(0)}, calls: []CallOption{WithMaxTries(50)}, tries: 11, code: codes.Unavailable, why: NotRepeatedBudget},
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
			_, err := dial(t, dialer).GetUserIntent(ctx, ByRequestID("R"), test.calls...)
			if took := time.Since(start); took < test.least || took > 15*time.Second {
				t.Errorf("it took %v", took)
			}
			equal(t, "RPCs that arrived", g.count(), test.tries)
			equal(t, "it failed", err != nil, test.code != codes.OK)
			if err != nil {
				e := failure(t, err)
				equal(t, "code", e.Code, test.code)
				equal(t, "tries", e.Tries, test.tries)
				equal(t, "why no repeat", e.NotRepeated, test.why)
				equal(t, "maybe sent", e.MaybeSent(), false)
				equal(t, "sent", e.Sent, "")
			}
		})
	}
}

// A creation's error says why there was no further try, too: the reason for each of the four ways.
func TestCreationsSayWhyTheyWereNotRepeated(t *testing.T) {
	for want, test := range map[NotRepeated]struct {
		answer  answer
		options []CallOption
	}{
		NotRepeatedNotRetryable: {answer: answer{code: codes.Unavailable}},
		NotRepeatedMaxTries:     {answer: overloaded(0), options: []CallOption{WithMaxTries(2)}},
		NotRepeatedBudget:       {answer: overloaded(0), options: []CallOption{WithMaxTries(50)}},
		NotRepeatedDeadline:     {answer: overloaded(time.Hour)},
	} {
		_, dialer := serve(t, test.answer)
		_, err := dial(t, dialer).CreateUserIntent(context.Background(), nil, test.options...)
		equal(t, "why", failure(t, err).NotRepeated, want)
	}
}

// What an error of a read says: the gateway's words, the id that was asked for, and nothing about sending.
func TestReadErrors(t *testing.T) {
	_, dialer := serve(t, answer{code: codes.NotFound, pushback: "-1", details: []protoadapt.MessageV1{
		info("USER_INTENT_NOT_FOUND", "sent", "maybe", "recovery", "STOP", "http_status", "404", "astra_request_id", "a"),
	}})
	c := dial(t, dialer)
	_, err := c.GetUserIntent(context.Background(), ByUserIntentID("I"))
	e := failure(t, err)
	equal(t, "reason", e.Reason, ReasonUserIntentNotFound)
	equal(t, "recovery", e.Recovery, RecoveryStop)
	equal(t, "HTTP status", e.HTTPStatus, 404)
	equal(t, "Astra's id", e.AstraRequestID, "a")
	equal(t, "intent", e.UserIntentID, "I")
	equal(t, "request", e.RequestID, "")
	equal(t, "sent", e.Sent, "")
	equal(t, "maybe sent", e.MaybeSent(), false)
	equal(t, "text", err.Error(), "userintent: NOT_FOUND USER_INTENT_NOT_FOUND: fixed text (STOP, user_intent_id I, tries 1)")
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "error", err)
	var line struct{ Error map[string]any }
	if err := json.Unmarshal(log.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	equal(t, "slog", fmt.Sprint(line.Error), "map[code:NOT_FOUND message:fixed text not_repeated:not_retryable reason:USER_INTENT_NOT_FOUND recovery:STOP tries:1 user_intent_id:I]")
	if _, again := c.Repeat(context.Background(), err); again != err {
		t.Errorf("a read is no creation to repeat: %v", again)
	}
	_, err = c.GetUserIntent(context.Background(), ByRequestID("R"))
	equal(t, "text", err.Error(), "userintent: NOT_FOUND USER_INTENT_NOT_FOUND: fixed text (STOP, request_id R, tries 1)")
}

// A read that ends here, without an answer, may be made again and says nothing about sending.
func TestReadsThatEndHere(t *testing.T) {
	over, cancelOver := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancelOver()
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	short, cancelShort := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancelShort()
	for name, test := range map[string]struct {
		ctx   context.Context
		key   IntentKey
		code  codes.Code
		tries int
		want  Recovery
		is    error
	}{
		"a deadline that was over": {ctx: over, code: codes.DeadlineExceeded, want: RecoveryRetrySameID, is: context.DeadlineExceeded},
		"a context that was over":  {ctx: cancelled, code: codes.Canceled, want: RecoveryRetrySameID, is: context.Canceled},
		"a deadline under way":     {ctx: short, code: codes.DeadlineExceeded, tries: 1, want: RecoveryRetrySameID, is: context.DeadlineExceeded},
		"a key that is not UTF-8":  {ctx: context.Background(), key: ByUserIntentID("\xff"), code: codes.InvalidArgument, want: RecoveryFixRequest},
		"a key longer than 64 KiB": {ctx: context.Background(), key: ByUserIntentID(strings.Repeat("x", 70000)), code: codes.InvalidArgument, want: RecoveryFixRequest},
	} {
		t.Run(name, func(t *testing.T) {
			g, dialer := serve(t, answer{hang: true})
			_, err := dial(t, dialer).GetUserIntent(test.ctx, test.key)
			e := failure(t, err)
			if e.Code != test.code || e.Tries != test.tries || e.Recovery != test.want || e.Sent != "" || e.MaybeSent() || e.NotRepeated != NotRepeatedNotRetryable {
				t.Errorf("%v, sent %q, not repeated %q", e, e.Sent, e.NotRepeated)
			}
			equal(t, "errors.Is", test.is == nil || errors.Is(err, test.is), true)
			equal(t, "RPCs that arrived", g.count(), test.tries)
		})
	}
	g, dialer := serve(t, overloaded(20*time.Second), ok)
	waiting, stop := context.WithCancel(context.Background())
	go func() {
		<-g.arrived
		stop()
	}()
	_, err := dial(t, dialer).GetUserIntent(waiting, ByRequestID("R"))
	if e := failure(t, err); e.Code != codes.Canceled || e.MaybeSent() || e.Recovery != RecoveryRetrySameID || e.RequestID != "R" {
		t.Errorf("cancelled while waiting: %v", e)
	}
}

func TestPausesOfReads(t *testing.T) {
	for tries, want := range map[int]time.Duration{0: 200 * time.Millisecond, 1: 200 * time.Millisecond, 2: 400 * time.Millisecond, 4: 1600 * time.Millisecond, 6: 5 * time.Second, 1000: 5 * time.Second} {
		equal(t, fmt.Sprintf("after %d tries", tries), pauseAfter(tries), want)
	}
}
