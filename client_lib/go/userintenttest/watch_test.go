package userintenttest

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"example.com/userintent"
	pb "example.com/userintent/userintentv1"
)

const approved = pb.UserIntentStatus_USER_INTENT_STATUS_APPROVED

// The present states, synced, then every change, of the named ones; and on from a token.
func TestWatch(t *testing.T) {
	var c Client
	ctx := context.Background()
	create := func(id string) {
		t.Helper()
		if _, err := c.CreateUserIntent(ctx, nil, userintent.WithRequestID(id)); err != nil {
			t.Fatal(err)
		}
	}
	create("a")
	create("other")
	c.SetCreation(&pb.Creation{RequestId: "B", State: pb.CreationState_CREATION_STATE_UNKNOWN})
	var heard []string
	watch := c.Watch(ctx, []string{"A", "b", "later"})
	for event, err := range watch.Events() {
		if err != nil {
			t.Fatal(err)
		}
		switch event.Kind {
		case userintent.WatchChanged:
			heard = append(heard, event.Changed.GetRequestId()+":"+strings.TrimPrefix(event.Changed.GetState().String(), "CREATION_STATE_"))
		case userintent.WatchSynced:
			heard = append(heard, "synced")
			go func() {
				c.SetCreation(&pb.Creation{RequestId: "b", UserIntent: &pb.UserIntent{Id: "intent-b"}})
			}()
		}
		if len(heard) == 4 {
			break
		}
	}
	if got := strings.Join(heard, " "); got != "a:CREATED B:UNKNOWN synced b:CREATED" {
		t.Error(got)
	}
	create("later")
	for event, err := range c.Watch(ctx, []string{"later"}, userintent.WithResumeToken(watch.ResumeToken())).Events() {
		if err != nil || event.Changed.GetRequestId() != "later" {
			t.Errorf("%v %v", event, err)
		}
		break
	}
}

func TestWaits(t *testing.T) {
	var c Client
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c.SetCreation(&pb.Creation{RequestId: "a", State: pb.CreationState_CREATION_STATE_UNKNOWN})
	if _, err := c.GetUserIntent(ctx, userintent.ByRequestID("a")); failure(t, err).Reason != userintent.ReasonNotCreated {
		t.Errorf("%v", err)
	}
	go func() {
		time.Sleep(10 * time.Millisecond)
		c.SetCreation(&pb.Creation{RequestId: "a", UserIntent: &pb.UserIntent{Id: "i", Status: pb.UserIntentStatus_USER_INTENT_STATUS_PENDING}})
		time.Sleep(10 * time.Millisecond)
		c.SetUserIntent(&pb.UserIntent{Id: "i", Status: approved})
	}()
	if creation, err := c.WaitForOutcome(ctx, "A"); err != nil || creation.GetUserIntent().GetId() != "i" {
		t.Errorf("%v %v", creation, err)
	}
	if intent, err := c.WaitForStatus(ctx, "a", []pb.UserIntentStatus{approved}); err != nil || intent.GetStatus() != approved {
		t.Errorf("%v %v", intent, err)
	}
	if _, err := c.WaitForOutcome(ctx, "nobody"); failure(t, err).Reason != userintent.ReasonRequestNotFound {
		t.Errorf("%v", err)
	}
	short, stop := context.WithTimeout(ctx, 10*time.Millisecond)
	defer stop()
	_, err := c.WaitForStatus(short, "a", []pb.UserIntentStatus{pb.UserIntentStatus_USER_INTENT_STATUS_DOCUMENT})
	if e := failure(t, err); e.Code != codes.DeadlineExceeded || e.RequestID != "a" || !e.Read {
		t.Errorf("%v", e)
	}
	c.Fail(&userintent.Error{Code: codes.PermissionDenied, Reason: userintent.ReasonCallerNotAllowed})
	if _, err := c.WaitForOutcome(ctx, "a"); failure(t, err).Reason != userintent.ReasonCallerNotAllowed {
		t.Errorf("%v", err)
	}
}

func TestAuthorizationURL(t *testing.T) {
	var c Client
	ctx := context.Background()
	if _, err := c.CreateUserIntent(ctx, nil, userintent.WithRequestID("a")); err != nil {
		t.Fatal(err)
	}
	const state = "0123456789abcdef"
	page, err := c.GetAuthorizationURL(ctx, userintent.ByRequestID("a"), "https://a.example/", state)
	if want := "https://app-sandbox.astra.finance/login/oauth/authorize?client_id=client-id&redirect_uri=https%3A%2F%2Fa.example%2F&response_type=code&user_intent_id=intent-1&state=" + state; err != nil || page.GetUrl() != want {
		t.Errorf("%v %v", page, err)
	}
	c.SetUserIntent(&pb.UserIntent{Id: "intent-1", Status: pb.UserIntentStatus_USER_INTENT_STATUS_REJECTED})
	_, err = c.GetAuthorizationURL(ctx, userintent.ByRequestID("a"), "https://a.example/", state)
	if e := failure(t, err); e.Reason != userintent.ReasonUserIntentNotEligible || e.RequestID != "a" {
		t.Errorf("%v", e)
	}
	if _, err = c.GetAuthorizationURL(ctx, userintent.ByRequestID("b"), "https://a.example/", state); failure(t, err).Reason != userintent.ReasonRequestNotFound {
		t.Errorf("%v", err)
	}
}
