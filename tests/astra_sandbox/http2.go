package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	h2Window     = 4 << 20 // per stream; above maxBody, so that a body never waits for a WINDOW_UPDATE
	h2ConnWindow = 1 << 30
	h2MaxFrame   = 16384
)

// h2conn serves one HTTP/2 connection at the level of frames, because net/http's server cannot be made to send a chosen RST_STREAM code, a
// GOAWAY below a stream, or half an answer. One goroutine reads; answers, from any goroutine, go into `out`, which one more goroutine writes.
type h2conn struct {
	sb *sandbox
	c  *conn
	t  *tls.Conn

	mu         sync.Mutex
	windowOpen *sync.Cond // a send window grew, or the connection or a stream ended
	out        []byte
	kick       chan struct{} // capacity 1: out has something, or the end is near
	fr         *http2.Framer // writes to out, reads from the connection
	enc        *hpack.Encoder
	encoded    bytes.Buffer
	streams    map[uint32]*h2stream
	sendWindow int64
	initWindow int64
	closing    bool // write what is in out, then close; no frame is obeyed any more
	dead       bool
	// The highest two streams whose requests were acted on, guarded by mu: what a GOAWAY may say.
	acted, actedBefore uint32

	lastID       uint32 // reader only
	bodyReceived int64  // reader only: flow-controlled bytes not given back yet
}

type h2stream struct {
	id         uint32
	req        *request
	body       []byte
	length     int64  // Content-Length, or -1
	sendWindow int64  // guarded by h2conn.mu
	gone       bool   // guarded by h2conn.mu: reset, answered, or the connection ended
	hanging    *entry // guarded by h2conn.mu: to be ended when the client leaves
	ignored    bool   // reader only: answered already, the rest of the body is dropped
}

type appendTo struct{ c *h2conn }

func (a appendTo) Write(p []byte) (int, error) {
	a.c.out = append(a.c.out, p...)
	return len(p), nil
}

func serveHTTP2(sb *sandbox, c *conn, t *tls.Conn) {
	br := bufio.NewReaderSize(t, 32<<10)
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(br, preface); err != nil || string(preface) != http2.ClientPreface {
		return
	}
	h := &h2conn{sb: sb, c: c, t: t, kick: make(chan struct{}, 1), streams: map[uint32]*h2stream{}, sendWindow: 65535, initWindow: 65535}
	h.windowOpen = sync.NewCond(&h.mu)
	h.fr = http2.NewFramer(appendTo{h}, br)
	h.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	h.fr.MaxHeaderListSize = maxHead
	h.fr.SetMaxReadFrameSize(h2MaxFrame)
	h.fr.SetReuseFrames()
	h.enc = hpack.NewEncoder(&h.encoded)
	h.mu.Lock()
	_ = h.fr.WriteSettings(
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: sb.cfg.maxStreams},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: h2Window})
	_ = h.fr.WriteWindowUpdate(0, h2ConnWindow-65535)
	h.mu.Unlock()
	h.wake()
	writerDone := make(chan struct{})
	go func() {
		defer close(writerDone)
		h.writeLoop()
	}()
	h.readLoop(br)
	h.end()
	<-writerDone
}

func (h *h2conn) wake() {
	select {
	case h.kick <- struct{}{}:
	default:
	}
}

func (h *h2conn) writeLoop() {
	var buffer []byte
	for range h.kick {
		h.mu.Lock()
		buffer, h.out = h.out, buffer[:0]
		closing, dead := h.closing, h.dead
		h.mu.Unlock()
		if dead {
			return
		}
		if len(buffer) > 0 {
			if _, err := h.t.Write(buffer); err != nil {
				_ = h.c.raw.Close() // ends the reader, which ends us
			}
		}
		if closing {
			h.c.closeWrite(h.t)
		}
		if cap(buffer) > 1<<20 {
			buffer = nil
		}
	}
}

// end runs once, when the reader is through: nothing can be sent any more.
func (h *h2conn) end() {
	h.mu.Lock()
	h.dead = true
	var left []*entry
	for _, st := range h.streams {
		st.gone = true
		if st.hanging != nil {
			left = append(left, st.hanging)
		}
	}
	streams := h.streams
	h.streams = map[uint32]*h2stream{}
	h.windowOpen.Broadcast()
	h.mu.Unlock()
	_ = h.c.raw.Close()
	h.wake()
	for _, st := range streams {
		if st.req != nil { // its body had not arrived in full
			h.sb.abandon(st.req, st.body)
		}
	}
	for _, p := range left {
		h.sb.finish(p, 0)
	}
}

func (h *h2conn) readLoop(br *bufio.Reader) {
	for {
		frame, err := h.fr.ReadFrame()
		h.mu.Lock()
		closing := h.closing
		h.mu.Unlock()
		if closing {
			if err != nil {
				_, _ = io.Copy(io.Discard, h.c.raw)
				return
			}
			continue
		}
		if err == nil {
			err = h.obey(frame)
		}
		var streamError http2.StreamError
		var connectionError http2.ConnectionError
		switch {
		case err == nil:
		case errors.As(err, &streamError):
			h.resetStream(streamError.StreamID, streamError.Code)
		case errors.As(err, &connectionError):
			h.goAway(http2.ErrCode(connectionError))
		case errors.Is(err, http2.ErrFrameTooLarge):
			h.goAway(http2.ErrCodeFrameSize)
		default:
			return
		}
		if br.Buffered() == 0 {
			h.mu.Lock()
			waiting := len(h.out) > 0
			h.mu.Unlock()
			if waiting {
				h.wake()
			}
		}
	}
}

func (h *h2conn) goAway(code http2.ErrCode) {
	h.mu.Lock()
	_ = h.fr.WriteGoAway(h.lastID, code, nil)
	h.closing = true
	h.mu.Unlock()
	h.wake()
}

// forget ends a stream from the client's side or ours; mu is held.
func (h *h2conn) forget(st *h2stream) {
	st.gone = true
	delete(h.streams, st.id)
	h.windowOpen.Broadcast()
}

func (h *h2conn) resetStream(id uint32, code http2.ErrCode) {
	h.mu.Lock()
	st := h.streams[id]
	if st != nil {
		h.forget(st)
	}
	_ = h.fr.WriteRSTStream(id, code)
	h.mu.Unlock()
	h.wake()
	h.abandonBody(st)
}

// abandonBody ends the account of a stream whose body will not come; on the reader's goroutine.
func (h *h2conn) abandonBody(st *h2stream) {
	if st != nil && st.req != nil && !st.ignored {
		h.sb.abandon(st.req, st.body)
		st.req = nil
	}
}

// obey handles one frame, on the reader's goroutine.
func (h *h2conn) obey(frame http2.Frame) error {
	switch f := frame.(type) {
	case *http2.MetaHeadersFrame:
		return h.onHeaders(f)
	case *http2.DataFrame:
		return h.onData(f)
	case *http2.SettingsFrame:
		return h.onSettings(f)
	case *http2.WindowUpdateFrame:
		return h.onWindowUpdate(f)
	case *http2.PingFrame:
		if !f.IsAck() {
			h.mu.Lock()
			_ = h.fr.WritePing(true, f.Data)
			h.mu.Unlock()
		}
	case *http2.RSTStreamFrame:
		h.mu.Lock()
		st := h.streams[f.StreamID]
		var hanging *entry
		if st != nil {
			hanging, st.hanging = st.hanging, nil
			h.forget(st)
		}
		h.mu.Unlock()
		h.abandonBody(st)
		h.sb.finish(hanging, 0)
	case *http2.PushPromiseFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return nil
}

func (h *h2conn) onSettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		switch s.ID {
		case http2.SettingInitialWindowSize:
			change := int64(s.Val) - h.initWindow
			h.initWindow = int64(s.Val)
			for _, st := range h.streams {
				st.sendWindow += change
			}
			h.windowOpen.Broadcast()
		case http2.SettingHeaderTableSize:
			if s.Val < 4096 {
				h.enc.SetMaxDynamicTableSize(s.Val)
			}
		}
		return nil
	})
	if err == nil {
		_ = h.fr.WriteSettingsAck()
	}
	return err
}

func (h *h2conn) onWindowUpdate(f *http2.WindowUpdateFrame) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	const limit = 1<<31 - 1
	if f.StreamID == 0 {
		if h.sendWindow += int64(f.Increment); h.sendWindow > limit {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
	} else if st := h.streams[f.StreamID]; st != nil {
		if st.sendWindow += int64(f.Increment); st.sendWindow > limit {
			return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeFlowControl}
		}
	}
	h.windowOpen.Broadcast()
	return nil
}

func (h *h2conn) onHeaders(f *http2.MetaHeadersFrame) error {
	id := f.StreamID
	if id <= h.lastID { // trailers
		h.mu.Lock()
		st := h.streams[id]
		h.mu.Unlock()
		if st == nil || st.req == nil {
			return nil
		}
		if !f.StreamEnded() {
			return http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol}
		}
		return h.bodyEnded(st)
	}
	if id%2 == 0 {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	h.lastID = id
	h.mu.Lock()
	full := len(h.streams) >= int(h.sb.cfg.maxStreams)
	h.mu.Unlock()
	if full {
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeRefusedStream}
	}
	if f.Truncated {
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeEnhanceYourCalm}
	}
	r := &request{method: f.PseudoValue("method"), proto: "HTTP/2.0", connection: h.c.id, reused: !h.c.first()}
	r.target = f.PseudoValue("path")
	r.path = pathOf(r.target)
	if r.method == "" || r.path == "" {
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol}
	}
	fields := f.RegularFields()
	r.headers = make([]header, 0, len(fields)+1)
	r.take("Host", f.PseudoValue("authority"))
	st := &h2stream{id: id, req: r, length: -1}
	for _, field := range fields {
		r.take(field.Name, field.Value)
		if field.Name == "content-length" {
			if n, err := strconv.ParseInt(field.Value, 10, 64); err == nil {
				st.length = n
			}
		}
	}
	h.mu.Lock()
	st.sendWindow = h.initWindow
	h.streams[id] = st
	h.mu.Unlock()
	if early := h.sb.begin(r); early != nil {
		h.actOn(id)
		st.ignored = true
		st.req = nil
		stillSending := !f.StreamEnded()
		h.after(early.delay, func() { h.answerEarly(st, r, early.answer, stillSending) })
		return nil
	}
	if f.StreamEnded() {
		return h.bodyEnded(st)
	}
	if st.length > 0 && st.length <= maxBody {
		st.body = make([]byte, 0, st.length)
	}
	return nil
}

func (h *h2conn) onData(f *http2.DataFrame) error {
	h.bodyReceived += int64(f.Length)
	if h.bodyReceived > h2ConnWindow/4 {
		h.mu.Lock()
		_ = h.fr.WriteWindowUpdate(0, uint32(h.bodyReceived))
		h.mu.Unlock()
		h.bodyReceived = 0
	}
	if f.StreamID > h.lastID {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	h.mu.Lock()
	st := h.streams[f.StreamID]
	h.mu.Unlock()
	if st == nil || st.ignored {
		return nil // of a stream that was reset or answered
	}
	if st.req == nil {
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeStreamClosed}
	}
	if len(st.body)+len(f.Data()) > maxBody {
		r := st.req
		st.req, st.ignored = nil, true
		if r.entry != nil {
			h.sb.received(r.entry, nil, false)
		}
		h.answerEarly(st, r, h.sb.errorAnswer(413, "The request body is too large"), true)
		return nil
	}
	st.body = append(st.body, f.Data()...)
	if f.StreamEnded() {
		return h.bodyEnded(st)
	}
	return nil
}

func (h *h2conn) bodyEnded(st *h2stream) error {
	if st.length >= 0 && st.length != int64(len(st.body)) {
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol}
	}
	if !h.actOn(st.id) {
		return nil // as good as not read; end gives the account of it
	}
	r, body := st.req, st.body
	st.req, st.body = nil, nil
	act := h.sb.decide(r, body)
	if r.wait != nil {
		go func() {
			<-r.wait
			h.after(act.delay, func() { h.perform(st, r, act) })
			h.wake()
		}()
		return nil
	}
	h.after(act.delay, func() { h.perform(st, r, act) })
	return nil
}

// actOn notes that the stream's request is acted on, or says that it must not be: a GOAWAY that does not cover it may have been written.
func (h *h2conn) actOn(id uint32) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closing {
		return false
	}
	if id > h.acted {
		h.actedBefore, h.acted = h.acted, id
	} else if id > h.actedBefore {
		h.actedBefore = id
	}
	return true
}

// after runs do now, on the reader's goroutine, or later on one of its own.
func (h *h2conn) after(delay time.Duration, do func()) {
	if delay <= 0 {
		do()
		return
	}
	time.AfterFunc(delay, func() {
		do()
		h.wake()
	})
}

// closeAfter lets write append frames and then closes the connection. The account hears of status first, or of 0 when the client is gone.
func (h *h2conn) closeAfter(e *entry, status int, write func()) {
	h.mu.Lock()
	if h.dead || h.closing {
		status, write = 0, nil
	}
	h.sb.finish(e, status)
	if write != nil {
		write()
	}
	h.closing = true
	h.windowOpen.Broadcast()
	h.mu.Unlock()
	h.wake()
}

func (h *h2conn) perform(st *h2stream, r *request, act action) {
	e, a, f := r.entry, act.answer, act.fault
	switch act.kind {
	case "close":
		h.closeAfter(e, 0, nil)
	case "reset":
		h.sb.finish(e, 0)
		h.c.rst()
	case "hang":
		h.mu.Lock()
		if st.gone {
			h.sb.finish(e, 0)
		} else {
			st.hanging = e
		}
		h.mu.Unlock()
	case "rst_stream":
		h.mu.Lock()
		h.sb.finish(e, 0)
		if !st.gone {
			if f.code == http2.ErrCodeRefusedStream {
				e.refuse()
			}
			_ = h.fr.WriteRSTStream(st.id, f.code)
			h.forget(st)
		}
		h.mu.Unlock()
	case "goaway":
		h.closeAfter(e, 0, func() {
			// What it says is true: streams above the last one it names were not acted on.
			last := h.acted
			if f.Below {
				if last == st.id {
					last = h.actedBefore
				}
				if last > st.id {
					_ = h.fr.WriteRSTStream(st.id, http2.ErrCodeRefusedStream)
				}
				e.refuse()
			}
			_ = h.fr.WriteGoAway(last, http2.ErrCodeNo, nil)
		})
	case "cut_head":
		h.closeAfter(e, a.status, func() { h.writeHead(st, answer{status: a.status}, -1, false) })
	case "cut_body":
		h.closeAfter(e, a.status, func() {
			h.writeHead(st, a, len(a.body), false)
			half := a.body[:len(a.body)/2]
			for len(half) > 0 {
				n := len(half)
				if n > h2MaxFrame {
					n = h2MaxFrame
				}
				_ = h.fr.WriteData(st.id, false, half[:n])
				half = half[n:]
			}
		})
	case "garbage":
		h.closeAfter(e, 0, func() { h.out = append(h.out, garbage...) })
	case "raw":
		if !f.Keep {
			h.closeAfter(e, 0, func() { h.out = append(h.out, f.raw...) })
			return
		}
		h.mu.Lock()
		h.sb.finish(e, 0)
		h.out = append(h.out, f.raw...)
		h.forget(st)
		h.mu.Unlock()
	case "slow_body":
		go h.sendBody(st, r, a, 1, time.Duration(f.ByteMs)*time.Millisecond)
	case "second_answer":
		h.respond(st, r, a)
		second := h.sb.jsonAnswer(201, createdBody("unsolicited"))
		time.AfterFunc(time.Duration(f.SecondMs)*time.Millisecond, func() {
			h.mu.Lock()
			if !h.dead && !h.closing {
				h.writeHead(st, second, len(second.body), false)
				_ = h.fr.WriteData(st.id, true, second.body)
			}
			h.mu.Unlock()
			h.wake()
		})
	default:
		h.respond(st, r, a)
	}
}

// open says whether the stream can still be answered; where not, the account hears it. mu is held.
func (h *h2conn) open(st *h2stream, r *request) bool {
	if st.gone || h.dead || h.closing {
		h.sb.finish(r.entry, 0)
		return false
	}
	return true
}

// answerEarly answers a stream whose body the client is still sending, as real servers do: a whole answer, then RST_STREAM(NO_ERROR).
func (h *h2conn) answerEarly(st *h2stream, r *request, a answer, stillSending bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.open(st, r) {
		return
	}
	h.sb.finish(r.entry, a.status)
	h.writeWhole(st, a)
	if stillSending {
		_ = h.fr.WriteRSTStream(st.id, http2.ErrCodeNo)
	}
	h.forget(st)
}

// respond sends the whole answer, in one go where the client's windows allow it.
func (h *h2conn) respond(st *h2stream, r *request, a answer) {
	size := int64(len(a.body))
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.open(st, r) {
		return
	}
	if bodyless(a.status) || (size <= h2MaxFrame && size <= st.sendWindow && size <= h.sendWindow) {
		h.sb.finish(r.entry, a.status) // first, so that the account is right when the client has its answer
		h.writeWhole(st, a)
		h.forget(st)
		return
	}
	go h.sendBody(st, r, a, h2MaxFrame, 0)
}

// writeWhole writes an answer that fits one frame; mu is held.
func (h *h2conn) writeWhole(st *h2stream, a answer) {
	if bodyless(a.status) {
		h.writeHead(st, a, -1, true)
		return
	}
	h.writeHead(st, a, len(a.body), len(a.body) == 0)
	if len(a.body) > 0 {
		_ = h.fr.WriteData(st.id, true, a.body)
		st.sendWindow -= int64(len(a.body))
		h.sendWindow -= int64(len(a.body))
	}
}

// sendBody writes the head and then the body in pieces of at most step bytes, each after a pause and as the windows open. On a goroutine of
// its own. The status counts as sent with the head.
func (h *h2conn) sendBody(st *h2stream, r *request, a answer, step int, pause time.Duration) {
	h.mu.Lock()
	if !h.open(st, r) {
		h.mu.Unlock()
		return
	}
	h.sb.finish(r.entry, a.status)
	h.writeHead(st, a, len(a.body), len(a.body) == 0)
	h.mu.Unlock()
	h.wake()
	body := a.body
	for len(body) > 0 {
		if pause > 0 {
			time.Sleep(pause)
		}
		h.mu.Lock()
		for (st.sendWindow <= 0 || h.sendWindow <= 0) && !st.gone && !h.dead && !h.closing {
			h.windowOpen.Wait()
		}
		if st.gone || h.dead || h.closing {
			h.mu.Unlock()
			return
		}
		n := int64(step)
		for _, most := range []int64{int64(len(body)), st.sendWindow, h.sendWindow} {
			if n > most {
				n = most
			}
		}
		st.sendWindow -= n
		h.sendWindow -= n
		_ = h.fr.WriteData(st.id, n == int64(len(body)), body[:n])
		h.mu.Unlock()
		h.wake()
		body = body[n:]
	}
	h.mu.Lock()
	h.forget(st)
	h.mu.Unlock()
}

// writeHead writes HEADERS, and CONTINUATION where one frame is too small; length -1 leaves Content-Length out. mu is held.
func (h *h2conn) writeHead(st *h2stream, a answer, length int, end bool) {
	h.encoded.Reset()
	field := func(name, value string) { _ = h.enc.WriteField(hpack.HeaderField{Name: name, Value: value}) }
	field(":status", strconv.Itoa(a.status))
	for _, header := range a.headers {
		name := lowerName(header.name)
		if name == "content-length" {
			length = -1
		}
		// A request id never repeats: indexing it would only push useful entries out of the table.
		_ = h.enc.WriteField(hpack.HeaderField{Name: name, Value: header.value, Sensitive: name == "request-id"})
	}
	if length >= 0 {
		field("content-length", strconv.Itoa(length))
	}
	block := h.encoded.Bytes()
	n := len(block)
	if n > h2MaxFrame {
		n = h2MaxFrame
	}
	_ = h.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: st.id, BlockFragment: block[:n], EndStream: end, EndHeaders: n == len(block)})
	for block = block[n:]; len(block) > 0; block = block[n:] {
		if n = len(block); n > h2MaxFrame {
			n = h2MaxFrame
		}
		_ = h.fr.WriteContinuation(st.id, n == len(block), block[:n])
	}
}

func lowerName(name string) string {
	switch name { // the ones on every answer, without an allocation
	case "Content-Type":
		return "content-type"
	case "Request-Id":
		return "request-id"
	}
	return strings.ToLower(name)
}
