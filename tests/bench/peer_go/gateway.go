package main

import (
	"context"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "example.com/userintent/userintentv1"
)

// gateway answers CreateUserIntent. Safe for every goroutine.
type gateway struct {
	pb.UnimplementedUserIntentServiceServer
	astra  *astraClient
	ledger *ledger // nil: nothing is kept
	now    func() time.Time
}

var statuses = map[string]pb.UserIntentStatus{
	"pending":           pb.UserIntentStatus_USER_INTENT_STATUS_PENDING,
	"approved":          pb.UserIntentStatus_USER_INTENT_STATUS_APPROVED,
	"retry":             pb.UserIntentStatus_USER_INTENT_STATUS_RETRY,
	"document":          pb.UserIntentStatus_USER_INTENT_STATUS_DOCUMENT,
	"rejected":          pb.UserIntentStatus_USER_INTENT_STATUS_REJECTED,
	"suspended":         pb.UserIntentStatus_USER_INTENT_STATUS_SUSPENDED,
	"converted_to_user": pb.UserIntentStatus_USER_INTENT_STATUS_CONVERTED_TO_USER,
}

func (g *gateway) CreateUserIntent(ctx context.Context, r *pb.CreateUserIntentRequest) (*pb.CreateUserIntentResponse, error) {
	if len(r.ProtoReflect().GetUnknown()) > 0 {
		return nil, status.Error(codes.InvalidArgument, "the request holds fields unknown to this server")
	}
	if broken := violations(r, g.now()); len(broken) > 0 {
		return nil, status.Error(codes.InvalidArgument, "broken fields: "+strings.Join(broken, ", "))
	}
	if r.GetValidateOnly() {
		return &pb.CreateUserIntentResponse{}, nil
	}
	if g.ledger != nil {
		return g.createOnce(ctx, r)
	}
	answer, err := g.astra.create(ctx, r)
	if err != nil {
		// Nobody knows what became of the POST, and without a ledger nobody will.
		return nil, errUnknown
	}
	if code := codeOf(answer); code != codes.OK {
		return nil, status.Error(code, "Astra answered "+http.StatusText(answer.httpStatus))
	}
	return responseOf(&record{intent: answer.ID, status: answer.Status, requestID: answer.requestID,
		createdAt: g.now().UnixMicro()}), nil
}

var (
	errUnknown     = status.Error(codes.Unknown, "no usable answer from Astra")
	errFailed      = status.Error(codes.InvalidArgument, "Astra refused it")
	errNotWritable = status.Error(codes.Unavailable, errUnavailable.Error())
)

func responseOf(known *record) *pb.CreateUserIntentResponse {
	return &pb.CreateUserIntentResponse{
		UserIntent: &pb.UserIntent{
			Id:          known.intent,
			Status:      statuses[known.status],
			AstraStatus: known.status,
			CreateTime:  timestamppb.New(time.UnixMicro(known.createdAt)),
		},
		AstraRequestId: known.requestID,
	}
}

// createOnce is durable before it sends, and before it answers. What was sent has an end, whatever its caller does.
func (g *gateway) createOnce(ctx context.Context, r *pb.CreateUserIntentRequest) (*pb.CreateUserIntentResponse, error) {
	begun, err := g.ledger.begin(r, g.now())
	if err != nil {
		return nil, errNotWritable
	}
	switch begun.verdict {
	case isOther:
		return nil, status.Error(codes.AlreadyExists, "the id was used for another request")
	case isSpent:
		return nil, status.Error(codes.FailedPrecondition, "the address has no attempt left")
	case isRecorded:
		switch begun.known.state {
		case sending:
			return nil, status.Error(codes.Aborted, "in progress")
		case succeeded:
			return responseOf(&begun.known), nil
		case failed:
			return nil, errFailed
		}
		return nil, errUnknown
	}
	answer, err := g.astra.create(context.WithoutCancel(ctx), r)
	outcome, result := record{state: unknown}, errUnknown
	if err == nil {
		outcome = record{intent: answer.ID, status: answer.Status, requestID: answer.requestID}
		code := codeOf(answer)
		result = status.Error(code, "Astra answered "+http.StatusText(answer.httpStatus))
		switch code {
		case codes.OK:
			outcome.state, result = succeeded, nil
		case codes.InvalidArgument, codes.Internal:
			outcome.state = failed
		case codes.ResourceExhausted, codes.Unavailable:
			outcome.state = released
		default:
			outcome.state = unknown
		}
	}
	if err := g.ledger.finish(begun, outcome, g.now()); err != nil || result != nil {
		if result == nil {
			result = errUnknown // it was created, and a restart would not know
		}
		return nil, result
	}
	outcome.createdAt = begun.now
	return responseOf(&outcome), nil
}

func codeOf(a *astraAnswer) codes.Code {
	switch {
	case a.httpStatus >= 200 && a.httpStatus <= 299:
		if a.ID == "" || len(a.ID) > 256 {
			return codes.Unknown
		}
		return codes.OK
	case a.httpStatus == http.StatusBadRequest, a.httpStatus == http.StatusUnprocessableEntity:
		return codes.InvalidArgument
	case a.httpStatus == http.StatusTooManyRequests:
		return codes.ResourceExhausted
	case a.httpStatus == http.StatusServiceUnavailable && a.retryAfter != "":
		return codes.Unavailable
	}
	switch a.httpStatus {
	case 303:
		return codes.Unknown
	case 401, 403, 404, 405, 406, 410, 418:
		return codes.Internal
	}
	if a.httpStatus >= 300 && a.httpStatus <= 399 {
		return codes.Internal
	}
	return codes.Unknown
}
