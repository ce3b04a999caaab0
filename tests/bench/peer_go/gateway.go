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
	astra *astraClient
	now   func() time.Time
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
	answer, err := g.astra.create(ctx, r)
	if err != nil {
		// Nobody knows what became of the POST, and without a ledger nobody will.
		return nil, status.Error(codes.Unknown, "no usable answer from Astra")
	}
	if code := codeOf(answer); code != codes.OK {
		return nil, status.Error(code, "Astra answered "+http.StatusText(answer.httpStatus))
	}
	return &pb.CreateUserIntentResponse{
		UserIntent: &pb.UserIntent{
			Id:          answer.ID,
			Status:      statuses[answer.Status],
			AstraStatus: answer.Status,
			CreateTime:  timestamppb.New(g.now()),
		},
		AstraRequestId: answer.requestID,
	}, nil
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
