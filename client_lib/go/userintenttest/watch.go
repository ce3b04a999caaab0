package userintenttest

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"

	"example.com/userintent"
	pb "example.com/userintent/userintentv1"
)

// Watch tells the present states, and then what CreateUserIntent, SetUserIntent and SetCreation change, until the context is
// over. An error of Fail ends it.
func (c *Client) Watch(ctx context.Context, requestIDs []string, options ...userintent.CallOption) *userintent.Watch {
	after, known := 0, false
	if token := userintent.ResumeTokenIn(options...); len(token) > 0 {
		after, _ = strconv.Atoi(string(token))
		known = true
	}
	synced := false
	return userintent.NewWatch(requestIDs, func(yield func(*userintent.WatchEvent, error) bool) {
		if failure := c.begin(ctx, requestIDs); failure != nil {
			yield(nil, failure)
			return
		}
		if !known {
			var states []*pb.Creation
			if states, after = c.states(requestIDs); !tell(states, nil, nil, yield) {
				return
			}
			known = true
		}
		for {
			states, upTo, changed := c.since(after, requestIDs)
			if !tell(states, token(after), token(upTo), yield) {
				return
			}
			after = upTo
			if !synced {
				synced = true
				if !yield(&userintent.WatchEvent{Kind: userintent.WatchSynced, ResumeToken: token(after)}, nil) {
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				yield(nil, c.begin(ctx, requestIDs))
				return
			}
		}
	})
}

// WaitForOutcome waits for a creation that ends, as the Client does, but without a default deadline.
func (c *Client) WaitForOutcome(ctx context.Context, requestID string, _ ...userintent.CallOption) (*pb.Creation, error) {
	return c.Watch(ctx, []string{requestID}).WaitForOutcome()
}

// WaitForStatus waits for a status of SetUserIntent, as the Client does, but without a default deadline.
func (c *Client) WaitForStatus(ctx context.Context, requestID string, statuses []pb.UserIntentStatus, _ ...userintent.CallOption) (*pb.UserIntent, error) {
	return c.Watch(ctx, []string{requestID}).WaitForStatus(statuses...)
}

// GetAuthorizationURL answers a page of Astra's sandbox, for the program "client-id".
func (c *Client) GetAuthorizationURL(ctx context.Context, key userintent.IntentKey, redirectURI, state string, options ...userintent.CallOption) (*pb.GetAuthorizationUrlResponse, error) {
	read, err := c.GetUserIntent(ctx, key, options...)
	if err != nil {
		return nil, err
	}
	url, page, err := userintent.AuthorizationURL("https://app-sandbox.astra.finance", "client-id", read.GetUserIntent(), redirectURI, state)
	if failure := (*userintent.Error)(nil); errors.As(err, &failure) {
		failure.RequestID, failure.Tries = key.RequestID(), 1
		return nil, failure
	}
	return &pb.GetAuthorizationUrlResponse{Url: url, Page: page, UserIntent: read.GetUserIntent()}, nil
}

func token(position int) []byte { return []byte(strconv.Itoa(position)) }

// tell hands states out, the last one with its own token; false: the loop was left.
func tell(states []*pb.Creation, before, last []byte, yield func(*userintent.WatchEvent, error) bool) bool {
	for i, state := range states {
		event := &userintent.WatchEvent{Kind: userintent.WatchChanged, Changed: state, ResumeToken: before}
		if i == len(states)-1 {
			event.ResumeToken = last
		}
		if !yield(event, nil) {
			return false
		}
	}
	return true
}

// begin is the error with which a watch ends now; nil: it goes on.
func (c *Client) begin(ctx context.Context, requestIDs []string) *userintent.Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	failure := c.failure(ctx, true)
	if failure == nil {
		return nil
	}
	failure.Read, failure.Sent = true, ""
	if len(requestIDs) == 1 {
		failure.RequestID = requestIDs[0]
	}
	if failure.Code == codes.DeadlineExceeded || failure.Code == codes.Canceled {
		failure.NotRepeated = userintent.NotRepeatedNotRetryable
	}
	return failure
}

// states are those of the named requests, and the position of the log that they stand for.
func (c *Client) states(requestIDs []string) (states []*pb.Creation, position int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range requestIDs {
		if creation := c.creation(strings.ToLower(id)); creation != nil {
			states = append(states, creation)
		}
	}
	return states, len(c.log)
}

// since are the present states of what changed after a position, the position that they stand for, and a channel that the
// next change closes.
func (c *Client) since(after int, requestIDs []string) (states []*pb.Creation, position int, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := map[string]bool{}
	for _, key := range c.log[min(after, len(c.log)):] {
		named := len(requestIDs) == 0 || slices.ContainsFunc(requestIDs, func(id string) bool { return strings.EqualFold(id, key) })
		if named && !seen[key] {
			seen[key] = true
			states = append(states, c.creation(key))
		}
	}
	if c.changed == nil {
		c.changed = make(chan struct{})
	}
	return states, len(c.log), c.changed
}
