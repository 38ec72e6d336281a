package lab

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// lineLimitBytes bounds what one direction of one connection holds: enough for 160 MB/s at a
	// round trip of 400 ms, so that the delay does not lower throughput.
	lineLimitBytes = 32 << 20
	// pumpBytes is the largest single read or write of a pump.
	pumpBytes = 64 << 10
	// flushTimeout bounds how long a closed connection goes on delivering what was written before.
	flushTimeout = 5 * time.Second
)

// A hopConn is the accepting side of a delayed connection. Its own queues hold the bytes that are
// under way, so both directions are charged here and the other end can be any program.
type hopConn struct {
	net.Conn
	hop     *hop
	in, out line
	ready   time.Time // when the TCP handshake would have brought the first byte here
	once    sync.Once
}

func newHopConn(c net.Conn, h *hop) *hopConn {
	// The kernel finished the TCP handshake in no time; a real one costs the client one round trip
	// before its first byte leaves, which then takes another half.
	rtt := h.link.Load().RTT
	conn := &hopConn{Conn: c, hop: h, ready: time.Now().Add(rtt + rtt/2)}
	conn.in.init(h)
	conn.out.init(h)
	return conn
}

// pumpIn carries bytes from the socket to the queue that Read empties.
func (c *hopConn) pumpIn() {
	buf := make([]byte, pumpBytes)
	for {
		n, err := c.Conn.Read(buf)
		if n > 0 {
			c.in.put(buf[:n], c.ready)
		}
		if err != nil {
			c.in.finish(err)
			return
		}
	}
}

// pumpOut carries bytes from the queue that Write fills to the socket, and owns the socket's end.
func (c *hopConn) pumpOut() {
	defer c.hop.forget(c)
	defer c.Conn.Close()
	buf := make([]byte, pumpBytes)
	for {
		n, err := c.out.take(buf)
		if n > 0 {
			if _, werr := c.Conn.Write(buf[:n]); werr != nil {
				c.out.discard()
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// Read returns bytes whose time has come.
func (c *hopConn) Read(p []byte) (int, error) { return c.in.take(p) }

// Write queues p; it blocks only while the queue is full.
func (c *hopConn) Write(p []byte) (int, error) { return c.out.put(p, time.Time{}) }

// Close delivers what was written, in its time, and then closes the socket.
func (c *hopConn) Close() error {
	c.once.Do(func() {
		c.in.discard()
		c.out.finish(io.EOF)
		c.Conn.SetWriteDeadline(time.Now().Add(c.hop.longest() + flushTimeout))
	})
	return nil
}

// abort resets the connection and drops what is under way.
func (c *hopConn) abort() {
	hardClose(c.Conn) // before the pumps learn of it: pumpOut closes the socket as well
	c.in.finish(net.ErrClosed)
	c.in.discard()
	c.out.discard()
	reset(c.Conn)
}

// SetDeadline bounds reads and writes.
func (c *hopConn) SetDeadline(t time.Time) error {
	c.in.setReadDeadline(t)
	c.out.setWriteDeadline(t)
	return nil
}

// SetReadDeadline bounds reads.
func (c *hopConn) SetReadDeadline(t time.Time) error {
	c.in.setReadDeadline(t)
	return nil
}

// SetWriteDeadline bounds the wait for room in the queue.
func (c *hopConn) SetWriteDeadline(t time.Time) error {
	c.out.setWriteDeadline(t)
	return nil
}

// A line is one direction of a connection: a bounded queue of bytes, each with the time at which
// it may be taken. It is safe for one putter and one taker, and for deadlines set by others.
type line struct {
	hop *hop

	mu        sync.Mutex
	cond      *sync.Cond
	queue     []chunk
	bytes     int
	busyUntil time.Time // the link is occupied until then (bandwidth)
	last      time.Time // due time of the newest chunk; later ones are never due before it
	end       error     // what take returns once the queue is empty; nil while open
	endDue    time.Time
	dropped   bool // the taker is gone: puts are swallowed
	readBy    time.Time
	writeBy   time.Time
}

type chunk struct {
	data []byte
	due  time.Time
}

func (l *line) init(h *hop) {
	l.hop = h
	l.cond = sync.NewCond(&l.mu)
}

// put queues a copy of p, due after the hop's delay and never before notBefore.
func (l *line) put(p []byte, notBefore time.Time) (int, error) {
	now := time.Now()
	due := l.hop.due(now)
	cost := l.hop.cost(len(p))
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.bytes > 0 && l.bytes+len(p) > lineLimitBytes && l.end == nil && !l.dropped {
		if expired(l.writeBy) {
			return 0, os.ErrDeadlineExceeded
		}
		l.waitLocked(l.writeBy)
	}
	switch {
	case l.end != nil:
		return 0, net.ErrClosed
	case l.dropped:
		return len(p), nil
	}
	if cost > 0 {
		l.busyUntil = later(l.busyUntil, now).Add(cost)
		due = due.Add(l.busyUntil.Sub(now))
	}
	l.last = later(later(due, notBefore), l.last)
	l.queue = append(l.queue, chunk{data: append([]byte(nil), p...), due: l.last})
	l.bytes += len(p)
	l.cond.Broadcast()
	return len(p), nil
}

// take copies the bytes that are due into p; it waits for at least one.
func (l *line) take(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if expired(l.readBy) {
			return 0, os.ErrDeadlineExceeded
		}
		if l.dropped {
			return 0, net.ErrClosed
		}
		stalled := l.hop.stalled.Load()
		if !stalled {
			if n := l.takeDueLocked(p); n > 0 {
				l.cond.Broadcast()
				return n, nil
			}
			if l.end != nil && len(l.queue) == 0 && !l.endDue.After(time.Now()) {
				return 0, l.end
			}
		}
		until := l.readBy
		switch {
		case stalled:
		case len(l.queue) > 0:
			until = sooner(until, l.queue[0].due)
		case l.end != nil:
			until = sooner(until, l.endDue)
		}
		l.waitLocked(until)
	}
}

func (l *line) takeDueLocked(p []byte) int {
	n, now := 0, time.Now()
	for len(l.queue) > 0 && n < len(p) && !l.queue[0].due.After(now) {
		head := &l.queue[0]
		k := copy(p[n:], head.data)
		n += k
		if head.data = head.data[k:]; len(head.data) == 0 {
			*head = chunk{}
			l.queue = l.queue[1:]
		}
	}
	l.bytes -= n
	return n
}

// finish ends the line: what is queued still arrives, then err.
func (l *line) finish(err error) {
	due := l.hop.due(time.Now())
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end == nil {
		l.end = err
		l.endDue = later(due, l.last)
	}
	l.cond.Broadcast()
}

// discard drops what is queued and everything that comes.
func (l *line) discard() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropped = true
	l.queue, l.bytes = nil, 0
	l.cond.Broadcast()
}

func (l *line) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cond.Broadcast()
}

func (l *line) setReadDeadline(t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.readBy = t
	l.cond.Broadcast()
}

func (l *line) setWriteDeadline(t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writeBy = t
	l.cond.Broadcast()
}

// waitLocked waits for a change of the line, at most until t when t is not zero.
func (l *line) waitLocked(t time.Time) {
	if t.IsZero() {
		l.cond.Wait()
		return
	}
	timer := time.AfterFunc(time.Until(t), l.wake)
	defer timer.Stop()
	l.cond.Wait()
}

func expired(t time.Time) bool { return !t.IsZero() && !t.After(time.Now()) }

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// sooner returns the earlier of two times, where zero means never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}
