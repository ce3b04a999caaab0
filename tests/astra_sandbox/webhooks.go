package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// webhookSettings is where webhooks go, as POST /webhooks takes it.
type webhookSettings struct {
	URL            string `json:"url"`             // "": nowhere
	CAFile         string `json:"ca_file"`         // PEM; "": the system's
	Secret         string `json:"secret"`          // "": the client secret
	PreviousSecret string `json:"previous_secret"` // of the key "previous"
	Form           string `json:"form"`            // "": python
	Automatic      *bool  `json:"automatic"`       // null: true; false: only POST /webhooks/send sends
	RetryMs        int    `json:"retry_ms"`        // until the second try, doubled for each further one; 0: --webhook_retry
	Retries        *int   `json:"retries"`         // null: 10
	TimeoutMs      int    `json:"timeout_ms"`      // of one try; 0: 10000
	Connections    int    `json:"connections"`     // at most so many; 0: 16
}

const (
	wrongSecret    = "not-the-secret"
	previousSecret = "sandbox-previous-secret"
	maxRetryPause  = 6 * time.Hour
)

// event is a reason for a webhook.
type event struct {
	intentID, email, status string
	metadata                json.RawMessage
}

// try is one POST of a webhook.
type try struct {
	Sent   time.Time `json:"sent"`
	Status int       `json:"status"` // 0: no answer
	Ms     float64   `json:"ms"`
	Error  string    `json:"error"`
}

// deliveryView is the account of one webhook, or of a copy of one, from its reason to its last try.
type deliveryView struct {
	WebhookID string `json:"webhook_id"`
	Copy      int    `json:"copy"` // 0: the first; the duplicates and the replay have the same webhook_id
	Type      string `json:"webhook_type"`
	IntentID  string `json:"intent_id"`   // the one it is about
	Resource  string `json:"resource_id"` // as it says
	AttemptID string `json:"attempt_id"`  // as it says
	Status    string `json:"status"`      // that gave the reason
	Key       string `json:"key"`
	Form      string `json:"form"`
	Fault     int    `json:"fault"` // 0: none
	Lost      bool   `json:"lost"`
	Done      bool   `json:"done"` // lost, answered with 200, or given up
	Tries     []try  `json:"tries"`
	Body      string `json:"body"`
}

// delivery is one POST to make, and to make again. The view's Lost, Done and Tries are guarded by webhooks.mu, all else is fixed.
type delivery struct {
	deliveryView
	body      []byte
	signature *string
	byteMs    int
	once      sync.Once
	tried     chan struct{} // closed after the first try, or when there is none
}

func (d *delivery) firstTried() { d.once.Do(func() { close(d.tried) }) }

// round is what a reset throws away: the account of webhooks, and those that are still to be sent.
type round struct {
	ctx    context.Context
	cancel context.CancelFunc
	list   []*delivery
	faults []*webhookFault
	held   map[string][]*delivery // by intent: these wait for the next one (reorder)
}

func newRound() *round {
	r := &round{held: map[string][]*delivery{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// webhooks sends them and keeps their account. Safe for every goroutine. Each delivery has a goroutine of its own, so there is no order
// between them.
type webhooks struct {
	secret    string // the client secret
	newID     func() string
	retry     time.Duration
	keep      bool
	automatic int32 // 1: events are sent; read without the lock

	mu        sync.Mutex
	settings  webhookSettings
	client    *http.Client
	slow      *http.Client // a connection for each slow body
	round     *round
	nextFault int
}

func newWebhooks(cfg config, newID func() string) (*webhooks, error) {
	w := &webhooks{secret: cfg.clientSecret, newID: newID, retry: cfg.webhookRetry, keep: cfg.keepBodies, round: newRound()}
	return w, w.set(webhookSettings{URL: cfg.webhookURL, CAFile: cfg.webhookCA})
}

// on says whether events are sent at all.
func (w *webhooks) on() bool { return atomic.LoadInt32(&w.automatic) == 1 }

// set replaces the settings; what is under way keeps the earlier ones.
func (w *webhooks) set(s webhookSettings) error {
	if s.URL != "" {
		if to, err := url.Parse(s.URL); err != nil || to.Host == "" || to.Scheme != "http" && to.Scheme != "https" {
			return errors.New("url is not http:// or https://")
		}
	}
	retries, automatic := 10, true
	if s.Retries == nil {
		s.Retries = &retries
	}
	if s.Automatic == nil {
		s.Automatic = &automatic
	}
	if s.RetryMs < 0 || *s.Retries < 0 || *s.Retries > 100 || s.TimeoutMs < 0 || s.Connections < 0 {
		return errors.New("a number is out of range")
	}
	for _, one := range []struct {
		into *string
		to   string
	}{{&s.Secret, w.secret}, {&s.PreviousSecret, previousSecret}, {&s.Form, "python"}} {
		if *one.into == "" {
			*one.into = one.to
		}
	}
	if !webhookForms[s.Form] {
		return fmt.Errorf("unknown form %q", s.Form)
	}
	if s.RetryMs == 0 {
		s.RetryMs = int(w.retry / time.Millisecond)
	}
	if s.TimeoutMs == 0 {
		s.TimeoutMs = 10000
	}
	if s.Connections == 0 {
		s.Connections = 16
	}
	client, err := s.client(s.Connections)
	if err != nil {
		return err
	}
	slow, err := s.client(0)
	if err != nil {
		return err
	}
	slow.Transport.(*http.Transport).DisableKeepAlives = true
	w.mu.Lock()
	w.settings, w.client, w.slow = s, client, slow
	w.mu.Unlock()
	on := int32(0)
	if s.URL != "" && *s.Automatic {
		on = 1
	}
	atomic.StoreInt32(&w.automatic, on)
	return nil
}

// client speaks HTTP/1.1, takes no proxy from the environment and follows no redirect.
func (s *webhookSettings) client(connections int) (*http.Client, error) {
	transport := &http.Transport{MaxConnsPerHost: connections, MaxIdleConnsPerHost: connections, IdleConnTimeout: time.Minute,
		DisableCompression: true, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	if s.CAFile != "" {
		text, err := os.ReadFile(s.CAFile)
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(text) {
			return nil, errors.New("ca_file holds no certificate")
		}
	}
	return &http.Client{Transport: transport, Timeout: time.Duration(s.TimeoutMs) * time.Millisecond,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil
}

// reset forgets the account and the faults, and drops what is still to be sent. The settings stay.
func (w *webhooks) reset() {
	w.mu.Lock()
	old := w.round
	w.round = newRound()
	w.mu.Unlock()
	old.cancel()
}

func (w *webhooks) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.round.cancel()
}

// notify sends the webhook of an event. The channel that it returns, unless it is nil, is closed once the first try is over: a POST's own
// answer waits for it.
func (w *webhooks) notify(e *event) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	var how wish
	id := 0
	for _, f := range w.round.faults {
		if f.matches(e) && id == 0 {
			f.fired++
			how, id = f.wish, f.id
		}
	}
	first := w.begin(e, how, id)
	if how.BeforeAnswer {
		return first.tried
	}
	return nil
}

// send sends one that was asked for, and returns its account.
func (w *webhooks) send(e *event, how wish) (*delivery, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.settings.URL == "" {
		return nil, errors.New("no url is set")
	}
	return w.begin(e, how, 0), nil
}

// begin starts a webhook and its copies; mu is held.
func (w *webhooks) begin(e *event, how wish, fault int) *delivery {
	first := w.make(e, how)
	first.Fault = fault
	add := func(d *delivery) { w.round.list = append(w.round.list, d) }
	copyOf := func(number int) *delivery {
		d := &delivery{deliveryView: first.deliveryView, body: first.body, signature: first.signature, byteMs: first.byteMs,
			tried: make(chan struct{})}
		d.Copy = number
		add(d)
		return d
	}
	add(first)
	earlier := w.round.held[e.intentID]
	if !how.Reorder && !how.Lose {
		delete(w.round.held, e.intentID)
	}
	switch {
	case how.Lose:
		first.Lost, first.Done = true, true
		first.firstTried()
		return first
	case how.Reorder:
		w.round.held[e.intentID] = append(earlier, first)
	default:
		go w.deliver(w.round.ctx, first, time.Duration(how.DelayMs)*time.Millisecond, earlier)
	}
	for i := 1; i <= how.Duplicate; i++ {
		go w.deliver(w.round.ctx, copyOf(i), time.Duration(how.DelayMs)*time.Millisecond, nil)
	}
	if how.ReplayMs > 0 {
		go w.deliver(w.round.ctx, copyOf(how.Duplicate+1), time.Duration(how.DelayMs+how.ReplayMs)*time.Millisecond, nil)
	}
	return first
}

// make writes and signs a webhook; mu is held.
func (w *webhooks) make(e *event, how wish) *delivery {
	d := &delivery{byteMs: how.ByteMs, tried: make(chan struct{}), deliveryView: deliveryView{WebhookID: how.WebhookID, Type: how.Type,
		IntentID: e.intentID, Resource: how.ResourceID, Status: e.status, Key: how.Key, Form: how.Form, Tries: []try{}}}
	for _, one := range []struct {
		into *string
		to   func() string
	}{
		{&d.WebhookID, w.newID}, {&d.Type, func() string { return "user_intent_updated" }}, {&d.Resource, func() string { return e.intentID }},
		{&d.Key, func() string { return "current" }}, {&d.Form, func() string { return w.settings.Form }},
	} {
		if *one.into == "" {
			*one.into = one.to()
		}
	}
	var metadata, whole objectWriter
	keep := func(name string, value []byte) {
		if name == "gateway_attempt_id" && how.AttemptID != nil {
			return
		}
		metadata.member(name, value)
	}
	_ = eachMember(e.metadata, keep)
	_ = eachMember(how.Metadata, keep)
	if how.AttemptID != nil && *how.AttemptID != "" {
		metadata.member("gateway_attempt_id", quoted(*how.AttemptID))
	}
	whole.member("webhook_type", quoted(d.Type))
	whole.member("webhook_id", quoted(d.WebhookID))
	whole.member("user_id", quoted(d.Resource)) // Astra's user_intent_updated names the intent in both
	whole.member("resource_id", quoted(d.Resource))
	if metadata.Len() > 0 {
		whole.member("metadata", metadata.object())
		_ = eachMember(metadata.object(), func(name string, value []byte) {
			if name == "gateway_attempt_id" {
				d.AttemptID, _ = jsonString(value)
			}
		})
	}
	_ = eachMember(how.Extra, whole.member)
	body, signed := writeWebhook(whole.object(), d.Form)
	if how.Body != nil {
		body, signed = []byte(*how.Body), []byte(*how.Body)
	}
	if w.keep {
		d.Body = string(body)
	}
	d.body, d.signature = body, how.Signature
	if d.signature == nil {
		made := signature(map[string]string{"current": w.settings.Secret, "previous": w.settings.PreviousSecret, "wrong": wrongSecret}[d.Key], signed)
		d.signature = &made
	}
	return d
}

// deliver tries until the answer is 200, as Astra does. `then` waited for its first try.
func (w *webhooks) deliver(ctx context.Context, d *delivery, delay time.Duration, then []*delivery) {
	w.mu.Lock()
	settings, client := w.settings, w.client
	if d.byteMs > 0 {
		client = w.slow
	}
	w.mu.Unlock()
	pause := time.Duration(settings.RetryMs) * time.Millisecond
	defer d.firstTried()
	for number := 0; number <= *settings.Retries; number++ {
		if !sleep(ctx, delay) {
			return
		}
		t := d.post(ctx, settings.URL, client)
		ok := t.Status == http.StatusOK
		w.mu.Lock()
		d.Tries = append(d.Tries, t)
		d.Done = ok || number == *settings.Retries
		w.mu.Unlock()
		d.firstTried()
		for _, held := range then {
			go w.deliver(ctx, held, 0, nil)
		}
		then = nil
		if ok {
			return
		}
		delay = pause
		if pause *= 2; pause > maxRetryPause {
			pause = maxRetryPause
		}
	}
}

// sleep says whether the time has passed; false: the round is over.
func sleep(ctx context.Context, long time.Duration) bool {
	timer := time.NewTimer(long)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (d *delivery) post(ctx context.Context, to string, client *http.Client) try {
	t := try{Sent: time.Now().UTC()}
	var body io.Reader = bytes.NewReader(d.body)
	if d.byteMs > 0 {
		body = &slowReader{text: d.body, pause: time.Duration(d.byteMs) * time.Millisecond}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to, body)
	if err == nil {
		request.ContentLength = int64(len(d.body))
		request.Header.Set("Content-Type", "application/json")
		if *d.signature != "" {
			request.Header.Set("Astra-Verification", *d.signature)
		}
		var answer *http.Response
		if answer, err = client.Do(request); err == nil {
			t.Status = answer.StatusCode
			_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<20))
			_ = answer.Body.Close()
		}
	}
	if err != nil {
		t.Error = err.Error()
	}
	t.Ms = float64(time.Since(t.Sent).Microseconds()) / 1000
	return t
}

// slowReader gives a byte at a time.
type slowReader struct {
	text  []byte
	pause time.Duration
}

func (r *slowReader) Read(into []byte) (int, error) {
	if len(r.text) == 0 {
		return 0, io.EOF
	}
	time.Sleep(r.pause)
	into[0], r.text = r.text[0], r.text[1:]
	return 1, nil
}
