package ssmchannel

import (
	"context"
	"time"

	"ssm-ssh/ssmchannel/agentmsg"
)

// flushBytes is when the send loop stops to fill the link and flushes.
const flushBytes = 32 << 10

// ackRecord is an acknowledgement to be sent.
type ackRecord struct {
	id     agentmsg.UUID
	number int64
}

// ackBuilder makes acknowledgement messages in buffers of its own.
type ackBuilder struct {
	payload []byte
	message []byte
}

// build returns the message, valid until the next call.
func (b *ackBuilder) build(now time.Time, r ackRecord) []byte {
	b.payload = agentmsg.AppendAck(b.payload[:0], &agentmsg.Ack{
		Type: agentmsg.OutputStreamData, ID: r.id, Sequence: r.number, Sequential: true,
	})
	b.message = agentmsg.AppendMessage(b.message[:0], &agentmsg.Message{
		Type:          agentmsg.Acknowledge,
		CreatedMillis: uint64(now.UnixMilli()),
		Flags:         agentmsg.AckFlags,
		ID:            agentmsg.NewUUID(),
		Payload:       b.payload,
	})
	return b.message
}

// sendLoop writes until the link ends. It alone writes stream messages, so their
// order on the wire is the order of their numbers, and it owns the timer of the
// outgoing state.
func (c *Conn) sendLoop(ctx context.Context, l link) error {
	timer := stoppedTimer()
	defer timer.Stop()
	clock := c.watchClock()
	for {
		now := time.Now()
		if clock.jumped(now) {
			return errClockJump
		}
		next, more, err := c.fill(l, now)
		if err != nil {
			return err
		}
		if err := c.flush(l, now); err != nil {
			return err
		}
		if more {
			continue
		}
		if next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(time.Until(next), time.Microsecond))
		}
		select {
		case <-c.sendable:
		case <-c.ackTimer.C:
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// flush lets the keepalive loop see how long it takes.
func (c *Conn) flush(l link, now time.Time) error {
	c.flushing.Store(max(int64(now.Sub(c.born)), 1))
	defer c.flushing.Store(0)
	return l.Flush()
}

// fill queues what is to be sent now: acknowledgements, then stream messages, of
// either no more than a flush is to have, so that a slow link starves neither.
// more means that the link is full before all is queued; next is when to look
// again unless woken.
func (c *Conn) fill(l link, now time.Time) (next time.Time, more bool, err error) {
	if err := c.fillAcks(l, now); err != nil {
		return time.Time{}, false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.expire(now)
	for queued := 0; queued < flushBytes; {
		message := c.out.transmit(now)
		if message == nil {
			break
		}
		if err := l.Write(message); err != nil {
			return time.Time{}, false, err
		}
		c.counts.messagesSent++
		queued += len(message)
	}
	if c.out.backoff >= suspectProbes && now.Sub(l.LastRead()) > time.Second {
		signal(c.suspect)
	}
	silentAt, silent := c.silence(now)
	return earlier(c.out.nextTimeout(), silentAt), c.out.pending() || len(c.ackBacklog) > 0, silent
}

// fillAcks queues acknowledgements that are due.
func (c *Conn) fillAcks(l link, now time.Time) error {
	if len(c.ackBacklog) == 0 {
		c.takeAcks()
	}
	for queued := 0; len(c.ackBacklog) > 0 && queued < flushBytes; c.ackBacklog = c.ackBacklog[1:] {
		message := c.ackBuilder.build(now, c.ackBacklog[0])
		if err := l.Write(message); err != nil {
			return err
		}
		queued += len(message)
	}
	return nil
}

// takeAcks makes what the receive loop has queued the send loop's own.
func (c *Conn) takeAcks() {
	if !c.acksDue.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ackBacklog, c.acks = c.acks, c.spareAcks[:0]
	c.spareAcks = c.ackBacklog
	c.acksDue.Store(false)
	c.acksTimed.Store(false)
}

// giveUp is how long the oldest message may stay unacknowledged although the
// agent is heard. The plugin gives up then, too: 3000 repeats, 100 ms apart
// (config/config.go, ResendMaxAttempt, ResendSleepInterval).
const giveUp = 5 * time.Minute

// silence judges whether the node is gone although the websocket is up: the
// service reports it away, or it neither acknowledges nor sends, or it sends but
// never acknowledges one message. It returns when to judge again; zero: no
// reason to. c.mu is held.
func (c *Conn) silence(now time.Time) (time.Time, error) {
	if c.cfg.NodeSilence < 0 || !c.shake.complete || c.health.stalled {
		return time.Time{}, nil
	}
	what, since := "the agent is not connected to the service", c.out.paused
	if since.IsZero() {
		oldest := c.out.oldest()
		if oldest.IsZero() {
			return time.Time{}, nil
		}
		what = "no acknowledgement from the agent"
		up := later(c.health.linkUp, c.health.stallEnd)
		since = later(later(oldest, c.health.heard), up)
		if stuck := later(later(oldest, c.out.moved), up); now.Sub(stuck) >= giveUp {
			since = stuck
		}
	}
	at := since.Add(c.cfg.NodeSilence)
	if now.Before(at) {
		return at, nil
	}
	port := c.shake.port
	if c.counts.bytesReceived > 0 {
		port = ""
	}
	return at, silence(what, now.Sub(since), port)
}

// earlier returns the earlier time; the zero time is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
