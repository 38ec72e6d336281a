package ssmchannel

import (
	"context"
	"errors"
	"fmt"

	"ssm-ssh/ssmchannel/agentmsg"
)

// Dial opens the data channel of a session and returns when the agent has
// completed the handshake. ctx and Config.HandshakeTimeout bound Dial, not the
// connection. After an error nothing of the connection is left, but the session:
// the caller terminates it, though Config.End may have been called.
func Dial(ctx context.Context, s Session, cfg Config) (*Conn, error) {
	if err := cfg.validate(); err != nil {
		return nil, edge(err)
	}
	cfg = cfg.populate()
	return dialWith(ctx, s, cfg, webDialer(&cfg, agentmsg.NewUUID().String()))
}

// dialWith is Dial with any kind of link.
func dialWith(ctx context.Context, s Session, cfg Config, dial dialer) (*Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.HandshakeTimeout, ErrHandshakeTimeout)
	defer cancel()
	c := newConn(s, cfg, dial)
	l, err := c.firstLink(ctx)
	if err != nil {
		c.cancel(err)
		return nil, edge(err)
	}
	if cfg.AnswerAhead {
		if err := c.answerAhead(); err != nil {
			l.Close()
			c.cancel(err)
			return nil, edge(err)
		}
	}
	go c.run(l) // Close waits for it by done
	if err := c.awaitHandshake(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// awaitHandshake returns when data may flow. Meanwhile it gets the data key that
// an encrypted session asks for.
func (c *Conn) awaitHandshake(ctx context.Context) error {
	for {
		select {
		case <-c.ready:
		case <-c.done:
		case <-c.keyWanted:
			c.supplyKey(ctx)
			continue
		case <-ctx.Done():
			return edge(fmt.Errorf("handshake: %w", context.Cause(ctx)))
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.shake.err
	}
}

// firstLink dials, a few times when the service cannot be reached. Further
// attempts use the same token, as the plugin's do (session/sessionhandler.go,
// OpenDataChannel).
func (c *Conn) firstLink(ctx context.Context) (link, error) {
	for n := 1; ; n++ {
		l, err := c.dial(ctx, c.session, c.events())
		if err == nil {
			return l, nil
		}
		var dialErr *DialError // anything else is not the network's doing
		if n == firstDials || !errors.As(err, &dialErr) || dialErr.refused() {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		}
		c.cfg.Logf(1, "ssmchannel: attempt %d: %v", n, err)
		if wait(ctx, backoff(n)) != nil {
			return nil, err
		}
	}
}
