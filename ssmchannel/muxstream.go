package ssmchannel

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

var (
	// ErrPort says that the agent could not connect to the port of the session.
	ErrPort = errors.New("the node could not connect to the port")
	// errHungUp is a write to a connection that the port has closed.
	errHungUp = errors.New("connection closed by the port")
)

// muxStream is one connection of a multiplexed session, as a net.Conn.
//
// A stream has no window: Write returns when the bytes fit into the next frame,
// and an unread stream shares its buffer with all others. After either end's close
// the agent drops what is under way in both directions.
type muxStream struct {
	session *muxSession
	id      uint32

	opened chan struct{} // closed when the SYN has been taken
	closed chan struct{} // closed by Close
	once   sync.Once

	readDeadline, writeDeadline deadline

	readMu, writeMu sync.Mutex // serialize Read and Write

	// Signals of capacity one.
	readable chan struct{}
	writable chan struct{}

	// The session's mu guards these.
	inbox     byteQueue
	next      []byte // data of the next frame
	queued    bool   // in session.ready
	synSent   bool
	closing   bool // a FIN is to follow the data
	finSent   bool
	virgin    bool  // nothing was ever received
	finished  bool  // the agent's FIN has come
	finishErr error // what that means: io.EOF or ErrPort
}

var _ net.Conn = (*muxStream)(nil)

func newMuxStream(m *muxSession, id uint32) *muxStream {
	return &muxStream{
		session: m, id: id, virgin: true,
		opened:        make(chan struct{}),
		closed:        make(chan struct{}),
		readDeadline:  newDeadline(),
		writeDeadline: newDeadline(),
		readable:      make(chan struct{}, 1),
		writable:      make(chan struct{}, 1),
	}
}

// takeLocked appends the frame that is next and takes it off the stream.
func (s *muxStream) takeLocked(buf []byte) []byte {
	if !s.synSent {
		s.synSent = true
		close(s.opened)
		buf = appendMuxHeader(buf, muxHeader{command: muxSYN, stream: s.id})
	}
	if len(s.next) > 0 {
		buf = appendMuxHeader(buf, muxHeader{command: muxPSH, length: uint16(len(s.next)), stream: s.id})
		buf = append(buf, s.next...)
		s.next = s.next[:0]
		signal(s.writable)
		return buf
	}
	if s.closing && !s.finSent {
		s.finSent = true
		s.next = nil
		buf = appendMuxHeader(buf, muxHeader{command: muxFIN, stream: s.id})
		s.session.forgetLocked(s)
	}
	return buf
}

// sendsLocked reports whether there is more to take.
func (s *muxStream) sendsLocked() bool {
	return len(s.next) > 0 || s.closing && !s.finSent
}

// deliverLocked takes in received bytes. They are copied.
func (s *muxStream) deliverLocked(b []byte) {
	s.virgin = false
	if s.closing || s.finished {
		return
	}
	s.inbox.write(b)
	s.session.held += len(b)
	signal(s.readable)
}

// finishLocked takes in the agent's FIN, which stands at an offset of the session's
// bytes. The agent reports a connection that it could not make by a flag without
// a stream, and then closes the stream (agent: session/plugins/port/port_mux.go,
// handleServerConnections): so a flag that came before belongs to the first stream
// that ends without a byte.
func (s *muxStream) finishLocked(offset uint64) {
	if s.finished {
		return
	}
	s.finished, s.finishErr = true, io.EOF
	if s.virgin && s.session.conn.takePortError(offset) {
		s.finishErr = s.opError("dial", ErrPort)
	}
	signal(s.readable)
	signal(s.writable)
	signal(s.session.idle)
	s.session.forgetLocked(s)
}

// Read implements net.Conn. A connection that the node could not make ends with
// ErrPort.
func (s *muxStream) Read(p []byte) (n int, err error) {
	s.readMu.Lock()
	defer s.readMu.Unlock()
	blocked := attempt(&s.readDeadline, s.readable, s.closed, s.session.done, func() bool {
		n, err = s.take(p)
		return n > 0 || err != nil || len(p) == 0
	})
	if blocked != nil {
		return 0, s.opError("read", blocked)
	}
	return n, err
}

// take moves received bytes to p.
func (s *muxStream) take(p []byte) (int, error) {
	m := s.session
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := s.inbox.read(p); n > 0 {
		m.readLocked(n)
		return n, nil
	}
	switch {
	case s.finished:
		return 0, s.finishErr
	case m.err != nil:
		return 0, s.opError("read", m.err)
	}
	return 0, nil
}

// Write implements net.Conn.
func (s *muxStream) Write(p []byte) (n int, err error) {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	for {
		blocked := attempt(&s.writeDeadline, s.writable, s.closed, s.session.done, func() bool {
			var queued int
			queued, err = s.put(p[n:])
			n += queued
			return queued > 0 || err != nil || n == len(p)
		})
		switch {
		case blocked != nil:
			return n, s.opError("write", blocked)
		case err != nil || n == len(p):
			return n, err
		}
	}
}

// put adds to the next frame what has room in it, and returns how many bytes.
func (s *muxStream) put(p []byte) (int, error) {
	m := s.session
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.err != nil:
		return 0, s.opError("write", m.err)
	case s.finished:
		if s.finishErr != io.EOF {
			return 0, s.finishErr
		}
		return 0, s.opError("write", errHungUp)
	}
	n := min(len(p), muxFrameBytes-len(s.next))
	if n > 0 {
		s.next = append(s.next, p[:n]...)
		m.readyLocked(s)
	}
	return n, nil
}

// Close implements net.Conn. What was written leaves before the end of the stream;
// Close does not wait for it.
func (s *muxStream) Close() error {
	err := net.ErrClosed
	s.once.Do(func() {
		err = nil
		close(s.closed)
		m := s.session
		m.mu.Lock()
		defer m.mu.Unlock()
		s.closing = true
		m.readLocked(s.inbox.n)
		s.inbox = byteQueue{}
		m.readyLocked(s)
	})
	if err != nil {
		return s.opError("close", err)
	}
	return nil
}

func (s *muxStream) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: networkName, Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: err}
}

// SetDeadline implements net.Conn.
func (s *muxStream) SetDeadline(t time.Time) error {
	s.readDeadline.set(t)
	s.writeDeadline.set(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (s *muxStream) SetReadDeadline(t time.Time) error {
	s.readDeadline.set(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (s *muxStream) SetWriteDeadline(t time.Time) error {
	s.writeDeadline.set(t)
	return nil
}

// LocalAddr implements net.Conn; it names session and stream.
func (s *muxStream) LocalAddr() net.Addr { return s.addr("client") }

// RemoteAddr implements net.Conn; it names session and stream.
func (s *muxStream) RemoteAddr() net.Addr { return s.addr("agent") }

func (s *muxStream) addr(end string) net.Addr {
	return addr(fmt.Sprintf("%s/%s/%d", end, s.session.conn.session.ID, s.id))
}
