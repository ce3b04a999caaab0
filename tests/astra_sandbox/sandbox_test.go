package main

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

var protos = []string{"h2", "http/1.1"}

// each runs a test over both protocols.
func each(t *testing.T, test func(t *testing.T, proto string)) {
	for _, proto := range protos {
		proto := proto
		t.Run(proto, func(t *testing.T) { test(t, proto) })
	}
}

func (g got) expect(t *testing.T, status int, end string) {
	t.Helper()
	if g.status != status || g.end != end {
		t.Errorf("got status %d, end %q; want %d, %q; body %.200q", g.status, g.end, status, end, g.body)
	}
}

func TestCreateAndGet(t *testing.T) {
	each(t, func(t *testing.T, proto string) {
		r := startSandbox(t, "--pending_for=0")
		c := r.dial(proto)
		g := r.exchange(c, postOf(intentFor("a@example.com")))
		g.expect(t, 201, "complete")
		var created struct{ ID, Status string }
		if err := json.Unmarshal([]byte(g.body), &created); err != nil || created.ID == "" || created.Status != "pending" {
			t.Fatalf("answer %q", g.body)
		}
		if g.headers["request-id"] == "" || g.headers["content-type"] != "application/json" {
			t.Errorf("headers %v", g.headers)
		}
		g = r.exchange(c, sent{method: "GET", path: intentPath + "/" + created.ID})
		g.expect(t, 200, "complete")
		if !strings.Contains(g.body, `"status":"approved"`) || strings.Contains(g.body, "ssn") || strings.Contains(g.body, "address") {
			t.Errorf("intent %s", g.body)
		}
		r.exchange(c, sent{method: "GET", path: intentPath + "/nobody"}).expect(t, 404, "complete")
		r.exchange(c, sent{method: "GET", path: intentPath}).expect(t, 405, "complete")
		r.exchange(c, sent{method: "GET", path: intentPath + "/" + created.ID, headers: map[string]string{"authorization": ""}}).expect(t, 401, "complete")

		v := r.account()
		if len(v.Posts) != 1 || len(v.Intents) != 1 || v.Opened != 1 || v.Open != 1 || v.MaxConcurrent != 1 || v.InProgress != 0 {
			t.Fatalf("account %+v", v)
		}
		p := v.Posts[0]
		want := map[string]string{"h2": "HTTP/2.0", "http/1.1": "HTTP/1.1"}[proto]
		if p.Seq != 1 || p.Email != "a@example.com" || p.AttemptID != "attempt-a@example.com" || p.Proto != want || p.Reused || !p.BodyComplete ||
			p.Status != 201 || !p.Committed || p.IntentID != created.ID || p.Fault != "" || !p.AuthorizationOK || !p.Done || p.Arrived.IsZero() || p.Ended.Before(p.Arrived) {
			t.Errorf("post %+v", p)
		}
		if _, shown := p.Headers["Authorization"]; shown || p.Headers["Content-Type"] != "application/json" || p.Headers["Content-Length"] == "" {
			t.Errorf("headers %v", p.Headers)
		}
		if string(p.Body) != intentFor("a@example.com") {
			t.Errorf("body %s", p.Body)
		}
	})
}

func TestStatusesMoveAsTheLastNameSays(t *testing.T) {
	r := startSandbox(t, "--pending_for=0")
	c := r.dial("h2")
	for last, want := range map[string]string{"Approved": "approved", "Rejected": "rejected", "Retry": "retry", "Document": "document", "Else": "approved"} {
		g := r.exchange(c, postOf(strings.Replace(intentFor(last+"@example.com"), `"Example"`, `"`+last+`"`, 1)))
		g.expect(t, 201, "complete")
		var created struct{ ID string }
		_ = json.Unmarshal([]byte(g.body), &created)
		g = r.exchange(c, sent{method: "GET", path: intentPath + "/" + created.ID})
		if !strings.Contains(g.body, `"status":"`+want+`"`) {
			t.Errorf("%s: %s", last, g.body)
		}
	}
	slow := startSandbox(t, "--pending_for=24h")
	c = slow.dial("h2")
	g := slow.exchange(c, postOf(intentFor("a@example.com")))
	var created struct{ ID string }
	_ = json.Unmarshal([]byte(g.body), &created)
	if g = slow.exchange(c, sent{method: "GET", path: intentPath + "/" + created.ID}); !strings.Contains(g.body, `"status":"pending"`) {
		t.Errorf("not pending: %s", g.body)
	}
}

func TestStrictValidation(t *testing.T) {
	base := intentFor("v@example.com")
	edit := func(from, to string) string {
		if !strings.Contains(base, from) {
			t.Fatalf("no %s in the base", from)
		}
		return strings.Replace(base, from, to, 1)
	}
	drop := func(name string) string {
		var all map[string]json.RawMessage
		_ = json.Unmarshal([]byte(base), &all)
		delete(all, name)
		text, _ := json.Marshal(all)
		return string(text)
	}
	metadata := func(text string) string {
		return edit(`{"gateway_attempt_id":"attempt-v@example.com"}`, text)
	}
	keys := func(n int) string {
		var list []string
		for i := 0; i < n; i++ {
			list = append(list, fmt.Sprintf(`"k%d":"v"`, i))
		}
		return "{" + strings.Join(list, ",") + "}"
	}
	type test struct {
		name, body, about string // about "": accepted
	}
	tests := []test{
		{"good", base, ""},
		{"not JSON", "{", "JSON object"},
		{"array", "[]", "JSON object"},
		{"two values", base + base, "JSON object"},
		{"empty", "", "JSON object"},
		{"invalid UTF-8", edit("Edmund", "\xff"), "JSON object"},
		{"unknown field", edit(`"city"`, `"town"`), "unknown field"},
		{"other case", edit(`"city"`, `"City"`), "unknown field"},
		{"address_1", edit(`"address1"`, `"address_1"`), "unknown field"},
		{"duplicate", edit(`"city":"Palo Alto"`, `"city":"Palo Alto","city":"Rome"`), "city"},
		{"address2 null", edit(`"address2":""`, `"address2":null`), "address2"},
		{"address2 absent", drop("address2"), ""},
		{"number for a string", edit(`"94304"`, `94304`), "postal_code"},
		{"blank name", edit(`"Edmund"`, `" "`), "first_name"},
		{"empty optional", edit(`"city"`, `"preferred_first_name":"","city"`), "preferred_first_name"},
		{"e-mail", edit(`v@example.com`, `v.example.com`), "email"},
		{"phone", edit(`+1555`, `1555`), "phone"},
		{"short phone", edit(`+15557771234`, `+1555777123`), "phone"},
		{"state", edit(`"CA"`, `"ca"`), "state"},
		{"ZIP+4", edit(`"94304"`, `"94304-1234"`), ""},
		{"postal code", edit(`"94304"`, `"9430"`), "postal_code"},
		{"nine-digit ssn", edit(`"1234"`, `"123456789"`), "ssn"},
		{"ssn letters", edit(`"1234"`, `"12a4"`), "ssn"},
		{"no such date", edit("1985-02-03", "1985-02-30"), "date_of_birth"},
		{"date form", edit("1985-02-03", "02/03/1985"), "date_of_birth"},
		{"ip", edit("8.8.8.8", "8.8.8"), "ip_address"},
		{"IPv6", edit("8.8.8.8", "2001:4860:4860::8888"), ""},
		{"PO box", edit("123 Astra Ave", "P.O. Box 7"), "address1"},
		{"PO box in address2", edit(`"address2":""`, `"address2":"po box 7"`), "address2"},
		{"box that is none", edit("123 Astra Ave", "7 Boxwood Ln"), ""},
		{"no ssn", drop("ssn"), "ssn"},
		{"no birth date", drop("date_of_birth"), "date_of_birth"},
		{"kyc_type", edit(`"city"`, `"kyc_type":"receive_only","city"`), "kyc_type"},
		{"unverified without ssn", strings.Replace(drop("ssn"), "{", `{"kyc_type":"unverified",`, 1), ""},
		{"unverified without birth date", strings.Replace(drop("date_of_birth"), "{", `{"kyc_type":"unverified",`, 1), "date_of_birth"},
		{"receive-only without either", edit(`"date_of_birth":"1985-02-03","ssn":"1234"`, `"kyc_type":"receive-only"`), ""},
		{"verified without ssn", strings.Replace(drop("ssn"), "{", `{"kyc_type":"verified",`, 1), "ssn"},
		{"metadata absent", drop("metadata"), ""},
		{"metadata null", metadata(`null`), "metadata"},
		{"metadata 25", metadata(keys(25)), ""},
		{"metadata 26", metadata(keys(26)), "metadata"},
		{"metadata key", metadata(`{"a b":"c"}`), "metadata"},
		{"metadata long key", metadata(`{"` + strings.Repeat("k", 65) + `":"c"}`), "metadata"},
		{"metadata empty value", metadata(`{"a":""}`), "metadata"},
		{"metadata 256", metadata(`{"a":"` + strings.Repeat("é", 256) + `"}`), ""},
		{"metadata 257", metadata(`{"a":"` + strings.Repeat("v", 257) + `"}`), "metadata"},
		{"metadata number", metadata(`{"a":1}`), "metadata"},
		{"escapes", edit(`"Palo Alto"`, `"Palo \"Alto\" \u00e9"`), ""},
	}
	for _, name := range []string{"email", "phone", "first_name", "last_name", "address1", "city", "state", "postal_code", "ip_address"} {
		tests = append(tests, test{"no " + name, drop(name), name})
	}
	each(t, func(t *testing.T, proto string) {
		r := startSandbox(t, "--attempt_limit=0")
		c := r.dial(proto)
		intents := 0
		for _, test := range tests {
			g := r.exchange(c, postOf(test.body))
			if test.about == "" {
				intents++
				if g.status != 201 {
					t.Errorf("%s: %d %s", test.name, g.status, g.body)
				}
				continue
			}
			var problem struct {
				Code              int
				Name, Description string
			}
			if err := json.Unmarshal([]byte(g.body), &problem); g.status != 400 || err != nil || problem.Code != 400 || problem.Name != "Bad Request" ||
				!strings.Contains(problem.Description, test.about) {
				t.Errorf("%s: %d %s", test.name, g.status, g.body)
			}
		}
		for _, test := range []struct {
			s      sent
			status int
		}{
			{sent{headers: map[string]string{"authorization": ""}}, 401},
			{sent{headers: map[string]string{"authorization": basicAuthorization("sandbox-client", "wrong")}}, 401},
			{sent{headers: map[string]string{"content-type": ""}}, 400},
			{sent{headers: map[string]string{"content-type": "text/plain"}}, 400},
			{sent{headers: map[string]string{"accept": "text/html"}}, 406},
			{sent{path: intentPath + "/"}, 404},
			{sent{path: "/v1/user"}, 404},
		} {
			s := test.s
			s.method, s.body = "POST", base
			if s.path == "" {
				s.path = intentPath
			}
			if g := r.exchange(c, s); g.status != test.status {
				t.Errorf("%+v: %d %s", s.headers, g.status, g.body)
			}
		}
		r.exchange(c, sent{method: "POST", path: intentPath, body: base,
			headers: map[string]string{"content-type": "Application/JSON; charset=utf-8"}}).expect(t, 201, "complete")
		intents++
		if v := r.summary(); v.Intents != intents || v.Posts != len(tests)+8 {
			t.Errorf("%d posts and %d intents in the account, want %d and %d", v.Posts, v.Intents, len(tests)+8, intents)
		}
	})
	r := startSandbox(t, "--kyc_delegation")
	r.exchange(r.dial("h2"), postOf(drop("ssn"))).expect(t, 201, "complete")
}

func TestAttemptLimitAndErrorShapes(t *testing.T) {
	for shape, want := range map[string]string{
		"generic":    `{"code":409,"name":"Conflict","description":"too many: three"}`,
		"validation": `{"status_code":409,"message":"too many: three"}`,
		"oauth":      `{"error":"conflict","error_description":"too many: three"}`,
		"html":       "<h1>409 Conflict</h1>",
	} {
		r := startSandbox(t, "--limit_error=409:too many: three", "--error_shape="+shape)
		c := r.dial("h2")
		for i, email := range []string{"a@example.com", "A@example.com", "a@EXAMPLE.com"} {
			if i == 1 { // a refused POST is no attempt
				r.exchange(c, postOf(strings.Replace(intentFor(email), "1234\",\"ip", "12\",\"ip", 1))).expect(t, 400, "complete")
			}
			r.exchange(c, postOf(intentFor(email))).expect(t, 201, "complete")
		}
		g := r.exchange(c, postOf(intentFor("a@example.com")))
		g.expect(t, 409, "complete")
		if !strings.Contains(g.body, want) {
			t.Errorf("%s: %s", shape, g.body)
		}
		r.exchange(c, postOf(intentFor("b@example.com"))).expect(t, 201, "complete")
		v := r.summary()
		if count := v.ByEmail["a@example.com"]; v.Intents != 4 || count.Posts != 5 || count.Intents != 3 {
			t.Errorf("summary %+v", v)
		}
	}
}

// TestFaults checks what a raw client sees, and what the account says, for every kind.
func TestFaults(t *testing.T) {
	raw := base64.StdEncoding.EncodeToString([]byte("HTTP/1.1 299 Odd\r\nContent-Length: 2\r\n\r\nhi"))
	type expectation struct {
		status    int
		end       string
		body      string // must be contained
		posted    int    // status in the account
		committed bool
	}
	same := func(e expectation) [2]expectation { return [2]expectation{e, e} }
	tests := []struct {
		fault string
		want  [2]expectation // h2, HTTP/1.1
	}{
		{`{"kind":"delay","delay_ms":1}`, same(expectation{201, "complete", `"pending"`, 201, true})},
		{`{"kind":"status","status":429,"headers":{"Retry-After":"7"}}`, same(expectation{429, "complete", `"code":429`, 429, false})},
		{`{"kind":"status","status":503,"body":"plain","content_type":"text/plain","commit":true}`, same(expectation{503, "complete", "plain", 503, true})},
		{`{"kind":"status","status":200,"body":{"status":"pending"}}`, same(expectation{200, "complete", `{"status":"pending"}`, 200, false})},
		{`{"kind":"status","status":200}`, same(expectation{200, "complete", "not-created", 200, false})},
		{`{"kind":"status","status":204}`, same(expectation{204, "complete", "", 204, false})},
		{`{"kind":"status","status":201,"body":""}`, same(expectation{201, "complete", "", 201, false})},
		{`{"kind":"html","status":504}`, same(expectation{504, "complete", "<h1>504", 504, false})},
		{`{"kind":"cut_body","commit":true}`, same(expectation{201, "eof", `{"id": "`, 201, true})},
		{`{"kind":"cut_body","status":400}`, same(expectation{400, "eof", `{"code":400`, 400, false})},
		{`{"kind":"cut_head"}`, [2]expectation{{201, "eof", "", 201, false}, {0, "eof", "", 201, false}}},
		{`{"kind":"close"}`, same(expectation{0, "eof", "", 0, false})},
		{`{"kind":"close","commit":true}`, same(expectation{0, "eof", "", 0, true})},
		{`{"kind":"reset"}`, same(expectation{0, "reset", "", 0, false})},
		{`{"kind":"reset","commit":true}`, same(expectation{0, "reset", "", 0, true})},
		{`{"kind":"rst_stream"}`, [2]expectation{{0, "rst_stream INTERNAL_ERROR", "", 0, false}, {0, "reset", "", 0, false}}},
		{`{"kind":"rst_stream","code":"REFUSED_STREAM"}`, [2]expectation{{0, "rst_stream REFUSED_STREAM", "", 0, false}, {0, "reset", "", 0, false}}},
		{`{"kind":"rst_stream","code":"HTTP_1_1_REQUIRED"}`, [2]expectation{{0, "rst_stream HTTP_1_1_REQUIRED", "", 0, false}, {0, "reset", "", 0, false}}},
		{`{"kind":"rst_stream","code":"CANCEL","commit":true}`, [2]expectation{{0, "rst_stream CANCEL", "", 0, true}, {0, "reset", "", 0, true}}},
		{`{"kind":"goaway"}`, [2]expectation{{0, "goaway 3 NO_ERROR", "", 0, false}, {0, "eof", "", 0, false}}},
		{`{"kind":"goaway","below":true}`, [2]expectation{{0, "goaway 1 NO_ERROR", "", 0, false}, {0, "eof", "", 0, false}}},
		{`{"kind":"slow_body","byte_ms":1}`, same(expectation{201, "complete", `"pending"}`, 201, true})},
		{`{"kind":"huge_body","bytes":300000}`, same(expectation{201, "complete", `{"id": "not-created"`, 201, false})},
		{`{"kind":"redirect","status":307,"location":"https://elsewhere.example.test/"}`, same(expectation{307, "complete", "", 307, false})},
		{`{"kind":"garbage"}`, [2]expectation{{0, "unparsable", "", 0, false}, {0, "unparsable", "", 0, false}}},
		{`{"kind":"raw","base64":"` + raw + `"}`, [2]expectation{{0, "unparsable", "", 0, false}, {299, "complete", "hi", 299, false}}},
		{`{"kind":"raw","keep":true,"base64":"` + raw + `"}`, [2]expectation{{0, "unparsable", "", 0, false}, {299, "complete", "hi", 299, false}}},
		{`{"kind":"early","status":413}`, same(expectation{413, "complete", `"code":413`, 413, false})},
	}
	for i, proto := range protos {
		i, proto := i, proto
		t.Run(proto, func(t *testing.T) {
			r := startSandbox(t)
			for n, test := range tests {
				r.admin("POST", "/reset", "", nil)
				c := r.dial(proto)
				r.exchange(c, postOf(intentFor("first@example.com"))).expect(t, 201, "complete") // so that the faulty one is on a reused connection
				email := fmt.Sprintf("fault%d@example.com", n)
				fault := strings.Replace(test.fault, "{", `{"times":1,`, 1)
				if !strings.Contains(fault, "early") {
					fault = strings.Replace(fault, "{", `{"match":{"email":"`+strings.ToUpper(email)+`"},`, 1)
				}
				r.fault(fault)
				want := test.want[i]
				g := r.exchange(c, postOf(intentFor(email)))
				g.expect(t, want.status, want.end)
				if !strings.Contains(g.body, want.body) {
					t.Errorf("body %.100q", g.body)
				}
				switch {
				case strings.Contains(fault, "Retry-After") && g.headers["retry-after"] != "7",
					strings.Contains(fault, "elsewhere") && g.headers["location"] != "https://elsewhere.example.test/",
					strings.Contains(fault, "text/plain") && g.headers["content-type"] != "text/plain",
					strings.Contains(fault, "huge") && (len(g.body) != 300000 || !json.Valid([]byte(g.body))):
					t.Errorf("%s: %v, %d bytes", fault, g.headers, len(g.body))
				}
				v := r.account()
				p := v.Posts[1]
				intents := 1
				if want.committed {
					intents = 2
				}
				if !strings.Contains(test.fault, `"`+p.Fault+`"`) || p.Status != want.posted || p.Committed != want.committed || !p.Reused ||
					p.Refused != (proto == "h2" && (strings.Contains(fault, "REFUSED") || strings.Contains(fault, "below"))) ||
					len(v.Posts) != 2 || len(v.Intents) != intents || !p.Done || (p.IntentID != "") != want.committed {
					t.Errorf("%s: account %+v", fault, p)
				}
				// The connection survives whenever the answer was whole, or the stream alone was hit.
				if (want.end == "complete" || strings.HasPrefix(want.end, "rst_stream")) && (!strings.Contains(fault, `"raw"`) || strings.Contains(fault, "keep")) {
					r.exchange(c, postOf(intentFor("after@example.com"))).expect(t, 201, "complete")
				}
				c.close()
			}
		})
	}
}

// A client may send again what was refused, so it must be true that nothing was done for it.
func TestAGoawayNeverRefusesWhatWasActedOn(t *testing.T) {
	r := startSandbox(t)
	c := r.dial("h2")
	r.fault(`{"kind":"goaway","below":true,"delay_ms":200,"times":1,"match":{"email":"one@example.com"}}`)
	c.send(postOf(intentFor("one@example.com")))
	c.send(postOf(intentFor("two@example.com")))
	half := postOf(intentFor("three@example.com"))
	half.cut = 10
	c.send(half)
	c.receive().expect(t, 0, "rst_stream REFUSED_STREAM")
	c.receive().expect(t, 201, "complete")
	c.receive().expect(t, 0, "goaway 3 NO_ERROR")
	r.until("the end of all", func() bool { return r.summary().InProgress == 0 })
	v := r.account()
	if len(v.Posts) != 3 || len(v.Intents) != 1 || !v.Posts[0].Refused || v.Posts[0].Committed || v.Posts[1].Refused || !v.Posts[1].Committed || v.Posts[2].BodyComplete {
		t.Errorf("account %+v", v)
	}
}

func TestEveryKindIsTested(t *testing.T) {
	source, err := os.ReadFile("sandbox_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for kind := range faultKinds {
		if !strings.Contains(string(source), `"kind":"`+kind+`"`) {
			t.Errorf("no test scripts a fault of kind %s", kind)
		}
	}
}

func TestHangEndsWhenTheClientLeaves(t *testing.T) {
	each(t, func(t *testing.T, proto string) {
		r := startSandbox(t)
		r.fault(`{"kind":"hang","commit":true}`)
		c := r.dial(proto)
		c.send(postOf(intentFor("a@example.com")))
		r.until("the intent is committed", func() bool { return r.summary().Intents == 1 })
		if v := r.account(); v.InProgress != 1 || v.Posts[0].Done || !v.Posts[0].Ended.IsZero() {
			t.Fatalf("account %+v", v)
		}
		c.close()
		r.until("the POST ended", func() bool { v := r.account(); return v.InProgress == 0 && v.Open == 0 })
		if p := r.account().Posts[0]; p.Status != 0 || !p.Committed {
			t.Errorf("post %+v", p)
		}
	})
}

func TestSecondAnswer(t *testing.T) {
	each(t, func(t *testing.T, proto string) {
		r := startSandbox(t)
		r.fault(`{"kind":"second_answer","times":1,"second_ms":1}`)
		c := r.dial(proto)
		g := r.exchange(c, postOf(intentFor("a@example.com")))
		g.expect(t, 201, "complete")
		if strings.Contains(g.body, "unsolicited") {
			t.Errorf("first answer %s", g.body)
		}
		if h1, ok := c.(*client1); ok {
			g = h1.receive() // a client that does not look takes it for the next person's answer
		} else {
			h2 := c.(*client2)
			h2.incoming[1] = &got{headers: map[string]string{}}
			h2.waiting = append(h2.waiting, 1)
			g = h2.receive()
		}
		g.expect(t, 201, "complete")
		if !strings.Contains(g.body, `"unsolicited"`) {
			t.Errorf("second answer %s", g.body)
		}
		r.exchange(c, postOf(intentFor("b@example.com"))).expect(t, 201, "complete")
		if v := r.summary(); v.Posts != 2 || v.Intents != 2 {
			t.Errorf("summary %+v", v)
		}
	})
}

func TestEarlyAnswersBeforeTheBody(t *testing.T) {
	each(t, func(t *testing.T, proto string) {
		r := startSandbox(t)
		r.fault(`{"kind":"early","status":401,"times":1}`)
		c := r.dial(proto)
		s := postOf(intentFor("a@example.com"))
		s.cut = len(s.body)
		r.exchange(c, s).expect(t, 401, "complete")
		if p := r.account().Posts[0]; p.BodyComplete || p.Status != 401 || p.Fault != "early" || p.Email != "" {
			t.Errorf("post %+v", p)
		}
	})
}

func TestBodyThatNeverComesCounts(t *testing.T) {
	each(t, func(t *testing.T, proto string) {
		r := startSandbox(t)
		c := r.dial(proto)
		s := postOf(intentFor("a@example.com"))
		s.cut = 10
		c.send(s)
		r.until("the POST is counted", func() bool { return r.summary().Posts == 1 })
		c.close()
		r.until("the POST ended", func() bool { return r.summary().InProgress == 0 })
		if p := r.account().Posts[0]; p.BodyComplete || p.Status != 0 || p.Committed {
			t.Errorf("post %+v", p)
		}
	})
}

func TestWholeBodyIsReadBeforeTheAnswer(t *testing.T) {
	each(t, func(t *testing.T, proto string) {
		r := startSandbox(t)
		c := r.dial(proto)
		s := postOf(intentFor("a@example.com"))
		s.headers = map[string]string{"authorization": "", "content-type": ""} // refused by its head alone
		s.cut = 1
		c.send(s)
		r.until("the POST is counted", func() bool { return r.summary().Posts == 1 })
		if v := r.summary(); v.InProgress != 1 {
			t.Errorf("answered before the body was there: %+v", v)
		}
		if h1, ok := c.(*client1); ok {
			_, _ = io.WriteString(h1.c, s.body[len(s.body)-1:])
		} else {
			_ = c.(*client2).fr.WriteData(1, true, []byte(s.body[len(s.body)-1:]))
		}
		c.receive().expect(t, 401, "complete")
	})
}

func TestContinueAndChunkedBodies(t *testing.T) {
	r := startSandbox(t)
	c := r.dial("http/1.1").(*client1)
	body := intentFor("a@example.com")
	head := "POST " + intentPath + " HTTP/1.1\r\nHost: localhost\r\nAuthorization: " + basicAuthorization("sandbox-client", "sandbox-secret") +
		"\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
	_, _ = io.WriteString(c.c, head)
	line, err := c.br.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
		t.Fatalf("%q, %v", line, err)
	}
	_, _ = c.br.ReadString('\n')
	_, _ = fmt.Fprintf(c.c, "%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	c.receive().expect(t, 201, "complete")
	if p := r.account().Posts[0]; p.Headers["Transfer-Encoding"] != "chunked" || p.Headers["Expect"] == "" || string(p.Body) != body {
		t.Errorf("post %+v", p) // a test of the gateway must be able to see chunking
	}
}

func TestBodyTooLarge(t *testing.T) {
	r := startSandbox(t)
	s := postOf(strings.Repeat(" ", maxBody+1))
	r.exchange(r.dial("http/1.1"), s).expect(t, 413, "complete")
}

func TestNthEveryAndTimes(t *testing.T) {
	r := startSandbox(t, "--attempt_limit=0")
	c := r.dial("h2")
	statuses := func(email string, n int) string {
		var all []string
		for i := 0; i < n; i++ {
			all = append(all, fmt.Sprint(r.exchange(c, postOf(intentFor(email))).status))
		}
		return strings.Join(all, " ")
	}
	expect := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	statuses("a@example.com", 2) // before the fault is added: not counted by it
	r.fault(`{"match":{"email":"a@example.com","nth":2},"kind":"status","status":500}`)
	expect("other e-mail", statuses("b@example.com", 3), "201 201 201")
	expect("nth", statuses("a@example.com", 4), "201 500 201 201")
	r.admin("DELETE", "/faults", "", nil)
	r.fault(`{"match":{"every":2},"kind":"status","status":502,"times":2}`)
	expect("every, twice", statuses("a@example.com", 7), "201 502 201 502 201 201 201")
	r.admin("DELETE", "/faults", "", nil)
	r.fault(`{"kind":"status","status":500,"times":1}`)
	r.fault(`{"match":{"nth":2},"kind":"status","status":501}`)
	r.fault(`{"kind":"status","status":503,"times":1}`)
	expect("the first that matches wins, and all count", statuses("a@example.com", 4), "500 501 503 201")
	r.fault(`{"kind":"status","status":500}`)
	expect("until deleted", statuses("a@example.com", 3), "500 500 500")
	r.admin("DELETE", "/faults", "", nil)
	expect("deleted", statuses("a@example.com", 1), "201")
}

func TestCommitStillValidates(t *testing.T) {
	r := startSandbox(t)
	r.fault(`{"kind":"status","status":500,"commit":true}`)
	c := r.dial("h2")
	r.exchange(c, postOf(`{"email":"a@example.com"}`)).expect(t, 500, "complete")
	for i := 0; i < 4; i++ {
		r.exchange(c, postOf(intentFor("a@example.com"))).expect(t, 500, "complete")
	}
	if v := r.summary(); v.Posts != 5 || v.Intents != 3 {
		t.Errorf("summary %+v", v)
	}
}

func TestDelay(t *testing.T) {
	each(t, func(t *testing.T, proto string) {
		r := startSandbox(t, "--delay=30ms")
		r.fault(`{"match":{"nth":2},"kind":"status","status":500,"delay_ms":40}`)
		c := r.dial(proto)
		for i, least := range []time.Duration{30 * time.Millisecond, 70 * time.Millisecond} {
			start := time.Now()
			r.exchange(c, postOf(intentFor("a@example.com"))).expect(t, []int{201, 500}[i], "complete")
			if took := time.Since(start); took < least {
				t.Errorf("answered after %v", took)
			}
		}
	})
}

func TestIntentExistsThoughTheClientLeft(t *testing.T) {
	each(t, func(t *testing.T, proto string) {
		r := startSandbox(t, "--delay=10m")
		c := r.dial(proto)
		c.send(postOf(intentFor("a@example.com")))
		r.until("the intent is committed", func() bool { return r.summary().Intents == 1 })
		if v := r.account(); v.InProgress != 1 || v.Posts[0].Status != 0 || v.Posts[0].Done {
			t.Errorf("account %+v", v)
		}
	})
}

func TestThousandsOfDelayedRequests(t *testing.T) {
	const connections, streams = 20, 250
	r := startSandbox(t, "--attempt_limit=0", "--keep_bodies=false")
	r.fault(`{"kind":"hang"}`)
	var all []client
	for i := 0; i < connections; i++ {
		c := r.dial("h2")
		all = append(all, c)
		for j := 0; j < streams; j++ {
			c.send(postOf(intentFor("a@example.com")))
		}
	}
	r.until("5000 at once", func() bool { return r.summary().InProgress == connections*streams })
	c := all[0]
	c.send(postOf(intentFor("a@example.com")))
	c.(*client2).waiting = []uint32{streams*2 + 1}
	c.receive().expect(t, 0, "rst_stream REFUSED_STREAM") // one more than SETTINGS_MAX_CONCURRENT_STREAMS; not counted
	v := r.summary()
	if v.Max != connections*streams || v.Posts != connections*streams || v.Opened != connections {
		t.Errorf("summary %+v", v)
	}
	r.admin("POST", "/drop_connections", "", nil)
	r.until("all gone", func() bool { v := r.summary(); return v.InProgress == 0 && v.Open == 0 })
}

func TestManyAtOnceOnOneConnection(t *testing.T) {
	r := startSandbox(t, "--delay=1ms", "--attempt_limit=0")
	c := r.dial("h2")
	for i := 0; i < 200; i++ {
		c.send(postOf(intentFor(fmt.Sprintf("p%d@example.com", i))))
	}
	ids := map[string]bool{}
	for i := 0; i < 200; i++ {
		g := c.receive()
		g.expect(t, 201, "complete")
		ids[g.body] = true
	}
	if v := r.summary(); len(ids) != 200 || v.Intents != 200 || v.Duplicates != 0 || len(v.ByEmail) != 200 {
		t.Errorf("%d ids, %d intents", len(ids), v.Intents)
	}
}

func TestConcurrentUseOfEverything(t *testing.T) { // for the race detector
	r := startSandbox(t, "--attempt_limit=0")
	r.fault(`{"match":{"every":7},"kind":"status","status":500,"commit":true}`)
	r.fault(`{"match":{"every":11},"kind":"huge_body","bytes":100000}`)
	var work sync.WaitGroup
	for i := 0; i < 6; i++ {
		c := r.dial(protos[i%2])
		work.Add(1)
		go func() {
			defer work.Done()
			for j := 0; j < 40; j++ {
				c.send(postOf(intentFor("a@example.com")))
				if g := c.receive(); g.end != "complete" {
					t.Errorf("end %s", g.end)
				}
			}
		}()
	}
	for i := 0; i < 20; i++ {
		r.account()
		r.summary()
	}
	work.Wait()
	if v := r.summary(); v.Posts != 240 || v.Duplicates != 239 {
		t.Errorf("summary %+v", v)
	}
}

func TestAccountFilterAndReset(t *testing.T) {
	r := startSandbox(t)
	c := r.dial("h2")
	r.exchange(c, postOf(intentFor("a@example.com")))
	r.exchange(c, postOf(intentFor("b@example.com")))
	var v accountView
	r.admin("GET", "/accounting?email=B@example.com", "", &v)
	if len(v.Posts) != 1 || len(v.Intents) != 1 || v.Posts[0].Seq != 2 || v.Intents[0].Email != "b@example.com" || !v.Posts[0].Reused {
		t.Errorf("filtered %+v", v)
	}
	r.fault(`{"kind":"hang"}`)
	c.send(postOf(intentFor("late@example.com")))
	r.until("it hangs", func() bool { return r.summary().InProgress == 1 })
	r.admin("POST", "/reset", "", nil)
	if s := r.summary(); s.Posts != 0 || s.Intents != 0 || s.Opened != 0 || s.Open != 1 || s.InProgress != 0 {
		t.Errorf("after the reset %+v", s)
	}
	c.(*client2).waiting = nil
	for i := 0; i < 3; i++ { // the attempts are forgotten, and so is the fault; the connection stays
		r.exchange(c, postOf(intentFor("a@example.com"))).expect(t, 201, "complete")
	}
	if v := r.account(); len(v.Posts) != 3 || v.Posts[0].Seq != 1 || !v.Posts[0].Reused {
		t.Errorf("account %+v", v)
	}
}

func TestListenerModes(t *testing.T) {
	r := startSandbox(t)
	open := r.dial("h2")
	mode := func(name string) {
		t.Helper()
		if status := r.admin("POST", "/listener", `{"mode":"`+name+`"}`, nil); status != 200 {
			t.Fatalf("mode %s answered %d", name, status)
		}
	}
	for round := 0; round < 3; round++ {
		mode("refuse")
		if c, err := net.Dial("tcp", r.s.front.address); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("refuse: %v %v", c, err)
		}
		if other, err := net.Listen("tcp", r.s.front.address); err == nil {
			_ = other.Close()
			t.Error("another process could take the port")
		}
		mode("refuse")
		mode("silent")
		c, err := net.Dial("tcp", r.s.front.address)
		if err != nil {
			t.Fatal(err)
		}
		r.until("the silent one is open", func() bool { return r.summary().Open == 2 })
		_, _ = c.Write([]byte("\x16\x03\x01"))
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); !os.IsTimeout(err) {
			t.Errorf("silent: %v", err)
		}
		_ = c.Close()
		r.until("the silent one is gone", func() bool { return r.summary().Open == 1 })
		mode("reset")
		_, err = tls.Dial("tcp", r.s.front.address, &tls.Config{RootCAs: r.roots, ServerName: "localhost"})
		if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("reset: %v", err)
		}
		mode("accept")
		r.exchange(r.dial("http/1.1"), postOf(intentFor(fmt.Sprintf("m%d@example.com", round)))).expect(t, 201, "complete")
		r.admin("POST", "/drop_connections", "", nil)
		r.until("all dropped", func() bool { return r.summary().Open == 0 })
		if round < 2 {
			open = r.dial("h2")
		}
	}
	open.send(postOf(intentFor("a@example.com")))
	if g := open.receive(); g.end == "complete" {
		t.Error("a dropped connection answered")
	}
	if status := r.admin("POST", "/listener", `{"mode":"sideways"}`, nil); status != 400 {
		t.Errorf("unknown mode answered %d", status)
	}
}

func TestOpenConnectionsOutliveRefuse(t *testing.T) {
	r := startSandbox(t)
	c := r.dial("h2")
	r.exchange(c, postOf(intentFor("a@example.com"))).expect(t, 201, "complete")
	r.admin("POST", "/listener", `{"mode":"refuse"}`, nil)
	r.exchange(c, postOf(intentFor("a@example.com"))).expect(t, 201, "complete")
}

func TestProtocolChoice(t *testing.T) {
	for _, test := range []struct{ flag, offered, chosen string }{
		{"auto", "h2", "h2"}, {"auto", "http/1.1", "http/1.1"}, {"1", "h2", ""}, {"1", "http/1.1", "http/1.1"}, {"2", "h2", "h2"}, {"2", "http/1.1", ""},
	} {
		r := startSandbox(t, "--http="+test.flag)
		c, err := tls.Dial("tcp", r.s.front.address, &tls.Config{RootCAs: r.roots, ServerName: "localhost", NextProtos: []string{test.offered}})
		chosen := ""
		if err == nil {
			chosen = c.ConnectionState().NegotiatedProtocol
			_ = c.Close()
		}
		if chosen != test.chosen {
			t.Errorf("--http=%s with %s: %q, %v", test.flag, test.offered, chosen, err)
		}
	}
}

func TestCertificatesAreKeptAndCoverTheNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made")
	first, caFile, err := selfSigned(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := selfSigned(dir)
	if err != nil || string(first.Certificate[0]) != string(again.Certificate[0]) {
		t.Errorf("a restart changed the certificate: %v", err)
	}
	if !stillGood(first, caFile) { // names and chain
		t.Error("the certificate does not verify")
	}
	if info, err := os.Stat(filepath.Join(dir, "server.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v %v", info, err)
	}
}

func TestBadFaultsAreRefused(t *testing.T) {
	r := startSandbox(t)
	for _, text := range []string{`{"kind":"nap"}`, `{}`, `{"kind":"status","statuss":500}`, `{"kind":"status","status":42}`, `{"kind":"raw","base64":"*"}`,
		`{"kind":"rst_stream","code":"NOPE"}`, `{"kind":"early","match":{"email":"a@b.c"}}`, `{"kind":"status","headers":{"a":"b\r\nc"}}`,
		`{"kind":"delay","times":-1}`, `{"kind":"delay"}{}`, `{"kind":"delay","match":{"nth":1,"every":1}}`, `nonsense`} {
		if status := r.admin("POST", "/faults", text, nil); status != 400 {
			t.Errorf("%s answered %d", text, status)
		}
	}
	var id struct{ ID int }
	if r.admin("POST", "/faults", `{"kind":"delay"}`, &id); id.ID != 1 {
		t.Errorf("id %d", id.ID)
	}
	for path, want := range map[string]int{"/healthz": 200, "/nowhere": 404, "/reset": 405} {
		if status := r.admin("GET", path, "", nil); status != want {
			t.Errorf("%s answered %d", path, status)
		}
	}
}

func TestBadFlagsAreRefused(t *testing.T) {
	for _, args := range [][]string{{"--http=3"}, {"--error_shape=xml"}, {"--limit_error=x"}, {"--delay=-1s"}, {"stray"}, {"--nonsense"}, {"--client_id_file=/nonexistent"}} {
		if _, err := parseOptions(args); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
	o, err := parseOptions(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := start(o); err == nil || !strings.Contains(err.Error(), "--self_signed_dir") {
		t.Errorf("started without a certificate: %v", err)
	}
}

func TestAccessLogHoldsNoPersonalData(t *testing.T) {
	r := startSandbox(t, "--access_log")
	var log lockedBuffer
	r.s.sb.logMu.Lock()
	r.s.sb.log = &log
	r.s.sb.logMu.Unlock()
	c := r.dial("h2")
	r.exchange(c, postOf(intentFor("ann@example.com"))).expect(t, 201, "complete")
	s := postOf(intentFor("ann@example.com"))
	s.path = "/v1/ann@example.com"
	r.exchange(c, s).expect(t, 404, "complete")
	r.until("two lines", func() bool { return strings.Count(log.String(), "\n") == 2 })
	for _, line := range strings.Split(strings.TrimSpace(log.String()), "\n") {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
	for _, private := range []string{"ann", "Edmund", "Example", "1234\"", "555777", "Palo", "8.8.8.8", "Basic"} {
		if strings.Contains(log.String(), private) {
			t.Errorf("%q is in the log: %s", private, log.String())
		}
	}
}

type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func TestFlowControlIsObeyed(t *testing.T) {
	const size = 200000
	r := startSandbox(t)
	r.fault(fmt.Sprintf(`{"kind":"huge_body","bytes":%d}`, size))
	c := r.dial("h2").(*client2)
	c.send(postOf(intentFor("a@example.com")))
	received, window, ended := 0, 65535, false
	pinged := false
	for !ended {
		frame, err := c.fr.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch f := frame.(type) {
		case *http2.DataFrame:
			received += len(f.Data())
			ended = f.StreamEnded()
			if received > window {
				t.Fatalf("%d bytes in a window of %d", received, window)
			}
			if received == window && !pinged { // the answer to a ping shows that nothing was queued beyond the window
				pinged = true
				_ = c.fr.WritePing(false, [8]byte{})
			}
		case *http2.PingFrame:
			pinged = false
			window += 50000
			_ = c.fr.WriteWindowUpdate(0, 50000)
			_ = c.fr.WriteWindowUpdate(1, 50000)
		}
	}
	if received != size {
		t.Errorf("%d bytes", received)
	}
}
