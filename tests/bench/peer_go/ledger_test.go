package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "example.com/userintent/userintentv1"
)

// served makes a gateway with a ledger at path, whose upstream answers with answer(n) for the nth POST.
func served(t *testing.T, path string, answer func(n int64) int) (*gateway, *atomic.Int64) {
	t.Helper()
	var posts atomic.Int64
	upstream := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		code := answer(posts.Add(1))
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(code)
		if code == http.StatusCreated {
			_, _ = w.Write([]byte(`{"id":"intent-1","status":"pending"}`))
		}
	}))
	upstream.EnableHTTP2 = true
	upstream.StartTLS()
	t.Cleanup(upstream.Close)
	config, err := upstreamTLS("")
	if err != nil {
		t.Fatal(err)
	}
	config.RootCAs = upstream.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	astra, err := newAstraClient(upstream.URL, "id", "secret", config, 2)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := openLedger(path)
	if err != nil {
		t.Fatal(err)
	}
	return &gateway{astra: astra, ledger: kept, now: func() time.Time { return today }}, &posts
}

func created(int64) int { return http.StatusCreated }

func TestALedgerKeepsThePromise(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	g, posts := served(t, path, created)
	ctx := context.Background()
	first, err := g.CreateUserIntent(ctx, valid())
	if err != nil {
		t.Fatal(err)
	}
	again := func(g *gateway) {
		t.Helper()
		repeat, err := g.CreateUserIntent(ctx, valid())
		if err != nil || repeat.GetUserIntent().GetId() != first.GetUserIntent().GetId() {
			t.Errorf("a repeat: %v, %v", repeat, err)
		}
	}
	again(g)
	if _, err := g.CreateUserIntent(ctx, with(t, "city", "Elsewhere")); status.Code(err) != codes.AlreadyExists {
		t.Errorf("another content: %v", err)
	}
	for n := range 3 {
		r := with(t, "request_id", "0f8fad5b-d9cb-469f-a165-70867728951"+string(rune('0'+n)))
		want := codes.OK
		if n == 2 {
			want = codes.FailedPrecondition
		}
		if _, err := g.CreateUserIntent(ctx, r); status.Code(err) != want {
			t.Errorf("attempt %d: %v", n+2, err)
		}
	}
	if posts.Load() != 3 {
		t.Errorf("%d POSTs", posts.Load())
	}
	g.ledger.close()
	restarted, posts := served(t, path, created)
	defer restarted.ledger.close()
	again(restarted)
	if posts.Load() != 0 {
		t.Errorf("%d POSTs after the restart", posts.Load())
	}
}

func TestWhatWasNotProcessedMayBeAskedAgain(t *testing.T) {
	g, posts := served(t, filepath.Join(t.TempDir(), "ledger.db"), func(n int64) int {
		if n < 5 {
			return http.StatusTooManyRequests
		}
		return http.StatusCreated
	})
	defer g.ledger.close()
	for n := 1; n <= 5; n++ {
		_, err := g.CreateUserIntent(context.Background(), valid())
		if (err == nil) != (n == 5) {
			t.Errorf("%d: %v", n, err)
		}
	}
	if posts.Load() != 5 {
		t.Errorf("%d POSTs", posts.Load())
	}
}

func TestManyAtOnceAreSentOnceEach(t *testing.T) {
	g, posts := served(t, filepath.Join(t.TempDir(), "ledger.db"), created)
	defer g.ledger.close()
	var all sync.WaitGroup
	for n := range 200 {
		r := valid()
		r.RequestId = "0f8fad5b-d9cb-469f-a165-7086772895" + string(rune('0'+n%10)) + string(rune('0'+n/10%5))
		r.Email = r.RequestId + "@example.com"
		all.Add(1)
		go func(r *pb.CreateUserIntentRequest) {
			defer all.Done()
			_, err := g.CreateUserIntent(context.Background(), r)
			if code := status.Code(err); code != codes.OK && code != codes.Aborted {
				t.Errorf("%v", err)
			}
		}(r)
	}
	all.Wait()
	if posts.Load() != 50 {
		t.Errorf("%d POSTs for 50 ids", posts.Load())
	}
}
