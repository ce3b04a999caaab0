package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	handshakeTimeout = 15 * time.Second
	lingerTimeout    = time.Second
	backlog          = 4096 // the kernel caps it
)

// front owns the HTTPS port and every connection on it. Safe for every goroutine.
type front struct {
	sb      *sandbox
	tls     *tls.Config
	address string // with the real port

	mu       sync.Mutex
	mode     string
	listener net.Listener // nil while refusing
	held     *os.File     // keeps the port ours while refusing: bound, not listening
	conns    map[*conn]bool
	nextID   int64
	closed   bool
}

// conn is one TCP connection. It belongs to the goroutine that serves it; raw may be closed by anyone.
type conn struct {
	id       int64
	raw      net.Conn
	requests int64 // atomic
}

// first tells whether this is the connection's first request, and counts it.
func (c *conn) first() bool { return atomic.AddInt64(&c.requests, 1) == 1 }

// rst drops the connection with a TCP RST.
func (c *conn) rst() {
	if tcp, ok := c.raw.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.raw.Close()
}

// closeWrite says goodbye (close_notify and FIN) but leaves the reading side open for a moment: closing with unread bytes would send RST,
// and the peer's kernel would then throw away what it has not read yet.
func (c *conn) closeWrite(t *tls.Conn) {
	_ = c.raw.SetDeadline(time.Now().Add(lingerTimeout))
	_ = t.CloseWrite()
	if tcp, ok := c.raw.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
}

func listenFront(sb *sandbox, tlsConfig *tls.Config, address string) (*front, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	f := &front{sb: sb, tls: tlsConfig, address: listener.Addr().String(), mode: "accept", listener: listener,
		conns: map[*conn]bool{}}
	go f.acceptLoop(listener)
	return f, nil
}

func (f *front) acceptLoop(listener net.Listener) {
	for {
		raw, err := listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(5 * time.Millisecond) // out of file descriptors, or a connection that was reset in the backlog
			continue
		}
		f.mu.Lock()
		f.nextID++
		c := &conn{id: f.nextID, raw: raw}
		mode := f.mode
		if mode == "refuse" || f.closed {
			f.mu.Unlock()
			c.rst() // it was in the backlog when the port closed
			continue
		}
		f.conns[c] = true
		f.mu.Unlock()
		f.sb.current().connectionOpened()
		go f.serve(c, mode)
	}
}

func (f *front) serve(c *conn, mode string) {
	defer func() {
		_ = c.raw.Close()
		f.mu.Lock()
		delete(f.conns, c)
		f.mu.Unlock()
	}()
	switch mode {
	case "reset":
		c.rst()
		return
	case "silent":
		_, _ = io.Copy(io.Discard, c.raw)
		return
	}
	t := tls.Server(c.raw, f.tls)
	_ = c.raw.SetDeadline(time.Now().Add(handshakeTimeout))
	if t.Handshake() != nil {
		return
	}
	_ = c.raw.SetDeadline(time.Time{})
	if t.ConnectionState().NegotiatedProtocol == "h2" {
		serveHTTP2(f.sb, c, t)
	} else if f.sb.cfg.http != "2" {
		serveHTTP1(f.sb, c, t)
	}
}

func (f *front) openConnections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.conns)
}

func (f *front) dropConnections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		_ = c.raw.Close()
	}
	return len(f.conns)
}

// setMode changes what happens to new connections; open ones go on.
func (f *front) setMode(mode string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch mode {
	case "accept", "silent", "reset":
		if f.listener == nil && f.held != nil {
			if err := f.reopen(); err != nil {
				return err
			}
		}
	case "refuse":
		if f.listener != nil {
			if err := f.refuse(); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("unknown mode %q", mode)
	}
	f.mode = mode
	return nil
}

// refuse closes the port. A socket that is bound but does not listen keeps the number ours, so that no other process can take it meanwhile;
// connecting to it is refused.
func (f *front) refuse() error {
	_ = f.listener.Close()
	f.listener = nil
	tcp, err := net.ResolveTCPAddr("tcp", f.address)
	if err != nil {
		return err
	}
	family, target := syscall.AF_INET6, syscall.Sockaddr(nil)
	if v4 := tcp.IP.To4(); v4 != nil {
		sa := &syscall.SockaddrInet4{Port: tcp.Port}
		copy(sa.Addr[:], v4)
		family, target = syscall.AF_INET, sa
	} else {
		sa := &syscall.SockaddrInet6{Port: tcp.Port}
		copy(sa.Addr[:], tcp.IP.To16())
		target = sa
	}
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	syscall.CloseOnExec(fd)
	file := os.NewFile(uintptr(fd), "held port")
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		_ = file.Close()
		return err
	}
	// The old listener is gone at once in the kernel, but a connection that was being accepted may hold it a moment longer.
	for try := 0; ; try++ {
		if err = syscall.Bind(fd, target); err == nil {
			break
		}
		if try == 50 {
			_ = file.Close()
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
	// SO_REUSEADDR was needed to bind beside the connections that are still open; kept, it would let another process bind, too.
	_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 0)
	f.held = file
	return nil
}

// reopen makes the held socket listen, so that there is no moment at which the port is free.
func (f *front) reopen() error {
	var err error
	listen := func(fd uintptr) {
		if err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err == nil {
			err = syscall.Listen(int(fd), backlog)
		}
	}
	raw, controlErr := f.held.SyscallConn()
	if controlErr != nil {
		return controlErr
	}
	if controlErr = raw.Control(listen); controlErr != nil {
		return controlErr
	}
	if err != nil {
		return err
	}
	listener, err := net.FileListener(f.held)
	if err != nil {
		return err
	}
	_ = f.held.Close() // the listener has its own descriptor
	f.held = nil
	f.listener = listener
	go f.acceptLoop(listener)
	return nil
}

func (f *front) close() {
	f.mu.Lock()
	f.closed = true
	if f.listener != nil {
		_ = f.listener.Close()
	}
	if f.held != nil {
		_ = f.held.Close()
	}
	f.mu.Unlock()
	f.dropConnections()
}
