package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// create makes an intent and gives its id.
func (r *running) create(c client, body string) string {
	r.Helper()
	g := r.exchange(c, postOf(body))
	var created struct{ ID string }
	if err := json.Unmarshal([]byte(g.body), &created); g.status != 201 || err != nil || created.ID == "" {
		r.Fatalf("%d %q", g.status, g.body)
	}
	return created.ID
}

func getOf(id string) sent { return sent{method: "GET", path: intentPath + "/" + url.PathEscape(id)} }

// read is a GET that must be answered with an intent.
func (r *running) read(c client, id string) intentAnswer {
	r.Helper()
	g := r.exchange(c, getOf(id))
	var answer intentAnswer
	if err := json.Unmarshal([]byte(g.body), &answer); g.status != 200 || g.end != "complete" || err != nil {
		r.Fatalf("%d %q %q", g.status, g.end, g.body)
	}
	return answer
}

func (r *running) script(text string) {
	r.Helper()
	if status := r.admin("POST", "/intent", text, nil); status != 200 {
		r.Fatalf("refused with %d: %s", status, text)
	}
}

func TestGetAnswersWhatAstraShows(t *testing.T) {
	each(t, func(t *testing.T, proto string) {
		r := startSandbox(t, "--pending_for=24h")
		c := r.dial(proto)
		body := strings.Replace(intentFor("a@example.com"), `"city"`,
			`"preferred_first_name":"Ed","preferred_last_name":"Ex","preferred_pronouns":"They/Them","kyc_type":"unverified","city"`, 1)
		id := r.create(c, body)
		g := r.exchange(c, getOf(id))
		g.expect(t, 200, "complete")
		want := `{"id":"` + id + `","email":"a@example.com","phone":"+15557771234","first_name":"Edmund","last_name":"Example",` +
			`"preferred_first_name":"Ed","preferred_last_name":"Ex","preferred_pronouns":"They/Them","status":"pending","kyc_type":"unverified",` +
			`"metadata":{"gateway_attempt_id":"attempt-a@example.com"}}`
		if g.body != want || g.headers["content-type"] != "application/json" || g.headers["request-id"] == "" {
			t.Errorf("%v %s", g.headers, g.body)
		}
	})
}

func TestGetRefusals(t *testing.T) {
	each(t, func(t *testing.T, proto string) {
		r := startSandbox(t)
		c := r.dial(proto)
		id := r.create(c, intentFor("a@example.com"))
		with := func(name, value string) sent {
			s := getOf(id)
			s.headers = map[string]string{name: value}
			return s
		}
		for _, test := range []struct {
			s      sent
			status int
		}{
			{getOf(id), 200}, {with("accept", ""), 200}, {getOf("nobody"), 404}, {getOf(id + "x"), 404},
			{with("authorization", ""), 401}, {with("authorization", basicAuthorization("sandbox-client", "other")), 401},
			{with("accept", "text/html"), 406},
			{sent{method: "GET", path: intentPath}, 405}, {sent{method: "GET", path: intentPath + "/"}, 404},
			{sent{method: "GET", path: intentPath + "/a/" + id}, 404}, {sent{method: "GET", path: intentPath + "/.."}, 404},
			{sent{method: "GET", path: "/v1/user"}, 404}, {sent{method: "GET", path: intentPath + "/" + id + "?x=1"}, 200},
		} {
			if g := r.exchange(c, test.s); g.status != test.status {
				t.Errorf("%+v answered %d", test.s, g.status)
			}
		}
		v := r.account()
		if len(v.Posts) != 1 || len(v.Gets) != 13 {
			t.Errorf("%d POSTs and %d GETs", len(v.Posts), len(v.Gets))
		}
		for _, s := range []sent{{method: "DELETE", path: intentPath + "/" + id}, {method: "PUT", path: intentPath}} {
			r.exchange(c, s).expect(t, 405, "complete")
		}
		if len(r.account().Gets) != 13 {
			t.Error("another method counts as a GET")
		}
	})
}

func TestGetsAreCountedApart(t *testing.T) {
	each(t, func(t *testing.T, proto string) {
		r := startSandbox(t)
		c := r.dial(proto)
		a, b := r.create(c, intentFor("a@example.com")), r.create(c, intentFor("b@example.com"))
		r.fault(`{"match":{"method":"GET","intent_id":"` + b + `"},"kind":"status","status":503,"times":2}`)
		for _, id := range []string{a, b, b, b, "nobody"} {
			r.exchange(c, getOf(id))
		}
		v := r.summary()
		same := func(got map[string]int, want map[string]int) bool { return fmt.Sprint(got) == fmt.Sprint(want) }
		if v.Posts != 2 || v.Gets != 5 || !same(v.GetsByIntent, map[string]int{a: 1, b: 3, "nobody": 1}) ||
			!same(v.GetsByFault, map[string]int{"": 3, "status": 2}) || !same(v.GetsByStatus, map[string]int{"200": 2, "404": 1, "503": 2}) ||
			v.GetsInProg != 0 || v.MaxGets != 1 || v.Max != 1 || v.ByStatus["201"] != 2 || len(v.ByStatus) != 1 {
			t.Errorf("summary %+v", v)
		}
		var faults struct{ Faults []faultView }
		r.admin("GET", "/faults", "", &faults)
		if len(faults.Faults) != 1 || faults.Faults[0] != (faultView{1, "status", "GET", 3, 2}) {
			t.Errorf("faults %+v", faults)
		}
		var of accountView
		r.admin("GET", "/accounting?intent_id="+b, "", &of)
		if len(of.Gets) != 3 || len(of.Posts) != 1 || len(of.Intents) != 1 {
			t.Errorf("of one intent %+v", of)
		}
		r.admin("GET", "/accounting?email=A@example.com", "", &of)
		if len(of.Gets) != 1 || len(of.Posts) != 1 {
			t.Errorf("of one address %+v", of)
		}
		g := of.Gets[0]
		want := map[string]string{"h2": "HTTP/2.0", "http/1.1": "HTTP/1.1"}[proto]
		if g.Seq != 1 || g.IntentID != a || g.Path != intentPath+"/"+a || g.Proto != want || !g.Reused || !g.AuthorizationOK || g.Status != 200 ||
			g.Fault != "" || g.Refused || !g.Done || string(g.Body) != `""` || g.Headers["Accept"] != "application/json" || g.Arrived.IsZero() {
			t.Errorf("get %+v", g)
		}
		if _, shown := g.Headers["Authorization"]; shown {
			t.Error("the credentials are in the account")
		}
		r.admin("POST", "/reset", "", nil)
		if v := r.summary(); v.Gets != 0 || len(v.GetsByIntent) != 0 {
			t.Errorf("after the reset %+v", v)
		}
		r.exchange(c, getOf(a)).expect(t, 404, "complete")
	})
}

func TestAnIdOfAnyCharactersIsOneSegment(t *testing.T) {
	each(t, func(t *testing.T, proto string) {
		r := startSandbox(t, "--attempt_limit=0")
		c := r.dial(proto)
		for _, id := range []string{"a/b", "100%", "%2F", "a?b=c", "a#b", "..", ".", "\u00fc\u4e2d", "a b", `q"\`, strings.Repeat("i", 256), "-._~:@!$&'()*+,;="} {
			text, _ := json.Marshal(id)
			r.fault(`{"kind":"delay","times":1,"intent_id":` + string(text) + `}`)
			if got := r.create(c, intentFor("a@example.com")); got != id {
				t.Fatalf("created %q for %q", got, id)
			}
			path := ""
			for i := 0; i < len(id); i++ { // every byte escaped: dots, too
				path += fmt.Sprintf("%%%02X", id[i])
			}
			g := r.exchange(c, sent{method: "GET", path: intentPath + "/" + path})
			var answer intentAnswer
			if err := json.Unmarshal([]byte(g.body), &answer); g.status != 200 || err != nil || answer.ID != id {
				t.Errorf("%q: %d %s", id, g.status, g.body)
			}
			var v accountView
			r.admin("GET", "/accounting?intent_id="+url.QueryEscape(id), "", &v)
			if len(v.Gets) != 1 || v.Gets[0].Path != intentPath+"/"+path {
				t.Errorf("%q: %+v", id, v.Gets)
			}
		}
	})
}

func TestScriptedStatuses(t *testing.T) {
	r := startSandbox(t, "--pending_for=0")
	c := r.dial("h2")
	id := r.create(c, intentFor("a@example.com"))
	seen := func(n int) string {
		t.Helper()
		var all []string
		for i := 0; i < n; i++ {
			a := r.read(c, id)
			all = append(all, a.Status+"/"+a.UserID+"/"+a.KycType)
		}
		return strings.Join(all, " ")
	}
	expect := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	expect(seen(1), "approved//verified")
	r.script(`{"id":"` + id + `","status":"document"}`)
	expect(seen(2), "document//verified document//verified")
	r.script(`{"id":"` + id + `","steps":[{"status":"pending","reads":2},{"status":"approved","reads":1,"kyc_type":"unverified"},
		{"status":"converted_to_user","user_id":"u 1","reads":1},{"status":"suspended"}]}`)
	r.fault(`{"match":{"method":"GET"},"kind":"status","status":500,"times":1}`)
	r.exchange(c, getOf(id)).expect(t, 500, "complete") // moves nothing on
	expect(seen(6), "pending//verified pending//verified approved//unverified converted_to_user/u 1/unverified suspended/u 1/unverified suspended/u 1/unverified")
	r.script(`{"id":"` + id + `","steps":[{"status":"approved","reads":3}]}`)
	expect(seen(4), strings.TrimSpace(strings.Repeat("approved/u 1/unverified ", 4))) // the last step stays, whatever its reads

	other := r.create(c, intentFor("a@example.com"))
	third := r.create(c, intentFor("b@example.com"))
	var changed struct{ Intents int }
	if status := r.admin("POST", "/intent", `{"email":"A@example.com","status":"converted_to_user"}`, &changed); status != 200 || changed.Intents != 2 {
		t.Errorf("%d, %d intents", status, changed.Intents)
	}
	if a, b := r.read(c, id), r.read(c, other); a.UserID != "u 1" || !strings.HasPrefix(b.UserID, "user-") || b.Status != "converted_to_user" {
		t.Errorf("%+v %+v", a, b)
	}
	if a := r.read(c, third); a.Status != "approved" || a.UserID != "" {
		t.Errorf("%+v", a)
	}
	for _, text := range []string{`{}`, `{"id":"` + id + `"}`, `{"status":"approved"}`, `{"id":"x","email":"a@example.com","status":"a"}`,
		`{"id":"nobody","status":"approved"}`, `{"id":"` + id + `","status":"a","steps":[{"status":"b"}]}`, `{"id":"` + id + `","steps":[]}`,
		`{"id":"` + id + `","steps":[{"status":"a"},{"status":"b"}]}`, `{"id":"` + id + `","steps":[{"status":"a","reads":-1}]}`,
		`{"id":"` + id + `","steps":[{"status":"","reads":1}]}`, `{"id":"` + id + `","state":"a"}`} {
		if status := r.admin("POST", "/intent", text, nil); status != 400 {
			t.Errorf("%s answered %d", text, status)
		}
	}
}

// TestGetFaults checks what a raw client sees, and what the account says, for every kind that a GET can meet.
func TestGetFaults(t *testing.T) {
	raw := base64.StdEncoding.EncodeToString([]byte("HTTP/1.1 299 Odd\r\nContent-Length: 2\r\n\r\nhi"))
	type expectation struct {
		status int
		end    string
		body   string // must be contained; $ID is the intent's, $OTHER another's
		got    int    // status in the account
	}
	same := func(e expectation) [2]expectation { return [2]expectation{e, e} }
	tests := []struct {
		fault string
		want  [2]expectation // h2, HTTP/1.1
	}{
		{`{"kind":"delay","delay_ms":1}`, same(expectation{200, "complete", `"id":"$ID"`, 200})},
		{`{"kind":"delay","intent_id":"stranger"}`, same(expectation{200, "complete", `{"id":"stranger","email":"fault`, 200})},
		{`{"kind":"delay","intent_id":"$OTHER"}`, same(expectation{200, "complete", `{"id":"$OTHER","email":"first`, 200})},
		{`{"kind":"status","status":429,"headers":{"Retry-After":"7"}}`, same(expectation{429, "complete", `"code":429`, 429})},
		{`{"kind":"status","status":503,"body":"plain","content_type":"text/plain"}`, same(expectation{503, "complete", "plain", 503})},
		{`{"kind":"status"}`, same(expectation{500, "complete", `"code":500`, 500})},
		{`{"kind":"status","status":200,"body":{"status":"pending"}}`, same(expectation{200, "complete", `{"status":"pending"}`, 200})},
		{`{"kind":"status","status":200}`, same(expectation{200, "complete", `{"id":"$ID","email":"fault`, 200})},
		{`{"kind":"status","status":203,"intent_id":"$OTHER"}`, same(expectation{203, "complete", `{"id":"$OTHER","email":"first`, 203})},
		{`{"kind":"status","status":204}`, same(expectation{204, "complete", "", 204})},
		{`{"kind":"html","status":200}`, same(expectation{200, "complete", "<h1>200", 200})},
		{`{"kind":"cut_body"}`, same(expectation{200, "eof", `{"id":"$ID"`, 200})},
		{`{"kind":"cut_body","status":404}`, same(expectation{404, "eof", `{"code":404`, 404})},
		{`{"kind":"cut_head"}`, [2]expectation{{200, "eof", "", 200}, {0, "eof", "", 200}}},
		{`{"kind":"close"}`, same(expectation{0, "eof", "", 0})},
		{`{"kind":"reset"}`, same(expectation{0, "reset", "", 0})},
		{`{"kind":"rst_stream"}`, [2]expectation{{0, "rst_stream INTERNAL_ERROR", "", 0}, {0, "reset", "", 0}}},
		{`{"kind":"rst_stream","code":"REFUSED_STREAM"}`, [2]expectation{{0, "rst_stream REFUSED_STREAM", "", 0}, {0, "reset", "", 0}}},
		{`{"kind":"goaway"}`, [2]expectation{{0, "goaway 5 NO_ERROR", "", 0}, {0, "eof", "", 0}}},
		{`{"kind":"goaway","below":true}`, [2]expectation{{0, "goaway 3 NO_ERROR", "", 0}, {0, "eof", "", 0}}},
		{`{"kind":"slow_body","byte_ms":1}`, same(expectation{200, "complete", `"id":"$ID"`, 200})},
		{`{"kind":"huge_body","bytes":300000}`, same(expectation{200, "complete", `{"id": "$ID"`, 200})},
		{`{"kind":"redirect","status":307}`, same(expectation{307, "complete", "", 307})},
		{`{"kind":"garbage"}`, same(expectation{0, "unparsable", "", 0})},
		{`{"kind":"raw","base64":"` + raw + `"}`, [2]expectation{{0, "unparsable", "", 0}, {299, "complete", "hi", 299}}},
		{`{"kind":"second_answer","second_ms":10000}`, same(expectation{200, "complete", `"id":"$ID"`, 200})},
	}
	for i, proto := range protos {
		i, proto := i, proto
		t.Run(proto, func(t *testing.T) {
			r := startSandbox(t)
			for n, test := range tests {
				r.admin("POST", "/reset", "", nil)
				c := r.dial(proto)
				other := r.create(c, intentFor("first@example.com"))
				email := fmt.Sprintf("fault%d@example.com", n)
				id := r.create(c, intentFor(email))
				names := strings.NewReplacer("$ID", id, "$OTHER", other)
				match := []string{`"email":"` + strings.ToUpper(email) + `"`, `"intent_id":"` + id + `"`}[n%2]
				fault := names.Replace(strings.Replace(test.fault, "{", `{"times":1,"match":{"method":"GET",`+match+`},`, 1))
				r.fault(fault)
				want := test.want[i]
				g := r.exchange(c, getOf(id))
				g.expect(t, want.status, want.end)
				if !strings.Contains(g.body, names.Replace(want.body)) {
					t.Errorf("%s: body %.100q", fault, g.body)
				}
				switch {
				case strings.Contains(fault, "Retry-After") && g.headers["retry-after"] != "7",
					strings.Contains(fault, "redirect") && g.headers["location"] != intentPath+"/"+id,
					strings.Contains(fault, "huge") && (len(g.body) != 300000 || !json.Valid([]byte(g.body))):
					t.Errorf("%s: %v, %d bytes", fault, g.headers, len(g.body))
				}
				v := r.account()
				if len(v.Gets) != 1 || len(v.Posts) != 2 || len(v.Intents) != 2 {
					t.Fatalf("%s: account %+v", fault, v)
				}
				got := v.Gets[0]
				if !strings.Contains(test.fault, `"`+got.Fault+`"`) || got.Status != want.got || got.IntentID != id || !got.Done || !got.Reused ||
					got.Refused != (proto == "h2" && (strings.Contains(fault, "REFUSED") || strings.Contains(fault, "below"))) {
					t.Errorf("%s: account %+v", fault, got)
				}
				if (want.end == "complete" || strings.HasPrefix(want.end, "rst_stream")) && !strings.Contains(fault, `"raw"`) {
					if a := r.read(c, id); a.ID != id || a.Email != email {
						t.Errorf("%s: afterwards %+v", fault, a)
					}
				}
				c.close()
			}
		})
	}
}

func TestAPostFaultLeavesGetsAlone(t *testing.T) {
	r := startSandbox(t)
	c := r.dial("h2")
	id := r.create(c, intentFor("a@example.com"))
	r.fault(`{"kind":"status","status":500,"match":{"email":"a@example.com"}}`)
	r.fault(`{"kind":"status","status":502,"match":{"method":"GET","nth":2}}`)
	r.exchange(c, getOf(id)).expect(t, 200, "complete")
	r.exchange(c, postOf(intentFor("a@example.com"))).expect(t, 500, "complete")
	r.exchange(c, getOf(id)).expect(t, 502, "complete") // the second GET, not the third request
	r.exchange(c, getOf(id)).expect(t, 200, "complete")
}

func TestAGetThatHangs(t *testing.T) {
	each(t, func(t *testing.T, proto string) {
		r := startSandbox(t)
		c := r.dial(proto)
		id := r.create(c, intentFor("a@example.com"))
		r.fault(`{"match":{"method":"GET"},"kind":"hang"}`)
		c.send(getOf(id))
		r.until("it hangs", func() bool { return r.summary().GetsByFault["hang"] == 1 })
		if v := r.account(); v.GetsInProg != 1 || v.InProgress != 0 || v.Gets[0].Done {
			t.Fatalf("account %+v", v)
		}
		c.close()
		r.until("the GET ended", func() bool { return r.account().GetsInProg == 0 })
		if g := r.account().Gets[0]; g.Status != 0 || !g.Done {
			t.Errorf("get %+v", g)
		}
	})
}

func TestGetDelay(t *testing.T) {
	each(t, func(t *testing.T, proto string) {
		r := startSandbox(t, "--get_delay=30ms")
		c := r.dial(proto)
		id := r.create(c, intentFor("a@example.com"))
		start := time.Now()
		r.read(c, id)
		if took := time.Since(start); took < 30*time.Millisecond {
			t.Errorf("answered after %v", took)
		}
	})
}

func TestBadGetFaultsAreRefused(t *testing.T) {
	r := startSandbox(t)
	for _, text := range []string{`{"kind":"status","match":{"method":"PUT"}}`, `{"kind":"status","match":{"method":"get"}}`,
		`{"kind":"status","match":{"intent_id":"x"}}`, `{"kind":"status","commit":true,"match":{"method":"GET"}}`,
		`{"kind":"early","match":{"method":"GET"}}`} {
		if status := r.admin("POST", "/faults", text, nil); status != 400 {
			t.Errorf("%s answered %d", text, status)
		}
	}
}

func TestConcurrentReads(t *testing.T) { // for the race detector
	r := startSandbox(t, "--attempt_limit=0", "--access_log")
	var log lockedBuffer
	r.s.sb.logMu.Lock()
	r.s.sb.log = &log
	r.s.sb.logMu.Unlock()
	id := r.create(r.dial("h2"), intentFor("ann@example.com"))
	r.fault(`{"match":{"method":"GET","every":7},"kind":"status","status":500}`)
	r.fault(`{"match":{"method":"GET","every":11},"kind":"huge_body","bytes":100000}`)
	var work sync.WaitGroup
	for i := 0; i < 6; i++ {
		c := r.dial(protos[i%2])
		work.Add(1)
		go func() {
			defer work.Done()
			for j := 0; j < 40; j++ {
				c.send(getOf(id))
				if g := c.receive(); g.end != "complete" {
					t.Errorf("end %s", g.end)
				}
			}
		}()
	}
	for i := 0; i < 20; i++ {
		r.script(`{"id":"` + id + `","steps":[{"status":"pending","reads":3},{"status":"converted_to_user"}]}`)
		r.account()
		r.summary()
	}
	work.Wait()
	if v := r.summary(); v.Gets != 240 || v.GetsByFault["status"] != 34 {
		t.Errorf("summary %+v", v)
	}
	r.until("241 lines", func() bool { return strings.Count(log.String(), "\n") == 241 })
	if strings.Count(log.String(), `"get_seq":`) != 240 || strings.Contains(log.String(), "ann") || strings.Contains(log.String(), id) {
		t.Error("the access log")
	}
}
