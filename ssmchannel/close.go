package ssmchannel

import (
	"net"
	"time"

	"ssm-ssh/ssmchannel/agentmsg"
)

// Close ends the session in order: it asks the agent to terminate when it has
// taken all that was written, waits for the acknowledgement of that, calls Config.End, and closes the
// websocket. Without End it waits for channel_closed instead; whether the session has ended then is told
// by Terminated, and if not, the caller owes a TerminateSession call. Each wait is at most
// Config.CloseTimeout; without a websocket, or with the agent away, there is none. All goroutines have
// gone on return.
func (c *Conn) Close() error {
	c.closeOnce.Do(c.shutDown)
	<-c.done
	return nil
}

func (c *Conn) shutDown() {
	c.mu.Lock()
	c.health.closing = true
	c.inbox, c.errbox = byteQueue{}, byteQueue{}
	c.mu.Unlock()
	close(c.closed)
	signal(c.room)

	// The agent takes messages in the order of their numbers, so the flag need not
	// wait for the acknowledgements of what goes before it.
	asked := false
	if c.reachable() {
		asked = c.terminate()
		c.awaitDrained()
	}
	switch {
	case c.cfg.End != nil:
		c.cfg.End()
	case asked && c.reachable():
		c.awaitClosed()
	}
	c.cancel(net.ErrClosed)
}

// reachable reports whether the agent can be expected to answer now.
func (c *Conn) reachable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.isDown && !c.health.linkUp.IsZero() && c.out.paused.IsZero()
}

// awaitDrained waits for the acknowledgement of everything, within the limit.
func (c *Conn) awaitDrained() {
	timer := time.NewTimer(c.cfg.CloseTimeout)
	defer timer.Stop()
	for {
		c.mu.Lock()
		empty := c.out.empty()
		c.mu.Unlock()
		if empty {
			return
		}
		select {
		case <-c.drained:
		case <-c.done:
			return
		case <-timer.C:
			return
		}
	}
}

// awaitClosed waits for channel_closed, within the limit.
func (c *Conn) awaitClosed() {
	timer := time.NewTimer(c.cfg.CloseTimeout)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
	}
}

// terminate queues the flag that ends the session, and reports whether it did.
// Before HandshakeComplete the agent would acknowledge and ignore it, as it does in
// sessions of shells and commands: those end with their input or by the API.
func (c *Conn) terminate() bool {
	return c.SessionType() == agentmsg.PortSession && c.sendFlag(agentmsg.TerminateSession)
}

// sendFlag queues a flag, whatever the window, and reports whether it did.
func (c *Conn) sendFlag(flag agentmsg.Flag) bool {
	var payload [4]byte
	f := c.newFrame(agentmsg.FlagPayload, agentmsg.AppendFlag(payload[:0], flag))
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.shake.complete || c.isDown {
		c.frames.put(f)
		return false
	}
	c.out.push(f)
	signal(c.sendable)
	return true
}
