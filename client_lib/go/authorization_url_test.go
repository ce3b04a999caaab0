package userintent

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	pb "example.com/userintent/userintentv1"
)

const (
	back      = "https://app.example.com/done?x=1&y=a b"
	someState = "0123456789abcdef"
)

func TestGetAuthorizationURL(t *testing.T) {
	for name, test := range map[string]struct {
		key  IntentKey
		want *pb.GetAuthorizationUrlRequest
	}{
		"by request id": {ByRequestID("R"), &pb.GetAuthorizationUrlRequest{Key: &pb.GetAuthorizationUrlRequest_RequestId{RequestId: "R"}, RedirectUri: back, State: someState}},
		"by intent id":  {ByUserIntentID("I"), &pb.GetAuthorizationUrlRequest{Key: &pb.GetAuthorizationUrlRequest_UserIntentId{UserIntentId: "I"}, RedirectUri: back, State: someState}},
		"by nothing":    {IntentKey{}, &pb.GetAuthorizationUrlRequest{RedirectUri: back, State: someState}},
	} {
		t.Run(name, func(t *testing.T) {
			g, dialer := serve(t, overloaded(0), ok)
			response, err := dial(t, dialer).GetAuthorizationURL(context.Background(), test.key, back, someState)
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "url", response.GetUrl(), "https://app.example.com/")
			if len(g.links) != 2 || !proto.Equal(g.links[1], test.want) {
				t.Errorf("sent %v", g.links)
			}
		})
	}
	_, dialer := serve(t, answer{code: codes.FailedPrecondition, pushback: "-1", details: []protoadapt.MessageV1{info("USER_INTENT_NOT_ELIGIBLE", "recovery", "STOP")}})
	_, err := dial(t, dialer).GetAuthorizationURL(context.Background(), ByUserIntentID("I"), back, someState)
	if e := failure(t, err); e.Reason != ReasonUserIntentNotEligible || e.Recovery != RecoveryStop || e.UserIntentID != "I" || e.MaybeSent() || !e.Read || e.Tries != 1 {
		t.Errorf("%v", e)
	}
}

func TestAuthorizationURLRefuses(t *testing.T) {
	intent := &pb.UserIntent{Id: "I", Status: pb.UserIntentStatus_USER_INTENT_STATUS_APPROVED}
	fields := func(redirectURI, state string) string {
		t.Helper()
		url, page, err := AuthorizationURL("https://app.example.com", "c", intent, redirectURI, state)
		if err == nil {
			return ""
		}
		e := failure(t, err)
		if url != "" || page != 0 || e.Code != codes.InvalidArgument || e.Reason != ReasonFieldInvalid || e.Recovery != RecoveryFixRequest || e.Tries != 0 || e.MaybeSent() {
			t.Errorf("%q %v %v", url, page, e)
		}
		var names []string
		for _, violation := range e.Violations {
			names = append(names, violation.Field)
			if violation.Description == "" || strings.Contains(e.Error(), "secret") {
				t.Errorf("%v", e)
			}
		}
		return strings.Join(names, ",")
	}
	for _, uri := range []string{"https://a.example", "https://a.example:8443/x?y=z", "http://localhost/x", "http://localhost:3000", "http://127.0.0.1:1/", "http://[::1]:8080/x", "https://[2001:db8::1]/", "http://LOCALHOST/", "http://127.9.9.9/"} {
		equal(t, uri, fields(uri, someState), "")
	}
	for _, uri := range []string{"", "secret", "/secret", "http://a.example/", "http://localhost.example/", "http://127.0.0.1.example/", "https://", "https:///secret", "ftp://a.example/",
		"https://a.example/#secret", "https://secret@a.example/", "https://a.example/\n", "https://a.example/\u00e9", "http://[::1/", "HTTPS", "https://127.1/", "https://0x7f.0x1/", "https://[127.0.0.1]/",
		"https://2001:db8::1/", "https://a..example/", "https://-a.example/", "https://a.example:99999/", "https://a.example:/", "https://a.example/%g0", "https://" + strings.Repeat("a.", 130) + "example/"} {
		equal(t, uri, fields(uri, someState), "redirect_uri")
	}
	for state, want := range map[string]string{strings.Repeat("a", 16): "", strings.Repeat("~", 256): "", "": "state", strings.Repeat("a", 15): "state", strings.Repeat("a", 257): "state",
		"secret+secret+secret": "state", "secret secret secret": "state", "\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9": "state"} {
		equal(t, state, fields("https://a.example", state), want)
	}
	equal(t, "both", fields("secret", ""), "redirect_uri,state")
}
