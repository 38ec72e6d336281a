package ssmchannel

import "time"

// Stats is a snapshot of a connection.
type Stats struct {
	MessagesSent     uint64 // stream messages, retransmissions included
	MessagesReceived uint64 // stream messages, duplicates included
	BytesSent        uint64 // payload accepted by Write
	BytesReceived    uint64 // payload delivered in order
	Retransmissions  uint64
	Duplicates       uint64 // received more than once
	Resumes          uint64 // websockets replaced

	RTT         time.Duration // smoothed, to the agent and back; 0: not known yet
	WindowBytes int           // present bound of unacknowledged bytes
	Unacked     int           // messages sent and not acknowledged, or waiting

	// OldestUnacked is when the oldest unacknowledged message was first sent;
	// zero when there is none.
	OldestUnacked time.Time
	// LastHeard is when something new, or an acknowledgement, last came from the
	// agent.
	LastHeard time.Time
	// PausedSince is since when the service reports the agent away; zero: it
	// does not.
	PausedSince time.Time
	// LostSince is since when there is no websocket; zero: there is one.
	LostSince time.Time
}

// Stats returns what has happened so far.
func (c *Conn) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{
		MessagesSent:     c.counts.messagesSent,
		MessagesReceived: c.counts.messagesReceived,
		BytesSent:        c.counts.bytesSent,
		BytesReceived:    c.counts.bytesReceived,
		Retransmissions:  c.out.retransmissions,
		Duplicates:       c.in.duplicates,
		Resumes:          c.counts.resumes,
		RTT:              c.out.rtt.smoothed,
		WindowBytes:      c.out.window.limit,
		Unacked:          c.out.window.messages,
		OldestUnacked:    c.out.oldest(),
		LastHeard:        c.health.heard,
		PausedSince:      c.out.paused,
		LostSince:        c.health.lostSince,
	}
}

// Paused reports whether the service says that the agent is away.
func (c *Conn) Paused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.out.paused.IsZero()
}

// SessionID returns the session's id.
func (c *Conn) SessionID() string { return c.session.ID }

// AgentVersion returns the version that the agent gave in the handshake, "" when
// the session has none.
func (c *Conn) AgentVersion() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shake.agentVersion
}

// Done returns a channel that is closed when the connection is over, for
// whatever reason, and all its goroutines have gone.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns why the connection is over: io.EOF when the peer ended the session
// without a reason, *CloseError when it gave one, net.ErrClosed after Close, or a
// failure. It is nil before Done is closed.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Terminated reports whether the service has said that the session is over. If
// not, its end has to be asked for with TerminateSession.
func (c *Conn) Terminated() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.health.ended != nil
}
