package main

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// firstByteConn holds back what is written until the peer has spoken, and bounds the wait for
// that. The SSH server speaks first (RFC 4253 section 4.2 lets either side); a node's agent refuses
// what reaches it before it has dialled the port, and each refusal costs a retransmission. Nothing
// is lost by waiting: the client's own key exchange begins only after the server's version line.
type firstByteConn struct {
	net.Conn
	silence error // what Read returns when the limit has passed

	spoken atomic.Bool
	mu     sync.Mutex // guards held, and that it leaves before anything written later
	held   []byte
}

// newFirstByteConn wraps conn. The limit bounds the wait for its first byte, 0 does not; silence is
// the error that says so.
func newFirstByteConn(conn net.Conn, limit time.Duration, silence error) net.Conn {
	if limit > 0 {
		conn.SetReadDeadline(time.Now().Add(limit)) //nolint:errcheck // a conn without deadlines waits without one
	}
	return &firstByteConn{Conn: conn, silence: silence}
}

// Read reads; the first bytes let the held ones go.
func (c *firstByteConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.spoken.Load() {
		return n, err
	}
	if n == 0 {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = c.silence
		}
		return n, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Conn.SetReadDeadline(time.Time{}) //nolint:errcheck // see newFirstByteConn
	if len(c.held) > 0 {
		if _, werr := c.Conn.Write(c.held); werr != nil && err == nil {
			err = werr
		}
	}
	c.held = nil
	c.spoken.Store(true)
	return n, err
}

// Write writes, or holds p back until the peer has spoken.
func (c *firstByteConn) Write(p []byte) (int, error) {
	if c.spoken.Load() {
		return c.Conn.Write(p)
	}
	c.mu.Lock()
	if !c.spoken.Load() {
		c.held = append(c.held, p...)
		c.mu.Unlock()
		return len(p), nil
	}
	c.mu.Unlock()
	return c.Conn.Write(p)
}
