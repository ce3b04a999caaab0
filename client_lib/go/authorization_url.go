package userintent

import (
	"context"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	pb "example.com/userintent/userintentv1"
)

// GetAuthorizationURL answers the page of Astra's to which the person goes next, by the status that the intent has now.
// Astra sends the person back to redirectURI, one of those that are registered for this caller at the gateway, with
// state: 16 to 256 of [A-Za-z0-9._~-], made anew for each person and compared when they come back.
//
// It reads the intent, so it fails and is repeated as GetUserIntent; ReasonUserIntentNotEligible for a person who was
// rejected or suspended. The URL holds no personal data and no secret, but the intent's id: it belongs in no log.
func (c *Client) GetAuthorizationURL(ctx context.Context, key IntentKey, redirectURI, state string, options ...CallOption) (*pb.GetAuthorizationUrlResponse, error) {
	call := c.callConfig(options)
	call.read = true
	request := &pb.GetAuthorizationUrlRequest{RedirectUri: redirectURI, State: state}
	switch key.named {
	case keyRequestID:
		request.Key = &pb.GetAuthorizationUrlRequest_RequestId{RequestId: key.requestID}
	case keyUserIntentID:
		request.Key = &pb.GetAuthorizationUrlRequest_UserIntentId{UserIntentId: key.userIntentID}
	}
	var response *pb.GetAuthorizationUrlResponse
	_, failure := c.do(ctx, call, request, func(ctx context.Context, grpcOptions ...grpc.CallOption) (err error) {
		response, err = c.rpc.GetAuthorizationUrl(ctx, request, grpcOptions...)
		return err
	})
	if failure == nil {
		return response, nil
	}
	return nil, failure.about(key)
}

// AuthorizationURL is the page for an intent that was read already, without a call: the same URL and the same refusals as
// GetAuthorizationURL, but for what only the gateway knows, the redirect URIs that are registered. appURL is that of
// Astra's pages: https://app.astra.finance, in its sandbox https://app-sandbox.astra.finance. clientID is the program's id
// at Astra. Every error is an *Error.
func AuthorizationURL(appURL, clientID string, intent *pb.UserIntent, redirectURI, state string) (string, pb.AuthorizationPage, error) {
	var violations []Violation
	if !isRedirectURI(redirectURI) {
		violations = append(violations, Violation{"redirect_uri", "required: an https URI (http for loopback only) without user and fragment"})
	}
	if !isState(state) {
		violations = append(violations, Violation{"state", "required: 16-256 of [A-Za-z0-9._~-]"})
	}
	failure := &Error{UserIntentID: intent.GetId(), Read: true, NotRepeated: NotRepeatedNotRetryable}
	if violations != nil {
		failure.Code, failure.Reason, failure.Recovery = codes.InvalidArgument, ReasonFieldInvalid, RecoveryFixRequest
		failure.Message, failure.Violations = "A part of the URL breaks its rule.", violations
		return "", 0, failure
	}
	path, page, name, id := "/login/oauth/authorize", pb.AuthorizationPage_AUTHORIZATION_PAGE_AUTHORIZE, "user_intent_id", intent.GetId()
	switch intent.GetStatus() {
	case pb.UserIntentStatus_USER_INTENT_STATUS_REJECTED, pb.UserIntentStatus_USER_INTENT_STATUS_SUSPENDED:
		failure.Code, failure.Reason, failure.Recovery = codes.FailedPrecondition, ReasonUserIntentNotEligible, RecoveryStop
		failure.Message = "There is no page for a person who was rejected or suspended."
		return "", 0, failure
	case pb.UserIntentStatus_USER_INTENT_STATUS_DOCUMENT:
		path, page = "/verify/document", pb.AuthorizationPage_AUTHORIZATION_PAGE_VERIFY_DOCUMENT
	case pb.UserIntentStatus_USER_INTENT_STATUS_RETRY:
		path, page = "/verify/personal", pb.AuthorizationPage_AUTHORIZATION_PAGE_VERIFY_PERSONAL
	case pb.UserIntentStatus_USER_INTENT_STATUS_CONVERTED_TO_USER:
		if user := intent.GetUserId(); user != "" {
			name, id = "user_id", user
		}
	}
	var url strings.Builder
	url.WriteString(strings.TrimSuffix(appURL, "/") + path)
	parameter := func(separator, name, value string) {
		url.WriteString(separator + name + "=")
		writeEncoded(&url, value)
	}
	parameter("?", "client_id", clientID)
	parameter("&", "redirect_uri", redirectURI)
	if page == pb.AuthorizationPage_AUTHORIZATION_PAGE_AUTHORIZE {
		parameter("&", "response_type", "code")
	}
	parameter("&", name, id)
	parameter("&", "state", state)
	return url.String(), page, nil
}

// writeEncoded percent-encodes everything but the unreserved characters of RFC 3986.
func writeEncoded(b *strings.Builder, value string) {
	const hex = "0123456789ABCDEF"
	for i := range len(value) {
		if c := value[i]; isUnreserved(rune(c)) {
			b.WriteByte(c)
		} else {
			b.WriteString(string([]byte{'%', hex[c>>4], hex[c&15]}))
		}
	}
}

func isUnreserved(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

func isState(state string) bool {
	return len(state) >= 16 && len(state) <= 256 && !strings.ContainsFunc(state, func(c rune) bool { return !isUnreserved(c) })
}

var (
	redirectForm = regexp.MustCompile(`^(https?)://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?((?:[/?](?:[A-Za-z0-9._~:/?@\[\]!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)?)$`)
	labelForm    = regexp.MustCompile(`^[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)
)

// isRedirectURI: as the gateway has it. Absolute, without user and fragment; https, or http on this machine.
func isRedirectURI(uri string) bool {
	parts := redirectForm.FindStringSubmatch(uri)
	if parts == nil || len(uri) > 2048 {
		return false
	}
	scheme, host, port := parts[1], parts[2], parts[3]
	if n, err := strconv.Atoi(port); port != "" && (err != nil || n < 1 || n > 65535) {
		return false
	}
	if address, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return address.Is6() == strings.HasPrefix(host, "[") && (scheme == "https" || address.IsLoopback())
	}
	return isDNSName(host) && (scheme == "https" || strings.EqualFold(host, "localhost"))
}

// isDNSName: a name that ends in a number would be taken for an address.
func isDNSName(host string) bool {
	labels := strings.Split(host, ".")
	for _, label := range labels {
		if !labelForm.MatchString(label) {
			return false
		}
	}
	last := strings.ToLower(labels[len(labels)-1])
	return len(host) <= 253 && strings.Trim(last, "0123456789") != "" && !strings.HasPrefix(last, "0x")
}
