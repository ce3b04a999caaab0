package userintent

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// notBegun is the error of a call that cannot begin, found before gRPC is asked: nothing was sent then. What gRPC finds
// out by itself looks like an answer of the gateway, or like a connection that broke. nil: the call may begin.
func (c *Client) notBegun(ctx context.Context, call callConfig, request proto.Message) *Error {
	if err := ctx.Err(); err != nil {
		code := codes.Canceled
		if errors.Is(err, context.DeadlineExceeded) {
			code = codes.DeadlineExceeded
		}
		return &Error{Code: code, Message: "over before the call began", Sent: SentNo, Recovery: RecoveryRetrySameID, cause: err}
	}
	if conn, ok := c.conn.(interface{ GetState() connectivity.State }); ok && conn.GetState() == connectivity.Shutdown {
		return &Error{Code: codes.Canceled, Message: "the client is closed", Sent: SentNo, Recovery: RecoveryRetrySameID, cause: grpc.ErrClientConnClosing}
	}
	limit, unusable := checkOptions(call.calls)
	data, err := proto.Marshal(request)
	switch {
	case err != nil:
		return refused(errors.New("a string in the request is not UTF-8"))
	case len(data) > limit:
		return refused(fmt.Errorf("the request has %d bytes, more than the %d that may be sent", len(data), limit))
	case unusable != nil:
		return refused(unusable)
	}
	if sent, ok := metadata.FromOutgoingContext(ctx); ok {
		if err := checkMetadata(sent); err != nil {
			return refused(err)
		}
	}
	return nil
}

// refused is, in the gateway's words for bytes that are no message, the error of a call that can never be sent.
func refused(cause error) *Error {
	return &Error{
		Code: codes.InvalidArgument, Message: "The call cannot be sent: " + cause.Error() + ".", Reason: ReasonMalformedRequest,
		Sent: SentNo, Recovery: RecoveryFixRequest, cause: cause,
	}
}

// checkOptions gives the longest request that may be sent: the gateway's limit, or a lower one of the caller's own.
func checkOptions(options []grpc.CallOption) (limit int, err error) {
	limit = maxRequestBytes
	own := limit
	for _, option := range options {
		switch option := option.(type) {
		case grpc.MaxSendMsgSizeCallOption:
			own = option.MaxSendMsgSize // the last one counts
		case grpc.CompressorCallOption:
			if name := option.CompressorType; name != "" && name != encoding.Identity && encoding.GetCompressor(name) == nil {
				err = fmt.Errorf("no compressor %q is registered", name)
			}
		}
	}
	return min(limit, max(own, 0)), err
}

// checkMetadata finds what gRPC refuses to send, without a word of its content.
func checkMetadata(sent metadata.MD) error {
	for name, values := range sent {
		if strings.HasPrefix(name, ":") {
			continue // gRPC leaves it out
		}
		if name == "" || !isKey(name) {
			return errors.New("the name of a metadata value has characters that are not allowed")
		}
		if strings.HasSuffix(name, "-bin") {
			continue
		}
		for _, value := range values {
			for i := range len(value) {
				if value[i] < 0x20 || value[i] > 0x7e {
					return fmt.Errorf("metadata %q is not printable ASCII; a name that ends in -bin may have any bytes", name)
				}
			}
		}
	}
	return nil
}

func isKey(name string) bool {
	for _, r := range name {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-_.", r) {
			return false
		}
	}
	return true
}

// namesSomething is true for every target but control characters, nothing at all, and a scheme with nothing behind it. gRPC
// makes a connection of those, too, whose calls fail in ways that read like a gateway that is away.
func namesSomething(target string) bool {
	bare := strings.TrimRight(target, "/")
	if bare == "" || strings.HasSuffix(bare, ":") && strings.Count(bare, ":") == 1 {
		return false
	}
	return !strings.ContainsFunc(target, func(r rune) bool { return r < ' ' || r == 0x7f })
}
