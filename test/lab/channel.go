package lab

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/coder/websocket"

	"ssm-ssh/ssmchannel/agentmsg"
)

const (
	// closeTimeout bounds writing channel_closed to a peer that does not read.
	closeTimeout = 3 * time.Second
	// agentGoneTimeout bounds how long channel_closed waits for the last messages of a worker
	// whose websocket is closing.
	agentGoneTimeout = time.Second
)

// A peer is one established websocket of a data channel.
type peer struct {
	ws    *websocket.Conn
	agent bool
	gone  chan struct{} // closed when its reader has returned
}

func (p *peer) String() string {
	if p.agent {
		return "agent"
	}
	return "client"
}

// A channel is what the gateway keeps of a data channel: the two peers of the moment and what is
// under way between them. Either peer may come, go and be replaced while the session lives.
type channel struct {
	lab     *Lab
	session *session
	up      path
	down    path

	mu      sync.Mutex
	client  *peer
	agent   *peer
	waiting [][]byte // for the absent client, as far as the queue fault allows
	closed  bool     // channel_closed has been announced
}

func newChannel(l *Lab, s *session) *channel {
	c := &channel{lab: l, session: s}
	c.up.count, c.down.count = &l.count.up, &l.count.down
	c.up.newest, c.down.newest = -1, -1
	return c
}

func (c *channel) clientPeer() *peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.client
}

func (c *channel) agentPeer() *peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.agent
}

// attach makes p the connection of its side, in place of an older one, and tells the other side.
func (c *channel) attach(p *peer) {
	c.mu.Lock()
	old := c.client
	other := c.agent
	waiting := c.waiting
	if p.agent {
		old, other, waiting = c.agent, c.client, nil
		c.agent = p
	} else {
		c.client, c.waiting = p, nil
	}
	closed := c.closed && !p.agent
	c.mu.Unlock()
	if old != nil {
		old.ws.CloseNow()
	}
	if closed { // while it was on its way
		c.session.note(StepClosed)
		c.sendClosed(p, "")
		p.ws.CloseNow()
		return
	}
	c.lab.opts.Logf(2, "lab: gateway: %s: %s joined", c.session.id, p)
	for _, frame := range waiting {
		c.write(p, frame)
	}
	if other != nil {
		c.write(other, control(agentmsg.StartPublication))
	}
}

func (c *channel) detach(p *peer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client == p {
		c.client = nil
	}
	if c.agent == p {
		c.agent = nil
	}
}

// relay handles one message from a peer. It runs on the peer's reader and blocks while the other
// side's websocket takes nothing: that is the service's backpressure.
func (c *channel) relay(from *peer, frame []byte) {
	var m agentmsg.Message
	if agentmsg.Parse(frame, &m) != nil {
		return
	}
	switch {
	case m.Type == agentmsg.Acknowledge:
	case m.Type == agentmsg.InputStreamData && !from.agent:
		c.session.touch(c.lab.opts.Timing.Idle)
	case m.Type == agentmsg.OutputStreamData && from.agent:
	case m.Type == agentmsg.AgentSessionState && from.agent:
		c.session.connected()
		return
	default:
		return // the service carries nothing else between the two
	}
	p := &c.up
	faults := &c.lab.faults.now.Load().Up
	if from.agent {
		p, faults = &c.down, &c.lab.faults.now.Load().Down
	}
	p.see(&m)
	mf := faults.Data
	if m.Type == agentmsg.Acknowledge {
		mf = faults.Ack
	}
	for _, f := range p.pass(frame, mf) {
		c.deliver(from, f)
	}
}

// deliver hands a message to the other side, or tells the sender that there is none.
func (c *channel) deliver(from *peer, frame []byte) {
	c.mu.Lock()
	to := c.agent
	if from.agent {
		to = c.client
		if to == nil && len(c.waiting) < c.lab.faults.now.Load().QueueMessages {
			c.waiting = append(c.waiting, bytes.Clone(frame))
			c.mu.Unlock()
			return
		}
	}
	c.mu.Unlock()
	if to == nil {
		c.lab.count.pauses.Add(1)
		c.write(from, control(agentmsg.PausePublication))
		return
	}
	if !to.agent {
		c.spoil(to, frame)
	}
	c.write(to, frame)
}

// write sends one message; a failure shows at the reader of that peer.
func (c *channel) write(p *peer, frame []byte) {
	kind := websocket.MessageBinary
	faults := c.lab.faults.now.Load()
	if p.agent {
		p.ws.Write(c.lab.ctx, kind, frame)
		return
	}
	if faults.TextFrames {
		kind = websocket.MessageText
	}
	if faults.FragmentBytes <= 0 {
		p.ws.Write(c.lab.ctx, kind, frame)
		return
	}
	w, err := p.ws.Writer(c.lab.ctx, kind)
	if err != nil {
		return
	}
	defer w.Close()
	for len(frame) > 0 {
		n := min(len(frame), faults.FragmentBytes)
		if _, err := w.Write(frame[:n]); err != nil {
			return
		}
		frame = frame[n:]
	}
}

// spoil sends the client something bad ahead of a message, as far as the faults say.
func (c *channel) spoil(p *peer, frame []byte) {
	f := c.lab.faults.now.Load()
	if hit(f.Garbage) {
		c.write(p, garbage(frame))
	}
	if hit(f.UnknownType) {
		c.write(p, control(unknownType))
	}
	if hit(f.Oversized) {
		c.write(p, oversized(frame))
	}
	if hit(f.CorruptDigest) {
		c.write(p, corrupted(frame))
	}
}

// announceClosed ends the data channel: both peers get channel_closed, then the service closes
// their websockets. It returns at once; the lab waits for the rest.
func (c *channel) announceClosed(output string) {
	c.mu.Lock()
	client, agent := c.client, c.agent
	first := !c.closed
	c.closed = true
	c.mu.Unlock()
	if !first {
		return
	}
	if agent != nil {
		c.lab.background(func() { c.sendClosed(agent, "") })
	}
	if client != nil {
		c.lab.background(func() {
			c.awaitAgent(agent)
			c.session.note(StepClosed)
			c.sendClosed(client, output)
			client.ws.Close(websocket.StatusNormalClosure, "")
		})
	}
}

// awaitAgent lets the messages that a leaving worker has sent go ahead of channel_closed.
func (c *channel) awaitAgent(agent *peer) {
	if agent == nil {
		return
	}
	if _, ending := c.session.live(); ending {
		return // the service ends it; the worker leaves later
	}
	select {
	case <-agent.gone:
	case <-time.After(agentGoneTimeout):
	case <-c.lab.ctx.Done():
	}
}

func (c *channel) sendClosed(p *peer, output string) {
	payload, err := agentmsg.MarshalPayload(agentmsg.ChannelClosedPayload{
		MessageID: requestID(), CreatedDate: time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), DestinationID: requestID(),
		SessionID: c.session.id, MessageType: agentmsg.ChannelClosed, SchemaVersion: agentmsg.SchemaVersion, Output: output})
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(c.lab.ctx, closeTimeout)
	defer cancel()
	p.ws.Write(ctx, websocket.MessageBinary, closedFrame(payload, c.lab.faults.now.Load().LongHeader))
}

// bye closes a websocket as the service does about once an hour.
func (c *channel) bye(p *peer) {
	if p != nil {
		c.lab.background(func() { p.ws.Close(websocket.StatusNormalClosure, "Bye") })
	}
}

// A path is one direction of a channel.
type path struct {
	count *pathCounters

	mu     sync.Mutex
	newest int64 // highest sequence number seen
	held   []heldFrame
}

// heldFrame is a message that others overtake.
type heldFrame struct {
	frame []byte
	after int // messages still to go ahead of it
}

// see counts a message.
func (p *path) see(m *agentmsg.Message) {
	if m.Type == agentmsg.Acknowledge {
		p.count.acks.Add(1)
		return
	}
	p.count.messages.Add(1)
	p.count.bytes.Add(int64(len(m.Payload)))
	p.mu.Lock()
	defer p.mu.Unlock()
	if m.Sequence <= p.newest {
		p.count.repeats.Add(1)
		return
	}
	p.newest = m.Sequence
}

// pass returns what arrives in place of frame, in order.
func (p *path) pass(frame []byte, f MessageFaults) [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f == (MessageFaults{}) && len(p.held) == 0 {
		return [][]byte{frame}
	}
	var out [][]byte
	switch {
	case hit(f.Loss):
	case hit(f.Reorder):
		p.held = append(p.held, heldFrame{bytes.Clone(frame), max(1, f.ReorderBy)})
		return nil
	case hit(f.Dup):
		out = append(out, frame, frame)
	default:
		out = append(out, frame)
	}
	kept := p.held[:0]
	for _, h := range p.held {
		if h.after--; h.after > 0 {
			kept = append(kept, h)
			continue
		}
		out = append(out, h.frame)
	}
	p.held = kept
	return out
}
