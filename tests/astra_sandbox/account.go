package main

import (
	"encoding/json"
	"net/http"
	"sort"
	"strings"
	"sync"
	"time"
)

type header struct{ name, value string }

// entry is the account of one POST or GET. Everything below `start` is guarded by account.mu once the account has it.
type entry struct {
	account *account
	start   time.Time

	method          string
	seq             int    // POSTs and GETs are numbered apart
	email           string // of the body, or of the intent that a GET asks for
	attemptID       string
	path            string // of a GET: as it was sent, with the query
	proto           string
	connection      int64
	reused          bool
	bodyComplete    bool
	authorizationOK bool
	status          int
	committed       bool
	intentID        string // created, or asked for
	fault           string
	refused         bool // the client was told that it was not processed
	headers         []header
	body            []byte
	done            bool
	ended           time.Time // when it was done
}

type intent struct {
	id      string
	seq     int
	created time.Time
	person  person
	review  review   // guarded by account.mu
	told    standing // guarded by account.mu: where it stood when that was last noticed
}

// account is everything that arrived since the start or the last reset. A reset replaces the whole account, and a POST keeps the one it
// was begun in, so that a straggler cannot appear in the next test's account. Safe for every goroutine; the lock is held briefly.
type account struct {
	mu         sync.Mutex
	posts      []*entry
	gets       []*entry
	intents    []*intent
	byID       map[string]*intent
	attempts   map[string]int // by lower-cased e-mail
	opened     int
	inProgress int // POSTs
	maxInProg  int
	getsInProg int
	maxGets    int
}

func newAccount() *account {
	return &account{byID: map[string]*intent{}, attempts: map[string]int{}}
}

func (a *account) begin(p *entry) {
	p.account = a
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.method == http.MethodGet {
		a.beginGet(p)
		return
	}
	p.seq = len(a.posts) + 1
	a.posts = append(a.posts, p)
	a.inProgress++
	if a.inProgress > a.maxInProg {
		a.maxInProg = a.inProgress
	}
}

// commit creates the intent unless the limit is reached.
func (a *account) commit(p *entry, in *intent, limit int) bool {
	email := strings.ToLower(in.person.Email)
	a.mu.Lock()
	defer a.mu.Unlock()
	if limit > 0 && a.attempts[email] >= limit {
		return false
	}
	a.attempts[email]++
	in.seq = p.seq
	a.intents = append(a.intents, in)
	a.byID[in.id] = in
	p.committed = true
	p.intentID = in.id
	return true
}

// finish may be called more than once; the first call counts. Status 0: no answer was sent.
func (a *account) finish(p *entry, status int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.done {
		return false
	}
	p.done = true
	p.ended = time.Now()
	p.status = status
	if p.method == http.MethodGet {
		a.getsInProg--
	} else {
		a.inProgress--
	}
	return true
}

// refuse notes that the client is told so; by HTTP/2's own means, a status speaks for itself.
func (p *entry) refuse() {
	if p == nil {
		return
	}
	p.account.mu.Lock()
	p.refused = true
	p.account.mu.Unlock()
}

func (a *account) connectionOpened() {
	a.mu.Lock()
	a.opened++
	a.mu.Unlock()
}

func (a *account) intent(id string) *intent {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.byID[id]
}

type postView struct {
	Seq             int               `json:"seq"`
	Email           string            `json:"email"`
	AttemptID       string            `json:"attempt_id"`
	Path            string            `json:"path"`
	Proto           string            `json:"proto"`
	Connection      int64             `json:"connection"`
	Reused          bool              `json:"reused"`
	BodyComplete    bool              `json:"body_complete"`
	AuthorizationOK bool              `json:"authorization_ok"`
	Status          int               `json:"status"`
	Committed       bool              `json:"committed"`
	IntentID        string            `json:"intent_id"`
	Fault           string            `json:"fault"`
	Refused         bool              `json:"refused"`
	Done            bool              `json:"done"`
	Headers         map[string]string `json:"headers"`
	Body            json.RawMessage   `json:"body"`
	Arrived         time.Time         `json:"arrived"`
	Ended           time.Time         `json:"ended"`
}

type getView struct {
	Seq             int               `json:"seq"`
	IntentID        string            `json:"intent_id"`
	Path            string            `json:"path"`
	Proto           string            `json:"proto"`
	Connection      int64             `json:"connection"`
	Reused          bool              `json:"reused"`
	AuthorizationOK bool              `json:"authorization_ok"`
	Status          int               `json:"status"`
	Fault           string            `json:"fault"`
	Refused         bool              `json:"refused"`
	Done            bool              `json:"done"`
	Headers         map[string]string `json:"headers"`
	Body            json.RawMessage   `json:"body"`
	Arrived         time.Time         `json:"arrived"`
}

type intentView struct {
	ID        string    `json:"id"`
	Email     string    `json:"email"`
	AttemptID string    `json:"attempt_id"`
	Post      int       `json:"post"`
	Created   time.Time `json:"created"`
}

type accountView struct {
	Posts         []postView   `json:"posts"`
	Gets          []getView    `json:"gets"`
	Intents       []intentView `json:"intents"`
	Opened        int          `json:"connections_opened"`
	Open          int          `json:"connections_open"`
	MaxConcurrent int          `json:"max_concurrent"`
	InProgress    int          `json:"in_progress"`
	MaxGets       int          `json:"max_concurrent_gets"`
	GetsInProg    int          `json:"gets_in_progress"`
}

// view shows what belongs to the e-mail address and to the intent; "" stands for every one.
func (a *account) view(email, intentID string) accountView {
	email = strings.ToLower(email)
	chosen := func(e *entry) bool {
		return (email == "" || strings.ToLower(e.email) == email) && (intentID == "" || e.intentID == intentID)
	}
	a.mu.Lock()
	var posts, gets []entry
	var intents []*intent
	for _, p := range a.posts {
		if chosen(p) {
			posts = append(posts, *p)
		}
	}
	for _, g := range a.gets {
		if chosen(g) {
			gets = append(gets, *g)
		}
	}
	for _, in := range a.intents {
		if (email == "" || strings.ToLower(in.person.Email) == email) && (intentID == "" || in.id == intentID) {
			intents = append(intents, in)
		}
	}
	v := accountView{Opened: a.opened, MaxConcurrent: a.maxInProg, InProgress: a.inProgress, MaxGets: a.maxGets,
		GetsInProg: a.getsInProg}
	a.mu.Unlock()

	v.Posts = make([]postView, 0, len(posts))
	for i := range posts {
		p := &posts[i]
		pv := postView{Seq: p.seq, Email: p.email, AttemptID: p.attemptID, Path: p.path, Proto: p.proto,
			Connection: p.connection, Reused: p.reused, BodyComplete: p.bodyComplete, AuthorizationOK: p.authorizationOK,
			Status: p.status, Committed: p.committed, IntentID: p.intentID, Fault: p.fault, Refused: p.refused, Done: p.done,
			Headers: headersView(p.headers), Body: bodyView(p.body), Arrived: p.start.UTC(), Ended: p.ended.UTC()}
		v.Posts = append(v.Posts, pv)
	}
	v.Gets = make([]getView, 0, len(gets))
	for i := range gets {
		g := &gets[i]
		v.Gets = append(v.Gets, getView{Seq: g.seq, IntentID: g.intentID, Path: g.path, Proto: g.proto, Connection: g.connection,
			Reused: g.reused, AuthorizationOK: g.authorizationOK, Status: g.status, Fault: g.fault, Refused: g.refused,
			Done: g.done, Headers: headersView(g.headers), Body: bodyView(g.body), Arrived: g.start.UTC()})
	}
	v.Intents = make([]intentView, 0, len(intents))
	for _, in := range intents { // but for its review, nothing of a listed intent changes
		v.Intents = append(v.Intents, intentView{ID: in.id, Email: in.person.Email, AttemptID: in.person.AttemptID,
			Post: in.seq, Created: in.created})
	}
	return v
}

func headersView(headers []header) map[string]string {
	view := map[string]string{}
	for _, h := range headers {
		name := http.CanonicalHeaderKey(h.name)
		if before, twice := view[name]; twice {
			view[name] = before + ", " + h.value
		} else {
			view[name] = h.value
		}
	}
	return view
}

// bodyView shows a JSON body as it is and anything else as a string; a body that was not kept is null.
func bodyView(body []byte) json.RawMessage {
	if body == nil {
		return json.RawMessage("null")
	}
	if json.Valid(body) {
		return body
	}
	text, _ := json.Marshal(string(body))
	return text
}

type countView struct {
	Posts   int `json:"posts"`
	Intents int `json:"intents"`
}

type summaryView struct {
	Posts      int                  `json:"posts"`
	Intents    int                  `json:"intents"`
	ByEmail    map[string]countView `json:"by_email"`
	Duplicates int                  `json:"duplicate_attempt_ids"`
	Opened     int                  `json:"connections_opened"`
	Open       int                  `json:"connections_open"`
	InProgress int                  `json:"in_progress"`
	Max        int                  `json:"max_concurrent"`
	ByStatus   map[string]int       `json:"by_status"`
	getSummary
}

func (a *account) summary() summaryView {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := summaryView{Posts: len(a.posts), Intents: len(a.intents), ByEmail: map[string]countView{}, Opened: a.opened,
		InProgress: a.inProgress, Max: a.maxInProg, ByStatus: map[string]int{}}
	ids := make([]string, 0, len(a.posts))
	for _, p := range a.posts {
		count := v.ByEmail[strings.ToLower(p.email)]
		count.Posts++
		v.ByEmail[strings.ToLower(p.email)] = count
		if p.attemptID != "" {
			ids = append(ids, p.attemptID)
		}
		v.ByStatus[statusText(p.status)]++
	}
	for _, in := range a.intents {
		count := v.ByEmail[strings.ToLower(in.person.Email)]
		count.Intents++
		v.ByEmail[strings.ToLower(in.person.Email)] = count
	}
	v.getSummary = a.getSummary()
	sort.Strings(ids)
	for i := 1; i < len(ids); i++ {
		if ids[i] == ids[i-1] {
			v.Duplicates++
		}
	}
	return v
}
