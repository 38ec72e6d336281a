package ssmchannel

import (
	"context"
	"fmt"
	"io"
	"time"

	"ssm-ssh/ssmchannel/agentmsg"
)

const (
	// maxBad is how many unreadable messages in a row end the connection. The
	// agent repeats what we do not acknowledge at most every 100 ms (agent:
	// session/config/config.go, ResendSleepInterval), so this is 10 s or more.
	maxBad = 100
	// maxPendingAcks bounds the acknowledgements that wait for a stuck
	// websocket. One that is dropped is made again when the agent repeats.
	maxPendingAcks = 16384
	// hardLimit is how many times IncomingBytes the inbox may hold while a Write
	// waits for the window: by default what the agent sends in 16 s. Beyond it
	// data is left to the agent to repeat, which it does at ten messages a second.
	hardLimit = 16
	// promptAcks is how many acknowledgements leave at once.
	promptAcks = 64
	// ackDelay is how long fewer may wait for company: the agent sends about one
	// message in a millisecond, and a write for each costs both of us more than
	// all the rest. It repeats nothing before 200 ms, later on not before what it
	// has measured and 10 ms (agent: session/config/config.go,
	// DefaultTransmissionTimeout, ClockGranularity).
	ackDelay = 5 * time.Millisecond
)

// recvLoop reads until the link ends. It never writes and never waits for the
// reader of the connection, except for room in the inbox.
func (c *Conn) recvLoop(ctx context.Context, l link) error {
	for {
		frame, err := l.Read()
		if err != nil {
			return err
		}
		if err := c.receive(frame); err != nil {
			return err
		}
		if err := c.awaitRoom(ctx); err != nil {
			return err
		}
		c.moderate(l)
	}
}

// moderate lets more of a bulk download gather in the socket. The acknowledgements of what was there
// leave together, before it.
func (c *Conn) moderate(l link) {
	pause := c.moderation.pause()
	if pause == 0 {
		return
	}
	if c.acksDue.Load() {
		c.ackTimer.Stop()
		signal(c.sendable)
	}
	l.Quiet(true)
	time.Sleep(pause)
	l.Quiet(false)
	c.moderation.paused(time.Now())
}

// receive takes in one message.
func (c *Conn) receive(frame []byte) error {
	m := &c.message
	if err := agentmsg.Parse(frame, m); err != nil {
		return c.unreadable(err)
	}
	switch m.Type {
	case agentmsg.OutputStreamData:
		if !m.DigestOK() {
			return c.unreadable(fmt.Errorf("message %d has a wrong digest", m.Sequence))
		}
		return c.receiveStream(m)
	case agentmsg.Acknowledge:
		if err := agentmsg.ParseAck(m.Payload, &c.ack); err != nil {
			return c.unreadable(err)
		}
		c.receiveAck(&c.ack)
	case agentmsg.PausePublication, agentmsg.StartPublication:
		c.receivePublication(m.Type == agentmsg.PausePublication)
	case agentmsg.ChannelClosed:
		return c.receiveClosed(m.Payload)
	default:
		c.cfg.Logf(3, "ssmchannel: ignoring a message of type %q", m.Type)
	}
	return nil
}

// receiveStream acknowledges a numbered message and delivers what is due. The
// acknowledgement is queued first: the agent never waits for our reader.
func (c *Conn) receiveStream(m *agentmsg.Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.moderation.took(now, len(m.Payload))
	c.backLocked(now)
	if m.Sequence >= c.in.next {
		// A message again is no sign of life: an agent whose write to the port is stuck reads nothing,
		// our acknowledgements least of all, and repeats its oldest message for ever.
		c.health.heard = now
	}
	c.counts.messagesReceived++
	if m.Sequence >= c.in.next && c.heldLocked()+c.in.aheadBytes+len(m.Payload) > hardLimit*c.cfg.IncomingBytes {
		return nil // refused: the agent repeats it
	}
	v := c.in.received(m.Sequence, m.PayloadType, m.Payload)
	if v == refused {
		return nil
	}
	c.queueAckLocked(m)
	if v != due {
		if c.cfg.AnswerAhead && m.PayloadType == agentmsg.HandshakeRequestPayload {
			return c.requestedAfterAll(m.Payload)
		}
		return nil
	}
	c.health.bad = 0
	if err := c.deliverLocked(now, m.PayloadType, m.Payload); err != nil {
		return err
	}
	for {
		s, ok := c.in.pop()
		if !ok {
			return nil
		}
		if err := c.deliverLocked(now, s.kind, s.payload); err != nil {
			return err
		}
	}
}

func (c *Conn) queueAckLocked(m *agentmsg.Message) {
	if len(c.acks) >= maxPendingAcks {
		return
	}
	c.acks = append(c.acks, ackRecord{m.ID, m.Sequence})
	c.acksDue.Store(true)
	if len(c.acks) >= promptAcks {
		signal(c.sendable)
	}
}

// deliverLocked hands over a payload whose turn it is.
func (c *Conn) deliverLocked(now time.Time, kind agentmsg.PayloadType, payload []byte) error {
	if c.shake.crypt != nil && encrypted(kind) {
		plain, err := c.shake.crypt.decrypt(payload)
		if err != nil {
			return fmt.Errorf("%w: a payload %w", ErrProtocol, err)
		}
		payload = plain
	}
	switch kind {
	case agentmsg.Output:
		if !c.shake.answered && !c.shake.complete {
			// Sessions without a handshake begin with output (plugin:
			// session/sessionhandler.go, ProcessFirstMessage).
			c.endHandshake(nil)
		}
		c.counts.bytesReceived += uint64(len(payload))
		if !c.health.closing {
			c.inbox.write(payload)
			signal(c.readable)
		}
	case agentmsg.StdErr:
		c.deliverStderr(payload)
	case agentmsg.ExitCode:
		c.deliverExitCode(payload)
	case agentmsg.FlagPayload:
		c.deliverFlag(payload)
	case agentmsg.EncChallengeRequest:
		return c.answerChallenge(payload)
	case agentmsg.HandshakeRequestPayload:
		return c.answerHandshake(payload)
	case agentmsg.HandshakeCompletePayload:
		c.completeHandshake(now, payload)
	default:
		c.cfg.Logf(2, "ssmchannel: ignoring a payload of type %d", kind)
	}
	return nil
}

func (c *Conn) receiveAck(a *agentmsg.Ack) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.backLocked(now)
	c.health.heard = now
	if !c.out.acked(now, a.Sequence) { // by number alone, as both official peers
		return
	}
	c.health.bad = 0
	signal(c.writable)
	c.pushSizeLocked()
	if c.out.pending() {
		signal(c.sendable)
	}
	if c.out.empty() {
		signal(c.drained)
	}
}

// backLocked takes note that the agent's websocket is there, whatever the service said of it.
func (c *Conn) backLocked(now time.Time) {
	if !c.out.paused.IsZero() {
		c.cfg.Logf(1, "ssmchannel: the agent is back")
		c.out.unpause(now)
		signal(c.sendable)
	}
}

// receivePublication takes the service's word that the agent is away or back.
func (c *Conn) receivePublication(pause bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if !pause {
		c.cfg.Logf(1, "ssmchannel: start_publication")
		c.out.resendAll(now)
	} else if c.out.paused.IsZero() {
		c.cfg.Logf(1, "ssmchannel: pause_publication: the agent is not connected")
		c.out.pause(now)
	}
	signal(c.sendable)
}

// receiveClosed ends the connection by the service's word.
func (c *Conn) receiveClosed(payload []byte) error {
	closed, err := agentmsg.ParseChannelClosed(payload)
	if err != nil {
		c.cfg.Logf(1, "%v", err) // closed it is all the same
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case closed.Output != "":
		c.health.ended = &CloseError{Reason: closed.Output}
	case c.in.gap():
		c.health.ended = fmt.Errorf("%w: session ended with a message missing", io.ErrUnexpectedEOF)
	default:
		c.health.ended = errTerminated
	}
	return c.health.ended
}

// unreadable counts a message that cannot be used. It is not acknowledged.
func (c *Conn) unreadable(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.health.bad++
	c.cfg.Logf(1, "ssmchannel: dropping a message: %v", err)
	if c.health.bad >= maxBad {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return nil
}

// awaitRoom waits until the inbox has room. Meanwhile the websocket is not read,
// and silence is nobody's fault but ours. While a Write waits for the window it
// does not wait, since a reader that is blocked by its own Write would wait for
// ever: acknowledgements come on the same websocket. receiveStream has the bound
// then.
func (c *Conn) awaitRoom(ctx context.Context) error {
	for {
		c.mu.Lock()
		full := c.heldLocked() >= c.cfg.IncomingBytes && !c.health.waiting
		if c.health.stalled && !full {
			c.health.stallEnd = time.Now()
		}
		c.health.stalled = full
		c.mu.Unlock()
		if !full {
			return nil
		}
		signal(c.sendable) // the acknowledgements of what is in the inbox
		select {
		case <-c.room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
