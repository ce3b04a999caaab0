package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	maxHead = 1 << 20
	maxBody = 1 << 20
)

// headLimit makes an endless request head an error.
type headLimit struct {
	from io.Reader
	left int
}

func (h *headLimit) Read(p []byte) (int, error) {
	if h.left <= 0 {
		return 0, errors.New("request too large")
	}
	if len(p) > h.left {
		p = p[:h.left]
	}
	n, err := h.from.Read(p)
	h.left -= n
	return n, err
}

var errTooLarge = errors.New("body too large")

// serveHTTP1 serves one HTTP/1.1 connection, one request after the other, on the calling goroutine. It is a server of its own because
// net/http's keeps the connection to itself: bytes that are not an answer, or a second answer, can then only be sent by giving up keep-alive.
func serveHTTP1(sb *sandbox, c *conn, t *tls.Conn) {
	limit := &headLimit{from: t}
	br := bufio.NewReaderSize(limit, 8<<10)
	for {
		limit.left = maxHead + maxBody
		req, err := http.ReadRequest(br)
		if err != nil {
			if !errors.Is(err, io.EOF) && limit.left < maxHead+maxBody {
				_ = writeHTTP1(t, sb.errorAnswer(http.StatusBadRequest, "The request is not HTTP"), true)
				lingerHTTP1(c, t)
			}
			return
		}
		r := &request{method: req.Method, path: pathOf(req.RequestURI), target: req.RequestURI, proto: req.Proto, connection: c.id, reused: !c.first()}
		r.headers = make([]header, 0, len(req.Header)+2)
		r.take("Host", req.Host)
		for name, values := range req.Header {
			for _, value := range values {
				r.take(name, value)
			}
		}
		if len(req.TransferEncoding) > 0 { // net/http takes these two out of the header
			r.take("Transfer-Encoding", strings.Join(req.TransferEncoding, ", "))
		} else if req.ContentLength >= 0 && req.Header.Get("Content-Length") == "" && req.Method == http.MethodPost {
			r.take("Content-Length", strconv.FormatInt(req.ContentLength, 10))
		}
		h := &http1Exchange{sb: sb, c: c, t: t, br: br, r: r, last: req.Close || !req.ProtoAtLeast(1, 1)}
		if !h.serve(req) {
			return
		}
	}
}

type http1Exchange struct {
	sb   *sandbox
	c    *conn
	t    *tls.Conn
	br   *bufio.Reader
	r    *request
	last bool // the client wants the connection closed after this answer
}

// serve says whether the connection can take another request.
func (h *http1Exchange) serve(req *http.Request) bool {
	if early := h.sb.begin(h.r); early != nil {
		time.Sleep(early.delay)
		if !h.send(early.answer) {
			return false
		}
		if body, err := readBody(req); err == nil {
			h.sb.received(h.r.entry, body, true)
			return h.next()
		}
		return false
	}
	if strings.EqualFold(req.Header.Get("Expect"), "100-continue") {
		if _, err := io.WriteString(h.t, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			h.sb.abandon(h.r, nil)
			return false
		}
	}
	body, err := readBody(req)
	if err == errTooLarge {
		h.last = true
		if h.r.entry != nil {
			h.sb.received(h.r.entry, nil, false)
		}
		return h.send(h.sb.errorAnswer(http.StatusRequestEntityTooLarge, "The request body is too large")) && h.next()
	}
	if err != nil {
		h.sb.abandon(h.r, body)
		return false
	}
	act := h.sb.decide(h.r, body)
	if h.r.wait != nil {
		<-h.r.wait
	}
	if act.delay > 0 {
		time.Sleep(act.delay)
	}
	return h.perform(act)
}

func readBody(req *http.Request) ([]byte, error) {
	if req.ContentLength == 0 {
		return nil, nil
	}
	if req.ContentLength > maxBody {
		return nil, errTooLarge
	}
	if req.ContentLength > 0 {
		body := make([]byte, req.ContentLength)
		n, err := io.ReadFull(req.Body, body)
		return body[:n], err
	}
	body, err := io.ReadAll(io.LimitReader(req.Body, maxBody+1))
	if len(body) > maxBody {
		return nil, errTooLarge
	}
	return body, err
}

func (h *http1Exchange) next() bool {
	if h.last {
		lingerHTTP1(h.c, h.t)
		return false
	}
	return true
}

// send writes the answer and records it.
func (h *http1Exchange) send(a answer) bool {
	h.sb.finish(h.r.entry, a.status) // first, so that the account is right when the client has its answer
	if writeHTTP1(h.t, a, h.last) != nil {
		h.sb.unsent(h.r.entry)
		return false
	}
	return true
}

// sendPart is send for bytes that are less, or other, than an answer.
func (h *http1Exchange) sendPart(part []byte, status int) bool {
	h.sb.finish(h.r.entry, status)
	if _, err := h.t.Write(part); err != nil {
		h.sb.unsent(h.r.entry)
		return false
	}
	return true
}

func (h *http1Exchange) perform(act action) bool {
	e, a, f := h.r.entry, act.answer, act.fault
	switch act.kind {
	case "close", "goaway":
		h.sb.finish(e, 0)
		lingerHTTP1(h.c, h.t)
		return false
	case "reset", "rst_stream":
		h.sb.finish(e, 0)
		h.c.rst()
		return false
	case "hang":
		_, _ = io.Copy(io.Discard, h.t)
		h.sb.finish(e, 0)
		return false
	case "cut_head":
		h.sendPart(statusLine(a.status), a.status)
		lingerHTTP1(h.c, h.t)
		return false
	case "cut_body":
		h.sendPart(append(headHTTP1(a, h.last), a.body[:len(a.body)/2]...), a.status)
		lingerHTTP1(h.c, h.t)
		return false
	case "garbage":
		h.sendPart(garbage, 0)
		lingerHTTP1(h.c, h.t)
		return false
	case "raw":
		if sent := h.sendPart(f.raw, statusOfRaw(f.raw)); sent && f.Keep {
			return h.next()
		}
		lingerHTTP1(h.c, h.t)
		return false
	case "slow_body":
		if !h.sendPart(headHTTP1(a, h.last), a.status) {
			return false
		}
		for i := range a.body {
			time.Sleep(time.Duration(f.ByteMs) * time.Millisecond)
			if _, err := h.t.Write(a.body[i : i+1]); err != nil {
				return false
			}
		}
		return h.next()
	case "second_answer":
		h.last = false
		if !h.send(a) {
			return false
		}
		second := h.sb.jsonAnswer(http.StatusCreated, createdBody("unsolicited"))
		t := h.t // tls.Conn lets a second goroutine write; each answer is one Write
		time.AfterFunc(time.Duration(f.SecondMs)*time.Millisecond, func() { _ = writeHTTP1(t, second, false) })
		return true
	}
	return h.send(a) && h.next()
}

var garbage = bytes.Repeat([]byte{0xff, 0xfe, 0x00, 'n', 'o', 't', ' ', 'H', 'T', 'T', 'P', 0x80}, 20)

// statusOfRaw reads the status that raw bytes claim, for the account.
func statusOfRaw(raw []byte) int {
	if len(raw) < 12 || !bytes.HasPrefix(raw, []byte("HTTP/1.")) {
		return 0
	}
	status, err := strconv.Atoi(string(raw[9:12]))
	if err != nil {
		return 0
	}
	return status
}

func statusLine(status int) []byte {
	return append(make([]byte, 0, 512), "HTTP/1.1 "+strconv.Itoa(status)+" "+statusName(status)+"\r\n"...)
}

func headHTTP1(a answer, last bool) []byte {
	head := statusLine(a.status)
	ownLength := false
	for _, h := range a.headers {
		if strings.EqualFold(h.name, "Content-Length") {
			ownLength = true // a fault's header: the lie is what was asked for
		}
		head = append(head, h.name...)
		head = append(head, ": "...)
		head = append(head, h.value...)
		head = append(head, "\r\n"...)
	}
	if !ownLength && !bodyless(a.status) {
		head = append(head, "Content-Length: "...)
		head = strconv.AppendInt(head, int64(len(a.body)), 10)
		head = append(head, "\r\n"...)
	}
	if last {
		head = append(head, "Connection: close\r\n"...)
	}
	return append(head, "\r\n"...)
}

func writeHTTP1(t *tls.Conn, a answer, last bool) error {
	out := headHTTP1(a, last)
	if !bodyless(a.status) {
		out = append(out, a.body...)
	}
	_, err := t.Write(out)
	return err
}

func lingerHTTP1(c *conn, t *tls.Conn) {
	c.closeWrite(t)
	_, _ = io.Copy(io.Discard, c.raw)
}
