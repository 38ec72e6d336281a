package ssmchannel

import (
	"bufio"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"sync"
	"time"
)

const (
	// muxKeepAlive spaces keepalives, where the agent wants them: it closes after
	// 30 s without (smux: mux.go, DefaultConfig).
	muxKeepAlive = 10 * time.Second
	// muxIncomingBytes is how much all streams together may have received that
	// nobody has read. Version 1 has no window for a single stream, so beyond it
	// a slow reader stops all (smux: mux.go, MaxReceiveBuffer, has the same).
	muxIncomingBytes = 4 << 20
	// firstStream is the id of a client's first stream (smux: session.go); the
	// rest are odd, too.
	firstStream = 3
)

var errStreamsUsedUp = errors.New("stream ids are used up")

// muxSession is a client of smux version 1 over a data channel. Its own code, for
// what xtaci/smux does not give: see docs/decisions/008.
//
// Two goroutines, ended and awaited by close: readLoop owns parsing, sendLoop
// owns conn.Write. mu guards the rest, the fields of streams that say so included.
type muxSession struct {
	conn      *Conn
	keepAlive bool
	loops     sync.WaitGroup
	done      chan struct{} // closed when the session is over

	// Signals of capacity one.
	sendable chan struct{} // to sendLoop: a stream is ready, or a look is due
	room     chan struct{} // to readLoop: something was read
	idle     chan struct{} // to close: less is under way

	mu      sync.Mutex
	streams map[uint32]*muxStream
	nextID  uint64
	ready   fifo[*muxStream] // those with something to send, each once
	writing bool             // sendLoop is in conn.Write
	held    int              // received and not read, in bytes
	err     error            // why it is over
}

func startMuxSession(conn *Conn, keepAlive bool) *muxSession {
	m := &muxSession{
		conn: conn, keepAlive: keepAlive,
		done:     make(chan struct{}),
		sendable: make(chan struct{}, 1),
		room:     make(chan struct{}, 1),
		idle:     make(chan struct{}, 1),
		streams:  make(map[uint32]*muxStream),
		nextID:   firstStream,
	}
	m.loops.Go(func() { m.fail(m.readLoop()) })
	m.loops.Go(func() { m.fail(m.sendLoop()) })
	return m
}

// open opens a stream and returns when its opening frame is on its way. The agent does
// not answer it: whether it could connect shows at the first Read.
func (m *muxSession) open(ctx context.Context) (*muxStream, error) {
	s, err := m.newStream()
	if err != nil {
		return nil, err
	}
	select {
	case <-s.opened:
		return s, nil
	case <-m.done:
		return nil, m.cause()
	case <-ctx.Done():
		s.Close()
		return nil, context.Cause(ctx)
	}
}

func (m *muxSession) newStream() (*muxStream, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.err != nil:
		return nil, m.err
	case m.nextID > math.MaxUint32:
		return nil, errStreamsUsedUp
	}
	s := newMuxStream(m, uint32(m.nextID))
	m.nextID += 2
	m.streams[s.id] = s // before its SYN can leave: the answer may be quick
	m.readyLocked(s)
	return s, nil
}

// readyLocked has sendLoop look at a stream.
func (m *muxSession) readyLocked(s *muxStream) {
	if !s.queued {
		s.queued = true
		m.ready.push(s)
		signal(m.sendable)
	}
}

// sendLoop writes what streams have to send, one frame of each in turn.
func (m *muxSession) sendLoop() error {
	var keepAlive <-chan time.Time
	if m.keepAlive {
		ticker := time.NewTicker(muxKeepAlive)
		defer ticker.Stop()
		keepAlive = ticker.C
	}
	buf := make([]byte, 0, 2*muxHeaderBytes+muxFrameBytes)
	for {
		buf = m.take(buf[:0])
		if len(buf) == 0 {
			select {
			case <-m.sendable:
				continue
			case <-keepAlive:
				buf = appendMuxHeader(buf, muxHeader{command: muxNOP})
			case <-m.done:
				return m.cause()
			}
		}
		if _, err := m.conn.Write(buf); err != nil {
			return err
		}
	}
}

// take moves what the next stream has to send to buf; nothing when none has.
func (m *muxSession) take(buf []byte) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writing = m.ready.len() > 0
	if !m.writing {
		signal(m.idle)
		return buf
	}
	s := m.ready.pop()
	s.queued = false
	buf = s.takeLocked(buf)
	if s.sendsLocked() {
		m.readyLocked(s)
	}
	return buf
}

// readLoop gives the received bytes to their streams.
func (m *muxSession) readLoop() error {
	in := bufio.NewReaderSize(m.conn, muxFrameBytes)
	var offset uint64 // of the next byte in the session's stream
	for {
		if err := m.awaitRoom(); err != nil {
			return err
		}
		var raw [muxHeaderBytes]byte
		if _, err := io.ReadFull(in, raw[:]); err != nil {
			return noEOF(err)
		}
		h, err := parseMuxHeader(raw[:])
		if err != nil {
			return edge(err)
		}
		if err := m.receive(h, in, offset); err != nil {
			return noEOF(err)
		}
		offset += muxHeaderBytes + uint64(h.length)
	}
}

// noEOF makes an error of the session's orderly end: for a stream it is none.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &CloseError{}
	}
	return err
}

// receive handles one frame, whose data is still in the reader.
func (m *muxSession) receive(h muxHeader, in *bufio.Reader, offset uint64) error {
	switch h.command {
	case muxPSH:
		return m.receiveData(h, in)
	case muxFIN:
		m.mu.Lock()
		defer m.mu.Unlock()
		if s := m.streams[h.stream]; s != nil {
			s.finishLocked(offset)
		}
	case muxSYN:
		m.conn.cfg.Logf(1, "ssmchannel: ignoring a stream opened by the agent")
	}
	return nil
}

// receiveData copies a frame's data as it comes, or drops it if its stream has gone.
func (m *muxSession) receiveData(h muxHeader, in *bufio.Reader) error {
	for left := int(h.length); left > 0; {
		if _, err := in.Peek(1); err != nil {
			return err
		}
		b, err := in.Peek(min(left, in.Buffered()))
		if err != nil {
			return err
		}
		m.mu.Lock()
		if s := m.streams[h.stream]; s != nil {
			s.deliverLocked(b)
		}
		m.mu.Unlock()
		left -= len(b)
		if _, err := in.Discard(len(b)); err != nil {
			return err
		}
	}
	return nil
}

// awaitRoom waits until the streams' readers have caught up.
func (m *muxSession) awaitRoom() error {
	for {
		m.mu.Lock()
		full := m.held >= muxIncomingBytes
		m.mu.Unlock()
		if !full {
			return nil
		}
		select {
		case <-m.room:
		case <-m.done:
			return m.cause()
		}
	}
}

// readLocked takes note that n received bytes have gone.
func (m *muxSession) readLocked(n int) {
	m.held -= n
	signal(m.room)
}

// forgetLocked drops a stream that neither end uses any more.
func (m *muxSession) forgetLocked(s *muxStream) {
	if s.finished && s.finSent {
		delete(m.streams, s.id)
	}
}

// fail ends the session; the first reason counts.
func (m *muxSession) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		m.err = err
		close(m.done)
	}
}

func (m *muxSession) cause() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// busy reports whether something is to be sent, or was sent and has not arrived.
func (m *muxSession) busy() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.streams {
		if s.closing && !s.finished {
			return true
		}
	}
	return m.writing || m.ready.len() > 0
}

// close lets what is written leave, at most Config.CloseTimeout, and ends session
// and data channel.
func (m *muxSession) close() error {
	m.flush()
	m.fail(net.ErrClosed)
	err := m.conn.Close()
	m.loops.Wait()
	return err
}

// flush waits until closed streams have arrived. The acknowledgements of the data
// channel do not tell: the agent has the bytes then, the port may not, and at the
// end of the session they are dropped. Its FIN does: it comes when all is copied
// (agent: session/plugins/port/port_mux.go, handleDataTransfer).
func (m *muxSession) flush() {
	timer := time.NewTimer(m.conn.cfg.CloseTimeout)
	defer timer.Stop()
	for {
		if !m.conn.reachable() || !m.busy() {
			return
		}
		select {
		case <-m.idle:
		case <-m.done:
			return
		case <-timer.C:
			return
		}
	}
}
