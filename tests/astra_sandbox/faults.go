package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/net/http2"
)

// fault is one scripted failure, as POST /faults takes it. It does not change once it is added, but for its counters.
type fault struct {
	Match struct {
		Method   string `json:"method"` // POST (also ""), GET
		Email    string `json:"email"`
		IntentID string `json:"intent_id"`
		Nth      int    `json:"nth"`
		Every    int    `json:"every"`
	} `json:"match"`
	Times       int               `json:"times"`
	Kind        string            `json:"kind"`
	DelayMs     int               `json:"delay_ms"`
	Commit      bool              `json:"commit"`
	IntentID    string            `json:"intent_id"`
	Status      int               `json:"status"`
	Body        json.RawMessage   `json:"body"`
	ContentType string            `json:"content_type"`
	Headers     map[string]string `json:"headers"`
	Code        string            `json:"code"`
	Below       bool              `json:"below"`
	ByteMs      int               `json:"byte_ms"`
	Bytes       int               `json:"bytes"`
	Location    string            `json:"location"`
	Base64      string            `json:"base64"`
	Keep        bool              `json:"keep"`
	SecondMs    int               `json:"second_ms"`

	id    int
	email string
	code  http2.ErrCode
	raw   []byte
	seen  int // requests that matched method, e-mail and intent since it was added
	fired int
}

var faultKinds = map[string]bool{
	"delay": true, "status": true, "html": true, "cut_body": true, "cut_head": true, "close": true, "reset": true,
	"hang": true, "rst_stream": true, "goaway": true, "slow_body": true, "huge_body": true, "redirect": true,
	"garbage": true, "raw": true, "second_answer": true, "early": true,
}

var errCodes = func() map[string]http2.ErrCode {
	codes := map[string]http2.ErrCode{}
	for code := http2.ErrCodeNo; code <= http2.ErrCodeHTTP11Required; code++ {
		codes[code.String()] = code
	}
	return codes
}()

const maxHugeBody = 64 << 20

func decodeStrict(r io.Reader, into interface{}) error {
	decoder := json.NewDecoder(r)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return errors.New("more than one JSON value")
	}
	return nil
}

// parseFault refuses what it does not know, so that a misspelt fault fails the test instead of never firing.
func parseFault(r io.Reader) (*fault, error) {
	f := &fault{}
	if err := decodeStrict(r, f); err != nil {
		return nil, err
	}
	if !faultKinds[f.Kind] {
		return nil, fmt.Errorf("unknown kind %q", f.Kind)
	}
	if f.Match.Nth < 0 || f.Match.Every < 0 || f.Times < 0 || f.DelayMs < 0 || f.ByteMs < 0 || f.SecondMs < 0 {
		return nil, errors.New("a number is negative")
	}
	if f.Match.Nth > 0 && f.Match.Every > 0 {
		return nil, errors.New("nth and every exclude each other")
	}
	if f.Status != 0 && (f.Status < 200 || f.Status > 999) {
		return nil, errors.New("status is not 200 to 999")
	}
	if f.Bytes < 0 || f.Bytes > maxHugeBody {
		return nil, fmt.Errorf("bytes is not 0 to %d", maxHugeBody)
	}
	if f.IntentID != "" && !utf8.ValidString(f.IntentID) {
		return nil, errors.New("intent_id is not UTF-8")
	}
	switch f.Match.Method {
	case http.MethodPost, "":
		f.Match.Method = http.MethodPost
		if f.Match.IntentID != "" {
			return nil, errors.New("a POST names no intent to match")
		}
	case http.MethodGet:
		if f.Commit || f.Kind == "early" {
			return nil, errors.New("a GET creates nothing and has no body: no commit, no early")
		}
	default:
		return nil, errors.New("method is not POST or GET")
	}
	f.email = strings.ToLower(f.Match.Email)
	switch f.Kind {
	case "rst_stream":
		if f.Code == "" {
			f.Code = "INTERNAL_ERROR"
		}
		code, known := errCodes[f.Code]
		if !known {
			return nil, fmt.Errorf("unknown code %q", f.Code)
		}
		f.code = code
	case "huge_body":
		if f.Bytes == 0 {
			f.Bytes = 1 << 20
		}
	case "raw":
		raw, err := base64.StdEncoding.DecodeString(f.Base64)
		if err != nil {
			return nil, errors.New("base64 does not decode")
		}
		f.raw = raw
	case "early":
		if f.email != "" || f.Commit {
			return nil, errors.New("early acts before the body is read: no e-mail, no commit")
		}
	}
	for name, value := range f.Headers {
		if name == "" || strings.ContainsAny(name, " \t\r\n:") || strings.ContainsAny(value, "\r\n") {
			return nil, errors.New("a header is malformed")
		}
	}
	return f, nil
}

// bodyText gives the body parameter: a JSON string stands for its text, anything else for its own JSON.
func (f *fault) bodyText() ([]byte, bool) {
	if len(f.Body) == 0 || bytes.Equal(f.Body, []byte("null")) {
		return nil, false
	}
	if text, isString := jsonString(f.Body); isString {
		return []byte(text), true
	}
	return f.Body, true
}

// faultList is safe for every goroutine.
type faultList struct {
	mu     sync.Mutex
	list   []*fault
	nextID int
}

func (l *faultList) add(f *fault) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nextID++
	f.id = l.nextID
	l.list = append(l.list, f)
	return f.id
}

func (l *faultList) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = nil
}

type faultView struct {
	ID     int    `json:"id"`
	Kind   string `json:"kind"`
	Method string `json:"method"`
	Seen   int    `json:"seen"`
	Fired  int    `json:"fired"`
}

func (l *faultList) view() []faultView {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]faultView, 0, len(l.list))
	for _, f := range l.list {
		all = append(all, faultView{f.id, f.Kind, f.Match.Method, f.seen, f.fired})
	}
	return all
}

// atHead finds a fault that acts before the body is read; atBody finds every other one. Each request is counted once by each fault
// of its method.
func (l *faultList) atHead() *fault { return l.pick(http.MethodPost, true, "", "") }

func (l *faultList) atBody(email string) *fault {
	return l.pick(http.MethodPost, false, strings.ToLower(email), "")
}

// ofGet takes the e-mail address of the intent that is asked for, "" where there is no such intent.
func (l *faultList) ofGet(intentID, email string) *fault {
	return l.pick(http.MethodGet, false, strings.ToLower(email), intentID)
}

func (l *faultList) pick(method string, early bool, email, intentID string) *fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	var picked *fault
	for _, f := range l.list {
		if f.Match.Method != method || (f.Kind == "early") != early || (f.email != "" && f.email != email) ||
			(f.Match.IntentID != "" && f.Match.IntentID != intentID) {
			continue
		}
		f.seen++
		fires := (f.Match.Nth == 0 || f.seen == f.Match.Nth) && (f.Match.Every == 0 || f.seen%f.Match.Every == 0)
		if picked == nil && fires && (f.Times == 0 || f.fired < f.Times) {
			f.fired++
			picked = f
		}
	}
	return picked
}
