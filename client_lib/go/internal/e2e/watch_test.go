//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"example.com/userintent"
	pb "example.com/userintent/userintentv1"
)

// A watch whose connections break all the time tells everything all the same: what it said last of each request is what is
// recorded in the end, and "synced" comes once.
func TestWatchThroughBrokenConnections(t *testing.T) {
	const calls, workers = 300, 8
	s := start(t, "upstream_timeout=5s", "upstream_breaker=false") // a reset takes all that is on its connection along
	for _, fault := range []map[string]any{
		{"match": map[string]any{"every": 11}, "kind": "status", "status": 400},
		{"match": map[string]any{"every": 13}, "kind": "reset", "commit": true},
		{"match": map[string]any{"every": 7}, "kind": "delay", "delay_ms": 30},
	} {
		fault["times"] = 0
		s.ask(t, "/faults", fault, nil)
	}
	p := newTap(t, s.Gateway)
	watcher, err := userintent.Dial(p.address, userintent.WithPlaintext())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = watcher.Close() }()
	client, err := userintent.Dial(s.Gateway, userintent.WithPlaintext())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var mu sync.Mutex
	told, events, synced := map[string]pb.CreationState{}, 0, 0
	begun, over := make(chan struct{}), make(chan error, 1)
	go func() {
		for event, err := range watcher.Watch(ctx, nil).Events() {
			if err != nil {
				over <- err
				return
			}
			mu.Lock()
			switch event.Kind {
			case userintent.WatchChanged:
				events++
				told[event.Changed.GetRequestId()] = event.Changed.GetState()
			case userintent.WatchSynced:
				if synced++; synced == 1 {
					close(begun)
				}
			default:
				t.Error("a reset, though everything is kept")
			}
			mu.Unlock()
		}
		over <- nil
	}()
	select {
	case <-begun:
	case <-time.After(patience):
		t.Fatal("the watch does not begin")
	}

	ids := make([]string, calls)
	next := make(chan int)
	var wait sync.WaitGroup
	for range workers {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for i := range next {
				ids[i] = userintent.NewRequestID()
				_, err := client.CreateUserIntent(ctx, s.person(fmt.Sprintf("watch.%d.%s@example.com", i, ids[i][:8])), userintent.WithRequestID(ids[i]))
				if e := (*userintent.Error)(nil); err != nil && (!errors.As(err, &e) || e.Reason != userintent.ReasonUpstreamRejected && e.Reason != userintent.ReasonOutcomeUnknown) {
					t.Errorf("call %d: %v", i, err)
				}
			}
		}()
	}
	cut, before := 0, 0
	for i := range calls {
		next <- i
		if i%10 == 9 { // not before it has told something again, or its pauses would grow
			for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
				mu.Lock()
				now := events
				mu.Unlock()
				if now > before {
					cut, before = cut+p.breakAll(), now
					break
				}
			}
		}
	}
	close(next)
	wait.Wait()

	states := map[pb.CreationState]int{}
	for i, id := range ids {
		creation, err := client.GetCreation(ctx, id)
		if err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
		states[creation.GetState()]++
		end := time.Now().Add(patience)
		for {
			mu.Lock()
			last := told[id]
			mu.Unlock()
			if last == creation.GetState() {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("call %d: told %v, recorded %v", i, last, creation.GetState())
			}
			time.Sleep(time.Millisecond)
		}
	}
	cancel()
	if err := <-over; !errors.Is(err, context.Canceled) {
		t.Errorf("the watch ended with %v", err)
	}
	broken := int(p.brokenRequests.Load()+p.brokenAnswers.Load()+p.refused.Load()) + cut
	t.Logf("%d calls, %v; %d events, %d connections broken", calls, states, events, broken)
	if synced != 1 {
		t.Errorf("synced %d times", synced)
	}
	if broken < 20 || len(states) < 3 {
		t.Error("too little happened for this test to mean anything")
	}
}
