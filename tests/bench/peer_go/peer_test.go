package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "example.com/userintent/userintentv1"
)

const requestID = "0f8fad5b-d9cb-469f-a165-70867728950e"

var today = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func valid() *pb.CreateUserIntentRequest {
	return &pb.CreateUserIntentRequest{
		RequestId: requestID, Email: "ada@example.com", Phone: "+12025550123", FirstName: "Ada", LastName: "Example",
		Address1: "1 Example Street", City: "Springfield", State: "IL", PostalCode: "62701", DateOfBirth: "1990-02-28",
		SsnLastFour: "1234", IpAddress: "8.8.8.8",
	}
}

// with changes the valid request by the name of a field.
func with(t *testing.T, field, value string) *pb.CreateUserIntentRequest {
	t.Helper()
	r := valid()
	m := r.ProtoReflect()
	f := m.Descriptor().Fields().ByName(protoreflect.Name(field))
	if f == nil {
		t.Fatalf("no field %s", field)
	}
	m.Set(f, protoreflect.ValueOfString(value))
	return r
}

func TestEveryFieldHasItsRule(t *testing.T) {
	if broken := violations(valid(), today); broken != nil {
		t.Fatalf("the valid request: %v", broken)
	}
	for field, values := range map[string]struct{ good, bad []string }{
		"request_id": {[]string{strings.ToUpper(requestID)}, []string{"", "x", strings.ReplaceAll(requestID, "-", ""), requestID + "0", "0f8fad5b-d9cb-469f-a165-70867728950g"}},
		"email": {[]string{"A.b+c@mail.example.com", strings.Repeat("a", 64) + "@example.com"},
			[]string{"", "a", "a@b", "@example.com", "a@@example.com", "a@example..com", "a@.example", "a@example.", "a b@example.com",
				strings.Repeat("a", 65) + "@example.com", "a@" + strings.Repeat("b.", 126) + "cc", "\u00e4@example.com"}},
		"phone":                {[]string{"+19995550123"}, []string{"", "2025550123", "+11025550123", "+1202555012", "+120255501234", "+1202555012a"}},
		"first_name":           {[]string{"J\u00fcrgen", strings.Repeat("\u00fc", 100)}, []string{"", "  ", "\u00a0", strings.Repeat("x", 101), "a\x00b", "a\u202eb", "a\u2066b", "a\u0085b", "a\tb"}},
		"last_name":            {[]string{"O'Neil"}, []string{"", "\u3000"}},
		"preferred_first_name": {[]string{"", " "}, []string{strings.Repeat("x", 101), "\n"}},
		"preferred_last_name":  {[]string{""}, []string{"\x7f"}},
		"preferred_pronouns":   {[]string{"they/them"}, []string{strings.Repeat("x", 101)}},
		"address1": {[]string{"12 Boxwood Lane", "RR 2 Box 7", "Depo Box"},
			[]string{"", " ", "PO Box 7", "P.O. Box 7", "p o b 7", "Post Office Box 7", "Box 7", "12 Elm St, PO Box 9", "PO Drawer 3", "Apartado 7"}},
		"address2":              {[]string{"", "Apt 4", "Box 7"}, []string{"P.O.Box 7", strings.Repeat("x", 101)}},
		"city":                  {[]string{"San Jos\u00e9"}, []string{"", " "}},
		"state":                 {[]string{"DC", "PR", "AE", "FM"}, []string{"", "il", "ZZ", "Illinois"}},
		"postal_code":           {[]string{"62701-1234"}, []string{"", "6270", "627011234", "62701-123", "62701 1234", "6270a"}},
		"date_of_birth":         {[]string{"1900-01-01", "2026-03-01", "2000-02-29"}, []string{"", "1899-12-31", "2026-03-02", "1990-02-29", "1990-2-28", "28.02.1990"}},
		"ssn_last_four":         {[]string{"0001"}, []string{"", "0000", "123", "12345", "12a4"}},
		"ip_address":            {[]string{"1.1.1.1", "2606:4700::1111"}, []string{"", "8.8.8", "08.8.8.8", "10.0.0.1", "127.0.0.1", "192.168.1.1", "100.64.0.1", "169.254.1.1", "198.51.100.7", "224.0.0.1", "255.255.255.255", "::1", "fe80::1", "fe80::1%eth0", "fd00::1", "2001:db8::1", "::ffff:8.8.8.8", "ff02::1", "4000::1"}},
		"supersedes_request_id": {[]string{"", requestID}, []string{"x"}},
	} {
		for _, value := range values.good {
			if broken := violations(with(t, field, value), today); broken != nil {
				t.Errorf("%s %q: %v", field, value, broken)
			}
		}
		for _, value := range values.bad {
			if broken := violations(with(t, field, value), today); !reflect.DeepEqual(broken, []string{field}) {
				t.Errorf("%s %q: %v", field, value, broken)
			}
		}
	}
}

func TestWhatAVerificationTypeRequires(t *testing.T) {
	for kind, want := range map[pb.VerificationType][]string{
		pb.VerificationType_VERIFICATION_TYPE_UNSPECIFIED:  {"date_of_birth", "ssn_last_four"},
		pb.VerificationType_VERIFICATION_TYPE_VERIFIED:     {"date_of_birth", "ssn_last_four"},
		pb.VerificationType_VERIFICATION_TYPE_UNVERIFIED:   {"date_of_birth"},
		pb.VerificationType_VERIFICATION_TYPE_RECEIVE_ONLY: nil,
		pb.VerificationType(9):                             {"verification_type"},
	} {
		r := valid()
		r.VerificationType, r.DateOfBirth, r.SsnLastFour = kind, "", ""
		if got := violations(r, today); !reflect.DeepEqual(got, want) {
			t.Errorf("%v: %v, want %v", kind, got, want)
		}
	}
}

func TestMetadata(t *testing.T) {
	many := map[string]string{}
	for i := range 26 {
		many[strings.Repeat("k", i+1)] = "v"
	}
	for name, test := range map[string]struct {
		metadata map[string]string
		good     bool
	}{
		"one":          {map[string]string{"a.B_9-": "\u00e4"}, true},
		"26 keys":      {many, false},
		"reserved":     {map[string]string{"gateway_attempt_id": "x"}, false},
		"key with /":   {map[string]string{"a/b": "x"}, false},
		"long key":     {map[string]string{strings.Repeat("k", 65): "x"}, false},
		"empty value":  {map[string]string{"k": ""}, false},
		"long value":   {map[string]string{"k": strings.Repeat("x", 257)}, false},
		"control char": {map[string]string{"k": "a\nb"}, false},
	} {
		r := valid()
		r.Metadata = test.metadata
		if got := violations(r, today) == nil; got != test.good {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// upstream answers as told and keeps the last request.
func upstream(t *testing.T, answer http.HandlerFunc) (*gateway, *http.Request, *map[string]any) {
	t.Helper()
	var last http.Request
	body := map[string]any{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		last = *r
		text, _ := io.ReadAll(r.Body)
		clear(body)
		_ = json.Unmarshal(text, &body)
		answer(w, r)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	client, err := newAstraClient(server.URL, "id", "secret", server.Client().Transport.(*http.Transport).TLSClientConfig, 2)
	if err != nil {
		t.Fatal(err)
	}
	return &gateway{astra: client, now: func() time.Time { return today }}, &last, &body
}

func TestTheSamePostAsTheGateway(t *testing.T) {
	g, last, body := upstream(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Request-Id", "req-1")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"id":"intent-1","status":"pending"}`)
	})
	r := valid()
	r.VerificationType = pb.VerificationType_VERIFICATION_TYPE_VERIFIED
	r.Metadata = map[string]string{"customer": "7"}
	answer, err := g.CreateUserIntent(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if answer.GetUserIntent().GetId() != "intent-1" || answer.GetAstraRequestId() != "req-1" ||
		answer.GetUserIntent().GetStatus() != pb.UserIntentStatus_USER_INTENT_STATUS_PENDING || answer.GetUserIntent().GetAstraStatus() != "pending" {
		t.Errorf("%v", answer)
	}
	if user, password, _ := last.BasicAuth(); last.Proto != "HTTP/2.0" || last.Method != "POST" || last.URL.Path != "/v1/user_intent" ||
		user != "id" || password != "secret" || last.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s %s %s %v", last.Proto, last.Method, last.URL, last.Header)
	}
	metadata, _ := (*body)["metadata"].(map[string]any)
	attempt, _ := metadata[attemptIDKey].(string)
	if !isUUID(attempt) || metadata["customer"] != "7" {
		t.Errorf("metadata %v", metadata)
	}
	delete(*body, "metadata")
	want := map[string]any{"email": "ada@example.com", "phone": "+12025550123", "first_name": "Ada", "last_name": "Example",
		"address1": "1 Example Street", "address2": "", "city": "Springfield", "state": "IL", "postal_code": "62701",
		"date_of_birth": "1990-02-28", "ssn": "1234", "ip_address": "8.8.8.8", "kyc_type": "verified"}
	if !reflect.DeepEqual(*body, want) {
		t.Errorf("%v", *body)
	}
}

func TestAnswersBecomeCodes(t *testing.T) {
	for _, test := range []struct {
		httpStatus int
		retryAfter string
		body       string
		want       codes.Code
	}{
		{200, "", `{"id":"x"}`, codes.OK},
		{201, "", `{"status":"pending"}`, codes.Unknown},
		{201, "", `{"id":`, codes.Unknown},
		{400, "", ``, codes.InvalidArgument},
		{422, "", ``, codes.InvalidArgument},
		{401, "", ``, codes.Internal},
		{404, "", ``, codes.Internal},
		{302, "", ``, codes.Internal},
		{303, "", ``, codes.Unknown},
		{409, "", ``, codes.Unknown},
		{429, "", ``, codes.ResourceExhausted},
		{500, "", ``, codes.Unknown},
		{503, "", ``, codes.Unknown},
		{503, "7", ``, codes.Unavailable},
	} {
		g, _, _ := upstream(t, func(w http.ResponseWriter, _ *http.Request) {
			if test.retryAfter != "" {
				w.Header().Set("Retry-After", test.retryAfter)
			}
			w.WriteHeader(test.httpStatus)
			_, _ = io.WriteString(w, test.body)
		})
		if _, err := g.CreateUserIntent(t.Context(), valid()); status.Code(err) != test.want {
			t.Errorf("%d %q %q: %v, want %v", test.httpStatus, test.retryAfter, test.body, err, test.want)
		}
	}
}

func TestNothingIsSentForARefusedRequest(t *testing.T) {
	g, last, _ := upstream(t, func(http.ResponseWriter, *http.Request) {})
	unknown := valid()
	unknown.ProtoReflect().SetUnknown([]byte{0xf8, 0x07, 0x01}) // field 127, varint 1
	broken := proto.Clone(valid()).(*pb.CreateUserIntentRequest)
	broken.City = ""
	for _, r := range []*pb.CreateUserIntentRequest{unknown, broken} {
		if _, err := g.CreateUserIntent(t.Context(), r); status.Code(err) != codes.InvalidArgument {
			t.Error(err)
		}
	}
	if last.Method != "" {
		t.Error("a POST was sent")
	}
}
