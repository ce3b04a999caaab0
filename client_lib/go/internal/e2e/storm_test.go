//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/userintent"
)

// Many callers at once, connections that break on both sides of the gateway, and an upstream that refuses, resets and
// answers late. Believed is the sandbox's account of what arrived.
func TestStorm(t *testing.T) {
	calls, workers := 1200, 24
	if text := os.Getenv("CLIENT_GO_CALLS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 100 {
			t.Fatalf("CLIENT_GO_CALLS: %q", text)
		}
		calls = n
	}
	s := start(t, "max_in_flight=12", "upstream_timeout=5s", "upstream_breaker=false") // a reset takes all that is on its connection along
	for _, fault := range []map[string]any{
		{"match": map[string]any{"every": 41}, "kind": "status", "status": 503, "headers": map[string]string{"Retry-After": "1"}}, // refused unprocessed
		{"match": map[string]any{"every": 83}, "kind": "reset", "commit": true},                                                   // after sending; it exists
		{"match": map[string]any{"every": 79}, "kind": "close"},                                                                   // after sending; it does not
		{"match": map[string]any{"every": 47}, "kind": "status", "status": 500},                                                   // nobody knows
		{"match": map[string]any{"every": 5}, "kind": "delay", "delay_ms": 50},
	} {
		fault["times"] = 0
		s.ask(t, "/faults", fault, nil)
	}
	p := newTap(t, s.Gateway)
	client, err := userintent.Dial(p.address, userintent.WithPlaintext())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()

	type end struct {
		id     string // of the intent; empty: unknown outcome
		email  string
		failed error
	}
	ends := make([]end, calls)
	var automatic, byHand atomic.Int64
	next := make(chan int)
	var wait sync.WaitGroup
	for range workers {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for i := range next {
				email := fmt.Sprintf("storm.%d.%s@example.com", i, userintent.NewRequestID()[:8])
				ends[i].email = email
				result, err := client.CreateUserIntent(context.Background(), s.person(email))
				for tries := 0; err != nil && tries < 400; tries++ {
					var e *userintent.Error
					if !errors.As(err, &e) {
						break
					}
					automatic.Add(int64(e.Tries - 1))
					again := e.Reason == "" || e.Recovery == userintent.RecoveryRetrySameID || e.Reason == userintent.ReasonRequestInProgress
					if !again {
						break
					}
					byHand.Add(1)
					time.Sleep(50 * time.Millisecond)
					result, err = client.Repeat(context.Background(), err)
				}
				if err == nil {
					automatic.Add(int64(result.Tries - 1))
					ends[i].id = result.UserIntentID()
				} else if e := (*userintent.Error)(nil); !errors.As(err, &e) || e.Reason != userintent.ReasonOutcomeUnknown {
					ends[i].failed = err
				}
			}
		}()
	}
	for i := range calls {
		next <- i
	}
	close(next)
	wait.Wait()

	var a account
	s.ask(t, "/accounting", nil, &a)
	// A 503 that said when to come back was refused unprocessed: such a POST may be followed by another one, no other may.
	posts, refused, refusedInAll, intents := map[string]int{}, map[string]int{}, 0, map[string][]string{}
	for _, post := range a.Posts {
		if post.Status == 503 {
			refused[post.Email]++
			refusedInAll++
		} else {
			posts[post.Email]++
		}
	}
	for _, intent := range a.Intents {
		intents[intent.Email] = append(intents[intent.Email], intent.ID)
	}
	created, unknown := 0, 0
	for i, end := range ends {
		switch {
		case end.failed != nil:
			t.Errorf("call %d: %v", i, end.failed)
		case len(intents[end.email]) > 1:
			t.Errorf("call %d: %d intents", i, len(intents[end.email]))
		case posts[end.email] > 1:
			t.Errorf("call %d: %d POSTs, and %d that were refused", i, posts[end.email], refused[end.email])
		case end.id == "":
			unknown++
		case len(intents[end.email]) != 1 || intents[end.email][0] != end.id:
			t.Errorf("call %d: it was told of an intent that is not the one that exists", i)
		default:
			created++
		}
	}
	t.Logf("%d calls: %d created, %d unknown; %d POSTs, %d refused with 503; %d automatic repeats, %d by hand; connections broken: %d in a request, %d in an answer, %d at once",
		calls, created, unknown, len(a.Posts), refusedInAll, automatic.Load(), byHand.Load(), p.brokenRequests.Load(), p.brokenAnswers.Load(), p.refused.Load())
	if created < calls/2 || unknown == 0 || refusedInAll == 0 || automatic.Load() == 0 || byHand.Load() == 0 || p.brokenRequests.Load() < 10 || p.brokenAnswers.Load() < 10 {
		t.Error("too little happened for this test to mean anything")
	}
}
