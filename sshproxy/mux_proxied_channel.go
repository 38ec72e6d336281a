package sshproxy

import (
	"io"
	"sync"

	"golang.org/x/crypto/ssh"
)

const (
	// proxiedWindow is how much the node may send before it is read, stdout and stderr together. It
	// bounds what a channel's two queues hold (channels.h, CHAN_SES_WINDOW_DEFAULT).
	proxiedWindow = 64 * proxyPacket

	// proxiedRequests is how many requests of the node's may wait to be taken; x/crypto/ssh has as many.
	proxiedRequests = 16

	extendedStderr = 1 // RFC 4254 section 5.2
)

// proxiedChannel is a channel of a proxiedConn. The reader of the connection fills it, and waits only
// for whoever serves its requests.
type proxiedChannel struct {
	conn   *proxiedConn
	number uint32
	opened chan error         // the node's answer to the opening
	reqs   chan *ssh.Request  // closed with the channel
	asking sync.Mutex         // one request waits for its answer at a time
	answer chan bool          // to it
	gone   chan struct{}      // closed with the channel
	stderr proxiedErrorStream // reads what comes as extended data

	mu        sync.Mutex
	changed   sync.Cond // of anything below
	peer      uint32
	maxPacket uint32
	credit    uint32 // that the node has given us
	out, errs []byte // not read yet
	taken     uint32 // read, and not given back to the node
	room      int    // that the node may still fill
	eof       bool   // the node sends no more
	over      bool   // for us or for the node

	sending sync.Mutex
	closed  bool // we have said CLOSE, our last word
}

var _ ssh.Channel = (*proxiedChannel)(nil)

func newProxiedChannel(p *proxiedConn) *proxiedChannel {
	c := &proxiedChannel{conn: p, opened: make(chan error, 1), reqs: make(chan *ssh.Request, proxiedRequests),
		answer: make(chan bool, 1), gone: make(chan struct{}), room: proxiedWindow}
	c.changed.L = &c.mu
	c.stderr.channel = c
	return c
}

// handle takes one packet from the node; an error ends the connection.
func (c *proxiedChannel) handle(kind byte, rest []byte) error {
	switch kind {
	case packetOpenConfirm, packetOpenFailure:
		return c.answered(kind, rest)
	case packetWindowAdjust:
		var body struct{ More uint32 }
		if ssh.Unmarshal(rest, &body) != nil {
			return errMalformed
		}
		c.update(func() { c.credit += body.More })
	case packetData:
		var body struct{ Data []byte }
		if ssh.Unmarshal(rest, &body) != nil {
			return errMalformed
		}
		return c.fill(&c.out, body.Data)
	case packetExtendedData:
		var body struct {
			Code uint32
			Data []byte
		}
		if ssh.Unmarshal(rest, &body) != nil || body.Code != extendedStderr {
			return errMalformed
		}
		return c.fill(&c.errs, body.Data)
	case packetEOF:
		c.update(func() { c.eof = true })
	case packetClose:
		c.conn.forget(c)
		_ = c.Close() // fails only with the connection
		c.end(io.EOF)
	case packetRequest:
		return c.asked(rest)
	case packetSuccess, packetFailure:
		select {
		case c.answer <- kind == packetSuccess:
		default:
			return errMalformed // nothing was asked
		}
	default:
		return errMalformed
	}
	return nil
}

// answered takes the node's answer to the opening.
func (c *proxiedChannel) answered(kind byte, rest []byte) error {
	var result error
	if kind == packetOpenFailure {
		var body struct {
			Reason         uint32
			Text, Language string
		}
		if ssh.Unmarshal(rest, &body) != nil {
			return errMalformed
		}
		result = &ssh.OpenChannelError{Reason: ssh.RejectionReason(body.Reason), Message: body.Text}
	} else {
		var body struct{ Sender, Window, MaxPacket uint32 }
		if ssh.Unmarshal(rest, &body) != nil || body.MaxPacket == 0 {
			return errMalformed
		}
		c.update(func() { c.peer, c.credit, c.maxPacket = body.Sender, body.Window, min(body.MaxPacket, proxyPacket) })
	}
	select {
	case c.opened <- result:
		return nil
	default:
		return errMalformed // a second answer
	}
}

// asked hands a request of the node's on. What wants an answer is refused, as unknown requests are.
func (c *proxiedChannel) asked(rest []byte) error {
	var body channelRequest
	if ssh.Unmarshal(rest, &body) != nil {
		return errMalformed
	}
	c.reqs <- &ssh.Request{Type: body.Name, Payload: body.Body}
	if body.Want {
		return c.send(packetFailure, struct{ Peer uint32 }{c.peer})
	}
	return nil
}

// fill queues what the node has sent within its window.
func (c *proxiedChannel) fill(queue *[]byte, data []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(data) > c.room {
		return errMalformed
	}
	c.room -= len(data)
	*queue = append(*queue, data...)
	c.changed.Broadcast()
	return nil
}

func (c *proxiedChannel) update(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	c.changed.Broadcast()
}

// end closes the channel on this side: the node has, or the connection is lost. The reader calls it, once.
func (c *proxiedChannel) end(reason error) {
	c.update(func() { c.over = true })
	select {
	case c.opened <- reason:
	default:
	}
	close(c.gone)
	close(c.reqs)
}

// send writes a packet, unless CLOSE was sent.
func (c *proxiedChannel) send(kind byte, body any) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	if c.closed {
		return io.EOF
	}
	c.closed = kind == packetClose
	return c.conn.send(kind, body)
}

func (c *proxiedChannel) Read(p []byte) (int, error) { return c.drain(&c.out, p) }

// drain waits for data in a queue, and gives the node room for more when half the window is used up.
func (c *proxiedChannel) drain(queue *[]byte, p []byte) (int, error) {
	n, more := c.take(queue, p)
	if n == 0 {
		return 0, io.EOF
	}
	if more > 0 {
		_ = c.send(packetWindowAdjust, struct{ Peer, More uint32 }{c.peer, more}) // fails only with the channel's end
	}
	return n, nil
}

func (c *proxiedChannel) take(queue *[]byte, p []byte) (n int, more uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(*queue) == 0 && !c.eof && !c.over {
		c.changed.Wait()
	}
	n = copy(p, *queue)
	*queue = (*queue)[n:]
	if c.taken += uint32(n); c.taken >= proxiedWindow/2 {
		more = c.taken
		c.taken, c.room = 0, c.room+int(more)
	}
	return n, more
}

// Write sends all of p, as the node gives room for it.
func (c *proxiedChannel) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		n, err := c.reserve(len(p) - written)
		if err == nil {
			err = c.send(packetData, struct {
				Peer uint32
				Data []byte
			}{c.peer, p[written : written+n]})
		}
		if err != nil {
			return written, err
		}
		written += n
	}
	return written, nil
}

// reserve waits for room and takes at most want of it.
func (c *proxiedChannel) reserve(want int) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.credit == 0 && !c.over {
		c.changed.Wait()
	}
	if c.over {
		return 0, io.EOF
	}
	n := min(uint32(want), c.credit, c.maxPacket)
	c.credit -= n
	return int(n), nil
}

// SendRequest asks the node for something and waits for its answer if one is wanted.
func (c *proxiedChannel) SendRequest(name string, want bool, payload []byte) (bool, error) {
	c.asking.Lock()
	defer c.asking.Unlock()
	err := c.send(packetRequest, struct {
		Peer uint32
		Name string
		Want bool
		Body []byte `ssh:"rest"`
	}{c.peer, name, want, payload})
	if err != nil || !want {
		return false, err
	}
	select {
	case granted := <-c.answer:
		return granted, nil
	case <-c.gone:
		return false, io.EOF
	}
}

// CloseWrite tells the node that no more comes.
func (c *proxiedChannel) CloseWrite() error { return c.send(packetEOF, struct{ Peer uint32 }{c.peer}) }

// Close ends the channel; the node's CLOSE follows.
func (c *proxiedChannel) Close() error {
	err := c.send(packetClose, struct{ Peer uint32 }{c.peer})
	c.update(func() { c.over = true }) // who waits for room or data waits in vain
	return err
}

// Stderr is the node's second stream.
func (c *proxiedChannel) Stderr() io.ReadWriter { return &c.stderr }

type proxiedErrorStream struct{ channel *proxiedChannel }

func (s *proxiedErrorStream) Read(p []byte) (int, error) { return s.channel.drain(&s.channel.errs, p) }

// Write is not for sessions: they send no extended data (RFC 4254 section 6.5).
func (s *proxiedErrorStream) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
