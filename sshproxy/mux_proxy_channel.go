package sshproxy

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"

	"golang.org/x/crypto/ssh"
)

// proxyChannel is one channel of a client in proxy mode.
type proxyChannel struct {
	proxy        *muxProxyServer
	number, peer uint32 // ours, the client's
	maxPacket    uint32

	mu       sync.Mutex
	changed  sync.Cond // of anything below
	todo     []proxyStep
	requests int    // in todo
	room     int    // that the client may still fill
	credit   uint32 // that it has given us
	over     bool   // the client has gone

	// CLOSE is the last word: the client forgets the channel with it.
	sending sync.Mutex
	closed  bool
}

// send writes one packet about the channel, unless CLOSE was sent.
func (c *proxyChannel) send(kind byte, body any) {
	c.sending.Lock()
	defer c.sending.Unlock()
	if c.closed {
		return
	}
	c.closed = kind == packetClose
	c.proxy.send(kind, body)
}

// proxyStep is something to do at the node, after what came before it: data, EOF, CLOSE or a request.
type proxyStep struct {
	kind    byte
	data    []byte
	request channelRequest
}

// channelRequest is SSH_MSG_CHANNEL_REQUEST after its recipient.
type channelRequest struct {
	Name string
	Want bool
	Body []byte `ssh:"rest"`
}

// handle queues what the client asks for. It never waits: the next packet may be the one that sets
// the node going again.
func (c *proxyChannel) handle(kind byte, rest []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.changed.Broadcast()
	switch kind {
	case packetWindowAdjust:
		var body struct{ More uint32 }
		if ssh.Unmarshal(rest, &body) != nil || body.More > ^uint32(0)-c.credit {
			return errMalformed
		}
		c.credit += body.More
	case packetData:
		var body struct{ Data []byte }
		if ssh.Unmarshal(rest, &body) != nil || len(body.Data) > c.room {
			return errMalformed
		}
		c.room -= len(body.Data)
		if last := len(c.todo) - 1; last >= 0 && c.todo[last].kind == packetData {
			c.todo[last].data = append(c.todo[last].data, body.Data...)
			return nil
		}
		c.todo = append(c.todo, proxyStep{kind: kind, data: body.Data})
	case packetEOF, packetClose:
		c.todo = append(c.todo, proxyStep{kind: kind})
	case packetRequest:
		step := proxyStep{kind: kind}
		if ssh.Unmarshal(rest, &step.request) != nil || c.requests >= proxyRequestLimit {
			return errMalformed
		}
		c.requests++
		c.todo = append(c.todo, step)
	case packetExtendedData, packetSuccess, packetFailure:
		// A session takes no extended data (RFC 4254 section 6.5), and we ask the client nothing.
	default:
		return errMalformed
	}
	return nil
}

// abandon ends the channel: its client has gone.
func (c *proxyChannel) abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	c.changed.Broadcast()
}

// run opens the channel, does what the client asks until it closes it, and waits for the node's end.
func (c *proxyChannel) run(ctx context.Context, kind string, extra []byte) {
	ch, passRequests, err := c.openAtNode(ctx, kind, extra)
	if err != nil {
		var refused *ssh.OpenChannelError
		if errors.As(err, &refused) {
			c.send(packetOpenFailure, struct {
				Peer, Reason   uint32
				Text, Language string
			}{c.peer, uint32(refused.Reason), refused.Message, ""})
		}
		return
	}
	c.send(packetOpenConfirm, struct{ Peer, Sender, Window, MaxPacket uint32 }{c.peer, c.number, proxyWindow, proxyPacket})

	var down, all sync.WaitGroup
	ended := make(chan struct{}) // EOF was sent
	down.Go(func() { c.pump(ch, packetData, nil) })
	down.Go(func() { c.pump(ch.Stderr(), packetExtendedData, []byte{0, 0, 0, 1}) }) // RFC 4254 section 5.2: stderr
	all.Go(func() {
		defer close(ended)
		down.Wait()
		c.send(packetEOF, struct{ Peer uint32 }{c.peer})
	})
	all.Go(func() {
		passRequests()
		<-ended
		c.send(packetClose, struct{ Peer uint32 }{c.peer})
	})
	c.work(ch)
	_ = ch.Close() // fails only when it has ended
	all.Wait()
}

// openAtNode opens the channel at the node; a session's comes in turn with those of other clients. The
// function returned passes the node's requests on until the channel has closed.
func (c *proxyChannel) openAtNode(ctx context.Context, kind string, extra []byte) (ssh.Channel, func(), error) {
	master := c.proxy.server.master
	if kind != sessionChannel {
		ch, reqs, err := master.client.conn.OpenChannel(kind, extra)
		return ch, func() {
			for r := range reqs {
				c.passRequest(r)
			}
		}, err
	}
	s, err := master.queue.acquire(ctx)
	if err != nil {
		return nil, nil, err
	}
	s.relayTo(c.passRequest) // before the client has asked for anything that has an answer
	return s.ch, s.wg.Wait, nil
}

// next returns the client's next step; false when it has gone.
func (c *proxyChannel) next() (proxyStep, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.todo) == 0 && !c.over {
		c.changed.Wait()
	}
	if c.over {
		return proxyStep{}, false
	}
	step := c.todo[0]
	c.todo = c.todo[1:]
	if step.kind == packetRequest {
		c.requests--
	}
	return step, true
}

// work does the client's steps until CLOSE or its end. Errors mean that the node has closed the
// channel; the client is told by CLOSE, and answers with its own.
func (c *proxyChannel) work(ch ssh.Channel) {
	for {
		step, ok := c.next()
		if !ok {
			return
		}
		switch step.kind {
		case packetData:
			_, _ = ch.Write(step.data)
			c.mu.Lock()
			c.room += len(step.data)
			c.mu.Unlock()
			c.send(packetWindowAdjust, struct{ Peer, More uint32 }{c.peer, uint32(len(step.data))})
		case packetEOF:
			_ = ch.CloseWrite()
		case packetRequest:
			c.request(ch, step.request)
		case packetClose:
			return
		}
	}
}

// request passes a request on. Agent and X11 forwarding would open channels that have no way back to
// this client (mux.c, channel_proxy_downstream).
func (c *proxyChannel) request(ch ssh.Channel, r channelRequest) {
	granted := false
	if r.Name != agentRequest && r.Name != "x11-req" {
		granted, _ = ch.SendRequest(r.Name, r.Want, r.Body)
	}
	switch {
	case !r.Want:
	case granted:
		c.send(packetSuccess, struct{ Peer uint32 }{c.peer})
	default:
		c.send(packetFailure, struct{ Peer uint32 }{c.peer})
	}
}

// passRequest passes one of the node's on, as exit-status. None waits for the client's answer.
func (c *proxyChannel) passRequest(r *ssh.Request) {
	c.send(packetRequest, struct {
		Peer uint32
		Name string
		Want bool
		Body []byte `ssh:"rest"`
	}{c.peer, r.Type, false, r.Payload})
	if r.WantReply {
		_ = r.Reply(false, nil) // fails only when the channel has ended
	}
}

// pump passes on a stream of the node's as far as the client's window goes; code comes before data.
func (c *proxyChannel) pump(r io.Reader, kind byte, code []byte) {
	buf := make([]byte, pumpBytes)
	for {
		n, err := r.Read(buf)
		for rest := buf[:n]; len(rest) > 0; {
			room := c.take(len(rest))
			if room == 0 {
				break // the client has gone; the rest is discarded
			}
			body := binary.BigEndian.AppendUint32(nil, c.peer)
			body = append(body, code...)
			body = binary.BigEndian.AppendUint32(body, uint32(room))
			c.send(kind, struct {
				Body []byte `ssh:"rest"`
			}{append(body, rest[:room]...)})
			rest = rest[room:]
		}
		if err != nil {
			return
		}
	}
}

// take waits for a part of the client's window, of at most want bytes; 0 when the client has gone.
func (c *proxyChannel) take(want int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.credit == 0 && !c.over {
		c.changed.Wait()
	}
	if c.over {
		return 0
	}
	n := min(uint32(want), c.credit, c.maxPacket)
	c.credit -= n
	return int(n)
}
