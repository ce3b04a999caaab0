package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// step is one stretch of an intent's life, as the admin call POST /intent takes it.
type step struct {
	Status  string `json:"status"`
	UserID  string `json:"user_id"`  // "": as before
	KycType string `json:"kyc_type"` // "": as before
	Reads   int    `json:"reads"`    // GETs that are answered so; 0: every one from here on
}

// review is where an intent stands. Guarded by account.mu.
type review struct {
	steps   []step // the first one is in force; none: the clock and the last name decide
	userID  string
	kycType string // "": as the POST asked for
}

const maxSteps = 1000

// intentAnswer is Astra's answer to GET /v1/user_intent/{id}, in the order of its fields.
type intentAnswer struct {
	ID             string          `json:"id"`
	UserID         string          `json:"user_id,omitempty"`
	Email          string          `json:"email"`
	Phone          string          `json:"phone"`
	FirstName      string          `json:"first_name"`
	LastName       string          `json:"last_name"`
	PreferredFirst string          `json:"preferred_first_name,omitempty"`
	PreferredLast  string          `json:"preferred_last_name,omitempty"`
	Pronouns       string          `json:"preferred_pronouns,omitempty"`
	Status         string          `json:"status"`
	KycType        string          `json:"kyc_type"`
	Metadata       json.RawMessage `json:"metadata,omitempty"`
}

// pathOf is the path of a request target, not decoded and without the query.
func pathOf(target string) string {
	if i := strings.IndexByte(target, '?'); i >= 0 {
		return target[:i]
	}
	return target
}

// intentOf gives the id of the intent that a path names: one segment, percent-decoded.
func intentOf(r *request) (string, bool) {
	segment := strings.TrimPrefix(r.path, intentPath+"/")
	if segment == r.path || segment == "" || strings.Contains(segment, "/") {
		return "", false
	}
	id, err := url.PathUnescape(segment)
	if err != nil || segment == "." || segment == ".." { // a server resolves dot segments before it looks for the resource
		return "", false
	}
	return id, true
}

// decideGet says what to do with a GET that has arrived in full.
func (s *sandbox) decideGet(r *request, body []byte) action {
	g := r.entry
	s.received(g, body, true)
	f := s.faults.ofGet(g.intentID, g.account.emailOf(g))
	act := action{delay: s.cfg.getDelay, fault: f}
	if f == nil {
		act.answer = s.read(r, "")
		return act
	}
	s.note(g, f)
	act.kind = f.Kind
	act.delay += time.Duration(f.DelayMs) * time.Millisecond
	switch f.Kind {
	case "delay", "slow_body", "second_answer": // the normal answer, oddly delivered
		act.answer = s.read(r, f.IntentID)
		return act
	}
	status := failureStatus[f.Kind]
	if status == 0 {
		status = http.StatusOK
	}
	id := f.IntentID
	if id == "" {
		id = g.intentID
	}
	success := s.jsonAnswer(http.StatusOK, createdBody(id)).body
	if normal, found := g.account.peek(g.intentID, f.IntentID, s.statusByClock); found {
		success = normal
	}
	act.answer = s.scriptedAnswer(f, status, r.target, id, success)
	return act
}

// read answers a GET. otherID: whose data, or failing that which id, the answer holds instead.
func (s *sandbox) read(r *request, otherID string) answer {
	g := r.entry
	switch {
	case r.path == intentPath:
		return s.errorAnswer(http.StatusMethodNotAllowed, "The method is not allowed for the requested URL")
	case g.intentID == "":
		return s.errorAnswer(http.StatusNotFound, "The requested URL was not found on the server")
	case !s.authorized(r):
		return s.errorAnswer(http.StatusUnauthorized, "Invalid client_id")
	case !acceptsJSON(r.accept):
		return s.errorAnswer(http.StatusNotAcceptable, "Only JSON is served")
	}
	body, found := g.account.read(g.intentID, otherID, s.statusByClock)
	s.noticed(g.account, g.intentID)
	if otherID != "" {
		s.noticed(g.account, otherID)
	}
	if !found {
		return s.errorAnswer(http.StatusNotFound, "The user intent was not found")
	}
	return s.jsonAnswer(http.StatusOK, body)
}

// statusByClock is the status of an intent without a script.
func (s *sandbox) statusByClock(in *intent) string {
	if time.Since(in.created) < s.cfg.pendingFor {
		return "pending"
	}
	switch in.person.LastName {
	case "Rejected", "Retry", "Document":
		return strings.ToLower(in.person.LastName)
	}
	return "approved"
}

// script gives intents their next steps: POST /intent.
func (s *sandbox) script(r io.Reader) (int, error) {
	var want struct {
		ID    string `json:"id"`
		Email string `json:"email"`
		step
		Steps []step `json:"steps"`
	}
	if err := decodeStrict(r, &want); err != nil {
		return 0, err
	}
	if (want.ID == "") == (want.Email == "") {
		return 0, errors.New("exactly one of id and email is required")
	}
	if (want.step != step{}) {
		if want.Steps != nil {
			return 0, errors.New("steps and the fields of one step exclude each other")
		}
		want.Steps = []step{want.step}
	}
	if len(want.Steps) == 0 || len(want.Steps) > maxSteps {
		return 0, fmt.Errorf("steps are not 1 to %d", maxSteps)
	}
	for i, one := range want.Steps {
		switch {
		case one.Status == "":
			return 0, errors.New("a step has no status")
		case one.Reads < 0 || one.Reads == 0 && i < len(want.Steps)-1:
			return 0, errors.New("every step but the last one needs reads of 1 or more")
		}
	}
	made := s.newID()
	account := s.current()
	changed := account.script(want.ID, want.Email, want.Steps, func() string { return "user-" + made })
	if len(changed) == 0 {
		return 0, errors.New("no such intent")
	}
	for _, id := range changed {
		s.noticed(account, id)
	}
	return len(changed), nil
}

// beginGet adds a GET to the account; mu is held.
func (a *account) beginGet(g *entry) {
	g.seq = len(a.gets) + 1
	if in := a.byID[g.intentID]; in != nil {
		g.email = in.person.Email
	}
	a.gets = append(a.gets, g)
	a.getsInProg++
	if a.getsInProg > a.maxGets {
		a.maxGets = a.getsInProg
	}
}

func (a *account) emailOf(g *entry) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return g.email
}

// read gives Astra's answer about an intent and counts it as one of the current step's reads.
func (a *account) read(id, otherID string, byClock func(*intent) string) ([]byte, bool) {
	return a.show(id, otherID, byClock, true)
}

// peek is read without counting.
func (a *account) peek(id, otherID string, byClock func(*intent) string) ([]byte, bool) {
	return a.show(id, otherID, byClock, false)
}

func (a *account) show(id, otherID string, byClock func(*intent) string, count bool) ([]byte, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	in := a.byID[id]
	if in == nil {
		return nil, false
	}
	if other := a.byID[otherID]; other != nil {
		in = other
	}
	who := &in.person
	view := intentAnswer{in.id, in.review.userID, who.Email, who.Phone, who.FirstName, who.LastName, who.PreferredFirst, who.PreferredLast,
		who.PreferredPronoun, "", who.KycType, who.Metadata}
	if otherID != "" {
		view.ID = otherID
	}
	if in.review.kycType != "" {
		view.KycType = in.review.kycType
	}
	view.Status = in.status(byClock)
	if count && len(in.review.steps) > 0 {
		in.review.counted()
	}
	body, err := json.Marshal(view)
	return body, err == nil
}

// status needs mu.
func (in *intent) status(byClock func(*intent) string) string {
	if len(in.review.steps) == 0 {
		return byClock(in)
	}
	return in.review.steps[0].Status
}

// counted moves to the next step after the last read of this one. The last step stays.
func (r *review) counted() {
	current := &r.steps[0]
	if current.Reads == 0 || len(r.steps) == 1 {
		return
	}
	if current.Reads--; current.Reads == 0 {
		r.steps = r.steps[1:]
		r.enter()
	}
}

// enter puts the first step's user_id and kyc_type in force. They stay until a later step has others.
func (r *review) enter() {
	if r.steps[0].UserID != "" {
		r.userID = r.steps[0].UserID
	}
	if r.steps[0].KycType != "" {
		r.kycType = r.steps[0].KycType
	}
}

// script replaces the steps of the intent, or of all intents of the address, and names them. A conversion without a user_id gets one: the
// same for all, as one person has one User.
func (a *account) script(id, email string, steps []step, newUser func() string) (changed []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, in := range a.intents {
		if in.id != id && (email == "" || !strings.EqualFold(in.person.Email, email)) {
			continue
		}
		changed = append(changed, in.id)
		in.review.steps = append([]step(nil), steps...)
		known := in.review.userID != ""
		for i := range in.review.steps {
			one := &in.review.steps[i]
			known = known || one.UserID != ""
			if one.Status == "converted_to_user" && !known {
				one.UserID, known = newUser(), true
			}
		}
		in.review.enter()
	}
	return changed
}

// getSummary counts the GETs. `fault` of a GET that met none is "".
type getSummary struct {
	Gets         int            `json:"gets"`
	GetsByIntent map[string]int `json:"gets_by_intent"`
	GetsByFault  map[string]int `json:"gets_by_fault"`
	GetsByStatus map[string]int `json:"gets_by_status"`
	GetsInProg   int            `json:"gets_in_progress"`
	MaxGets      int            `json:"max_concurrent_gets"`
}

// getSummary needs mu.
func (a *account) getSummary() getSummary {
	v := getSummary{Gets: len(a.gets), GetsByIntent: map[string]int{}, GetsByFault: map[string]int{}, GetsByStatus: map[string]int{},
		GetsInProg: a.getsInProg, MaxGets: a.maxGets}
	for _, g := range a.gets {
		v.GetsByIntent[g.intentID]++
		v.GetsByFault[g.fault]++
		v.GetsByStatus[statusText(g.status)]++
	}
	return v
}
