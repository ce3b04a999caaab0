//go:build e2e

package e2e

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// tap forwards TCP to the gateway and breaks connections at random points: in the middle of a request on its way there,
// or of an answer on its way back, with FIN or RST; some at once.
type tap struct {
	address        string
	target         string
	refused        atomic.Int64
	brokenRequests atomic.Int64
	brokenAnswers  atomic.Int64

	mu   sync.Mutex
	open map[*net.TCPConn]bool // of clients
}

// breakAll ends every open connection, and says how many there were.
func (p *tap) breakAll() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for client := range p.open {
		_ = client.SetLinger(rand.IntN(2) - 1)
		_ = client.Close()
	}
	return len(p.open)
}

func newTap(t *testing.T, target string) *tap {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	p := &tap{address: listener.Addr().String(), target: target, open: map[*net.TCPConn]bool{}}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go p.forward(client.(*net.TCPConn))
		}
	}()
	return p
}

func (p *tap) forward(client *net.TCPConn) {
	defer func() { _ = client.Close() }()
	if rand.IntN(8) == 0 {
		p.refused.Add(1)
		_ = client.SetLinger(rand.IntN(2) - 1) // 0: RST
		return
	}
	conn, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	gateway := conn.(*net.TCPConn)
	defer func() { _ = gateway.Close() }()
	p.mu.Lock()
	p.open[client] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.open, client)
		p.mu.Unlock()
	}()
	ended := make(chan struct{}, 2)
	limitUp, limitDown := int64(-1), int64(-1)
	if rand.IntN(2) == 0 {
		limitUp = 200 + rand.Int64N(8000)
	} else {
		limitDown = 60 + rand.Int64N(4000)
	}
	pass := func(to, from *net.TCPConn, limit int64, broken *atomic.Int64) {
		if limit < 0 {
			_, _ = io.Copy(to, from)
		} else if n, _ := io.CopyN(to, from, limit); n == limit {
			broken.Add(1)
			if rand.IntN(2) == 0 {
				_ = client.SetLinger(0)
				_ = gateway.SetLinger(0)
			}
		}
		ended <- struct{}{}
	}
	go pass(gateway, client, limitUp, &p.brokenRequests)
	go pass(client, gateway, limitDown, &p.brokenAnswers)
	<-ended
}
