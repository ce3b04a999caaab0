// Package userintenttest has a stand-in for userintent.Client, for the tests of programs that use one. It needs no gateway
// and no network.
package userintenttest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"example.com/userintent"
	pb "example.com/userintent/userintentv1"
)

// Client creates intents in memory: "intent-1", "intent-2", ..., one for each request_id, and a repeat of an id gets the
// same answer. It checks no field. The zero value is ready; any number of goroutines may use it.
type Client struct {
	mu       sync.Mutex
	failures []*userintent.Error
	heard    []*pb.CreateUserIntentRequest
	asked    map[string]*pb.CreateUserIntentRequest // by request_id in lower case: the last request
	made     map[string]*pb.UserIntent              // by request_id in lower case
	others   map[string]*pb.Creation                // by request_id in lower case: what SetCreation set, without an intent
	log      []string                               // the request_id of each change, in lower case
	changed  chan struct{}                          // closed at the next change; nil: nobody waits
}

var _ userintent.ClientInterface = (*Client)(nil)

// Fail lets the next calls fail, one with each of these errors, in order. RequestID, Read and UserIntentID of a read are
// filled in, and Tries where it is 0. A creation that fails creates nothing.
func (c *Client) Fail(failures ...*userintent.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures = append(c.failures, failures...)
}

// SetUserIntent replaces the intent with this id, as GetUserIntent then answers it; false: there is none.
func (c *Client) SetUserIntent(intent *pb.UserIntent) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for requestID, made := range c.made {
		if made.GetId() == intent.GetId() {
			c.made[requestID] = proto.CloneOf(intent)
			c.note(requestID)
			return true
		}
	}
	return false
}

// SetCreation sets what is recorded about a request, as GetCreation and Watch then tell it: one whose outcome is not known,
// say. With an intent it is created.
func (c *Client) SetCreation(creation *pb.Creation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := strings.ToLower(creation.GetRequestId())
	c.init()
	delete(c.others, key)
	delete(c.made, key)
	if creation.GetUserIntent() != nil {
		c.made[key] = proto.CloneOf(creation.GetUserIntent())
	} else {
		c.others[key] = proto.CloneOf(creation)
	}
	c.note(key)
}

// init makes the maps; mu is held.
func (c *Client) init() {
	if c.asked == nil {
		c.asked, c.made, c.others = map[string]*pb.CreateUserIntentRequest{}, map[string]*pb.UserIntent{}, map[string]*pb.Creation{}
	}
}

// note logs a change and wakes those who wait for one; mu is held.
func (c *Client) note(key string) {
	c.log = append(c.log, key)
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// Requests are those of all creations and repeats so far, with their request_id.
func (c *Client) Requests() []*pb.CreateUserIntentRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*pb.CreateUserIntentRequest
	for _, request := range c.heard {
		out = append(out, proto.CloneOf(request))
	}
	return out
}

// CreateUserIntent creates an intent, or answers the one of this request_id.
func (c *Client) CreateUserIntent(ctx context.Context, request *pb.CreateUserIntentRequest, options ...userintent.CallOption) (*userintent.Result, error) {
	sent := &pb.CreateUserIntentRequest{}
	if request != nil {
		proto.Merge(sent, request)
	}
	if id := userintent.RequestIDIn(options...); id != "" {
		sent.RequestId = id
	}
	if sent.GetRequestId() == "" {
		sent.RequestId = userintent.NewRequestID()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard = append(c.heard, sent)
	key := strings.ToLower(sent.GetRequestId())
	c.init()
	c.asked[key] = sent
	if failure := c.failure(ctx, false); failure != nil {
		failure.RequestID = sent.GetRequestId()
		return nil, failure
	}
	intent, replayed := c.made[key]
	if !replayed {
		now := timestamppb.Now()
		intent = &pb.UserIntent{
			Id: fmt.Sprintf("intent-%d", len(c.made)+1), Status: pb.UserIntentStatus_USER_INTENT_STATUS_PENDING, AstraStatus: "pending",
			CreateTime: now, StatusTime: now, VerificationType: sent.GetVerificationType(),
		}
		if !sent.GetValidateOnly() {
			c.made[key] = intent
			delete(c.others, key)
			c.note(key)
		}
	}
	response := &pb.CreateUserIntentResponse{Replayed: replayed, Attempts: &pb.AttemptBudget{UsedMin: 1, UsedMax: 1, Limit: 3}}
	if !sent.GetValidateOnly() {
		response.UserIntent = proto.CloneOf(intent)
	}
	return &userintent.Result{RequestID: sent.GetRequestId(), Tries: 1, Response: response}, nil
}

// Repeat makes the creation that ended with err once more. Another error is returned as it is.
func (c *Client) Repeat(ctx context.Context, err error, options ...userintent.CallOption) (*userintent.Result, error) {
	var failure *userintent.Error
	if !errors.As(err, &failure) || failure.Read {
		return nil, err
	}
	c.mu.Lock()
	request := c.asked[strings.ToLower(failure.RequestID)]
	c.mu.Unlock()
	if request == nil {
		return nil, err
	}
	return c.CreateUserIntent(ctx, request, append(options[:len(options):len(options)], userintent.WithRequestID(failure.RequestID))...)
}

// GetCreation answers what was created under an id.
func (c *Client) GetCreation(ctx context.Context, requestID string, _ ...userintent.CallOption) (*pb.Creation, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	failure, creation := c.failure(ctx, false), c.creation(strings.ToLower(requestID))
	if failure == nil && creation == nil {
		failure = notFound(userintent.ReasonRequestNotFound)
	}
	if failure != nil {
		failure.RequestID = requestID
		return nil, failure
	}
	return creation, nil
}

// creation is what is recorded, nil for nothing; mu is held.
func (c *Client) creation(key string) *pb.Creation {
	if other := c.others[key]; other != nil {
		return proto.CloneOf(other)
	}
	intent := c.made[key]
	if intent == nil {
		return nil
	}
	return &pb.Creation{
		RequestId: key, State: pb.CreationState_CREATION_STATE_CREATED, UserIntent: proto.CloneOf(intent),
		CreateTime: intent.GetCreateTime(), UpdateTime: intent.GetCreateTime(),
	}
}

// GetUserIntent answers an intent as it was created, or set since.
func (c *Client) GetUserIntent(ctx context.Context, key userintent.IntentKey, _ ...userintent.CallOption) (*pb.GetUserIntentResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	failure, intent, reason := c.failure(ctx, true), c.made[strings.ToLower(key.RequestID())], userintent.ReasonRequestNotFound
	if key.UserIntentID() != "" {
		reason = userintent.ReasonUserIntentNotFound
		for _, made := range c.made {
			if made.GetId() == key.UserIntentID() {
				intent = made
			}
		}
	}
	if failure == nil && intent == nil {
		failure = notFound(reason)
		if c.others[strings.ToLower(key.RequestID())] != nil {
			failure.Code, failure.Reason, failure.Message = codes.FailedPrecondition, userintent.ReasonNotCreated, "No intent is known for this request."
		}
	}
	if failure != nil {
		failure.Read, failure.Sent, failure.RequestID = true, "", key.RequestID()
		if failure.UserIntentID == "" {
			failure.UserIntentID = key.UserIntentID()
		}
		return nil, failure
	}
	return &pb.GetUserIntentResponse{UserIntent: proto.CloneOf(intent), ReadTime: timestamppb.Now()}, nil
}

// failure is the error of this call: its context's, or the next one that Fail named. nil: it goes well.
func (c *Client) failure(ctx context.Context, read bool) *userintent.Error {
	if err := ctx.Err(); err != nil {
		code := codes.Canceled
		if errors.Is(err, context.DeadlineExceeded) {
			code = codes.DeadlineExceeded
		}
		return &userintent.Error{Code: code, Message: "over before the call began", Sent: userintent.SentNo, Recovery: userintent.RecoveryRetrySameID, Read: read}
	}
	if len(c.failures) == 0 {
		return nil
	}
	next := *c.failures[0]
	c.failures = c.failures[1:]
	if next.Tries == 0 {
		next.Tries = 1
	}
	return &next
}

func notFound(reason userintent.Reason) *userintent.Error {
	return &userintent.Error{
		Code: codes.NotFound, Message: "There is none.", Reason: reason, Recovery: userintent.RecoveryStop, Tries: 1,
		NotRepeated: userintent.NotRepeatedNotRetryable,
	}
}
