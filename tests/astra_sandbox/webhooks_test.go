package main

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestWebhookFormsAreCPythons(t *testing.T) {
	// Written by CPython 3.11: json.dumps(value) and json.dumps(value, ensure_ascii=False, separators=(",", ":")).
	const dumped = `{"k": "a\"\\/<&>'\n\r\t\b\f\u0000\u001f\u007f\u0080\u00e9\u2028\ud7ff\ufffd\ud83d\ude00\udbff\udfff ~", "o": {"a": "", "b": [1, null]}, "e": {}}`
	const compact = `{"k":"a\"\\/<&>'\n\r\t\b\f\u0000\u001f` + "\x7f\u0080é\u2028\ud7ff\ufffd😀\U0010ffff" + ` ~","o":{"a":"","b":[1,null]},"e":{}}`
	for _, text := range []string{dumped, compact, "\n" + strings.ReplaceAll(dumped, ", ", " ,\t")} {
		if !json.Valid([]byte(text)) {
			t.Fatalf("not JSON: %s", text)
		}
		if got := string(rewriteJSON([]byte(text), true)); got != dumped {
			t.Errorf("python\n%s\n%s", got, dumped)
		}
		if got := string(rewriteJSON([]byte(text), false)); got != compact {
			t.Errorf("compact\n%s\n%s", got, compact)
		}
	}
	// printf '{"a": "b"}' | openssl dgst -sha256 -hmac sandbox-secret -binary | base64
	if got := signature("sandbox-secret", []byte(`{"a": "b"}`)); got != "u7kklKMscSgsEixgtwJU2HfWxX8AD/O9aLkw+nW1QMo=" {
		t.Errorf("signature %s", got)
	}
}

// arrival is what the receiver saw of one POST.
type arrival struct {
	body, signature string
	took            time.Duration
	at              time.Time
}

// receiver stands in for the gateway's door: it answers as `answer` says, 200 unless told.
type receiver struct {
	*running
	url    string
	mu     sync.Mutex
	seen   []arrival
	answer func(number int) int
}

func (w *receiver) ServeHTTP(out http.ResponseWriter, in *http.Request) {
	begun := time.Now()
	body, _ := io.ReadAll(in.Body)
	w.mu.Lock()
	w.seen = append(w.seen, arrival{string(body), in.Header.Get("Astra-Verification"), time.Since(begun), begun})
	number, answer := len(w.seen), w.answer
	w.mu.Unlock()
	if in.Method != "POST" || in.URL.Path != "/hooks" || in.Header.Get("Content-Type") != "application/json" || in.ContentLength != int64(len(body)) {
		w.Errorf("%s %s %v", in.Method, in.URL, in.Header)
	}
	if answer != nil {
		out.WriteHeader(answer(number))
	}
}

// receive starts a receiver and has the webhooks sent there; settings are further members.
func receive(r *running, settings string) *receiver {
	r.Helper()
	w := &receiver{running: r}
	server := httptest.NewServer(w)
	r.Cleanup(server.Close)
	w.url = server.URL + "/hooks"
	w.set(`{"url":"` + w.url + `"` + settings + `}`)
	return w
}

func (r *running) set(settings string) {
	r.Helper()
	if status := r.admin("POST", "/webhooks", settings, nil); status != 200 {
		r.Fatalf("refused with %d: %s", status, settings)
	}
}

func (r *running) webhookFault(text string) {
	r.Helper()
	if status := r.admin("POST", "/webhooks/faults", text, nil); status != 200 {
		r.Fatalf("refused with %d: %s", status, text)
	}
}

func (r *running) deliveries() []deliveryView {
	r.Helper()
	var v struct{ Webhooks []deliveryView }
	r.admin("GET", "/webhooks", "", &v)
	return v.Webhooks
}

// wait waits until so many POSTs have arrived and returns them.
func (w *receiver) wait(count int) []arrival {
	w.Helper()
	w.until("the webhooks", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.seen) >= count })
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]arrival(nil), w.seen...)
}

// settled waits until nothing is under way and returns the account.
func (w *receiver) settled(count int) []deliveryView {
	w.Helper()
	var all []deliveryView
	w.until("the end of all deliveries", func() bool {
		all = w.deliveries()
		done := len(all) >= count
		for _, d := range all {
			done = done && d.Done
		}
		return done
	})
	return all
}

type payload struct {
	Type     string            `json:"webhook_type"`
	ID       string            `json:"webhook_id"`
	UserID   string            `json:"user_id"`
	Resource string            `json:"resource_id"`
	Metadata map[string]string `json:"metadata"`
}

func (w *receiver) payload(a arrival) payload {
	w.Helper()
	var p payload
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		w.Fatalf("%v: %s", err, a.body)
	}
	return p
}

func TestWebhooksOfALife(t *testing.T) {
	each(t, func(t *testing.T, proto string) {
		w := receive(startSandbox(t, "--pending_for=24h"), "")
		c := w.dial(proto)
		id := w.create(c, intentFor("a@example.com"))
		w.wait(1)
		w.script(`{"id":"` + id + `","steps":[{"status":"pending","reads":1},{"status":"document"}]}`) // no news
		w.read(c, id)                                                                                  // moves on
		w.wait(2)
		w.script(`{"id":"` + id + `","status":"document"}`)
		w.script(`{"email":"A@example.com","status":"converted_to_user","user_id":"u-1"}`)
		seen := w.wait(3)
		all := w.settled(3)
		if len(all) != 3 || all[0].Status != "pending" || all[1].Status != "document" || all[2].Status != "converted_to_user" {
			t.Fatalf("account %+v", all)
		}
		ids := map[string]bool{}
		for i, d := range all {
			p := w.payload(seen[i])
			ids[p.ID] = true
			if p.Type != "user_intent_updated" || p.Resource != id || p.UserID != id || len(p.Metadata) != 1 ||
				p.Metadata["gateway_attempt_id"] != "attempt-a@example.com" {
				t.Errorf("payload %+v", p)
			}
			if d.IntentID != id || d.Resource != id || d.AttemptID != "attempt-a@example.com" || d.Key != "current" || d.Form != "python" ||
				d.Fault != 0 || d.Lost || len(d.Tries) != 1 || d.Tries[0].Status != 200 || d.Tries[0].Ms < 0 || d.Body == "" {
				t.Errorf("account %+v", d)
			}
		}
		if len(ids) != 3 {
			t.Error("an id of a webhook is used twice")
		}
	})
}

func TestWebhooksFollowTheClock(t *testing.T) {
	w := receive(startSandbox(t, "--pending_for=20ms"), "")
	c := w.dial("h2")
	w.create(c, strings.Replace(intentFor("a@example.com"), `"Example"`, `"Retry"`, 1))
	w.wait(2)
	if all := w.settled(2); all[0].Status != "pending" || all[1].Status != "retry" || all[0].WebhookID == all[1].WebhookID {
		t.Errorf("account %+v", all)
	}
}

func TestWebhookWithoutMetadata(t *testing.T) {
	w := receive(startSandbox(t, "--pending_for=24h"), "")
	body := strings.Replace(intentFor("a@example.com"), `,"metadata":{"gateway_attempt_id":"attempt-a@example.com"}`, "", 1)
	w.create(w.dial("h2"), body)
	if seen := w.wait(1); strings.Contains(seen[0].body, "metadata") {
		t.Errorf("body %s", seen[0].body)
	}
}

func TestWebhookFormsAndKeys(t *testing.T) {
	w := receive(startSandbox(t, "--pending_for=24h"), `,"previous_secret":"older"`)
	for _, test := range []struct{ form, key, secret string }{
		{"python", "current", "sandbox-secret"}, {"raw", "previous", "older"}, {"compact", "wrong", "not-the-secret"},
	} {
		w.mu.Lock()
		w.seen = nil
		w.mu.Unlock()
		var d deliveryView
		status := w.admin("POST", "/webhooks/send", `{"intent_id":"i","wait":true,"metadata":{"n":"Zoë"},"form":"`+test.form+`","key":"`+test.key+`"}`, &d)
		if status != 200 || len(d.Tries) != 1 || d.Form != test.form || d.Key != test.key {
			t.Fatalf("%d %+v", status, d)
		}
		one := w.wait(1)[0]
		dumped := `{"webhook_type": "user_intent_updated", "webhook_id": "` + d.WebhookID + `", "user_id": "i", "resource_id": "i", "metadata": {"n": "Zo\u00eb"}}`
		compact := `{"webhook_type":"user_intent_updated","webhook_id":"` + d.WebhookID + `","user_id":"i","resource_id":"i","metadata":{"n":"Zoë"}}`
		wantBody, wantSigned := compact, compact
		if test.form == "python" {
			wantBody = dumped
		}
		if test.form != "raw" {
			wantSigned = dumped
		}
		if one.body != wantBody || one.signature != signature(test.secret, []byte(wantSigned)) {
			t.Errorf("%s: %s %s", test.form, one.signature, one.body)
		}
	}
}

func TestWebhooksAreTriedAgain(t *testing.T) {
	w := receive(startSandbox(t, "--pending_for=24h", "--webhook_retry=1ms"), `,"retries":3`)
	w.answer = func(number int) int { return []int{503, 204, 302, 500, 200}[number-1] }
	w.create(w.dial("h2"), intentFor("a@example.com"))
	all := w.settled(1)
	if len(all) != 1 || len(all[0].Tries) != 4 || all[0].Tries[1].Status != 204 || all[0].Tries[3].Status != 500 {
		t.Fatalf("account %+v", all)
	}
	seen := w.wait(4)
	if seen[0].body != seen[3].body {
		t.Error("a repeat differs")
	}
	if gap := seen[3].at.Sub(seen[2].at); gap < 4*time.Millisecond {
		t.Errorf("the distance is not doubled: %v", gap)
	}
	var v webhookSummary
	if w.admin("GET", "/webhooks/summary", "", &v); v.Webhooks != 1 || v.GivenUp != 1 || v.Sent != 0 || v.Tries != 4 || v.ByStatus["204"] != 1 {
		t.Errorf("summary %+v", v)
	}
}

func TestWebhookIsTriedAgainAfterATimeout(t *testing.T) {
	w := receive(startSandbox(t, "--pending_for=24h", "--webhook_retry=1ms"), `,"timeout_ms":50`)
	w.answer = func(number int) int {
		if number == 1 {
			time.Sleep(time.Second)
		}
		return 200
	}
	w.create(w.dial("h2"), intentFor("a@example.com"))
	all := w.settled(1)
	if last := len(all[0].Tries) - 1; last < 1 || all[0].Tries[0].Status != 0 || all[0].Tries[0].Error == "" || all[0].Tries[last].Status != 200 {
		t.Errorf("account %+v", all)
	}
}

func TestWebhookFaults(t *testing.T) {
	w := receive(startSandbox(t, "--pending_for=24h"), "")
	c := w.dial("h2")
	for _, fault := range []string{
		`{"match":{"email":"Lost@example.com"},"times":1,"lose":true}`,
		`{"match":{"email":"two@example.com"},"duplicate":2}`,
		`{"match":{"email":"again@example.com"},"replay_ms":50}`,
		`{"match":{"email":"late@example.com","status":"pending"},"delay_ms":50}`,
		`{"match":{"email":"slow@example.com"},"byte_ms":1}`,
		`{"match":{"email":"odd@example.com"},"type":"new_kind","webhook_id":"w-1","resource_id":"other","attempt_id":"other-attempt",` +
			`"metadata":{"k":"é"},"extra":{"more":[1],"resource_id":"third"},"key":"previous","form":"raw"}`,
		`{"match":{"email":"bare@example.com"},"attempt_id":""}`,
		`{"match":{"email":"text@example.com"},"body":"{not json","signature":"none of Astra's"}`,
		`{"match":{"email":"unsigned@example.com"},"signature":""}`,
		`{"match":{"email":"nth@example.com","nth":2},"lose":true}`,
	} {
		w.webhookFault(fault)
	}
	about := func(email string, count int) (arrivals []arrival, all []deliveryView) {
		t.Helper()
		w.mu.Lock()
		w.seen = nil
		w.mu.Unlock()
		before := len(w.deliveries())
		begun := time.Now()
		w.create(c, intentFor(email))
		arrivals = w.wait(count)
		for i := range arrivals {
			arrivals[i].at = time.Time{}.Add(arrivals[i].at.Sub(begun))
		}
		return arrivals, w.settled(before + count)[before:]
	}
	if _, all := about("lost@example.com", 0); len(all) != 1 || !all[0].Lost || len(all[0].Tries) != 0 || all[0].Fault != 1 {
		t.Errorf("lost %+v", all)
	}
	if _, all := about("lost@example.com", 1); len(all) != 1 || all[0].Lost {
		t.Errorf("times %+v", all)
	}
	if seen, all := about("two@example.com", 3); len(all) != 3 || seen[0].body != seen[2].body || all[0].WebhookID != all[2].WebhookID || all[2].Copy != 2 {
		t.Errorf("duplicate %+v", all)
	}
	if seen, all := about("again@example.com", 2); len(all) != 2 || seen[0].body != seen[1].body || all[1].Copy != 1 {
		t.Errorf("replay %+v", all)
	}
	if seen, _ := about("late@example.com", 1); seen[0].at.Before(time.Time{}.Add(50 * time.Millisecond)) {
		t.Error("not late")
	}
	if seen, all := about("slow@example.com", 1); len(all) != 1 || seen[0].took < 100*time.Millisecond {
		t.Errorf("slow %v", seen[0].took)
	}
	seen, all := about("odd@example.com", 1)
	want := `{"webhook_type":"new_kind","webhook_id":"w-1","user_id":"other","resource_id":"other",` +
		`"metadata":{"k":"é","gateway_attempt_id":"other-attempt"},"more":[1],"resource_id":"third"}`
	if seen[0].body != want || seen[0].signature != signature(previousSecret, []byte(want)) || all[0].AttemptID != "other-attempt" {
		t.Errorf("odd %s", seen[0].body)
	}
	if seen, _ := about("bare@example.com", 1); strings.Contains(seen[0].body, "metadata") {
		t.Errorf("bare %s", seen[0].body)
	}
	if seen, _ := about("text@example.com", 1); seen[0].body != "{not json" || seen[0].signature != "none of Astra's" {
		t.Errorf("text %+v", seen[0])
	}
	if seen, _ := about("unsigned@example.com", 1); seen[0].signature != "" {
		t.Errorf("unsigned %+v", seen[0])
	}
	about("nth@example.com", 1)
	if _, all := about("nth@example.com", 0); !all[0].Lost {
		t.Errorf("nth %+v", all)
	}
	var faults struct{ Faults []webhookFaultView }
	w.admin("GET", "/webhooks/faults", "", &faults)
	if len(faults.Faults) != 10 || faults.Faults[0] != (webhookFaultView{1, 2, 1}) || faults.Faults[9] != (webhookFaultView{10, 2, 1}) {
		t.Errorf("faults %+v", faults)
	}
}

func TestWebhookBeforeTheAnswer(t *testing.T) {
	each(t, func(t *testing.T, proto string) {
		w := receive(startSandbox(t, "--pending_for=24h"), "")
		w.webhookFault(`{"before_answer":true}`)
		arrived := make(chan struct{})
		release := make(chan struct{})
		w.answer = func(int) int { close(arrived); <-release; return 200 }
		c := w.dial(proto)
		c.send(postOf(intentFor("a@example.com")))
		<-arrived
		if v := w.account(); len(v.Posts) != 1 || v.Posts[0].Done {
			t.Errorf("answered before the webhook: %+v", v.Posts)
		}
		close(release)
		c.receive().expect(t, 201, "complete")
		if all := w.settled(1); all[0].Tries[0].Status != 200 {
			t.Errorf("account %+v", all)
		}
	})
}

func TestWebhooksInTheWrongOrder(t *testing.T) {
	w := receive(startSandbox(t, "--pending_for=24h"), "")
	w.webhookFault(`{"match":{"status":"pending"},"reorder":true}`)
	c := w.dial("h2")
	id := w.create(c, intentFor("a@example.com"))
	other := w.create(c, intentFor("b@example.com"))
	w.script(`{"id":"` + other + `","status":"approved"}`)
	w.wait(2)
	w.script(`{"id":"` + id + `","status":"approved"}`)
	seen := w.wait(4)
	all := w.settled(4)
	if all[0].Status != "pending" || w.payload(seen[3]).ID != all[0].WebhookID || w.payload(seen[1]).ID != all[1].WebhookID {
		t.Errorf("account %+v, arrived %+v", all, seen)
	}
}

func TestWebhooksOverHTTPS(t *testing.T) {
	r := startSandbox(t, "--pending_for=24h", "--webhook_retry=1ms")
	w := &receiver{running: r}
	cert, caFile, err := selfSigned(filepath.Join(t.TempDir(), "door"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(w)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	w.set(`{"url":"` + server.URL + `/hooks","ca_file":"` + caFile + `"}`)
	c := w.dial("h2")
	w.create(c, intentFor("a@example.com"))
	w.wait(1)
	w.set(`{"url":"` + server.URL + `/hooks","ca_file":"` + r.s.Line.CAFile + `","retries":0}`) // another CA
	w.create(c, intentFor("b@example.com"))
	if all := w.settled(2); all[0].Tries[0].Status != 200 || all[1].Tries[0].Status != 0 || all[1].Tries[0].Error == "" {
		t.Errorf("account %+v", all)
	}
}

func TestWebhookSettings(t *testing.T) {
	w := receive(startSandbox(t, "--pending_for=24h"), `,"automatic":false`)
	c := w.dial("h2")
	id := w.create(c, intentFor("a@example.com"))
	w.script(`{"id":"` + id + `","status":"retry"}`)
	var d deliveryView
	if status := w.admin("POST", "/webhooks/send", `{"intent_id":"`+id+`","duplicate":1,"wait":true}`, &d); status != 200 || d.Status != "retry" ||
		d.AttemptID != "attempt-a@example.com" || len(d.Tries) != 1 {
		t.Errorf("%d %+v", status, d)
	}
	if all := w.settled(2); len(all) != 2 || all[0].IntentID != id {
		t.Errorf("account %+v", all)
	}
	var one struct{ Webhooks []deliveryView }
	if w.admin("GET", "/webhooks?intent_id=nobody", "", &one); len(one.Webhooks) != 0 {
		t.Errorf("account %+v", one)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{`{"url":"ftp://x/"}`, `{"url":"x"}`, `{"form":"xml"}`, `{"retries":-1}`, `{"retry_ms":-1}`, `{"timeout_ms":-1}`,
		`{"connections":-1}`, `{"ca_file":"` + empty + `"}`, `{"ca_file":"` + empty + `x"}`, `{"other":1}`} {
		if status := w.admin("POST", "/webhooks", bad, nil); status != 400 {
			t.Errorf("%d for %s", status, bad)
		}
	}
	for _, bad := range []string{`{"key":"x"}`, `{"form":"x"}`, `{"duplicate":-1}`, `{"duplicate":1001}`, `{"delay_ms":-1}`, `{"metadata":[]}`,
		`{"extra":"x"}`, `{"lose":true,"duplicate":1}`, `{"reorder":true,"before_answer":true}`, `{"times":-1}`, `{"match":{"nth":1,"every":1}}`,
		`{"match":{"nth":-1}}`, `{"what":1}`, `{`} {
		if status := w.admin("POST", "/webhooks/faults", bad, nil); status != 400 {
			t.Errorf("%d for %s", status, bad)
		}
	}
	for _, bad := range []string{`{"lose":true}`, `{"reorder":true}`, `{"before_answer":true}`, `{"match":{}}`, `{"form":"x"}`} {
		if status := w.admin("POST", "/webhooks/send", bad, nil); status != 400 {
			t.Errorf("%d for %s", status, bad)
		}
	}
	w.set(`{}`)
	if status := w.admin("POST", "/webhooks/send", `{}`, nil); status != 400 {
		t.Errorf("%d without a url", status)
	}
}

func TestResetDropsWebhooks(t *testing.T) {
	w := receive(startSandbox(t, "--pending_for=24h"), "")
	w.webhookFault(`{"delay_ms":3600000}`)
	c := w.dial("h2")
	w.create(c, intentFor("a@example.com"))
	var v webhookSummary
	if w.admin("GET", "/webhooks/summary", "", &v); v.Waiting != 1 || v.Webhooks != 1 {
		t.Errorf("summary %+v", v)
	}
	w.admin("POST", "/reset", "", nil)
	if all := w.deliveries(); len(all) != 0 {
		t.Errorf("account %+v", all)
	}
	w.create(c, intentFor("a@example.com")) // the faults are gone, the settings are not
	w.wait(1)
	w.webhookFault(`{"lose":true}`)
	w.admin("DELETE", "/webhooks/faults", "", nil)
	w.create(c, intentFor("a@example.com"))
	if seen := w.wait(2); w.payload(seen[1]).Metadata["gateway_attempt_id"] == "" {
		t.Errorf("arrived %+v", seen)
	}
}

func TestWebhookFlags(t *testing.T) {
	seen := make(chan struct{}, 9)
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { seen <- struct{}{} }))
	t.Cleanup(server.Close)
	r := startSandbox(t, "--webhook_url="+server.URL, "--pending_for=24h")
	r.create(r.dial("h2"), intentFor("a@example.com"))
	select {
	case <-seen:
	case <-time.After(patience):
		t.Error("no webhook")
	}
	o, err := parseOptions([]string{"--listen=127.0.0.1:0", "--admin_listen=127.0.0.1:0", "--self_signed_dir=" + t.TempDir(), "--webhook_url=x"})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := start(o); err == nil {
		s.stop()
		t.Error("started with a wrong --webhook_url")
	}
}
