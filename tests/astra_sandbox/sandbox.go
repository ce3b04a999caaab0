package main

import (
	"bufio"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// config is fixed once the program serves.
type config struct {
	clientID, clientSecret string
	delay                  time.Duration
	attemptLimit           int
	limitStatus            int
	limitText              string
	errorShape             string
	accessLog              bool
	keepBodies             bool
	kycDelegation          bool
	pendingFor             time.Duration
	getDelay               time.Duration
	maxStreams             uint32
	http                   string
	webhookURL, webhookCA  string
	webhookRetry           time.Duration
}

// sandbox decides what to answer and keeps the account. It knows nothing of frames and sockets: http1.go and http2.go read requests, ask it,
// and perform the action it returns. Every method is safe for every goroutine.
type sandbox struct {
	cfg           config
	authorization []byte
	faults        faultList
	account       atomic.Value // *account
	webhooks      *webhooks
	idMu          sync.Mutex
	idSource      *bufio.Reader
	requestID     int64
	idPrefix      string
	logMu         sync.Mutex
	log           io.Writer
}

func newSandbox(cfg config) (*sandbox, error) {
	s := &sandbox{cfg: cfg, idSource: bufio.NewReaderSize(rand.Reader, 4096), log: os.Stderr}
	s.authorization = []byte(basicAuthorization(cfg.clientID, cfg.clientSecret))
	s.idPrefix = s.newID()[:12] + "-"
	s.account.Store(newAccount())
	var err error
	s.webhooks, err = newWebhooks(cfg, s.newID)
	return s, err
}

func (s *sandbox) current() *account { return s.account.Load().(*account) }

func (s *sandbox) reset() {
	s.faults.clear()
	s.account.Store(newAccount())
	s.webhooks.reset()
}

func (s *sandbox) newID() string {
	var raw [16]byte
	s.idMu.Lock()
	_, err := io.ReadFull(s.idSource, raw[:])
	s.idMu.Unlock()
	if err != nil {
		panic("no random numbers: " + err.Error())
	}
	return hex.EncodeToString(raw[:])
}

const intentPath = "/v1/user_intent"

// request is one request whose head has been read.
type request struct {
	method, path  string // path without its query, not decoded
	target        string // the path with its query
	proto         string
	connection    int64
	reused        bool
	authorization string
	contentType   string
	accept        string
	headers       []header        // without Authorization
	entry         *entry          // nil unless the method is POST or GET
	wait          <-chan struct{} // the answer waits for it; nil: for nothing
}

// take sets apart the headers the sandbox looks at and keeps every one but Authorization for the account.
func (r *request) take(name, value string) {
	switch strings.ToLower(name) {
	case "authorization":
		r.authorization = value
		return
	case "proxy-authorization", "cookie":
		return
	case "content-type":
		r.contentType = value
	case "accept":
		r.accept = value
	}
	r.headers = append(r.headers, header{name, value})
}

// answer is a whole HTTP answer; Content-Length comes from body.
type answer struct {
	status  int
	headers []header
	body    []byte
}

// action is what to do with a request: perform kind after delay. kind "" is a plain answer.
type action struct {
	kind   string
	delay  time.Duration
	answer answer
	fault  *fault
}

// begin counts the POST or GET, as soon as its head has been read. A non-nil action answers it before the body is read.
func (s *sandbox) begin(r *request) *action {
	if r.method != http.MethodPost && r.method != http.MethodGet {
		return nil
	}
	p := &entry{method: r.method, path: r.path, proto: r.proto, connection: r.connection, reused: r.reused,
		authorizationOK: s.authorized(r), start: time.Now()}
	if s.cfg.keepBodies {
		p.headers = r.headers
	}
	if r.method == http.MethodGet {
		p.path = r.target
		p.intentID, _ = intentOf(r)
	}
	s.current().begin(p)
	r.entry = p
	if r.method == http.MethodGet {
		return nil
	}
	f := s.faults.atHead()
	if f == nil {
		return nil
	}
	s.note(p, f)
	return &action{kind: f.Kind, delay: time.Duration(f.DelayMs) * time.Millisecond, fault: f,
		answer: s.faultAnswer(f, http.StatusServiceUnavailable, "")}
}

func (s *sandbox) note(p *entry, f *fault) {
	p.account.mu.Lock()
	p.fault = f.Kind
	p.account.mu.Unlock()
}

// abandon ends a request whose body never arrived in full.
func (s *sandbox) abandon(r *request, body []byte) {
	if r.entry != nil {
		s.received(r.entry, body, false)
		s.finish(r.entry, 0)
	}
}

// received records the body of a POST in the account, and that of a GET where one has a body.
func (s *sandbox) received(p *entry, body []byte, complete bool) (email string) {
	var attemptID string
	if p.method == http.MethodPost {
		email, attemptID = emailAndAttempt(body)
	}
	p.account.mu.Lock()
	if p.method == http.MethodPost {
		p.email, p.attemptID = email, attemptID
	}
	p.bodyComplete = complete
	if s.cfg.keepBodies {
		p.body = body
		if body == nil {
			p.body = []byte{}
		}
	}
	p.account.mu.Unlock()
	return email
}

// decide says what to do with a request that has arrived in full. An intent exists from here on, before any delay: a client that leaves
// does not stop it.
func (s *sandbox) decide(r *request, body []byte) action {
	p := r.entry
	if p == nil {
		return action{answer: s.answerOther(r)}
	}
	if p.method == http.MethodGet {
		return s.decideGet(r, body)
	}
	email := s.received(p, body, true)
	f := s.faults.atBody(email)
	act := action{delay: s.cfg.delay, fault: f}
	if f == nil {
		act.answer = s.create(r, body, "")
		return act
	}
	s.note(p, f)
	act.kind = f.Kind
	act.delay += time.Duration(f.DelayMs) * time.Millisecond
	switch f.Kind {
	case "delay", "slow_body", "second_answer": // the normal answer, oddly delivered
		act.answer = s.create(r, body, f.IntentID)
		return act
	}
	intentID := ""
	if f.Commit {
		if s.create(r, body, f.IntentID); p.committed { // only this goroutine writes p.committed
			intentID = p.intentID
		}
	}
	status := failureStatus[f.Kind]
	if status == 0 {
		status = http.StatusCreated
	}
	act.answer = s.faultAnswer(f, status, intentID)
	return act
}

// failureStatus is the status of the kinds whose answer is a failure unless the fault says otherwise.
var failureStatus = map[string]int{"html": 502, "redirect": 302, "status": 500}

// finish records what the client was sent; 0 for nothing.
func (s *sandbox) finish(p *entry, status int) {
	if p == nil || !p.account.finish(p, status) || !s.cfg.accessLog {
		return
	}
	seq := map[string]string{http.MethodPost: "seq", http.MethodGet: "get_seq"}[p.method]
	now := time.Now() // once: readers take the beginning to be this time less what it took
	p.account.mu.Lock()
	line := fmt.Sprintf(`{"time":%q,%q:%d,"known_path":%t,"proto":%q,"connection":%d,"status":%d,"committed":%t,"fault":%q,"ms":%.3f}`+"\n",
		now.UTC().Format(time.RFC3339Nano), seq, p.seq, p.path == intentPath || (p.method == http.MethodGet && p.intentID != ""),
		p.proto, p.connection, p.status, p.committed, p.fault, float64(now.Sub(p.start).Microseconds())/1000)
	p.account.mu.Unlock()
	s.logMu.Lock()
	_, _ = io.WriteString(s.log, line)
	s.logMu.Unlock()
}

// unsent takes back the status of an answer that could not be written.
func (s *sandbox) unsent(p *entry) {
	if p != nil {
		p.account.mu.Lock()
		p.status = 0
		p.account.mu.Unlock()
	}
}

func (s *sandbox) authorized(r *request) bool {
	// The scheme's name is case-insensitive (RFC 7617).
	given := []byte(r.authorization)
	if len(given) > 6 && strings.EqualFold(string(given[:6]), "Basic ") {
		copy(given, "Basic ")
	}
	return subtle.ConstantTimeCompare(given, s.authorization) == 1
}

func isJSONType(value string) bool {
	if value == "application/json" {
		return true
	}
	kind := value
	if i := strings.IndexByte(value, ';'); i >= 0 {
		kind = value[:i]
	}
	return strings.EqualFold(strings.TrimSpace(kind), "application/json")
}

func acceptsJSON(value string) bool {
	return value == "" || strings.Contains(value, "application/json") || strings.Contains(value, "*/*") ||
		strings.Contains(value, "application/*")
}

// create runs every check of POST /v1/user_intent and creates the intent, under this id or, where it is "", under a random one.
func (s *sandbox) create(r *request, body []byte, id string) answer {
	switch {
	case r.path != intentPath:
		return s.errorAnswer(http.StatusNotFound, "The requested URL was not found on the server")
	case !s.authorized(r):
		return s.errorAnswer(http.StatusUnauthorized, "Invalid client_id")
	case !isJSONType(r.contentType):
		return s.errorAnswer(http.StatusBadRequest, "Content-Type must be application/json")
	case !acceptsJSON(r.accept):
		return s.errorAnswer(http.StatusNotAcceptable, "Only JSON is served")
	}
	who, complaint := validateIntent(body, s.cfg.kycDelegation)
	if complaint != "" {
		return s.errorAnswer(http.StatusBadRequest, complaint)
	}
	if id == "" {
		id = s.newID()
	}
	in := &intent{id: id, created: time.Now().UTC(), person: who}
	status := s.statusByClock(in)
	in.told.status = status
	if !r.entry.account.commit(r.entry, in, s.cfg.attemptLimit) {
		return s.errorAnswer(s.cfg.limitStatus, s.cfg.limitText)
	}
	s.created(r, in, status)
	return s.jsonAnswer(http.StatusCreated, createdBody(in.id))
}

func createdBody(id string) []byte {
	return append(append([]byte(`{"id": `), quoted(id)...), `, "status": "pending"}`...)
}

// quoted is the text as a JSON string.
func quoted(text string) []byte {
	plain := true
	for i := 0; i < len(text) && plain; i++ {
		plain = text[i] >= ' ' && text[i] < 0x7f && text[i] != '"' && text[i] != '\\'
	}
	if plain { // nearly every id, without reflection
		return []byte(`"` + text + `"`)
	}
	out, _ := json.Marshal(text)
	return out
}

// answerOther serves everything that is neither a POST nor a GET.
func (s *sandbox) answerOther(r *request) answer {
	if _, isIntent := intentOf(r); isIntent || r.path == intentPath {
		return s.errorAnswer(http.StatusMethodNotAllowed, "The method is not allowed for the requested URL")
	}
	return s.errorAnswer(http.StatusNotFound, "The requested URL was not found on the server")
}

func (s *sandbox) requestIDHeader() header {
	return header{"Request-Id", s.idPrefix + strconv.FormatInt(atomic.AddInt64(&s.requestID, 1), 10)}
}

func (s *sandbox) jsonAnswer(status int, body []byte) answer {
	return answer{status, []header{{"Content-Type", "application/json"}, s.requestIDHeader()}, body}
}

func statusName(status int) string {
	if name := http.StatusText(status); name != "" {
		return name
	}
	return "Status " + strconv.Itoa(status)
}

func statusText(status int) string { return strconv.Itoa(status) }

// errorAnswer speaks the one error shape that --error_shape selected.
func (s *sandbox) errorAnswer(status int, description string) answer {
	var shape interface{}
	switch s.cfg.errorShape {
	case "html":
		return s.htmlAnswer(status)
	case "validation":
		shape = struct {
			StatusCode int    `json:"status_code"`
			Message    string `json:"message"`
		}{status, description}
	case "oauth":
		shape = struct {
			Error       string `json:"error"`
			Description string `json:"error_description"`
		}{strings.ReplaceAll(strings.ToLower(statusName(status)), " ", "_"), description}
	default:
		shape = struct {
			Code        int    `json:"code"`
			Name        string `json:"name"`
			Description string `json:"description"`
		}{status, statusName(status), description}
	}
	body, _ := json.Marshal(shape)
	return s.jsonAnswer(status, body)
}

func (s *sandbox) htmlAnswer(status int) answer {
	title := strconv.Itoa(status) + " " + statusName(status)
	body := "<html>\r\n<head><title>" + title + "</title></head>\r\n<body><center><h1>" + title + "</h1></center></body>\r\n</html>\r\n"
	return answer{status, []header{{"Content-Type", "text/html"}, s.requestIDHeader()}, []byte(body)}
}

// faultAnswer builds the answer of a fault from its parameters. A 2xx without a body parameter names the intent that was committed, or
// the id "not-created", which no account holds.
func (s *sandbox) faultAnswer(f *fault, defaultStatus int, intentID string) answer {
	if intentID == "" {
		intentID = "not-created"
	}
	return s.scriptedAnswer(f, defaultStatus, intentPath, intentID, createdBody(intentID))
}

// scriptedAnswer is faultAnswer with the body of a 2xx that has no body parameter.
func (s *sandbox) scriptedAnswer(f *fault, defaultStatus int, path, intentID string, success []byte) answer {
	status := f.Status
	if status == 0 {
		status = defaultStatus
	}
	var a answer
	body, given := f.bodyText()
	switch {
	case f.Kind == "html" && !given:
		a = s.htmlAnswer(status)
	case f.Kind == "huge_body":
		a = s.jsonAnswer(status, hugeBody(f.Bytes, intentID))
	case given:
		a = s.jsonAnswer(status, body)
	case status < 300:
		a = s.jsonAnswer(status, success)
	default:
		a = s.errorAnswer(status, "Scripted by a fault")
	}
	if f.Kind == "redirect" {
		location := f.Location
		if location == "" {
			location = path // a client that follows it shows up in the account
		}
		a.headers = append(a.headers, header{"Location", location})
	}
	if f.ContentType != "" {
		a.headers[0].value = f.ContentType
	}
	for name, value := range f.Headers {
		a.set(name, value)
	}
	return a
}

func (a *answer) set(name, value string) {
	for i := range a.headers {
		if strings.EqualFold(a.headers[i].name, name) {
			a.headers[i].value = value
			return
		}
	}
	a.headers = append(a.headers, header{name, value})
}

// bodyless answers have neither a body nor a Content-Length.
func bodyless(status int) bool {
	return status == http.StatusNoContent || status == http.StatusNotModified
}

// hugeBody is one valid JSON object of exactly size bytes where that is possible, so that only its size is wrong.
func hugeBody(size int, id string) []byte {
	head, tail := `{"id": `+string(quoted(id))+`, "status": "pending", "padding": "`, `"}`
	body := make([]byte, size)
	for i := range body {
		body[i] = 'x'
	}
	if size >= len(head)+len(tail) {
		copy(body, head)
		copy(body[size-len(tail):], tail)
	}
	return body
}
