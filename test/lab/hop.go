package lab

import (
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Link says what a hop does to the bytes that cross it.
type Link struct {
	RTT            time.Duration // there and back; each direction takes half of it
	Jitter         time.Duration // up to this much more per write, order kept
	BytesPerSecond int64         // each direction of each connection; 0 is unlimited
}

// A hop is one stretch of network: every connection accepted through its listener is delayed by
// its link, and all of them can be stalled, refused or cut together.
type hop struct {
	name     string
	connects *atomic.Int64 // connections taken; nil: not counted

	link    atomic.Pointer[Link]
	stalled atomic.Bool

	mu       sync.Mutex
	refusing bool
	closed   bool
	conns    map[*hopConn]struct{}
	wg       sync.WaitGroup // two pumps per connection
}

func newHop(name string, link Link, connects *atomic.Int64) *hop {
	h := &hop{name: name, connects: connects, conns: make(map[*hopConn]struct{})}
	h.link.Store(&link)
	return h
}

// listen wraps l: connections accepted from the result belong to the hop.
func (h *hop) listen(l net.Listener) net.Listener { return &hopListener{Listener: l, hop: h} }

type hopListener struct {
	net.Listener
	hop *hop
}

// Accept returns the next connection that the hop lets through.
func (l *hopListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if conn := l.hop.admit(c); conn != nil {
			return conn, nil
		}
		reset(c)
	}
}

// admit starts the delay line of c; nil means that the hop refuses it.
func (h *hop) admit(c net.Conn) net.Conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || h.refusing {
		return nil
	}
	conn := newHopConn(c, h)
	h.conns[conn] = struct{}{}
	if h.connects != nil {
		h.connects.Add(1)
	}
	h.wg.Go(conn.pumpIn)
	h.wg.Go(conn.pumpOut)
	return conn
}

func (h *hop) forget(c *hopConn) {
	h.mu.Lock()
	delete(h.conns, c)
	h.mu.Unlock()
}

// due returns when bytes handed over now arrive at the other end.
func (h *hop) due(now time.Time) time.Time {
	link := h.link.Load()
	at := now.Add(link.RTT / 2)
	if link.Jitter > 0 {
		at = at.Add(rand.N(link.Jitter))
	}
	return at
}

// cost returns how long n bytes occupy the link.
func (h *hop) cost(n int) time.Duration {
	rate := h.link.Load().BytesPerSecond
	if rate <= 0 {
		return 0
	}
	return time.Duration(int64(n) * int64(time.Second) / rate)
}

// longest returns the greatest delay that the link gives one way, with room to spare.
func (h *hop) longest() time.Duration {
	link := h.link.Load()
	return link.RTT + link.Jitter
}

// setLink changes the delay for bytes not yet handed over.
func (h *hop) setLink(link Link) { h.link.Store(&link) }

// setStalled makes a black hole of the hop, or ends it: sockets stay open, nothing arrives.
func (h *hop) setStalled(on bool) {
	h.stalled.Store(on)
	for _, c := range h.change(func() {}) {
		c.in.wake()
		c.out.wake()
	}
}

// setRefusing resets new connections right after the kernel took them.
func (h *hop) setRefusing(on bool) { h.change(func() { h.refusing = on }) }

// cut resets every connection of the hop.
func (h *hop) cut() {
	for _, c := range h.change(func() {}) {
		c.abort()
	}
}

// change runs f under the lock and returns the connections of that moment.
func (h *hop) change(f func()) []*hopConn {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	conns := make([]*hopConn, 0, len(h.conns))
	for c := range h.conns {
		conns = append(conns, c)
	}
	return conns
}

// close cuts everything and waits for the pumps.
func (h *hop) close() {
	for _, c := range h.change(func() { h.closed = true }) {
		c.abort()
	}
	h.wg.Wait()
}

// reset closes c so that its peer sees a reset instead of an end.
func reset(c net.Conn) {
	hardClose(c)
	c.Close()
}

// hardClose has whoever closes c reset it.
func hardClose(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
}
