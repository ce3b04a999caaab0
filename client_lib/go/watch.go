package userintent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	pb "example.com/userintent/userintentv1"
)

// Pauses between the streams of a watch: at random up to the first, doubled each time up to the longest.
const (
	firstWatchPause   = 100 * time.Millisecond
	longestWatchPause = 10 * time.Second
	// watchSilence: the gateway says something every 20 s, so a stream that is silent for so long is lost.
	watchSilence = time.Minute
)

// WatchEventKind says what a WatchEvent tells.
type WatchEventKind int

const (
	// WatchChanged: Changed is the present state of a request.
	WatchChanged WatchEventKind = iota + 1
	// WatchSynced: the present states have been told; what follows are changes. Once a watch, and once after each reset.
	WatchSynced
	// WatchReset: some changes are not known any more. The present states follow, as at the beginning, then WatchSynced.
	WatchReset
)

// WatchEvent is one step of a watch.
type WatchEvent struct {
	Kind WatchEventKind
	// Changed is a request as GetCreation tells it; nil for the other kinds.
	Changed *pb.Creation
	// ResumeToken goes on after this event, in another process too: WithResumeToken. It may be empty before WatchSynced.
	ResumeToken []byte
}

// WithResumeToken lets Watch go on where an earlier one stopped: after the event that had this token.
func WithResumeToken(token []byte) CallOption {
	return callOption(func(c *callConfig) { c.resumeToken = bytes.Clone(token) })
}

// Watch is a watch of one request, of several, or of all: Client.Watch.
type Watch struct {
	requestIDs []string
	source     iter.Seq2[*WatchEvent, error]
	synced     bool // and no reset since

	mu    sync.Mutex
	token []byte
}

// NewWatch is a Watch with these events, for stand-ins of a Client.
func NewWatch(requestIDs []string, events iter.Seq2[*WatchEvent, error]) *Watch {
	w := &Watch{requestIDs: slices.Clone(requestIDs)}
	w.source = func(yield func(*WatchEvent, error) bool) {
		for event, err := range events {
			if event != nil {
				w.moved(event.ResumeToken, event.Kind == WatchReset)
			}
			if !yield(event, err) {
				return
			}
		}
	}
	return w
}

// Events are what happens, until the loop is left or the watch ends: then the last pair is nil and an *Error, of the
// context (CANCELLED, DEADLINE_EXCEEDED), of a closed client, or what the gateway refused. A loop after the first goes
// on behind the last event. One goroutine at a time.
func (w *Watch) Events() iter.Seq2[*WatchEvent, error] { return w.source }

// ResumeToken goes on behind the last event, or further: signs of life that are no event move it, too. Any goroutine.
func (w *Watch) ResumeToken() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Clone(w.token)
}

// moved keeps the token of a message. One without leaves the last one, unless that is not known any more.
func (w *Watch) moved(token []byte, reset bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(token) > 0 || reset {
		w.token = bytes.Clone(token)
	}
}

// Watch follows these requests of the caller's own, at most 1,000, or all when there are none: first the present state of
// each that is named and recorded, then WatchSynced, then every change of a status and every creation whose outcome
// became known. It sends nothing to Astra. Events come at least once, in order; steps may be folded into the last one.
//
// It lasts as long as ctx, without a default deadline, and makes a new stream by itself whenever one ends: after a
// broken connection, a restart of the gateway, a limit. Only what cannot pass ends it: an argument that is refused, a
// caller that is not allowed, a gateway that knows no watches. WithMaxTries and the budget of repeats do not concern it.
func (c *Client) Watch(ctx context.Context, requestIDs []string, options ...CallOption) *Watch {
	call := c.callConfig(options)
	call.read = true
	w := &Watch{requestIDs: slices.Clone(requestIDs), token: call.resumeToken}
	w.source = func(yield func(*WatchEvent, error) bool) {
		// Closing the client ends the watch at once, also between two streams.
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(c.life, cancel)()
		run := watchRun{client: c, ctx: ctx, call: call, watch: w, yield: yield}
		if failure := run.follow(); failure != nil {
			yield(nil, failure)
		}
	}
	return w
}

// watchRun is one loop over the events of a watch.
type watchRun struct {
	client  *Client
	ctx     context.Context
	call    callConfig
	watch   *Watch
	yield   func(*WatchEvent, error) bool
	streams int
	lost    int // streams that ended since the last sign of life
}

// follow makes one stream after the other. The result is the error that ends the watch, nil when the loop was left.
func (r *watchRun) follow() *Error {
	for {
		failure, end := r.stream()
		if over := r.over(); over != nil && !(end && failure == nil) {
			return r.ended(over)
		}
		if end || failure != nil && failure.endsWatch() {
			return r.ended(failure)
		}
		if !r.pause(failure) {
			return r.ended(r.over())
		}
	}
}

// over is the error of a context that is over, or of a closed client.
func (r *watchRun) over() *Error {
	err := r.ctx.Err()
	switch {
	case err == nil:
		return nil
	case r.client.life.Err() != nil:
		return &Error{Code: codes.Canceled, Message: "the client is closed", cause: grpc.ErrClientConnClosing}
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Code: codes.DeadlineExceeded, Message: "the deadline passed while watching", cause: err}
	}
	return &Error{Code: codes.Canceled, Message: "cancelled while watching", cause: err}
}

func (r *watchRun) ended(failure *Error) *Error {
	if failure == nil {
		return nil
	}
	failure.Tries = r.streams
	if len(r.watch.requestIDs) == 1 {
		failure.RequestID = r.watch.requestIDs[0]
	}
	return r.call.ended(failure, NotRepeatedNotRetryable)
}

// endsWatch: another stream would end in the same way.
func (e *Error) endsWatch() bool {
	switch e.Code {
	case codes.InvalidArgument, codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented, codes.NotFound, codes.FailedPrecondition:
		return true
	case codes.Unavailable, codes.ResourceExhausted:
		return false
	}
	return e.Reason != "" && !e.Retryable
}

// pause waits before the next stream; false: the watch is over.
func (r *watchRun) pause(failure *Error) bool {
	wait := time.Duration(float64(watchPauseLimit(r.lost)) * r.client.jitter())
	if failure != nil {
		wait = max(wait, lengthen(max(failure.RetryAfter, failure.pushback), r.client.jitter()))
	}
	r.lost++
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.ctx.Done():
		return false
	}
}

func watchPauseLimit(lost int) time.Duration {
	return min(firstWatchPause<<min(lost, 20), longestWatchPause)
}

// stream makes one stream and hands out its events. end: there is to be no other one, because it cannot begin or, without an
// error, because the loop was left.
func (r *watchRun) stream() (failure *Error, end bool) {
	request := &pb.WatchUserIntentsRequest{RequestIds: r.watch.requestIDs, ResumeToken: r.watch.ResumeToken()}
	if failure := r.client.notBegun(r.ctx, r.call, request); failure != nil {
		return failure, true
	}
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	r.streams++
	silence := time.AfterFunc(r.client.silence, cancel)
	defer silence.Stop()
	stream, err := r.client.rpc.WatchUserIntents(ctx, request, r.call.calls...)
	if err != nil {
		return newError(err, nil), false
	}
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, false
		}
		if err != nil {
			return newError(err, stream.Trailer()), false
		}
		silence.Stop() // the time that the caller takes does not count
		if !r.tell(message) {
			return nil, true
		}
		silence.Reset(r.client.silence)
	}
}

// tell hands an event out; false: the loop was left.
func (r *watchRun) tell(message *pb.WatchUserIntentsResponse) bool {
	w := r.watch
	w.moved(message.GetResumeToken(), message.GetReset_() != nil)
	event := &WatchEvent{}
	switch kind := message.GetEvent().(type) {
	case *pb.WatchUserIntentsResponse_Changed:
		event.Kind, event.Changed = WatchChanged, kind.Changed
	case *pb.WatchUserIntentsResponse_Synced:
		if w.synced {
			return true // of a stream that was resumed
		}
		event.Kind, w.synced = WatchSynced, true
	case *pb.WatchUserIntentsResponse_Reset_:
		event.Kind, w.synced = WatchReset, false
	default: // a heartbeat, or what a newer gateway tells
		r.lost = 0
		return true
	}
	r.lost = 0
	event.ResumeToken = w.ResumeToken()
	return r.yield(event, nil)
}
