package userintenttest

import (
	"context"
	"errors"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"

	"example.com/userintent"
	pb "example.com/userintent/userintentv1"
)

func failure(t *testing.T, err error) *userintent.Error {
	t.Helper()
	var e *userintent.Error
	if !errors.As(err, &e) {
		t.Fatalf("not an *Error: %v", err)
	}
	return e
}

// One intent for each request_id, the same on every repeat, and found by either id.
func TestCreatesAndReads(t *testing.T) {
	var c Client
	ctx := context.Background()
	request := &pb.CreateUserIntentRequest{Email: "ada@example.com"}
	made, err := c.CreateUserIntent(ctx, request)
	if err != nil || made.Replayed() || made.UserIntentID() != "intent-1" || request.GetRequestId() != "" {
		t.Fatalf("%v %v", made, err)
	}
	again, err := c.CreateUserIntent(ctx, request, userintent.WithRequestID(made.RequestID))
	if err != nil || !again.Replayed() || again.UserIntentID() != "intent-1" {
		t.Fatalf("%v %v", again, err)
	}
	if other, err := c.CreateUserIntent(ctx, request); err != nil || other.UserIntentID() != "intent-2" {
		t.Fatalf("%v %v", other, err)
	}
	if heard := c.Requests(); len(heard) != 3 || heard[0].GetRequestId() != made.RequestID || heard[2].GetEmail() != "ada@example.com" {
		t.Errorf("%v", heard)
	}
	if creation, err := c.GetCreation(ctx, made.RequestID); err != nil || creation.GetUserIntent().GetId() != "intent-1" {
		t.Errorf("%v %v", creation, err)
	}
	if !c.SetUserIntent(&pb.UserIntent{Id: "intent-1", UserId: "user-1", Status: pb.UserIntentStatus_USER_INTENT_STATUS_CONVERTED_TO_USER}) {
		t.Error("intent-1 is not there")
	}
	if c.SetUserIntent(&pb.UserIntent{Id: "intent-9"}) {
		t.Error("intent-9 is there")
	}
	for _, key := range []userintent.IntentKey{userintent.ByRequestID(made.RequestID), userintent.ByUserIntentID("intent-1")} {
		if read, err := c.GetUserIntent(ctx, key); err != nil || read.GetUserIntent().GetUserId() != "user-1" {
			t.Errorf("%v %v", read, err)
		}
	}
}

func TestValidateOnlyCreatesNothing(t *testing.T) {
	var c Client
	result, err := c.CreateUserIntent(context.Background(), &pb.CreateUserIntentRequest{RequestId: "id", ValidateOnly: true})
	if err != nil || result.UserIntentID() != "" {
		t.Fatalf("%v %v", result, err)
	}
	if _, err := c.GetCreation(context.Background(), "id"); failure(t, err).Reason != userintent.ReasonRequestNotFound {
		t.Errorf("%v", err)
	}
}

// Errors come in order, with the id of the call; a creation that failed is repeated with its request.
func TestFails(t *testing.T) {
	var c Client
	ctx := context.Background()
	lost := &userintent.Error{Code: codes.Unavailable, Message: "lost"}
	c.Fail(lost, lost)
	_, err := c.CreateUserIntent(ctx, &pb.CreateUserIntentRequest{Email: "ada@example.com"})
	e := failure(t, err)
	if !e.MaybeSent() || e.RequestID == "" || e.Tries != 1 || lost.RequestID != "" {
		t.Errorf("%v", e)
	}
	_, read := c.GetUserIntent(ctx, userintent.ByUserIntentID("intent-1"))
	if r := failure(t, read); r.MaybeSent() || !r.Read || r.UserIntentID != "intent-1" {
		t.Errorf("%v", r)
	}
	result, err := c.Repeat(ctx, err)
	if err != nil || result.RequestID != e.RequestID || c.Requests()[1].GetEmail() != "ada@example.com" {
		t.Errorf("%v %v", result, err)
	}
	for _, other := range []error{read, errors.New("mine"), &userintent.Error{RequestID: "never"}} {
		if _, err := c.Repeat(ctx, other); err != other {
			t.Errorf("%v", err)
		}
	}
}

func TestNothingOfThatID(t *testing.T) {
	var c Client
	for key, want := range map[userintent.IntentKey]userintent.Reason{
		userintent.ByRequestID("R"): userintent.ReasonRequestNotFound, userintent.ByUserIntentID("I"): userintent.ReasonUserIntentNotFound, {}: userintent.ReasonRequestNotFound,
	} {
		_, err := c.GetUserIntent(context.Background(), key)
		if e := failure(t, err); e.Reason != want || e.Recovery != userintent.RecoveryStop || e.RequestID != key.RequestID() || e.Code != codes.NotFound {
			t.Errorf("%v", e)
		}
	}
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := c.GetUserIntent(over, userintent.ByRequestID("R"))
	if e := failure(t, err); !errors.Is(err, context.Canceled) || e.Sent != "" || e.Tries != 0 {
		t.Errorf("%v", e)
	}
	if _, err := c.CreateUserIntent(over, nil); failure(t, err).MaybeSent() {
		t.Errorf("%v", err)
	}
}

func TestManyGoroutines(t *testing.T) {
	var c Client
	var wait sync.WaitGroup
	for i := 0; i < 20; i++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			if _, err := c.CreateUserIntent(context.Background(), nil, userintent.WithRequestID("one")); err != nil {
				t.Error(err)
			}
		}()
	}
	wait.Wait()
	if other, err := c.CreateUserIntent(context.Background(), nil); err != nil || other.UserIntentID() != "intent-2" {
		t.Errorf("%v %v", other, err)
	}
}
