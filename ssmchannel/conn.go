package ssmchannel

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"ssm-ssh/ssmchannel/agentmsg"
)

// Conn is a data channel as a net.Conn. See the package comment for where it
// differs from a TCP connection. All methods may be called concurrently.
type Conn struct {
	cfg     Config
	session Session
	dial    dialer
	frames  *framePool

	// life ends with Close or with the connection; its cause says why.
	life   context.Context
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when all goroutines have gone
	ready  chan struct{} // closed when the handshake is over, well or not
	closed chan struct{} // closed when Close begins

	closeOnce     sync.Once
	readMu        sync.Mutex // serializes Read
	errReadMu     sync.Mutex // serializes reads of standard error
	writeMu       sync.Mutex // serializes Write
	readDeadline  deadline
	writeDeadline deadline

	// Signals, of capacity one: each means "look again".
	readable chan struct{} // to Read: the inbox has bytes
	writable chan struct{} // to Write: the window may have room
	sendable chan struct{} // to the send loop
	room     chan struct{} // to the receive loop: the inbox has room
	drained  chan struct{} // to Close: all is acknowledged
	suspect  chan struct{} // to the keepalive loop: ping now

	errReadable chan struct{} // to the reader of standard error
	keyWanted   chan struct{} // to Dial: the handshake asks for a data key

	acksDue   atomic.Bool  // acks is not empty
	acksTimed atomic.Bool  // ackTimer is set for them
	flushing  atomic.Int64 // when the send loop began to flush, in ns since born; 0: it does not
	born      time.Time
	ackTimer  *time.Timer // set by the receive loop, awaited by the send loop

	// The receive loop's.
	message    agentmsg.Message
	ack        agentmsg.Ack
	moderation moderation

	// The send loop's.
	ackBuilder ackBuilder
	ackBacklog []ackRecord // taken off acks
	spareAcks  []ackRecord // their memory

	mu     sync.Mutex // guards everything below
	out    outgoing
	in     incoming
	inbox  byteQueue
	errbox byteQueue // standard error
	exit   exitCode
	size   pendingSize

	portErrors fifo[uint64] // bytes received when each was reported
	acks       []ackRecord  // to be sent
	shake      handshake
	health     health
	counts     counts
	err        error // why the connection is over
	isDown     bool  // err is set
}

// health is what is known of the peers' presence. Conn.mu guards it.
type health struct {
	linkUp    time.Time     // when the present websocket opened; zero: there is none
	lostSince time.Time     // when the last one was lost; zero: never, or replaced
	lived     time.Duration // how long the last one was open
	heard     time.Time     // when something new last came from the agent
	stalled   bool          // we do not read, since the inbox is full
	stallEnd  time.Time     // when we last began to read again
	bad       int           // unreadable messages since the last good one
	waiting   bool          // a Write waits for the window, so for acknowledgements
	ended     error         // what channel_closed said; nil: it hasn't come
	closing   bool          // Close has begun: received data is dropped
}

// counts are the sums that Stats shows. Conn.mu guards them.
type counts struct {
	messagesSent, messagesReceived uint64
	bytesSent, bytesReceived       uint64
	resumes                        uint64
}

var _ net.Conn = (*Conn)(nil)

func newConn(s Session, cfg Config, dial dialer) *Conn {
	frames := &framePool{size: agentmsg.Overhead + cfg.PayloadBytes}
	c := &Conn{
		cfg: cfg, session: s, dial: dial, frames: frames, born: time.Now(),
		done:          make(chan struct{}),
		ready:         make(chan struct{}),
		closed:        make(chan struct{}),
		readDeadline:  newDeadline(),
		writeDeadline: newDeadline(),
		readable:      make(chan struct{}, 1),
		writable:      make(chan struct{}, 1),
		sendable:      make(chan struct{}, 1),
		room:          make(chan struct{}, 1),
		drained:       make(chan struct{}, 1),
		suspect:       make(chan struct{}, 1),
		errReadable:   make(chan struct{}, 1),
		keyWanted:     make(chan struct{}, 1),
		in:            newIncoming(cfg.IncomingBytes),
		out: outgoing{
			frames: frames,
			window: newSendWindow(cfg.WindowBytes, cfg.WindowMessages, frames.size),
		},
	}
	c.ackTimer = stoppedTimer()
	c.life, c.cancel = context.WithCancelCause(context.Background())
	return c
}

// signal wakes the goroutine that waits on a channel of capacity one.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Read implements net.Conn. Data that came before the end of the connection is
// returned first; then io.EOF if the peer ended the session without a reason,
// and the reason otherwise.
func (c *Conn) Read(p []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	return c.read(&c.inbox, c.readable, p)
}

// read reads from one of the two queues; readable tells of bytes in it.
func (c *Conn) read(from *byteQueue, readable <-chan struct{}, p []byte) (n int, err error) {
	blocked := attempt(&c.readDeadline, readable, c.closed, c.done, func() bool {
		var over bool
		n, over, err = c.take(from, p)
		return n > 0 || over || len(p) == 0
	})
	if blocked != nil {
		return 0, c.opError("read", blocked)
	}
	return n, err
}

// take moves received bytes to p. over is true when no more will come; err then
// says why.
func (c *Conn) take(from *byteQueue, p []byte) (n int, over bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n = from.read(p)
	if n > 0 {
		if c.health.stalled {
			signal(c.room)
		}
		return n, false, nil
	}
	if c.isDown {
		return 0, true, c.err
	}
	return 0, false, nil
}

// Write implements net.Conn. It returns when the bytes are queued within the
// window; an acknowledgement is not awaited.
func (c *Conn) Write(p []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	n := 0
	for {
		chunk := p[n:min(n+c.cfg.PayloadBytes, len(p))]
		if err := c.writeChunk(chunk); err != nil {
			return n, c.opError("write", err)
		}
		n += len(chunk)
		if n == len(p) {
			return n, nil
		}
	}
}

// writeChunk queues one message. An empty chunk only checks the connection's
// state: no message may be empty.
func (c *Conn) writeChunk(chunk []byte) error {
	if len(chunk) == 0 {
		return c.waitWindow(nil)
	}
	if c.shake.crypt != nil { // set before Dial has returned
		chunk = c.shake.crypt.encrypt(chunk)
	}
	f := c.newFrame(agentmsg.Output, chunk)
	if err := c.waitWindow(f); err != nil {
		c.frames.put(f)
		return err
	}
	signal(c.sendable)
	return nil
}

// newFrame makes a stream message that has no number yet. The bytes are copied.
func (c *Conn) newFrame(kind agentmsg.PayloadType, payload []byte) *frame {
	f := c.frames.get()
	f.b = agentmsg.AppendMessage(f.b, &agentmsg.Message{
		Type:          agentmsg.InputStreamData,
		CreatedMillis: uint64(time.Now().UnixMilli()),
		ID:            agentmsg.NewUUID(),
		PayloadType:   kind,
		Payload:       payload,
	})
	return f
}

// waitWindow queues f as soon as the window has room; nil takes no room.
func (c *Conn) waitWindow(f *frame) (err error) {
	blocked := attempt(&c.writeDeadline, c.writable, c.closed, c.done, func() bool {
		var queued bool
		queued, err = c.enqueue(f)
		return queued || err != nil
	})
	if blocked != nil {
		return blocked
	}
	return err
}

// enqueue queues f if the window has room for it.
func (c *Conn) enqueue(f *frame) (queued bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.health.waiting = false
	if c.isDown {
		if c.err == io.EOF {
			return false, &CloseError{}
		}
		return false, c.err
	}
	if f == nil {
		return true, nil
	}
	if !c.out.room(len(f.b)) {
		c.health.waiting = true
		signal(c.room) // acknowledgements stand behind the data that we do not read
		return false, nil
	}
	c.counts.bytesSent += uint64(len(f.b) - agentmsg.Overhead - c.shake.crypt.overhead())
	c.out.push(f)
	return true, nil
}

// opError gives local errors the shape that the net package gives them.
func (c *Conn) opError(op string, err error) error {
	if err != net.ErrClosed && err != os.ErrDeadlineExceeded {
		return err
	}
	return &net.OpError{Op: op, Net: networkName, Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// SetDeadline implements net.Conn. A connection lives on after its deadline has
// passed.
func (c *Conn) SetDeadline(t time.Time) error {
	c.readDeadline.set(t)
	c.writeDeadline.set(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.readDeadline.set(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.writeDeadline.set(t)
	return nil
}

const networkName = "ssm"

// addr is a session's end as a net.Addr.
type addr string

func (a addr) Network() string { return networkName }
func (a addr) String() string  { return string(a) }

// LocalAddr implements net.Conn; it names the session.
func (c *Conn) LocalAddr() net.Addr { return addr("client/" + c.session.ID) }

// RemoteAddr implements net.Conn; it names the session.
func (c *Conn) RemoteAddr() net.Addr { return addr("agent/" + c.session.ID) }
