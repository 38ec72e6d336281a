package sshproxy

import (
	"net"
	"testing"
	"time"
)

// bufferedPipe is a net.Pipe whose writes do not wait for the reader, as a socket's do not (both ends
// of an SSH handshake write before they read), and whose bytes arrive after a delay.
func bufferedPipe(t *testing.T, delay time.Duration) (a, b net.Conn) {
	a, b = net.Pipe()
	return newDelayedConn(t, a, delay), newDelayedConn(t, b, delay)
}

type delayedConn struct {
	net.Conn
	delay time.Duration
	out   chan delayedBytes
	over  chan struct{} // closed at the test's end, when somebody may still be writing
}

type delayedBytes struct {
	at   time.Time
	data []byte
}

func newDelayedConn(t *testing.T, conn net.Conn, delay time.Duration) net.Conn {
	d := &delayedConn{Conn: conn, delay: delay, out: make(chan delayedBytes, 1000), over: make(chan struct{})} // more than a test writes
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case p := <-d.out:
				time.Sleep(time.Until(p.at)) // fake time: tests with it run in a bubble
				if _, err := conn.Write(p.data); err != nil {
					conn.Close()
				}
			case <-d.over:
				return
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); close(d.over); <-done })
	return d
}

func (d *delayedConn) Write(p []byte) (int, error) {
	select {
	case d.out <- delayedBytes{time.Now().Add(d.delay), append([]byte(nil), p...)}:
		return len(p), nil
	case <-d.over:
		return 0, net.ErrClosed
	}
}
