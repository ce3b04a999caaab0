package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const patience = 20 * time.Second // how long a test waits for what must come; never how long it takes

// running is one sandbox under test.
type running struct {
	*testing.T
	s     *server
	roots *x509.CertPool
}

func startSandbox(t *testing.T, args ...string) *running {
	t.Helper()
	o, err := parseOptions(append([]string{"--listen=127.0.0.1:0", "--admin_listen=127.0.0.1:0", "--self_signed_dir=" + t.TempDir()}, args...))
	if err != nil {
		t.Fatal(err)
	}
	s, err := start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	ca, err := os.ReadFile(s.Line.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatal("ca.crt holds no certificate")
	}
	return &running{t, s, roots}
}

// admin calls the admin listener and returns the status.
func (r *running) admin(method, path, body string, into interface{}) int {
	r.Helper()
	req, err := http.NewRequest(method, r.s.Line.Admin+path, strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		r.Fatal(err)
	}
	if into != nil {
		if err := json.Unmarshal(text, into); err != nil {
			r.Fatalf("%s %s answered %s", method, path, text)
		}
	}
	return answer.StatusCode
}

func (r *running) fault(text string) {
	r.Helper()
	if status := r.admin("POST", "/faults", text, nil); status != 200 {
		r.Fatalf("fault refused with %d: %s", status, text)
	}
}

func (r *running) account() accountView {
	r.Helper()
	var v accountView
	if status := r.admin("GET", "/accounting", "", &v); status != 200 {
		r.Fatalf("accounting answered %d", status)
	}
	return v
}

func (r *running) summary() summaryView {
	r.Helper()
	var v summaryView
	if status := r.admin("GET", "/accounting/summary", "", &v); status != 200 {
		r.Fatalf("summary answered %d", status)
	}
	return v
}

// until waits for a state that must come.
func (r *running) until(what string, reached func() bool) {
	r.Helper()
	for end := time.Now().Add(patience); !reached(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			r.Fatalf("never happened: %s", what)
		}
	}
}

type sent struct {
	method, path, body string
	headers            map[string]string // name to value; an empty value leaves a default out
	cut                int               // bytes of the body to hold back
}

func intentFor(email string) string {
	return `{"email":"` + email + `","phone":"+15557771234","first_name":"Edmund","last_name":"Example","address1":"123 Astra Ave",` +
		`"address2":"","city":"Palo Alto","state":"CA","postal_code":"94304","date_of_birth":"1985-02-03","ssn":"1234",` +
		`"ip_address":"8.8.8.8","metadata":{"gateway_attempt_id":"attempt-` + email + `"}}`
}

func postOf(body string) sent { return sent{method: "POST", path: intentPath, body: body} }

func (s sent) allHeaders() map[string]string {
	all := map[string]string{"content-type": "application/json", "accept": "application/json",
		"authorization": basicAuthorization("sandbox-client", "sandbox-secret")}
	if s.method == "POST" {
		all["content-length"] = strconv.Itoa(len(s.body))
	}
	for name, value := range s.headers {
		if all[name] = value; value == "" {
			delete(all, name)
		}
	}
	return all
}

// got is everything a raw client saw for one request.
type got struct {
	status  int
	headers map[string]string // lower-case names
	body    string
	end     string // complete, eof, reset, unparsable, rst_stream CODE, goaway LAST_STREAM_ID
}

// client is a raw connection: it never retries and hides nothing.
type client interface {
	send(s sent)
	receive() got
	close()
}

func (r *running) dial(proto string) client {
	r.Helper()
	c, err := tls.Dial("tcp", r.s.front.address, &tls.Config{RootCAs: r.roots, ServerName: "localhost", NextProtos: []string{proto}})
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	if proto == "h2" {
		return newClient2(r, c)
	}
	return &client1{r, c, bufio.NewReader(c)}
}

func (r *running) exchange(c client, s sent) got {
	r.Helper()
	c.send(s)
	return c.receive()
}

func endOf(err error) string {
	switch {
	case errors.Is(err, syscall.ECONNRESET):
		return "reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "eof"
	case os.IsTimeout(err):
		return "timeout"
	}
	return "unparsable"
}

type client1 struct {
	r  *running
	c  *tls.Conn
	br *bufio.Reader
}

func (c *client1) close() { _ = c.c.Close() }

func (c *client1) send(s sent) {
	text := s.method + " " + s.path + " HTTP/1.1\r\nHost: localhost\r\n"
	for name, value := range s.allHeaders() {
		text += name + ": " + value + "\r\n"
	}
	if _, err := io.WriteString(c.c, text+"\r\n"+s.body[:len(s.body)-s.cut]); err != nil {
		c.r.Fatal(err)
	}
}

func (c *client1) receive() got {
	g := got{headers: map[string]string{}}
	answer, err := http.ReadResponse(c.br, nil)
	if err != nil {
		g.end = endOf(err)
		return g
	}
	g.status = answer.StatusCode
	for name := range answer.Header {
		g.headers[strings.ToLower(name)] = answer.Header.Get(name)
	}
	body, err := io.ReadAll(answer.Body)
	g.body, g.end = string(body), "complete"
	if err != nil {
		g.end = endOf(err)
	}
	return g
}

type client2 struct {
	r        *running
	c        *tls.Conn
	fr       *http2.Framer
	next     uint32
	incoming map[uint32]*got
	waiting  []uint32
}

func newClient2(r *running, c *tls.Conn) *client2 {
	r.Helper()
	if proto := c.ConnectionState().NegotiatedProtocol; proto != "h2" {
		r.Fatalf("ALPN gave %q", proto)
	}
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		r.Fatal(err)
	}
	h := &client2{r: r, c: c, fr: http2.NewFramer(c, c), next: 1, incoming: map[uint32]*got{}}
	h.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	h.fr.SetMaxReadFrameSize(1 << 20) // text read as a frame head announces more
	_ = h.fr.WriteSettings()
	return h
}

func (h *client2) close() { _ = h.c.Close() }

func (h *client2) send(s sent) {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	put := func(name, value string) { _ = enc.WriteField(hpack.HeaderField{Name: name, Value: value}) }
	put(":method", s.method)
	put(":scheme", "https")
	put(":authority", "localhost")
	put(":path", s.path)
	for name, value := range s.allHeaders() {
		put(name, value)
	}
	hasBody := s.method == "POST"
	_ = h.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: h.next, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: !hasBody})
	if hasBody {
		_ = h.fr.WriteData(h.next, s.cut == 0, []byte(s.body[:len(s.body)-s.cut]))
	}
	h.incoming[h.next] = &got{headers: map[string]string{}}
	h.waiting = append(h.waiting, h.next)
	h.next += 2
}

// receive waits for the oldest request that has no answer yet.
func (h *client2) receive() got {
	h.r.Helper()
	id := h.waiting[0]
	h.waiting = h.waiting[1:]
	goaway := ""
	for {
		if g := h.incoming[id]; g.end != "" {
			return *g
		}
		frame, err := h.fr.ReadFrame()
		if err != nil {
			g := *h.incoming[id]
			if g.end = goaway; goaway == "" {
				g.end = endOf(err)
			}
			return g
		}
		g := h.incoming[frame.Header().StreamID]
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = h.fr.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			g.status, _ = strconv.Atoi(f.PseudoValue("status"))
			for _, field := range f.RegularFields() {
				g.headers[field.Name] = field.Value
			}
			if f.StreamEnded() {
				g.end = "complete"
			}
		case *http2.DataFrame:
			g.body += string(f.Data())
			if n := len(f.Data()); n > 0 {
				_ = h.fr.WriteWindowUpdate(0, uint32(n))
				if !f.StreamEnded() {
					_ = h.fr.WriteWindowUpdate(f.StreamID, uint32(n))
				}
			}
			if f.StreamEnded() {
				g.end = "complete"
			}
		case *http2.RSTStreamFrame:
			if g.end == "" {
				g.end = "rst_stream " + f.ErrCode.String()
			}
		case *http2.GoAwayFrame:
			goaway = fmt.Sprintf("goaway %d %s", f.LastStreamID, f.ErrCode)
		}
	}
}
